"""What is measured of a method's groups beside the iid ones of the same block and step count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eddy_bench.audit.energy_distance import (
    Sample,
    energy_coefficient,
    shift_of,
    sliced_wasserstein,
)
from eddy_bench.audit.estimates import Estimate, frequency_chi2, group_mean
from eddy_bench.kernels import squared_distances
from eddy_bench.models.tasks import Task
from eddy_bench.results.statistics import holm

Values = NDArray[np.float64]
LEVELS = {"modes_covered": "modes", "vendi": "vendi", "pdist": "pdist"}  # fields of Groups


def modes_covered(task: Task, particles: Tensor) -> Tensor:
    """Return how many components are the most probable one of some particle, (G, N, d) to (G,).

    Outliers count.
    """
    return (mode_counts(task, particles) > 0).sum(-1).double()


def mode_counts(task: Task, particles: Tensor) -> Tensor:
    """Count the particles of each group in each component, (G, K)."""
    components = task.mixture.components(particles)
    counts: Tensor = torch.nn.functional.one_hot(components, len(task.mixture.means)).sum(1)
    return counts


def group_vendi(task: Task, particles: Tensor) -> Tensor:
    """Return the Vendi score of each group, (G,), 1 to N.

    The kernel is exp(-|delta|^2 / (2 d std^2)), std the task's own: 1/e for two typical
    independent particles.
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
    unit = (2 * particles.shape[-1]) ** 0.5 * task.mixture.scale()
    distance: Tensor = _pair_mean(squared_distances(particles).sqrt()) / unit
    return distance


def squared_distance(particles: Tensor) -> Tensor:
    """Return the mean squared distance over the pairs of each group, (G,); NaN at N = 1."""
    return _pair_mean(squared_distances(particles))


def _pair_mean(values: Tensor) -> Tensor:
    count = values.shape[-1]
    mean: Tensor = values.sum((1, 2)) / (count * (count - 1) or float("nan"))
    return mean


