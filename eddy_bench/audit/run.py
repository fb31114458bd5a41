"""Run an audit: draw and measure what is missing, read back what was measured before."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eddy_bench.audit.draw import draw_groups, draw_truth
from eddy_bench.audit.estimates import Estimate
from eddy_bench.audit.measure import Baseline, Groups, Measured, Row
from eddy_bench.audit.plan import BASELINE, AuditPlan, Block, Candidate
from eddy_bench.audit.verdict import Verdict, judge_block
from eddy_bench.errors import EddyError, ModelError, StoreError, brief
from eddy_bench.methods.base import Method
from eddy_bench.methods.iid import Iid
from eddy_bench.storage.files import parse_json, write_text
from eddy_bench.storage.paths import open_file, read_many, replacing
from eddy_bench.storage.provenance import command, environment

PARTS = "parts"


@dataclass(frozen=True)
class Parts:
    """Hold where the measurements of a block at one step count are kept.

    Each file is written as soon as its method is measured, so that a kill loses one method's draw;
    the iid groups are kept beside it, so that other methods are compared with the same ones.
    """

    plan: AuditPlan
    block: Block
    steps: int
    folder: Path

    def kept(self, candidate: Candidate) -> Measured | None:
        """Return what was measured before; None where it was not, or the file is damaged."""
        try:
            stored = self._parsed(candidate)
            from_truth = stored["from_truth"]
            return Measured(
                np.asarray(stored["gain"], np.float64),
                Estimate(**stored["energy"]),
                Estimate(**stored["spread"]),
                stored["slot_p"],
                tuple(Row(**row) for row in stored["rows"]),
                stored["problem"],
                stored["beyond_p"],
                None if from_truth is None else Estimate(**from_truth),
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def keep(self, candidate: Candidate, measured: Measured) -> None:
        """Write what was measured of a method."""
        text = json.dumps({**asdict(measured), "gain": measured.gain.tolist()})
        write_text(self._path(candidate), text)

    def kept_rows(self) -> tuple[Row, ...] | None:
        """Return the lines of iid; None where they were not measured."""
        try:
            rows = tuple(Row(**row) for row in self._parsed())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        return rows or None

    def keep_rows(self, rows: tuple[Row, ...]) -> None:
        """Write the lines of iid."""
        write_text(self._path(), json.dumps([asdict(row) for row in rows]))

    def kept_draws(self) -> list[Tensor] | None:
        """Return the iid groups to pair with and the disjoint ones, (G, N, d) each, or None."""
        block = self.block
        shape = (2, block.groups, block.particles, block.task.mixture.dimension)
        try:
            with open_file(self._draws()) as file:
                draws = np.load(file, allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        if draws.shape != shape or draws.dtype != np.float64 or not np.isfinite(draws).all():
            return None
        return [torch.from_numpy(draw) for draw in draws]

    def has_draws(self) -> bool:
        """Return whether the iid groups seem to be there."""
        return self._draws().is_file()

    def keep_draws(self, draws: list[Tensor]) -> None:
        """Write the iid groups.

        Raises:
            StoreError: the folder cannot be written.

        """
        path = self._draws()
        try:
            with replacing(path) as file, file.open("wb") as stream:
                np.save(stream, torch.stack(draws).numpy())
        except OSError as error:
            raise StoreError(f"{path} cannot be written: {error}.") from None

    def _parsed(self, candidate: Candidate | None = None) -> Any:
        return parse_json(read_many([self._path(candidate)])[0])

    def _path(self, candidate: Candidate | None = None) -> Path:
        key = self.plan.key(self.block, self.steps, candidate)
        return self.folder / PARTS / f"{key}.json"

    def _draws(self) -> Path:
        return self._path().with_suffix(".npy")


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


MARK = "audit.json"
FAR = 1e100  # beyond it squares overflow
NOT_MEASURED = "not measured"
STREAMS = ("main", "disjoint")  # of seeds
NOTHING = Estimate(float("nan"), float("nan"), 0)


@dataclass(frozen=True)
class Rung:
    """Hold a block at one step count: lines of iid, and the methods by label."""

    steps: int
    iid: tuple[Row, ...]
    methods: dict[str, Measured]


@dataclass(frozen=True)
class Audited:
    """Hold a block with all its step counts, and verdicts by label.

    A method that could not be drawn has its reason as text.
    """

    block: Block
    rungs: tuple[Rung, ...]
    verdicts: dict[str, Verdict]


def prepare_folder(path: Path, plan: AuditPlan | None = None) -> None:
    """Make the folder of an audit and say what it holds; without a plan, of a divergence check.

    Raises:
        StoreError: it holds other things, or cannot be written.

    """
    if path.exists() and not path.is_dir():
        raise StoreError(f"Expected a folder at {path}, found a file. Give another --out.")
    if path.is_dir() and any(path.iterdir()) and not (path / MARK).is_file():
        raise StoreError(
            f"{path} holds other files and is not an audit's folder. Give another --out."
        )
    if plan is None:
        write_text(path / MARK, json.dumps(environment(), indent=1) + "\n")
        return
    settings = {
        "blocks": [
            [
                block.task.name,
                str(block.scheduler),
                block.particles,
                block.groups,
                [candidate.label for candidate in block.candidates],
            ]
            for block in plan.blocks
        ],
        "steps": plan.ladder,
        "seed": plan.seed,
        "margin": plan.margin,
        **environment(),
        "command": command(),
    }
    write_text(path / MARK, json.dumps(settings, indent=1) + "\n")


def run_audit(
    plan: AuditPlan, path: Path, advance: Callable[[float, str], None], costs: Costs | None = None
) -> list[Audited]:
    """Measure every block at every step count, each method kept as soon as it is measured.

    Args:
        plan: what to audit.
        path: a prepared folder.
        advance: called with the work done, as `missing_work` counts it, and what is at work.
        costs: of the methods; the cheapest are drawn first.

    """
    costs = costs or {}
    audited = []
    for block in plan.blocks:
        ordered = sorted(
            block.candidates, key=lambda c: costs.get((block.title, c.label), UNTIMED).of(1, 1)
        )
        rungs = [
            _rung(Parts(plan, block, steps, path), ordered, costs, advance) for steps in plan.ladder
        ]
        audited.append(Audited(block, tuple(rungs), _verdicts(plan, block, rungs)))
    return audited


def _verdicts(plan: AuditPlan, block: Block, rungs: Sequence[Rung]) -> dict[str, Verdict]:
    """Judge the methods of a block; one that could not be drawn has its reason as text."""
    ladders = {
        candidate.label: [rung.methods[candidate.label] for rung in rungs]
        for candidate in block.candidates
    }
    problems = {
        label: next((measured.problem for measured in ladder if measured.problem), "")
        for label, ladder in ladders.items()
    }
    sound = [label for label in ladders if not problems[label]]
    judged = judge_block(plan.ladder, [ladders[label] for label in sound], plan.margin)
    verdicts = dict(zip(sound, judged, strict=True))
    failed = {label: reason for label, reason in problems.items() if reason}
    return verdicts | {
        label: Verdict(f"{NOT_MEASURED}: {reason}") for label, reason in failed.items()
    }


Draw = Callable[[Any, str, str], torch.Tensor]  # of a method, a stream and a label


def _rung(
    parts: Parts,
    candidates: Sequence[Candidate],
    costs: Costs,
    advance: Callable[[float, str], None],
) -> Rung:
    """Return a block at one step count, with what is missing drawn and kept."""
    rows = parts.kept_rows()
    methods = {candidate.label: parts.kept(candidate) for candidate in candidates}
    if rows is None or None in methods.values():
        draw = _drawing(parts, costs, advance)
        base = _baseline(parts, draw)
        if rows is None:
            rows = base.rows()
            parts.keep_rows(rows)
        for candidate in candidates:
            if methods[candidate.label] is None:
                measured = _measure_candidate(candidate, base, parts.steps, draw)
                parts.keep(candidate, measured)
                methods[candidate.label] = measured
    return Rung(parts.steps, rows, {label: m for label, m in methods.items() if m is not None})


def _drawing(parts: Parts, costs: Costs, advance: Callable[[float, str], None]) -> Draw:
    """Return a function that draws the groups of a method and counts its work, step by step."""
    block, steps = parts.block, parts.steps

    def draw(method: Any, stream: str, label: str) -> torch.Tensor:
        work = costs.get((block.title, label), UNTIMED).of(block.groups, steps)
        shown, left = f"{block.title}, {steps} steps: {label}", work

        def step(count: int) -> None:
            nonlocal left
            done = work * count / (block.groups * steps)
            left -= done
            advance(done, shown)

        try:
            return draw_groups(block, method, steps, block.groups, parts.plan.seed, stream, step)
        finally:
            advance(left, shown)  # of one that could not be drawn to its end

    return draw


def _baseline(parts: Parts, draw: Draw) -> Baseline:
    """Return iid and the truth, twice each; iid as it was drawn before, if it was.

    Raises:
        ModelError: the samples of iid are not finite.

    """
    block = parts.block
    plain = parts.kept_draws()
    if plain is None:
        plain = [draw(Iid(), stream, BASELINE) for stream in STREAMS]
        if not all(map(_finite, plain)):
            raise ModelError(
                f"The samples of iid on {block.title} are not finite at {parts.steps} steps. "
                "Use another scheduler or more steps."
            )
        parts.keep_draws(plain)
    truth = [draw_truth(block, block.groups, parts.plan.seed, stream) for stream in STREAMS]
    return Baseline(block.task, *(Groups.of(block.task, samples) for samples in (*plain, *truth)))


def _measure_candidate(candidate: Candidate, base: Baseline, steps: int, draw: Draw) -> Measured:
    """Draw and measure a method; one that cannot be drawn has its reason as text."""
    try:
        particles = draw(candidate.method, "main", candidate.label)
        if _finite(particles):
            problem = ""
        else:
            problem = f"the samples are not finite at {steps} steps. Lower the strength."
    except EddyError as error:
        problem = str(error)
    except Exception as error:  # a plug-in may raise anything; the rest of the audit goes on
        problem = f"{type(error).__name__}: {brief(error)}"
    if problem:
        return Measured(np.empty(0), NOTHING, NOTHING, 1.0, (), problem)
    return base.measure(particles)


def _finite(particles: torch.Tensor) -> bool:
    return bool(particles.abs().max() < FAR)
