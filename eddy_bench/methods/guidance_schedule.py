"""Scales of classifier-free guidance that change along the path."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from eddy_bench.methods.couplings import StartedMethod
from eddy_bench.sampling.state import StepInfo


@dataclass(frozen=True)
class GuidanceSchedule(StartedMethod):
    """w as a function of the step.

    `linear` and `cosine` rise from no guidance at pure noise, with the call's own w as their mean
    (arXiv 2404.13040): 1 + 2 (w - 1) tau and 1 + (w - 1) (1 - cos pi tau), tau the share of steps
    done at the step's middle. Whether the paper ramps w or w - 1 was not found; here it is w - 1.
    `cfg++` (arXiv 2406.08070, ICLR 2025) takes w = strength sigma / (sigma - sigma_next), which
    under DDIM at eta = 0 and flow Euler is its rule (denoise with the guided output, renoise with
    the null one); under other solvers it comes near it only. `constant` leaves guidance alone.

    Args:
        shape: of the schedule.
        strength: lambda of `cfg++`: 0.6 on Stable Diffusion 1.5, 1 on Lightning models.
        floor: the least w; the paper's 2 for Stable Diffusion 1.5, 4 for SDXL.
    """

    shape: Literal["constant", "linear", "cosine", "cfg++"] = "linear"
    strength: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.6
    floor: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0

    name = "guidance-schedule"
    summary = "guidance that rises along the path, or CFG++; another law"
    citation = "arXiv 2404.13040, 2406.08070"
    interacts = False
    sweep = "floor"

    def guidance_scale(self, info: StepInfo) -> float | None:
        """Return w of this evaluation."""
        if self.shape == "constant" or info.scale is None:
            return None
        return max(self.floor, self._scale(info, info.scale))

    def _scale(self, info: StepInfo, scale: float) -> float:
        if self.shape == "cfg++":
            return self.strength * info.sigma / max(info.sigma - info.sigma_next, 1e-12)
        tau = (info.step + 0.5) / info.steps
        rise = 2 * tau if self.shape == "linear" else 1 - math.cos(math.pi * tau)
        return 1 + (scale - 1) * rise
