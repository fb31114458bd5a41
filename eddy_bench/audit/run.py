"""Run an audit: draw and measure what is missing, read back what was measured before."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

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

MARK = "audit.json"
PARTS = "parts"
FAR = 1e100  # beyond it squares overflow
NOT_MEASURED = "not measured"
STREAMS = ("main", "disjoint")  # of seeds
NOTHING = Estimate(float("nan"), float("nan"), 0)
SHORT, LONG, TRIAL_GROUPS = 5, 10, 400  # steps of the two draws of a trial, and groups
UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError)

Costs = dict[tuple[str, str], float]  # seconds of a group's step, by block title and method label
Advance = Callable[[float, str], None]  # with work done, and what is at work


@dataclass(frozen=True)
class AtSteps:
    """A block at one step count: lines of iid, and the methods by label."""

    steps: int
    iid: tuple[Row, ...]
    methods: dict[str, Measured]


@dataclass(frozen=True)
class Audited:
    """A block with all its step counts, and verdicts by label."""

    block: Block
    by_steps: tuple[AtSteps, ...]
    verdicts: dict[str, Verdict]


@dataclass(frozen=True)
class Parts:
    """The files with the measurements of a block at one step count.

    Each is written as soon as its method is measured, so that a kill loses one method's draw. The
    iid groups are kept beside them, so that other methods are compared with the same ones.
    """

    plan: AuditPlan
    block: Block
    steps: int
    folder: Path

    def path(self, candidate: Candidate | None = None) -> Path:
        """Return the file of a method, or of iid."""
        return self.folder / PARTS / f"{self.plan.key(self.block, self.steps, candidate)}.json"

    def kept(self, candidate: Candidate | None = None) -> Measured | None:
        """Return what was measured of a method, or of iid; None where nothing can be read."""
        try:
            stored = parse_json(read_many([self.path(candidate)])[0])
            truth = stored["from_truth"]
            changed = {
                "gain": np.asarray(stored["gain"], np.float64),
                "energy": Estimate(**stored["energy"]),
                "spread": Estimate(**stored["spread"]),
                "rows": tuple(Row(**row) for row in stored["rows"]),
                "from_truth": None if truth is None else Estimate(**truth),
            }
            return Measured(**{**stored, **changed})
        except UNREADABLE:
            return None

    def keep(self, measured: Measured, candidate: Candidate | None = None) -> None:
        """Write what was measured of a method, or of iid."""
        text = json.dumps({**asdict(measured), "gain": measured.gain.tolist()})
        write_text(self.path(candidate), text)

    @property
    def draws(self) -> Path:
        """The file of iid's groups."""
        return self.path().with_suffix(".npy")

    def kept_draws(self) -> list[Tensor] | None:
        """Return the iid groups to pair with and the disjoint ones, (G, N, d) each, or None."""
        block = self.block
        shape = (2, block.groups, block.particles, block.task.mixture.dimension)
        try:
            with open_file(self.draws) as file:
                draws = np.load(file, allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        if draws.shape != shape or draws.dtype != np.float64 or not np.isfinite(draws).all():
            return None
        return [torch.from_numpy(draw) for draw in draws]

    def keep_draws(self, draws: list[Tensor]) -> None:
        """Write the iid groups."""
        try:
            with replacing(self.draws) as file, file.open("wb") as stream:
                np.save(stream, torch.stack(draws).numpy())
        except OSError as error:
            raise StoreError(f"{self.draws} cannot be written: {error}.") from None

    def missing(self) -> list[str]:
        """Return the labels that are still to be drawn: iid stands twice, or not at all."""
        methods = [each.label for each in self.block.candidates if self.kept(each) is None]
        needs_iid = methods or self.kept() is None
        return [BASELINE] * 2 * bool(needs_iid and not self.draws.is_file()) + methods


def prepare_folder(path: Path, plan: AuditPlan | None = None) -> None:
    """Make the folder of an audit and say what it holds; without a plan, of a divergence check."""
    if path.exists() and not path.is_dir():
        raise StoreError(f"Expected a folder at {path}, found a file. Give another --out.")
    if path.is_dir() and any(path.iterdir()) and not (path / MARK).is_file():
        raise StoreError(
            f"{path} holds other files and is not an audit's folder. Give another --out."
        )
    settings = environment()
    if plan is not None:
        blocks = [
            [
                block.task.name,
                str(block.scheduler),
                block.particles,
                block.groups,
                [candidate.label for candidate in block.candidates],
            ]
            for block in plan.blocks
        ]
        asked = {
            "blocks": blocks,
            "steps": plan.step_counts,
            "seed": plan.seed,
            "margin": plan.margin,
        }
        settings = {**asked, **settings, "command": command()}
    write_text(path / MARK, json.dumps(settings, indent=1) + "\n")


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute in one thread inside the block: an audit's arrays are too small for two."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@one_thread()
def time_methods(plan: AuditPlan, folder: Path) -> Costs:
    """Return what each method that is still to be drawn takes, from a short trial of each.

    A method that cannot be drawn in so few steps counts as iid, as often as it draws a particle.
    """
    costs: Costs = {}
    for block in plan.blocks:
        missing = {
            label
            for steps in plan.step_counts
            for label in Parts(plan, block, steps, folder).missing()
        }
        if not missing:
            continue
        plain = costs[block.title, BASELINE] = _trial(block, Iid())
        for each in block.candidates:
            if each.label in missing:
                try:
                    cost = _trial(block, each.method)
                except Exception:  # the audit itself says why it cannot be drawn
                    cost = plain * each.method.drawn(block.particles) / block.particles
                costs[block.title, each.label] = cost
    return costs


def _trial(block: Block, method: Method) -> float:
    """Return the seconds of a group's step, from two draws of different lengths."""
    groups = min(TRIAL_GROUPS, block.groups)

    def seconds(steps: int) -> float:
        start = time.perf_counter()
        draw_groups(block, method, steps, groups, 0, "trial")
        return time.perf_counter() - start

    seconds(SHORT)  # loads what is loaded once
    short, long = seconds(SHORT), seconds(LONG)
    return max(long - short, 0.2 * long) / (groups * (LONG - SHORT))


def missing_work(plan: AuditPlan, folder: Path, costs: Costs | None = None) -> float:
    """Return the seconds of what is still to be drawn; without costs, its group-steps."""
    return sum(
        (costs or {}).get((block.title, label), 1.0) * block.groups * steps
        for block in plan.blocks
        for steps in plan.step_counts
        for label in Parts(plan, block, steps, folder).missing()
    )


@one_thread()
def run_audit(
    plan: AuditPlan, path: Path, advance: Advance, costs: Costs | None = None
) -> list[Audited]:
    """Measure every block at every step count, each method kept as soon as it is measured.

    Args:
        plan: what to audit.
        path: a prepared folder.
        advance: called with the work done, as `missing_work` counts it, and what is at work.
        costs: of the methods; the cheapest are drawn first.
    """
    audited, costs = [], costs or {}
    for block in plan.blocks:
        ordered = sorted(block.candidates, key=lambda c: costs.get((block.title, c.label), 1.0))
        by_steps = [
            _at_steps(Parts(plan, block, steps, path), ordered, costs, advance)
            for steps in plan.step_counts
        ]
        audited.append(Audited(block, tuple(by_steps), _verdicts(plan, block, by_steps)))
    return audited


def _verdicts(plan: AuditPlan, block: Block, by_steps: Sequence[AtSteps]) -> dict[str, Verdict]:
    """Judge the methods of a block; one that could not be drawn has its reason as text."""
    sound, verdicts = {}, {}
    for label in (candidate.label for candidate in block.candidates):
        step_counts = [at_steps.methods[label] for at_steps in by_steps]
        problem = next((measured.problem for measured in step_counts if measured.problem), "")
        if problem:
            verdicts[label] = Verdict(f"{NOT_MEASURED}: {problem}")
        else:
            sound[label] = step_counts
    judged = judge_block(plan.step_counts, list(sound.values()), plan.margin)
    return dict(zip(sound, judged, strict=True)) | verdicts


def _at_steps(
    parts: Parts, candidates: Sequence[Candidate], costs: Costs, advance: Advance
) -> AtSteps:
    """Return a block at one step count, with what is missing drawn and kept."""
    block, steps = parts.block, parts.steps

    def draw(method: Method, stream: str, label: str) -> Tensor:
        cost = costs.get((block.title, label), 1.0)
        shown, left = f"{block.title}, {steps} steps: {label}", block.groups * steps

        def step(count: int) -> None:
            nonlocal left
            left -= count
            advance(count * cost, shown)

        try:
            return draw_groups(block, method, steps, block.groups, parts.plan.seed, stream, step)
        finally:
            advance(left * cost, shown)  # of one that could not be drawn to its end

    iid = parts.kept()
    methods = {candidate.label: parts.kept(candidate) for candidate in candidates}
    if iid is None or None in methods.values():
        base = _baseline(parts, draw)
        if iid is None:
            iid = Measured(np.empty(0), NOTHING, NOTHING, 1.0, base.rows())
            parts.keep(iid)
        for candidate in candidates:
            if methods[candidate.label] is None:
                measured = _measured(candidate, base, steps, draw)
                parts.keep(measured, candidate)
                methods[candidate.label] = measured
    return AtSteps(steps, iid.rows, {label: each for label, each in methods.items() if each})


Draw = Callable[[Method, str, str], Tensor]  # of a method, a stream and a label


def _baseline(parts: Parts, draw: Draw) -> Baseline:
    """Return iid and the truth, twice each; iid as it was drawn before, if it was."""
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


def _measured(candidate: Candidate, base: Baseline, steps: int, draw: Draw) -> Measured:
    """Draw and measure a method; one that cannot be drawn has its reason as text."""
    try:
        particles = draw(candidate.method, "main", candidate.label)
    except EddyError as error:
        problem = str(error)
    except Exception as error:  # a plug-in may raise anything; the rest of the audit goes on
        problem = f"{type(error).__name__}: {brief(error)}"
    else:
        if _finite(particles):
            return base.measure(particles)
        problem = f"the samples are not finite at {steps} steps. Lower the strength."
    return Measured(np.empty(0), NOTHING, NOTHING, 1.0, (), problem)


def _finite(particles: Tensor) -> bool:
    return bool(particles.abs().max() < FAR)
