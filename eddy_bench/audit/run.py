"""Run an audit: draw and measure what is missing, read back what was measured before."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from eddy_bench.audit.draw import draw_groups, draw_truth
from eddy_bench.audit.estimates import Estimate
from eddy_bench.audit.measure import Baseline, Groups, Measured, Row
from eddy_bench.audit.plan import AuditPlan, Block, Candidate
from eddy_bench.audit.verdict import Verdict, judge_block
from eddy_bench.errors import EddyError, ModelError, StoreError, brief
from eddy_bench.methods.iid import Iid
from eddy_bench.storage.files import write_text
from eddy_bench.storage.provenance import environment

MARK = "audit.json"
PARTS = "parts"
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
    }
    write_text(path / MARK, json.dumps(settings, indent=1) + "\n")


def run_audit(plan: AuditPlan, path: Path, advance: Callable[[int, str], None]) -> list[Audited]:
    """Measure every block at every step count, each kept in `parts/` as soon as it is measured.

    Args:
        path: a prepared folder. advance: called with group-steps done and what is at work.

    """
    audited = []
    for block in plan.blocks:
        rungs = [
            _kept(plan, block, steps, path) or _measured(plan, block, steps, path, advance)
            for steps in plan.ladder
        ]
        ladders = {
            candidate.label: [rung.methods[candidate.label] for rung in rungs]
            for candidate in block.candidates
        }
        sound = {
            label: ladder
            for label, ladder in ladders.items()
            if not any(measured.problem for measured in ladder)
        }
        verdicts = dict(
            zip(sound, judge_block(plan.ladder, list(sound.values()), plan.margin), strict=True)
        )
        for label, ladder in ladders.items():
            reason = next((measured.problem for measured in ladder if measured.problem), "")
            if reason:
                verdicts[label] = Verdict(f"{NOT_MEASURED}: {reason}")
        audited.append(Audited(block, tuple(rungs), verdicts))
    return audited


def missing_work(plan: AuditPlan, path: Path) -> int:
    """Return the group-steps that are still to be drawn."""
    work = 0
    for block in plan.blocks:
        missing = [steps for steps in plan.ladder if _kept(plan, block, steps, path) is None]
        work += sum(missing) * block.groups * (2 + len(block.candidates))
    return work


def _part(plan: AuditPlan, block: Block, steps: int, path: Path) -> Path:
    return path / PARTS / f"{plan.key(block, steps)}.json"


def _kept(plan: AuditPlan, block: Block, steps: int, path: Path) -> Rung | None:
    """Return what was measured before; None where it was not, or where the file is cut short."""
    try:
        data = json.loads(_part(plan, block, steps, path).read_text())
        methods = {
            label: Measured(
                np.asarray(stored["gain"], np.float64),
                Estimate(**stored["energy"]),
                Estimate(**stored["spread"]),
                stored["slot_p"],
                tuple(Row(**row) for row in stored["rows"]),
                stored["problem"],
            )
            for label, stored in data["methods"].items()
        }
        rung = Rung(steps, tuple(Row(**row) for row in data["iid"]), methods)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    labels = {candidate.label for candidate in block.candidates}
    return rung if set(methods) == labels and rung.iid else None


Draw = Callable[[Any, str, str], torch.Tensor]  # of a method, a stream and a label


def _measured(
    plan: AuditPlan, block: Block, steps: int, path: Path, advance: Callable[[int, str], None]
) -> Rung:
    def draw(method: Any, stream: str, label: str) -> torch.Tensor:
        return draw_groups(
            block,
            method,
            steps,
            block.groups,
            plan.seed,
            stream,
            lambda count: advance(count, f"{block.title}, {steps} steps: {label}"),
        )

    base = _baseline(plan, block, steps, draw)
    methods = {
        candidate.label: _measure_candidate(candidate, base, steps, draw)
        for candidate in block.candidates
    }
    rung = Rung(steps, base.rows(), methods)
    write_text(_part(plan, block, steps, path), _as_json(rung))
    return rung


def _baseline(plan: AuditPlan, block: Block, steps: int, draw: Draw) -> Baseline:
    """Draw iid and the truth, twice each.

    Raises:
        ModelError: the samples of iid are not finite.

    """
    plain = [draw(Iid(), stream, "iid") for stream in STREAMS]
    if not all(map(_finite, plain)):
        raise ModelError(
            f"The samples of iid on {block.title} are not finite at {steps} steps. "
            "Use another scheduler or more steps."
        )
    truth = [draw_truth(block, block.groups, plan.seed, stream) for stream in STREAMS]
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


def _as_json(rung: Rung) -> str:
    methods = {
        label: {**asdict(measured), "gain": measured.gain.tolist()}
        for label, measured in rung.methods.items()
    }
    return json.dumps({"iid": [asdict(row) for row in rung.iid], "methods": methods})
