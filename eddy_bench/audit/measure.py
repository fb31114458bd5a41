"""What is measured on the groups of one method, beside the iid ones of the same block and step count."""

from __future__ import annotations

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
from eddy_bench.scoring.statistics import holm

Values = NDArray[np.float64]


def modes_covered(task: Task, particles: Tensor) -> Tensor:
    """How many different components are the most probable one of some particle of a group, outliers included. (G, N, d) to (G,)."""
    return (mode_counts(task, particles) > 0).sum(-1).double()


def mode_counts(task: Task, particles: Tensor) -> Tensor:
    """Particles of each group in each component, (G, K)."""
    counts: Tensor = torch.nn.functional.one_hot(
        task.mixture.components(particles), len(task.mixture.means)
    ).sum(1)
    return counts


def group_vendi(task: Task, particles: Tensor) -> Tensor:
    """The Vendi score of each group with the kernel exp(-|delta|^2 / (2 d std^2)), std the task's own, (G,): 1 to N.

    Two typical independent particles have a kernel value of 1/e.
    """
    count, dimension = particles.shape[1:]
    kernel = torch.exp(-squared_distances(particles) / (2 * dimension * task.mixture.scale() ** 2))
    values = torch.linalg.eigvalsh(kernel / count).clamp_min(1e-12)
    score: Tensor = torch.exp(-(values * values.log()).sum(-1))
    return score


def group_distance(task: Task, particles: Tensor) -> Tensor:
    """Mean distance over the pairs of each group, in units of sqrt(2 d) times the task's standard deviation, (G,); NaN at N = 1."""
    count, dimension = particles.shape[1:]
    total = squared_distances(particles).sqrt().sum((1, 2)) / (count * (count - 1) or float("nan"))
    distance: Tensor = total / ((2 * dimension) ** 0.5 * task.mixture.scale())
    return distance


@dataclass(frozen=True)
class Groups:
    """What is known of one set of groups. Per group, (G,): modes, vendi, pdist, spread; (G, K): counts; and the projected sample."""

    modes: Values
    vendi: Values
    pdist: Values
    spread: Values
    counts: Values
    sample: Sample

    @classmethod
    def of(cls, task: Task, particles: Tensor) -> Groups:
        """From particles (G, N, d)."""
        return cls(
            modes_covered(task, particles).numpy(),
            group_vendi(task, particles).numpy(),
            group_distance(task, particles).numpy(),
            task.mixture.mahalanobis(particles).mean(1).numpy(),
            mode_counts(task, particles).double().numpy(),
            Sample.of(particles / task.mixture.scale()),
        )

    def diversity(self, task: Task) -> Values:
        """The measure that decides about a gain, (G,): modes covered where they can be counted, else the Vendi score."""
        return self.modes if task.counts_modes else self.vendi


@dataclass(frozen=True)
class Row:
    """One line of audit.csv, without what it shares with the others of its method."""

    metric: str
    value: float
    low: float = float("nan")
    high: float = float("nan")
    floor: float = float("nan")


@dataclass(frozen=True)
class Measured:
    """A method at one step count.

    gain: paired difference to iid of the deciding measure, per group, (G,). energy: coefficient to the disjoint iid set.
    spread: relative change of the mean squared Mahalanobis distance, paired. slot_p: smallest p-value over the particle
    slots' energy coefficients, Holm-adjusted. rows: of the CSV. problem: why nothing could be measured.
    """

    gain: Values
    energy: Estimate
    spread: Estimate
    slot_p: float
    rows: tuple[Row, ...]
    problem: str = ""


