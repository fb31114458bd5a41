"""Expand an audit into tasks, methods, schedulers, step counts and groups."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from eddy_bench import __version__
from eddy_bench.errors import EddyError, ModelError, ParameterError, SchedulerError
from eddy_bench.ids import MethodId
from eddy_bench.methods.base import Method, check_demands
from eddy_bench.methods.registry import (
    METHODS,
    build_method,
    load_method,
    method_name,
    parameter_text,
    source_digest,
)
from eddy_bench.models.exact import TIMESTEPS, ExactDenoiser, ExactPipeline, exact_scheduler
from eddy_bench.models.tasks import DEFAULT_TASKS, Task, load_task
from eddy_bench.sampling.schedulers import set_scheduler
from eddy_bench.sampling.solver_view import check_stochastic
from eddy_bench.sampling.step_taps import check_restarts
from eddy_bench.suites.method_spec import MethodSpec
from eddy_bench.suites.plugins import Permission

SCHEDULERS = ("ddim", "ddim:eta=1")
STEP_COUNTS = (25, 50, 100, 200, 400)
QUICK_TASKS = ("ring8",)
QUICK_STEP_COUNTS = (25, 50, 200)
QUICK_GROUPS = 1000
GAIN_MARGIN = 0.1  # modes; of the Vendi score where modes are not counted
BASELINE = "iid"  # always drawn
MAX_PARTICLES = 256
MAX_GROUPS = 1_000_000
NO_CONDITION = (
    "it changes conditions or guidance, and this task has none. Use --task class-ring or class-64d."
)
NO_NETWORK = "it acts inside a network, and exact tasks have none. Measure it with `run`."


@dataclass(frozen=True)
class Candidate:
    """A method of an audit."""

    id: MethodId
    method: Method
    source: str = ""  # digest of a plug-in's file; empty for registered methods

    @property
    def label(self) -> str:
        """The text of the id."""
        return str(self.id)

    def identity(self, task: Task) -> tuple[Any, ...]:
        """Return what a method is on a task, regardless of its label."""
        resolved = self.method.resolved(task.network is not None)
        return self.id.name, resolved.parameters(), self.source


@dataclass(frozen=True)
class Block:
    """A task under one scheduler, with the methods that share its iid baseline."""

    task: Task
    scheduler: MethodSpec
    particles: int
    groups: int
    candidates: tuple[Candidate, ...]

    @property
    def title(self) -> str:
        """Task, particles and scheduler."""
        return f"{self.task.name}, N = {self.particles}, {self.scheduler}"


@dataclass(frozen=True)
class AuditPlan:
    """An audit."""

    blocks: tuple[Block, ...]  # by task and scheduler
    step_counts: tuple[int, ...]  # ascending
    seed: int  # of the noise
    margin: float  # a gain below it counts as none
    left_out: tuple[str, ...]  # notes on methods that are not defined in some of the blocks

    def key(self, block: Block, steps: int, candidate: Candidate | None = None) -> str:
        """Return a hash of everything that determines a method's measurements at a step count.

        Without a method it is that of the block's iid groups. The other methods of the audit do
        not enter it.
        """
        parts = [
            __version__,
            block.task.name,
            block.task.digest,
            str(block.scheduler),
            block.particles,
            [BASELINE] if candidate is None else list(candidate.identity(block.task)),
            steps,
            block.groups,
            self.seed,
        ]
        return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:16]


def parse_step_counts(text: str) -> tuple[int, ...]:
    """Read step counts from `25,50,100`, ascending.

    >>> parse_step_counts("100, 25")
    (25, 100)
    """
    try:
        counts = sorted(int(part) for part in text.split(","))
    except ValueError:
        raise ParameterError(
            "Expected --steps as whole numbers with commas between them, such as 25,50,100, "
            f"got {text!r}."
        ) from None
    if counts[0] < 1 or counts[-1] > TIMESTEPS or len(set(counts)) < len(counts):
        raise ParameterError(f"Expected different --steps from 1 to {TIMESTEPS}, got {text!r}.")
    return tuple(counts)


def make_plan(
    tasks: Sequence[str] = (),
    methods: Sequence[str] = (),
    schedulers: Sequence[str] = (),
    *,
    particles: int | None = None,
    groups: int | None = None,
    steps: str | None = None,
    seed: int = 0,
    margin: float = GAIN_MARGIN,
    quick: bool = False,
    permission: Permission | None = None,
) -> AuditPlan:
    """Plan every block of an audit; empty arguments take the defaults.

    Args:
        tasks, methods, schedulers: as on the command line; iid may be among the methods.
        particles, groups: of every task; None is each task's own.
        steps: with commas between them.
        seed, margin: as in `AuditPlan`.
        quick: one task, three step counts, fewer groups.
        permission: to run the Python files that `methods` name.

    Raises:
        EddyError: a name or number that cannot be used, or a requested method that is defined in
            no block.
    """
    _check_numbers(particles, groups, margin)
    loaded = [load_task(name) for name in (tasks or (QUICK_TASKS if quick else DEFAULT_TASKS))]
    asked = [MethodSpec.parse(text) for text in (methods or _default_methods(loaded))]
    candidates = [_candidate(spec, permission) for spec in asked if spec.name != BASELINE]
    specs = [MethodSpec.parse(text) for text in (schedulers or SCHEDULERS)]
    for kind, names in {
        "method": [candidate.label for candidate in candidates],
        "task": [task.name for task in loaded],
        "scheduler": [str(spec) for spec in specs],
    }.items():
        if twice := [name for name in names if names.count(name) > 1]:
            raise ParameterError(f"The {kind} {twice[0]!r} is given twice. Drop one.")
    default = QUICK_STEP_COUNTS if quick else STEP_COUNTS
    step_counts = default if steps is None else parse_step_counts(steps)
    blocks, left_out = [], list[tuple[str, str, EddyError]]()
    for task in loaded:
        _check_twins(candidates, task)
        count = groups or (QUICK_GROUPS if quick else task.groups)
        for spec in specs:
            unfit = {
                c.label: reason for c in candidates if (reason := _unfit(c.method, task, spec))
            }
            left_out += [(label, *reason) for label, reason in unfit.items()]
            fitting = tuple(each for each in candidates if each.label not in unfit)
            if fitting or not candidates:  # iid alone is audited too
                blocks.append(Block(task, spec, particles or task.particles, count, fitting))
    times, everywhere = Counter(label for label, *_ in left_out), len(loaded) * len(specs)
    nowhere = [reason for label, _, reason in left_out if times[label] == everywhere]
    if methods and nowhere:
        raise nowhere[0]
    for block in blocks:
        for each in block.candidates:
            check_demands(each.method, each.label, block.particles, min(step_counts))
    notes = dict.fromkeys(
        f"{label} is left out {where}: {reason}"
        for label, where, reason in left_out
        if times[label] < everywhere
    )
    return AuditPlan(tuple(blocks), step_counts, seed, margin, tuple(notes))


def open_pipeline(task: Task, scheduler: MethodSpec) -> tuple[ExactPipeline, dict[str, Any]]:
    """Return a task behind a scheduler, and arguments of the pipeline's call."""
    pipe = ExactPipeline(ExactDenoiser(task.mixture, task.classes), exact_scheduler())
    call = set_scheduler(pipe, scheduler.name, scheduler.parameters)
    if task.classes is not None:
        call = {**call, "prompt": task.prompt, "guidance_scale": task.guidance_scale}
    return pipe, call


