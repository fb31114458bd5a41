"""What is known of a set of groups on an exact task: modes, Vendi score, distances, spread."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eddy_bench.audit.energy_distance import Sample
from eddy_bench.audit.estimates import Estimate, group_mean
from eddy_bench.kernels import squared_distances
from eddy_bench.models.tasks import Task

Values = NDArray[np.float64]


def modes_covered(task: Task, particles: Tensor) -> Tensor:
    """Return how many components are the most probable one of some particle, (G, N, d) to (G,).

    Outliers count.
    """
    return (mode_counts(task, particles) > 0).sum(-1).double()


def mode_counts(task: Task, particles: Tensor) -> Tensor:
    """Count the particles of each group in each component, (G, K)."""
    counts: Tensor = torch.nn.functional.one_hot(
        task.mixture.components(particles), len(task.mixture.means)
    ).sum(1)
    return counts


def group_vendi(task: Task, particles: Tensor) -> Tensor:
    """Return the Vendi score of each group, (G,), 1 to N.

    The kernel is exp(-|delta|^2 / (2 d std^2)), std the task's own.

    Two typical independent particles have a kernel value of 1/e.
    """
    count, dimension = particles.shape[1:]
    kernel = torch.exp(-squared_distances(particles) / (2 * dimension * task.mixture.scale() ** 2))
    values = torch.linalg.eigvalsh(kernel / count).clamp_min(1e-12)
    score: Tensor = torch.exp(-(values * values.log()).sum(-1))
    return score


def group_distance(task: Task, particles: Tensor) -> Tensor:
    """Return the mean distance over the pairs of each group, (G,); NaN at N = 1.

    Its unit is sqrt(2 d) times the task's standard deviation.
    """
    count, dimension = particles.shape[1:]
    total = squared_distances(particles).sqrt().sum((1, 2)) / (count * (count - 1) or float("nan"))
    distance: Tensor = total / ((2 * dimension) ** 0.5 * task.mixture.scale())
    return distance


def squared_distance(particles: Tensor) -> Tensor:
    """Return the mean squared distance over the pairs of each group, (G,); NaN at N = 1."""
    count = particles.shape[1]
    total: Tensor = squared_distances(particles).sum((1, 2)) / (count * (count - 1) or float("nan"))
    return total


def free_share(square: Values, independent: Values, particles: int) -> tuple[Estimate, float]:
    """Return how much of the free diversity is gained, and the p-value of it being at most all.

    share = (E D / E D_iid - 1) (N - 1), D the mean squared distance of pairs: 0 is iid, 1 the most
    that samples which keep their distribution can reach (docs/ceiling.md). The error is that of
    the ratio's linear part.

    Args:
        square, independent: D of the method's groups and of the iid ones that they pair with, (G,).
        particles: N.

    """
    ratio, base = float(square.mean() / independent.mean()), float(independent.mean())
    linear = group_mean((particles - 1) * (square - ratio * independent) / base)
    share = Estimate((particles - 1) * (ratio - 1), linear.error, linear.groups)
    excess = square - particles / max(particles - 1, 1) * independent
    return share, group_mean(excess).above_p(0.0)


@dataclass(frozen=True)
class Groups:
    """Hold what is known of a set of groups.

    modes, vendi, pdist, square, spread: per group, (G,).
    counts: per group and mode, (G, K).
    sample: the projected particles.
    """

    modes: Values
    vendi: Values
    pdist: Values
    square: Values
    spread: Values
    counts: Values
    sample: Sample

    @classmethod
    def of(cls, task: Task, particles: Tensor) -> Groups:
        """Measure particles (G, N, d)."""
        return cls(
            modes_covered(task, particles).numpy(),
            group_vendi(task, particles).numpy(),
            group_distance(task, particles).numpy(),
            squared_distance(particles).numpy(),
            task.mixture.mahalanobis(particles).mean(1).numpy(),
            mode_counts(task, particles).double().numpy(),
            Sample.of(particles / task.mixture.scale()),
        )

    def diversity(self, task: Task) -> Values:
        """Return the measure that decides about a gain, (G,).

        It is modes covered where they can be counted, else the Vendi score.
        """
        return self.modes if task.counts_modes else self.vendi
