"""Temporal score rescaling: a flatter or sharper law (arXiv 2510.01184)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from eddy_bench.methods.base import Positive
from eddy_bench.methods.couplings import StartedMethod
from eddy_bench.sampling.state import State


@dataclass(frozen=True)
class Tsr(StartedMethod):
    """s' = r s, r = (deviation^2 / sigma^2 + 1) / (deviation^2 / (k sigma^2) + 1).

    Exact for Gaussian data of that deviation: the samples then have variance deviation^2 / k.

    Args:
        k: inverse temperature; below 1 is flatter, 1 is off. The paper's 0.93.
        deviation: of the data, in latent units; the paper's 3.
    """

    k: Positive = 0.93
    deviation: Positive = 3.0

    name = "tsr"
    summary = "rescaled scores: a flatter law, particle by particle"
    citation = "arXiv 2510.01184"
    interacts = False
    sweep = "k"

    def guidance(self, state: State) -> Tensor | None:
        """Return (r - 1) s, (G, N, d)."""
        if self.k == 1:
            return None
        ratio = self.deviation**2 / state.sigma**2
        guidance: Tensor = ((ratio + 1) / (ratio / self.k + 1) - 1) * state.score
        return guidance
