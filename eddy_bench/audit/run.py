"""Run an audit: draw and measure what is missing, read back what was measured before."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from eddy_bench.audit.draw import draw_groups, draw_truth
from eddy_bench.audit.estimates import Estimate
from eddy_bench.audit.measure import Baseline, Groups, Measured, Row
from eddy_bench.audit.plan import BASELINE, AuditPlan, Block, Candidate
from eddy_bench.audit.verdict import Verdict, judge_block
from eddy_bench.errors import ModelError, StoreError, counted, reason_of
from eddy_bench.experiment.batches import InProcess
from eddy_bench.experiment.events import Advance, Listener
from eddy_bench.methods.base import Method
from eddy_bench.methods.iid import Iid
from eddy_bench.storage.files import check_writable, parse_json, write_text
from eddy_bench.storage.lock import locked
from eddy_bench.storage.paths import open_file, read_many, replacing
from eddy_bench.storage.provenance import command, environment

MARK = "audit.json"
PARTS = "parts"
FAR = 1e100  # beyond it squares overflow
NOT_MEASURED = "not measured"
STREAMS = ("main", "disjoint")  # of seeds
UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError)
NOTHING = Estimate(float("nan"), float("nan"), 0)
UNMEASURED = Measured(np.empty(0), NOTHING, NOTHING, 1.0, ())


@dataclass(frozen=True)
class Audited:
    """What was measured of a block: lines of iid and methods, by step count; verdicts by label."""

    block: Block
    iid: list[tuple[Row, ...]]
    methods: dict[str, list[Measured]]
    verdicts: dict[str, Verdict]


@dataclass(frozen=True)
class Cell:
    """A method of a block at one step count: what is drawn at once and kept in one file.

    candidate: None is iid, which is drawn from both streams. Its groups are kept beside what was
        measured of them, so that other methods are compared with the same ones.
    """

    plan: AuditPlan
    block: Block
    steps: int
    folder: Path
    candidate: Candidate | None = None
    size = 1

    def split(self) -> Sequence[Cell]:
        """Return the cell: it bounds by itself what is drawn at once."""
        return [self]

    @property
    def label(self) -> str:
        """The method."""
        return self.candidate.label if self.candidate else BASELINE

    @property
    def path(self) -> Path:
        """The file of what was measured."""
        key = self.plan.key(self.block, self.steps, self.candidate)
        return self.folder / PARTS / f"{key}.json"

    @property
    def work(self) -> int:
        """Solver steps that are to be drawn."""
        if self.candidate is not None:
            return self.steps
        return 0 if self.kept_draws() else self.steps * len(STREAMS)

    def kept(self) -> Measured | None:
        """Return what was measured; None where nothing can be read."""
        try:
            stored = parse_json(read_many([self.path])[0])
            truth = stored["from_truth"]
            parts = {
                "gain": np.asarray(stored["gain"], np.float64),
                "energy": Estimate(**stored["energy"]),
                "spread": Estimate(**stored["spread"]),
                "rows": tuple(Row(**row) for row in stored["rows"]),
                "from_truth": None if truth is None else Estimate(**truth),
            }
            return Measured(**{**stored, **parts})
        except UNREADABLE:
            return None

    def keep(self, measured: Measured) -> None:
        """Write what was measured."""
        write_text(self.path, json.dumps({**asdict(measured), "gain": measured.gain.tolist()}))

    @property
    def draws(self) -> Path:
        """The file of iid's groups."""
        return self.path.with_suffix(".npy")

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

    def is_broken(self, measured: Mapping[Path, Measured]) -> bool:
        """Return whether a file is there that could not be read."""
        unread = self.path.exists() and self.path not in measured
        return unread or (self.draws.exists() and self.kept_draws() is None)

    def keep_draws(self, draws: list[Tensor]) -> None:
        """Write the iid groups."""
        try:
            with replacing(self.draws) as file, file.open("wb") as stream:
                np.save(stream, torch.stack(draws).numpy())
        except OSError as error:
            raise StoreError(f"{self.draws} cannot be written: {error}.") from None


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
            (b.task.name, str(b.scheduler), b.particles, b.groups, [c.label for c in b.candidates])
            for b in plan.blocks
        ]
        settings = {
            "blocks": blocks,
            "steps": plan.step_counts,
            "seed": plan.seed,
            "margin": plan.margin,
            **settings,
            "command": command(),
        }
    check_writable(path / MARK)
    with locked(path):  # what another process audits there is not described anew
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


Outcome = tuple[Cell, list[Tensor], str]  # samples by stream, or none and why


def planned_cells(plan: AuditPlan, block: Block, folder: Path) -> list[list[Cell]]:
    """Return the cells of a block by step count, that of iid first."""
    return [
        [Cell(plan, block, steps, folder, each) for each in (None, *block.candidates)]
        for steps in plan.step_counts
    ]


