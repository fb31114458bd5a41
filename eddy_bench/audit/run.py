"""Run an audit: draw and measure what is missing, read back what was measured before."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from eddy_bench.audit.candidates import Candidate
from eddy_bench.audit.draw import draw_groups, draw_truth
from eddy_bench.audit.estimates import Estimate
from eddy_bench.audit.groups import Groups
from eddy_bench.audit.measure import Baseline, Measured, Row
from eddy_bench.audit.parts import Parts
from eddy_bench.audit.plan import BASELINE, AuditPlan, Block
from eddy_bench.audit.timing import UNTIMED, Costs
from eddy_bench.audit.verdict import Verdict, judge_block
from eddy_bench.errors import EddyError, ModelError, StoreError, brief
from eddy_bench.methods.iid import Iid
from eddy_bench.storage.files import write_text
from eddy_bench.storage.provenance import command, environment

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
