"""Distances between distributions: against brute force and scipy, unbiased where the distributions
are equal.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from eddy_bench.audit.energy_distance import (
    Sample,
    directions,
    energy_coefficient,
    shift_of,
    sliced_wasserstein,
)


def draw(
    groups: int, count: int, dimension: int, seed: int, shift: float = 0.0, sum_zero: bool = False
) -> Tensor:
    x = torch.randn(
        groups, count, dimension, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    if sum_zero:
        x = (count / (count - 1)) ** 0.5 * (x - x.mean(1, keepdim=True))
    return x + shift


def brute_force(x: Tensor, y: Tensor) -> float:
    """Every pair, on the same directions."""
    on = directions(x.shape[-1])
    p, q = on @ x.flatten(0, 1).mT, on @ y.flatten(0, 1).mT

    def within(values: Tensor, size: int) -> Tensor:
        group = torch.arange(values.shape[1]) // size
        return (
            (values[:, :, None] - values[:, None, :]).abs().mean(0)[group[:, None] != group].mean()
        )

    across = (p[:, :, None] - q[:, None, :]).abs().mean()
    return float((2 * across - within(p, x.shape[1]) - within(q, y.shape[1])) / (2 * across))


@pytest.mark.parametrize("dimension", [1, 2, 5])
def test_energy_against_brute_force(dimension: int) -> None:
    x, y = draw(13, 3, dimension, 0), draw(9, 4, dimension, 1, shift=0.5)
    assert energy_coefficient(Sample.of(x), Sample.of(y)).value == pytest.approx(
        brute_force(x, y), abs=1e-12
    )


def test_energy_against_scipy() -> None:
    """scipy's is the root of the V-statistic, which also counts each particle's distance 0 to
    itself.
    """
    x, y = draw(300, 1, 1, 0), draw(300, 1, 1, 1, shift=1.0)
    coefficient, scale = (
        energy_coefficient(Sample.of(x), Sample.of(y)).value,
        2 * float((x[:, 0, :] - y[:, 0, 0]).abs().mean()),
    )
    assert coefficient * scale == pytest.approx(
        stats.energy_distance(x.flatten(), y.flatten()) ** 2, abs=0.01
    )


def test_equal_particles_have_no_distance() -> None:
    """Ties: every particle at one of two places."""
    x = torch.tensor([0.0, 1.0]).double().repeat(20)[:, None, None]
    assert abs(energy_coefficient(Sample.of(x), Sample.of(x)).value) < 0.06
    assert sliced_wasserstein(Sample.of(x), Sample.of(x)) == 0


@pytest.mark.parametrize("sum_zero", [False, True])
@pytest.mark.parametrize("dimension", [2, 20])
def test_unbiased_and_calibrated_where_distributions_are_equal(
    dimension: int, sum_zero: bool
) -> None:
    """Dependence within groups included: the mean is 0 within 4 standard errors, the stated error
    is not too small.
    """
    coefficients = [
        energy_coefficient(
            Sample.of(draw(60, 4, dimension, k, sum_zero=sum_zero)),
            Sample.of(draw(60, 4, dimension, 10_000 + k)),
        )
        for k in range(300)
    ]
    values = np.array([coefficient.value for coefficient in coefficients])
    assert abs(values.mean()) < 4 * values.std() / len(values) ** 0.5
    assert np.mean([coefficient.error for coefficient in coefficients]) > 0.9 * values.std()
    assert (
        np.mean(
            [
                coefficient.difference_p() < 0.05 and coefficient.value > 0
                for coefficient in coefficients
            ]
        )
        < 0.05 + 4 * (0.05 * 0.95 / 300) ** 0.5
    )


@pytest.mark.parametrize("shift", [0.2, 0.5])
def test_the_stated_error_is_that_of_repeated_draws(shift: float) -> None:
    coefficients = [
        energy_coefficient(
            Sample.of(draw(100, 2, 1, k, shift)), Sample.of(draw(100, 2, 1, 10_000 + k))
        )
        for k in range(200)
    ]
    assert np.mean([coefficient.error for coefficient in coefficients]) == pytest.approx(
        np.std([coefficient.value for coefficient in coefficients]), rel=0.25
    )


@pytest.mark.parametrize("shift", [0.1, 0.3])
def test_the_coefficient_reads_as_a_shift(shift: float) -> None:
    x, y = draw(40_000, 1, 1, 0, shift), draw(40_000, 1, 1, 1)
    assert shift_of(energy_coefficient(Sample.of(x), Sample.of(y)).value) == pytest.approx(
        shift, abs=0.03
    )
    assert shift_of(-0.0025) == pytest.approx(-0.1)


def test_a_moved_slot_is_seen_in_its_own_slot() -> None:
    x = draw(500, 4, 2, 0)
    x[:, 2] += 0.5
    y = Sample.of(draw(500, 4, 2, 1))
    values = [
        energy_coefficient(own, other).difference_p()
        for own, other in zip(Sample.of(x).slots(), y.slots(), strict=True)
    ]
    assert values[2] < 1e-3
    assert min(values[:2] + values[3:]) > 1e-3


def test_sliced_wasserstein_of_a_shift() -> None:
    x = draw(200, 2, 2, 0)
    assert sliced_wasserstein(
        Sample.of(x), Sample.of(x + torch.tensor([1.0, 0.0]))
    ) == pytest.approx(0.5**0.5, abs=1e-9)
    line = draw(200, 2, 1, 0)
    ordered = np.sort(line.flatten()), np.sort((2 * line).flatten())
    assert sliced_wasserstein(Sample.of(line), Sample.of(2 * line)) == pytest.approx(
        np.sqrt(((ordered[0] - ordered[1]) ** 2).mean())
    )


def test_directions_are_unit_vectors_that_see_every_axis() -> None:
    for dimension in (1, 2, 3, 64, 100):
        on = directions(dimension)
        torch.testing.assert_close(on.square().sum(1), torch.ones(len(on), dtype=torch.float64))
    torch.testing.assert_close(
        directions(64).mT @ directions(64), torch.eye(64, dtype=torch.float64)
    )