def find_missing(plan: AuditPlan, folder: Path) -> tuple[dict[Path, Measured], list[Cell]]:
    """Return what was measured before, by its file, and what is to be drawn, behind its iid."""
    kept, missing = dict[Path, Measured](), list[Cell]()
    for cells in chain(*(planned_cells(plan, block, folder) for block in plan.blocks)):
        found = {cell.path: measured for cell in cells if (measured := cell.kept()) is not None}
        if lacking := [cell for cell in cells if cell.path not in found]:
            missing += [cells[0], *(cell for cell in lacking if cell is not cells[0])]
        kept |= found
    return kept, missing


def run_audit(plan: AuditPlan, folder: Path, listener: Listener) -> list[Audited]:
    """Measure every block at every step count, each method kept as soon as it is measured.

    Args:
        plan: what to audit.
        folder: a prepared one.
        listener: is told of progress, in solver steps of a method.

    Raises:
        EddyError: the samples of iid are not finite, or another process works in the folder.
    """
    with locked(folder, lambda text: listener.tell(text, "Note")), one_thread():
        measured, missing = find_missing(plan, folder)
        if again := sum(cell.is_broken(measured) for cell in missing):
            files = counted(again, "file")
            listener.tell(f"{files} of {folder} could not be read: measured again.", "Warning")
        with listener.began("Auditing", sum(cell.work for cell in missing)) as advance:
            executor = InProcess[Cell, Outcome](lambda cell: [draw_cell(cell, advance)])
            base: Baseline
            for cell, samples, problem in executor.run(missing, []):
                if cell.candidate is None:  # the first of its block and step count
                    base = _baseline(cell, samples)
                    result = replace(UNMEASURED, rows=base.rows())
                elif problem:
                    result = replace(UNMEASURED, problem=problem)
                else:
                    result = base.measure(samples[0])
                cell.keep(result)
                measured[cell.path] = result
    return [_audited(plan, block, folder, measured) for block in plan.blocks]


def draw_cell(cell: Cell, advance: Advance) -> Outcome:
    """Return a cell with its samples by stream, or with none and why it cannot be drawn.

    Groups of iid are kept, and not drawn again where they are.

    Raises:
        ModelError: the samples of iid are not finite.
    """
    if cell.candidate is None and (kept := cell.kept_draws()):
        return cell, kept, ""
    block, steps, seed = cell.block, cell.steps, cell.plan.seed
    title = f"{block.title}, {steps} steps: {cell.label}"

    def step(groups: int) -> None:
        advance(groups / block.groups, title)

    def draw(method: Method, stream: str) -> Tensor:
        return draw_groups(block, method, steps, block.groups, seed, stream, step)

    if cell.candidate is None:
        plain = [draw(Iid(), stream) for stream in STREAMS]
        if not all(map(_finite, plain)):
            raise ModelError(
                f"The samples of iid on {block.title} are not finite at {steps} steps. "
                "Use another scheduler or more steps."
            )
        cell.keep_draws(plain)
        return cell, plain, ""
    try:
        samples = draw(cell.candidate.method, STREAMS[0])
    except Exception as error:  # a plug-in may raise anything; the rest of the audit goes on
        return cell, [], reason_of(error)
    if not _finite(samples):
        return cell, [], f"the samples are not finite at {steps} steps. Lower the strength."
    return cell, [samples], ""


def _finite(particles: Tensor) -> bool:
    return bool(particles.abs().max() < FAR)


def _baseline(cell: Cell, plain: list[Tensor]) -> Baseline:
    """Return iid and the truth, twice each."""
    block = cell.block
    truth = [draw_truth(block, block.groups, cell.plan.seed, stream) for stream in STREAMS]
    return Baseline(block.task, *(Groups.of(block.task, samples) for samples in (*plain, *truth)))


def _audited(
    plan: AuditPlan, block: Block, folder: Path, measured: dict[Path, Measured]
) -> Audited:
    iid, *methods = (
        [measured[cell.path] for cell in cells]
        for cells in zip(*planned_cells(plan, block, folder), strict=True)
    )
    by_label = dict(zip((each.label for each in block.candidates), methods, strict=True))
    return Audited(block, [each.rows for each in iid], by_label, _verdicts(plan, by_label))


def _verdicts(plan: AuditPlan, methods: dict[str, list[Measured]]) -> dict[str, Verdict]:
    """Judge the methods of a block; one that could not be drawn has its reason as text."""
    problems = {
        label: Verdict(f"{NOT_MEASURED}: {problem}")
        for label, by_steps in methods.items()
        if (problem := next((measured.problem for measured in by_steps if measured.problem), ""))
    }
    sound = {label: by_steps for label, by_steps in methods.items() if label not in problems}
    judged = judge_block(plan.step_counts, list(sound.values()), plan.margin)
    return dict(zip(sound, judged, strict=True)) | problems
