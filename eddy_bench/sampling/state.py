"""The state of a group's particles that a method sees at a step of a solver."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from eddy_bench.sampling.feature_maps import FeatureMap


@dataclass(frozen=True)
class State:
    """The particles of G groups in variance-exploding coordinates, before a step and any edit.

    A solver's sample is x = alpha_t x0 + sigma_t eps.

    Args:
        particles: xb = x / alpha_t, (G, N, d).
        score: grad log p(xb) = -eps / sigma, (G, N, d).
        denoised: E[x0 | xb], (G, N, d).
        sigma: noise level sigma_t / alpha_t of the particles.
        share: steps done / steps, in [0, 1).
        step: steps done.
        steps: of the whole call.
        pure_noise: alpha_t is 0 here, so that xb and sigma stand for a limit: forces that grow as
            1 / alpha_t must skip this step.
        generators: one per group, for probes.
        features: map on denoised estimates, or None where the model has none.

    """

    particles: Tensor
    score: Tensor
    denoised: Tensor
    sigma: float
    share: float = 0.0
    step: int = 0
    steps: int = 1
    pure_noise: bool = False
    generators: tuple[torch.Generator, ...] = ()
    features: FeatureMap | None = None

    @property
    def eps(self) -> Tensor:
        """The predicted noise, (G, N, d)."""
        return -self.sigma * self.score
