"""Gaussian mixtures with exact scores, for tests of invariants."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from eddy_bench.sampling.state import State


@dataclass(frozen=True)
class Mixture:
    """means (K, d), variance (K,), weights (K,), float64."""

    means: Tensor
    variance: Tensor
    weights: Tensor

    @classmethod
    def random(cls, dimension: int, modes: int = 3, seed: int = 0) -> Mixture:
        generator = torch.Generator().manual_seed(seed)
        means = 2 * torch.randn(modes, dimension, generator=generator, dtype=torch.float64)
        weights = torch.rand(modes, generator=generator, dtype=torch.float64) + 0.2
        return cls(
            means,
            0.5 + torch.rand(modes, generator=generator, dtype=torch.float64),
            weights / weights.sum(),
        )

    def log_density(self, x: Tensor, sigma: float) -> Tensor:
        """log p of x0 + sigma eps at (..., d)."""
        variance = self.variance + sigma**2
        square = (x[..., None, :] - self.means).square().sum(-1)
        return torch.logsumexp(
            self.weights.log()
            - square / (2 * variance)
            - x.shape[-1] / 2 * (2 * torch.pi * variance).log(),
            -1,
        )

    def score(self, x: Tensor, sigma: float) -> Tensor:
        """grad log p at (..., d), with a graph when x has one."""
        variance = self.variance + sigma**2
        square = (x[..., None, :] - self.means).square().sum(-1)
        logits = self.weights.log() - square / (2 * variance) - x.shape[-1] / 2 * variance.log()
        share = torch.softmax(logits, -1) / variance
        return (share[..., None] * (self.means - x[..., None, :])).sum(-2)

    def state(self, x: Tensor, sigma: float, **kwargs: object) -> State:
        """The state of particles (G, N, d)."""
        score = self.score(x, sigma)
        return State(particles=x, score=score, denoised=x + sigma**2 * score, sigma=sigma, **kwargs)  # type: ignore[arg-type]


def draw(groups: int, count: int, dimension: int, seed: int = 1) -> Tensor:
    """Random particles in float64."""
    return 1.5 * torch.randn(
        groups, count, dimension, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


def generators(groups: int, seed: int = 0) -> tuple[torch.Generator, ...]:
    """Probe generators."""
    return tuple(torch.Generator().manual_seed(seed + k) for k in range(groups))