@dataclass(frozen=True)
class Baseline:
    """The iid groups that methods are paired with, a disjoint iid set, and two exact samples, all of one size."""

    task: Task
    paired: Groups
    disjoint: Groups
    truth: Groups
    other_truth: Groups

    @cached_property
    def floors(self) -> dict[str, float]:
        """Each distance between two samples of one distribution."""
        pairs = {
            "iid": (self.paired.sample, self.disjoint.sample),
            "truth": (self.other_truth.sample, self.truth.sample),
        }
        energies = {
            f"energy_to_{name}": energy_coefficient(*pair).value for name, pair in pairs.items()
        }
        return {
            **energies,
            **{f"sw2_to_{name}": sliced_wasserstein(*pair) for name, pair in pairs.items()},
        }

    @cached_property
    def slots(self) -> list[Sample]:
        """The particle slots of the disjoint set."""
        return self.disjoint.sample.slots()

    def rows(self) -> tuple[Row, ...]:
        """The lines of iid itself: against the truth, and against the disjoint set, which is the floor."""
        return (
            *_levels(self.paired),
            *_marginal_rows(self, self.paired)[1],
            *_slot_rows(self, self.paired)[1],
        )

    def measure(self, particles: Tensor) -> Measured:
        """A method's groups, (G, N, d), drawn from the noise of the paired ones."""
        groups = Groups.of(self.task, particles)
        gains = [
            _row(f"{name}_gain", group_mean(getattr(groups, field) - getattr(self.paired, field)))
            for name, field in (("modes_covered", "modes"), ("vendi", "vendi"), ("pdist", "pdist"))
        ]
        usual = float(self.paired.spread.mean())
        spread = group_mean((groups.spread - self.paired.spread) / usual)
        slot_p, slots = _slot_rows(self, groups)
        energy, marginal = _marginal_rows(self, groups)
        rows = [*_levels(groups), *gains, *marginal, _row("spread_change", spread), *slots]
        return Measured(
            groups.diversity(self.task) - self.paired.diversity(self.task),
            energy,
            spread,
            slot_p,
            tuple(rows),
        )


def _row(metric: str, found: Estimate, floor: float = float("nan")) -> Row:
    return Row(metric, found.value, found.low, found.high, floor)


def _levels(groups: Groups) -> list[Row]:
    named = (("modes_covered", groups.modes), ("vendi", groups.vendi), ("pdist", groups.pdist))
    return [_row(name, group_mean(values)) for name, values in named]


def _shift_row(metric: str, found: Estimate, floor: float) -> Row:
    return Row(
        metric, shift_of(found.value), shift_of(found.low), shift_of(found.high), shift_of(floor)
    )


def _marginal_rows(base: Baseline, groups: Groups) -> tuple[Estimate, list[Row]]:
    """The energy coefficient to iid; and the distances to the truth and to the disjoint iid set, each beside the value between two samples of one distribution."""
    rows = [_row("spread", group_mean(groups.spread), float(base.truth.spread.mean()))]
    energies = {
        name: energy_coefficient(groups.sample, other.sample)
        for name, other in (("iid", base.disjoint), ("truth", base.truth))
    }
    for name, other in (("iid", base.disjoint), ("truth", base.truth)):
        energy, floor = energies[name], base.floors[f"energy_to_{name}"]
        rows += [
            _shift_row(f"shift_to_{name}", energy, floor),
            _row(f"energy_to_{name}", energy, floor),
            Row(
                f"sw2_to_{name}",
                sliced_wasserstein(groups.sample, other.sample),
                floor=base.floors[f"sw2_to_{name}"],
            ),
        ]
        if base.task.counts_modes:
            statistic, freedom, p = frequency_chi2(groups.counts, other.counts)
            rows += [
                Row(f"mode_chi2_to_{name}", statistic, floor=freedom),
                Row(f"mode_chi2_to_{name}_p", p),
            ]
    return energies["iid"], rows


def _slot_rows(base: Baseline, groups: Groups) -> tuple[float, list[Row]]:
    """The smallest Holm-adjusted p-value over the particle slots, and the largest distance of a slot to the same one of iid."""
    slots = [
        energy_coefficient(own, other)
        for own, other in zip(groups.sample.slots(), base.slots, strict=True)
    ]
    smallest = min(holm([found.difference_p() if found.value > 0 else 1.0 for found in slots]))
    worst = max(slots, key=lambda found: found.value)
    return smallest, [
        _shift_row("slot_shift_to_iid_max", worst, float("nan")),
        Row("slot_shift_to_iid_p", smallest),
    ]