def headroom(square: Values, independent: Values, particles: int) -> tuple[Estimate, float]:
    """Return how much headroom is used, and the p-value of it being at most 1.

    headroom = (E D / E D_iid - 1) (N - 1), D the mean squared distance of pairs: 0 is iid, 1 the
    most of any marginal-preserving method (docs/studies/ceiling.md). The error is that of the
    ratio's linear part.

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
    """What is known of a set of groups.

    modes, vendi, pdist, square, spread: per group, (G,).
    """

    modes: Values
    vendi: Values
    pdist: Values
    square: Values
    spread: Values
    counts: Values  # per group and mode, (G, K)
    sample: Sample  # the projected particles

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
        """Return what decides about a gain, (G,): modes where they can be counted, else Vendi."""
        return self.modes if task.counts_modes else self.vendi


@dataclass(frozen=True)
class Row:
    """A line of audit.csv, without what it shares with the others of its method."""

    metric: str
    value: float
    low: float = float("nan")
    high: float = float("nan")
    floor: float = float("nan")


def row_of(rows: Sequence[Row], metric: str) -> Row:
    """Return the line of a metric; NaN where there is none."""
    return next((row for row in rows if row.metric == metric), Row(metric, float("nan")))


@dataclass(frozen=True)
class Measured:
    """What was measured of a method at one step count."""

    gain: Values  # paired difference to iid of the deciding measure, per group, (G,)
    energy: Estimate  # coefficient to the disjoint iid set
    spread: Estimate  # relative change of the mean squared Mahalanobis distance, paired
    slot_p: float  # smallest p-value over the particle slots' energy coefficients, Holm-adjusted
    rows: tuple[Row, ...]  # of the CSV
    problem: str = ""  # why nothing could be measured
    # of pairs lying no farther apart than samples that keep their distribution can
    beyond_p: float = 1.0
    # change of the energy coefficient to the truth against iid's; None where iid draws the truth up
    # to step errors
    from_truth: Estimate | None = None


@dataclass(frozen=True)
class Baseline:
    """Iid groups to pair with, a disjoint iid set, and two exact samples, all of one size."""

    task: Task
    paired: Groups
    disjoint: Groups
    truth: Groups
    other_truth: Groups

    @cached_property
    def floors(self) -> dict[str, tuple[float, float]]:
        """Energy coefficient and Wasserstein distance between two samples of one distribution."""
        pairs = {
            "iid": (self.paired.sample, self.disjoint.sample),
            "truth": (self.other_truth.sample, self.truth.sample),
        }
        return {
            name: (energy_coefficient(*pair).value, sliced_wasserstein(*pair))
            for name, pair in pairs.items()
        }

    @cached_property
    def error(self) -> Estimate:
        """The energy coefficient of iid to the truth."""
        return energy_coefficient(self.paired.sample, self.truth.sample)

    @cached_property
    def slots(self) -> list[Sample]:
        """The particle slots of the disjoint set."""
        return self.disjoint.sample.slots()

    def rows(self) -> tuple[Row, ...]:
        """Return the lines of iid: against the truth, and against the disjoint set, the floor."""
        return (*_levels(self.paired), *self._marginal(self.paired)[1], *self._slot(self.paired)[1])

    def measure(self, particles: Tensor) -> Measured:
        """Measure a method's groups, (G, N, d), drawn from the noise of the paired ones."""
        task, plain, groups = self.task, self.paired, Groups.of(self.task, particles)
        gains = [
            _row(f"{name}_gain", group_mean(getattr(groups, field) - getattr(plain, field)))
            for name, field in LEVELS.items()
        ]
        spread = group_mean((groups.spread - plain.spread) / float(plain.spread.mean()))
        slot_p, slot_rows = self._slot(groups)
        energies, marginal_rows = self._marginal(groups)
        share, beyond = headroom(groups.square, plain.square, particles.shape[1])
        changes = [_row("spread_change", spread), _row("headroom", share, 1.0)]
        return Measured(
            groups.diversity(task) - plain.diversity(task),
            energies["iid"],
            spread,
            slot_p,
            (*_levels(groups), *gains, *marginal_rows, *changes, *slot_rows),
            beyond_p=beyond,
            from_truth=self._change_from_truth(energies["truth"]),
        )

    def _change_from_truth(self, energy: Estimate) -> Estimate | None:
        # both distances are to the same sample, and of paired groups: errors of the difference are
        # smaller than what their squares add up to
        if self.task.guidance_scale == 1:
            return None
        error = (energy.error**2 + self.error.error**2) ** 0.5
        return Estimate(energy.value - self.error.value, error, energy.groups)

    def _marginal(self, groups: Groups) -> tuple[dict[str, Estimate], list[Row]]:
        """Return the energy coefficients to iid and the truth, and lines of distances to both.

        Beside each stands its value between two samples of one distribution.
        """
        others = {"iid": self.disjoint, "truth": self.truth}
        energies = {
            name: energy_coefficient(groups.sample, other.sample) for name, other in others.items()
        }
        rows = [_row("spread", group_mean(groups.spread), float(self.truth.spread.mean()))]
        for name, other in others.items():
            energy, (floor, sw2_floor) = energies[name], self.floors[name]
            sw2 = sliced_wasserstein(groups.sample, other.sample)
            rows += [
                _shift_row(f"shift_to_{name}", energy, floor),
                _row(f"energy_to_{name}", energy, floor),
                Row(f"sw2_to_{name}", sw2, floor=sw2_floor),
            ]
            if self.task.counts_modes:
                statistic, freedom, p = frequency_chi2(groups.counts, other.counts)
                rows += [
                    Row(f"mode_chi2_to_{name}", statistic, floor=freedom),
                    Row(f"mode_chi2_to_{name}_p", p),
                ]
        return energies, rows

    def _slot(self, groups: Groups) -> tuple[float, list[Row]]:
        """Return the smallest Holm-adjusted p-value over slots, and lines of the worst slot."""
        slots = [
            energy_coefficient(own, other)
            for own, other in zip(groups.sample.slots(), self.slots, strict=True)
        ]
        smallest = min(holm([slot.difference_p() if slot.value > 0 else 1.0 for slot in slots]))
        worst = max(slots, key=lambda coefficient: coefficient.value)
        return smallest, [
            _shift_row("slot_shift_to_iid_max", worst, float("nan")),
            Row("slot_shift_to_iid_p", smallest),
        ]


def _levels(groups: Groups) -> list[Row]:
    return [_row(name, group_mean(getattr(groups, field))) for name, field in LEVELS.items()]


def _row(metric: str, estimate: Estimate, floor: float = float("nan")) -> Row:
    return Row(metric, estimate.value, estimate.low, estimate.high, floor)


def _shift_row(metric: str, energy: Estimate, floor: float) -> Row:
    return Row(metric, *map(shift_of, (energy.value, energy.low, energy.high, floor)))