def _unfit(method: Method, task: Task, spec: MethodSpec) -> tuple[str, EddyError] | None:
    """Return where and why a method is not defined; None where it is."""
    if method.edits_features:
        return f"on {task.name}", ModelError(NO_NETWORK)
    if (method.conditions or method.reguides) and task.classes is None:
        return f"on {task.name}", ModelError(NO_CONDITION)
    pipe, call = open_pipeline(task, spec)
    try:
        if method.couples_steps:
            check_stochastic(pipe.scheduler, float(call.get("eta", 0.0)))
        check_restarts(pipe.scheduler, method)
    except SchedulerError as error:
        return f"under {spec}", error
    return None


def _check_numbers(particles: int | None, groups: int | None, margin: float) -> None:
    if groups is not None and not 2 <= groups <= MAX_GROUPS:
        raise ParameterError(f"Expected --groups from 2 to {MAX_GROUPS}, got {groups}.")
    if particles is not None and not 1 <= particles <= MAX_PARTICLES:
        raise ParameterError(f"Expected --particles from 1 to {MAX_PARTICLES}, got {particles}.")
    if not 0 < margin < float("inf"):
        raise ParameterError(f"Expected a positive --margin, got {margin}.")


def _default_methods(tasks: Sequence[Task]) -> list[str]:
    """Return every registered method that couples particles; with a condition, the others too.

    A method that acts on each particle alone has another law: what an audit can say of it is how
    close it comes to the truth. Selection needs an M, so it is drawn on request.
    """
    guided = any(task.classes is not None for task in tasks)
    methods = {name: load_method(name) for name in METHODS}
    return [
        name
        for name, method in methods.items()
        if method.audited and not method.selects and (method.interacts or guided)
    ]


def _candidate(spec: MethodSpec, permission: Permission | None) -> Candidate:
    method = build_method(spec, permission)
    if method.selects and method.equal_cost_to() is not None:
        raise ParameterError(
            f"{spec.name} has no seconds to match in an audit. "
            f"Give it: {spec.name}:{method.sweep}=16."
        )
    if method.judge:
        raise ParameterError(
            f"{spec} judges images by their prompt, and an audit draws points. "
            "Leave out its quality."
        )
    if method.remembers:
        raise ParameterError(
            f"{spec} sees the earlier seeds of a prompt, and an audit has one group of each. "
            "Leave out what it remembers."
        )
    return Candidate(
        MethodId(method_name(spec), parameter_text(method)), method, source_digest(spec)
    )


def _check_twins(candidates: Sequence[Candidate], task: Task) -> None:
    """Raise ParameterError for two spellings of a method, or a kernel that a task does not have."""
    known: dict[str, str] = {}
    for candidate in candidates:
        label = known.setdefault(repr(candidate.identity(task)), candidate.label)
        if label != candidate.label:
            raise ParameterError(
                f"The methods {label!r} and {candidate.label!r} are the same. Drop one."
            )
