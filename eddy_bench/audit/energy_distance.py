"""Distances between two sets of particles, where particles of one group depend on each other."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from eddy_bench.audit.estimates import Estimate

PLANE_DIRECTIONS = 16
SPACE_DIRECTIONS = 64


def directions(dimension: int) -> Tensor:
    """Return unit vectors on which distributions are compared, (L, d), float64.

    They are evenly spread in the plane, and orthonormal bases in more dimensions.
    """
    if dimension == 1:
        return torch.ones(1, 1, dtype=torch.float64)
    if dimension == 2:
        angle = torch.arange(PLANE_DIRECTIONS, dtype=torch.float64) * (torch.pi / PLANE_DIRECTIONS)
        return torch.stack([angle.cos(), angle.sin()], 1)
    generator = torch.Generator().manual_seed(dimension)
    squares = [
        torch.randn(dimension, dimension, generator=generator, dtype=torch.float64)
        for _ in range(math.ceil(SPACE_DIRECTIONS / dimension))
    ]
    return torch.cat([torch.linalg.qr(square)[0] for square in squares])[:SPACE_DIRECTIONS]


@dataclass(frozen=True)
class Sample:
    """Projected particles of G groups, sorted for O(n log n) distances."""

    values: Tensor  # (L, G, N)
    ordered: Tensor  # (L, G N), ascending
    order: Tensor  # where each of `ordered` came from
    sums: Tensor  # cumulative sums of `ordered`, with a leading 0, (L, G N + 1)
    # E|x - x'| of each particle to particles of other groups, (G, N), averaged over the directions
    within: Tensor

    @classmethod
    def of(cls, particles: Tensor) -> Sample:
        """From particles (G, N, d)."""
        groups, count, dimension = particles.shape
        values = directions(dimension).to(particles.dtype) @ particles.flatten(0, 1).mT
        return cls.of_projections(values.unflatten(1, (groups, count)))

    @classmethod
    def of_projections(cls, values: Tensor) -> Sample:
        """From projections (L, G, N)."""
        ordered, order, sums, total = _within(values.flatten(1))
        *_, inside = _within(values.flatten(0, 1))  # each group by itself
        others = max((values.shape[1] - 1) * values.shape[2], 1)
        apart = total.reshape(values.shape) - inside.reshape(values.shape)
        return cls(values, ordered, order, sums, (apart / others).mean(0))

    def slots(self) -> list[Sample]:
        """Return particle k of every group alone, for each k."""
        return [
            Sample.of_projections(self.values[..., k : k + 1]) for k in range(self.values.shape[2])
        ]


def _within(values: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return values (L, n) in order, their places, cumulative sums, and sum_j |v - v_j| of each."""
    ordered, order = values.sort(-1)
    sums = torch.nn.functional.pad(ordered.cumsum(-1), (1, 0))
    ranks = torch.arange(ordered.shape[1]).expand_as(order)
    return ordered, order, sums, _back(_total_distance(ordered, ranks, sums), order)


def _across(x: Sample, y: Sample) -> tuple[Tensor, Tensor]:
    """Return E|x - y| of each x to all y, (G, N), and of each y to all x, over the directions."""
    smaller = torch.searchsorted(y.ordered, x.ordered)  # how many of the other are smaller
    below = torch.searchsorted(x.ordered, y.ordered, right=True)
    to_y = _back(_total_distance(x.ordered, smaller, y.sums), x.order)
    to_x = _back(_total_distance(y.ordered, below, x.sums), y.order)
    return (
        to_y.reshape(x.values.shape).mean(0) / y.ordered.shape[1],
        to_x.reshape(y.values.shape).mean(0) / x.ordered.shape[1],
    )


def _total_distance(values: Tensor, below: Tensor, sums: Tensor) -> Tensor:
    """Return sum_j |v - o_j|, (L, n).

    `below` of the o_j are smaller than v, and `sums` are cumulative sums of the sorted o.
    """
    return values * (2 * below - (sums.shape[1] - 1)) - 2 * sums.gather(1, below) + sums[:, -1:]


def _back(ordered: Tensor, order: Tensor) -> Tensor:
    return torch.empty_like(ordered).scatter_(-1, order, ordered)


def energy_coefficient(x: Sample, y: Sample) -> Estimate:
    """Return the energy coefficient over 1-d projections (Szekely & Rizzo 2013; sliced).

    H = [2 E|x - y| - E|x - x'| - E|y - y'|] / (2 E|x - y|) is 0 for equal distributions, at most 1.
    Pairs within a group are left out, so the numerator is unbiased and may be slightly negative.
    The standard error is from the groups' contributions, which stays of the right order where the
    distributions are equal.
    """
    across_x, across_y = _across(x, y)
    between = float(across_x.mean())
    value = (2 * between - float(x.within.mean()) - float(y.within.mean())) / (2 * between)
    variance = sum(
        float((2 * (across - own)).mean(1).var()) / len(own)
        for across, own in ((across_x, x.within), (across_y, y.within))
    )
    return Estimate(value, variance**0.5 / (2 * between), min(len(across_x), len(across_y)))


def sliced_wasserstein(x: Sample, y: Sample) -> float:
    """Return the sliced Wasserstein-2 distance (Rabin et al. 2011), in the particles' units.

    It is the root of the mean over directions of the squared distance between sorted projections.
    Both samples must hold as many particles. It is positive even for equal distributions: compare
    with the value between two samples of one distribution.
    """
    return float((x.ordered - y.ordered).square().mean().sqrt())


def shift_of(coefficient: float) -> float:
    """Return the shift of a normal distribution, in standard deviations, with this coefficient.

    H of N(0, 1) against N(s, 1) is s^2 / 4 for small s. The sign is kept, so that noise around 0
    shows as such.
    """
    return math.copysign(2 * abs(coefficient) ** 0.5, coefficient)
