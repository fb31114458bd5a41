"""Restart: back to a higher noise level and down again (arXiv 2306.14878, NeurIPS 2023)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from eddy_bench.errors import ParameterError
from eddy_bench.methods.base import Positive
from eddy_bench.methods.couplings import Init, StartedMethod, couple_initial


@dataclass(frozen=True)
class Restart(StartedMethod):
    """At sigma = low add sqrt(high^2 - low^2) xi and solve down to low again, K times.

    The added noise undoes errors that steps above low made (theorem 1); with the exact score and
    fine steps each sample keeps its law. Repeated steps bring errors of their own: on a ring of
    modes with the exact score, 14 to 56 steps lay no nearer to the law than without. Published for
    Stable Diffusion 1.5 in 50 steps: at guidance 5 and 8 one interval, 0.1 to 2, K = 2 (the default
    here); at 3 K = 2 from 0.1 to 3; at 2 two intervals, 1 to 9 and 5 to 10, K = 2. Ours: one
    interval, its ends moved to the nearest of the run's own noise levels and solved on those (the
    paper gives it a grid of its own, 2 to 10 levels). Under ddim, euler and flow-euler.

    The noise of a group may be coupled (ours): each particle's noise stays standard normal and
    independent of its past, so each sample keeps the law that Restart without a coupling gives it.

    Args:
        low: sigma_min, the noise level to go back from.
        high: sigma_max, the noise level to go back to.
        times: K; 0 is off.
        coupling: of the noise of a restart: `iid`, `antithetic`, `lhs` or `sobol`.
    """

    low: Positive = 0.1
    high: Positive = 2.0
    times: Annotated[int, Field(ge=0)] = 2
    coupling: Init = "iid"

    name = "restart"
    summary = "noise on the way and down again; undoes errors of earlier steps"
    citation = "arXiv 2306.14878"
    cost = "network evaluations of the repeated steps"
    interacts = False  # but for a coupling
    audited = False  # under three solvers alone
    sweep = "times"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.low >= self.high:
            raise ParameterError(
                f"Expected low of restart below high, got {self.low:g} and {self.high:g}."
            )

    @property
    def acting(self) -> frozenset[str]:
        """The hooks that change something."""
        return super().acting - (set() if self.times else {"restart_noise"})

    @property
    def restarts(self) -> tuple[tuple[float, float, int], ...]:
        """Return the interval, if it is gone through again."""
        return ((self.low, self.high, self.times),) if self.times else ()

    def restart_noise(self, noise: Tensor, generator: torch.Generator) -> Tensor:
        """Return the noise of a restart under `coupling`, (N, d)."""
        return couple_initial(self.coupling, noise, generator)
