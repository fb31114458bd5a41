"""The couplings that `benchmarks/embedded/ceiling_search.py` tries keep each particle's law."""

from __future__ import annotations

import pytest
import torch
from scipy import stats
from torch import Tensor

from benchmarks.embedded.ceiling_search import Variant
from eddy_bench import Method, State

GROUPS = 4000
STARTS = ("simplex", "lhs", "pairs", "bands", "channels")
STEPS = ("simplex", "pairs", "laplacian", "narrow", "maxcut", "narrow-maxcut", "turned")


def normal(seed: int, dimension: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(GROUPS, 4, dimension, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("start", STARTS)
def test_each_start_is_standard_normal_and_coupled(start: str) -> None:
    rows = torch.stack(
        [
            Variant(start).initial_noise(group, torch.Generator().manual_seed(k))
            for k, group in enumerate(normal(0, 6))
        ]
    )
    for slot in range(4):
        assert stats.kstest(rows[:, slot].flatten(), "norm").pvalue > 1e-4
        covariance = torch.cov(rows[:, slot].T)
        assert torch.allclose(covariance, torch.eye(6).double(), atol=5 * (2 / GROUPS) ** 0.5)
    assert rows.mean(1).var() < 0.9 * normal(0, 6).mean(1).var(), "the joint law did change"


@pytest.mark.parametrize("steps", STEPS)
def test_each_rule_of_the_steps_keeps_a_nonlinear_chain(steps: str) -> None:
    """x <- x + 0.3 sin(2 x) + 0.6 xi: each slot has the law of the independent chain."""

    def chain(method: Method, seed: int) -> Tensor:
        x = normal(seed, 5)
        for step in range(6):
            noise = normal(100 * seed + step + 1, 5)
            state = State(particles=x, score=-x, denoised=x + 0.1, sigma=1.0)
            x = x + 0.3 * torch.sin(2 * x) + 0.6 * method.step_noise(noise, state)
        return x

    free, coupled = chain(Method(), 1), chain(Variant(steps=steps), 2)
    for slot in range(4):
        for k in (0, 4):
            assert stats.ks_2samp(free[:, slot, k], coupled[:, slot, k]).pvalue > 1e-4
    assert coupled.sum(1).var() < 0.9 * free.sum(1).var(), "the joint law did change"
