"""Adaptive projected guidance (Sadat et al., ICLR 2025, arXiv 2410.02416)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from eddy_bench.methods.couplings import StartedMethod
from eddy_bench.sampling.state import StepInfo


@dataclass(frozen=True)
class Apg(StartedMethod):
    """c + (w - 1) (D_orthogonal + eta D_parallel) of D = c - u, momentum and a bound on |D| first.

    D <- D + momentum D_before; D <- D min(1, threshold / |D|); the split is along c. c and u are
    the denoised estimates x0 of the branches, whatever the network predicts: along its own output,
    which is mostly noise, next to nothing would be projected away. With eta = 1, no momentum and no
    threshold it is plain guidance, and is left alone. Momentum belongs to solvers of one evaluation
    a step.

    Args:
        eta: share of the parallel part that is kept; the paper's 0.
        threshold: r, the largest |D| per square root of the dimension; 0 is none. The paper's 15 on
            SDXL's 65,536 numbers is 0.059.
        momentum: beta; the paper's -0.5.
    """

    eta: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    threshold: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    momentum: Annotated[float, Field(gt=-1, lt=1, allow_inf_nan=False)] = -0.5

    name = "apg"
    summary = "projected guidance: less saturation at large scales; another law"
    citation = "arXiv 2410.02416"
    interacts = False
    sweep = "eta"

    @property
    def neutral(self) -> bool:
        """Whether it is plain guidance."""
        return self.eta == 1 and self.threshold == 0 and self.momentum == 0

    @property
    def acting(self) -> frozenset[str]:
        """The hooks that change something: plain guidance is left to the pipeline."""
        return super().acting - ({"combine"} if self.neutral else set())

    def combine(self, conditional: Tensor, null: Tensor, scale: float, info: StepInfo) -> Tensor:
        """Return the guided denoised estimate, (G, N, d)."""
        gap = conditional - null
        if self.momentum:
            gap = gap + self.momentum * info.memory.get("apg", torch.zeros_like(gap))
            info.memory["apg"] = gap
        if self.threshold:
            bound = self.threshold * gap.shape[-1] ** 0.5
            gap = gap * (bound / gap.norm(dim=-1, keepdim=True).clamp_min(1e-12)).clamp(max=1)
        unit = torch.nn.functional.normalize(conditional, dim=-1)
        parallel = (gap * unit).sum(-1, keepdim=True) * unit
        return conditional + (scale - 1) * (gap - parallel + self.eta * parallel)
