"""How long an audit takes, from a short trial of each method."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from eddy_bench.audit.candidates import Candidate
from eddy_bench.audit.draw import draw_groups, draw_truth
from eddy_bench.audit.groups import Groups
from eddy_bench.audit.measure import Baseline
from eddy_bench.audit.parts import Parts
from eddy_bench.audit.plan import BASELINE, AuditPlan, Block
from eddy_bench.methods.base import Method
from eddy_bench.methods.iid import Iid

SHORT, LONG = 5, 10  # steps of the two draws of a trial
ENOUGH = 0.04  # seconds that a draw must take to be a measure
FIRST, FACTOR = 16, 6  # groups of the first trial, and how many times as many the next has
MEASURED_GROUPS = 400  # of the trial of measuring


@dataclass(frozen=True)
class Cost:
    """Hold what a method takes, per group.

    setup: seconds of starting and measuring, for each step count.
    step: seconds of a solver's step.
    """

    setup: float = 0.0
    step: float = 1.0

    def of(self, groups: int, steps: int) -> float:
        """Return the seconds of groups at a step count."""
        return groups * (self.setup + steps * self.step)

    def times(self, draws: float) -> Cost:
        """Return the cost of drawing so many times as many particles."""
        return Cost(self.setup, draws * self.step)


UNTIMED = Cost()
Costs = dict[tuple[str, str], Cost]  # by title of the block and label of the method


def time_methods(plan: AuditPlan, folder: Path) -> Costs:
    """Return what each method that is still to be drawn takes, from a short trial of each.

    It takes a few tenths of a second per method and block. A method that cannot be drawn in so few
    steps counts as iid, as often as it draws a particle.
    """
    costs: Costs = {}
    measuring: dict[str, float] = {}
    for block in plan.blocks:
        missing = _missing(plan, block, folder)
        if missing is None:
            continue
        if block.task.name not in measuring:
            measuring[block.task.name] = _time_measuring(block)
        setup = measuring[block.task.name]
        plain = costs[block.title, BASELINE] = _time_method(block, Iid(), setup)
        for candidate in missing:
            try:
                cost = _time_method(block, candidate.method, setup)
            except Exception:  # the audit itself says why it cannot be drawn
                cost = plain.times(candidate.method.drawn(block.particles) / block.particles)
            costs[block.title, candidate.label] = cost
    return costs


def missing_work(plan: AuditPlan, folder: Path, costs: Costs | None = None) -> float:
    """Return the seconds of what is still to be drawn; without costs, its group-steps."""
    costs = costs or {}
    return sum(
        costs.get((parts.block.title, label), UNTIMED).of(parts.block.groups, parts.steps)
        for parts in _all_parts(plan, folder)
        for label in missing_labels(parts)
    )


def missing_labels(parts: Parts) -> list[str]:
    """Return what is still to be drawn at a step count: iid stands twice, or not at all."""
    methods = [c.label for c in parts.block.candidates if parts.kept(c) is None]
    needs_iid = bool(methods) or parts.kept_rows() is None
    return [BASELINE] * 2 * (needs_iid and not parts.has_draws()) + methods


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute in one thread inside the block.

    The arrays of an audit are small: a second thread waits more than it works, and on a busy
    machine a draw then takes ten times as long and more.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _all_parts(plan: AuditPlan, folder: Path) -> Iterator[Parts]:
    for block in plan.blocks:
        for steps in plan.ladder:
            yield Parts(plan, block, steps, folder)


def _missing(plan: AuditPlan, block: Block, folder: Path) -> list[Candidate] | None:
    """Return the methods of a block that are missing at some step count; None for nothing."""
    labels = {
        label
        for steps in plan.ladder
        for label in missing_labels(Parts(plan, block, steps, folder))
    }
    return [c for c in block.candidates if c.label in labels] if labels else None


def _time_method(block: Block, method: Method, measuring: float) -> Cost:
    """Return the cost of a method from two draws of different lengths."""
    groups = min(FIRST, block.groups)
    while True:
        long = _seconds(block, method, LONG, groups)
        if long >= ENOUGH or groups == block.groups:
            break
        groups = min(FACTOR * groups, block.groups)
    short = _seconds(block, method, SHORT, groups)
    step = max(long - short, 0.2 * long) / (LONG - SHORT)
    return Cost(max(long - LONG * step, 0.0) / groups + measuring, step / groups)


def _seconds(block: Block, method: Method, steps: int, groups: int) -> float:
    """Return the seconds of a draw."""
    return least_seconds(lambda: draw_groups(block, method, steps, groups, 0, "trial"))


def least_seconds(work: Callable[[], object]) -> float:
    """Return the seconds of work that is done twice, the shorter time.

    The first time loads what is loaded once, and on a busy machine either may have to wait.
    """
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def _time_measuring(block: Block) -> float:
    """Return the seconds that measuring a group takes, from groups of the truth."""
    groups = min(MEASURED_GROUPS, block.groups)
    sets = [
        Groups.of(block.task, draw_truth(block, groups, 0, f"trial {number}")) for number in (1, 2)
    ]
    base = Baseline(block.task, sets[0], sets[1], sets[1], sets[0])
    base.rows()  # what is computed once for all methods
    particles = draw_truth(block, groups, 0, "trial 3")
    return least_seconds(lambda: base.measure(particles)) / groups
