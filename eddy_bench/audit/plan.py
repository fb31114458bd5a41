"""Expand an audit into tasks, methods, schedulers, step counts and groups."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from eddy_bench import __version__
from eddy_bench.errors import EddyError, ModelError, ParameterError, SchedulerError
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
from eddy_bench.storage.records import method_text
from eddy_bench.suites.method_spec import MethodSpec
from eddy_bench.suites.plugins import Permission

NO_CONDITION = (
    "it changes conditions or guidance, and this task has none. Use --task class-ring or class-64d."
)

NO_NETWORK = "it acts inside a network, and exact tasks have none. Measure it with `run`."


@dataclass(frozen=True)
class Candidate:
    """Hold a method of an audit.

    label: as on the command line.
    source: digest of a plug-in's file; empty for registered methods.
    """

    label: str
    name: str
    parameters: str
    method: Method
    source: str = ""

    @property
    def needs_condition(self) -> bool:
        """Whether it changes conditions or guidance."""
        return self.method.conditions or self.method.reguides

    def identity(self, task: Task) -> tuple[Any, ...]:
        """Return what a method is on a task, whatever its label."""
        resolved = self.method.resolved(task.network is not None)
        return self.name, resolved.parameters(), self.source


@dataclass(frozen=True)
class LeftOut:
    """Hold why a method is not drawn on a task under a scheduler.

    where: what of the two it is that the method does not fit.
    """

    label: str
    task: str
    scheduler: str
    where: str
    reason: EddyError

    def __str__(self) -> str:
        return f"{self.label} is left out {self.where}: {self.reason}"


def open_pipeline(task: Task, scheduler: MethodSpec) -> tuple[ExactPipeline, dict[str, Any]]:
    """Return a task behind a scheduler, and arguments of the pipeline's call."""
    pipe = ExactPipeline(ExactDenoiser(task.mixture, task.classes), exact_scheduler())
    call = set_scheduler(pipe, scheduler.name, scheduler.parameters)
    if task.classes is not None:
        call = {**call, "prompt": task.prompt, "guidance_scale": task.guidance_scale}
    return pipe, call


def find_left_out(
    candidates: Sequence[Candidate], tasks: Sequence[Task], specs: Sequence[MethodSpec]
) -> list[LeftOut]:
    """Return the methods that are not defined on a task or under a scheduler, and why."""
    left_out = []
    for task in tasks:
        for spec in specs:
            pipe, call = open_pipeline(task, spec)
            for candidate in candidates:
                where = f"under {spec}"
                reason: EddyError | None = None
                if candidate.method.couples_steps:
                    reason = _stochastic_reason(pipe.scheduler, float(call.get("eta", 0.0)))
                if candidate.needs_condition and task.classes is None:
                    where, reason = f"on {task.name}", ModelError(NO_CONDITION)
                reason = reason or _restart_reason(pipe.scheduler, candidate.method)
                if candidate.method.edits_features:
                    where, reason = f"on {task.name}", ModelError(NO_NETWORK)
                if reason is not None:
                    left_out.append(LeftOut(candidate.label, task.name, str(spec), where, reason))
    return left_out


def _stochastic_reason(scheduler: Any, eta: float) -> SchedulerError | None:
    try:
        check_stochastic(scheduler, eta)
    except SchedulerError as error:
        return error
    return None


def _restart_reason(scheduler: Any, method: Method) -> SchedulerError | None:
    try:
        check_restarts(scheduler, method)
    except SchedulerError as error:
        return error
    return None


def noted(left_out: Sequence[LeftOut], blocks: int) -> tuple[LeftOut, ...]:
    """Return what there is to say: each reason once, of methods that are drawn elsewhere."""
    labels = [item.label for item in left_out]
    noted = {
        (item.label, item.where): item for item in left_out if labels.count(item.label) < blocks
    }
    return tuple(noted.values())


def check_drawn(candidates: Sequence[Candidate], left_out: Sequence[LeftOut], blocks: int) -> None:
    """Raise the reason of a method that is drawn nowhere."""
    for candidate in candidates:
        reasons = [item.reason for item in left_out if item.label == candidate.label]
        if len(reasons) == blocks:
            raise reasons[0]


SCHEDULERS = ("ddim", "ddim:eta=1")
LADDER = (25, 50, 100, 200, 400)
QUICK_TASKS = ("ring8",)
QUICK_LADDER = (25, 50, 200)
QUICK_GROUPS = 1000
GAIN_MARGIN = 0.1  # modes; of the Vendi score where modes are not counted
BASELINE = "iid"  # always drawn, whether it is asked for or not
MAX_PARTICLES = 256
MAX_GROUPS = 1_000_000
MEASURES = 2  # changes with what is measured, so that older measurements are not taken


@dataclass(frozen=True)
class Block:
    """Hold what shares one iid baseline: a task under one scheduler, with its methods."""

    task: Task
    scheduler: MethodSpec
    particles: int
    groups: int
    candidates: tuple[Candidate, ...]

    @property
    def title(self) -> str:
        """Task, particles and scheduler."""
        return f"{self.task.name}, N = {self.particles}, {self.scheduler}"

    def pipeline(self) -> tuple[ExactPipeline, dict[str, Any]]:
        """Return the task behind the scheduler, and arguments of the pipeline's call."""
        return open_pipeline(self.task, self.scheduler)


@dataclass(frozen=True)
class AuditPlan:
    """Hold an audit.

    blocks: by task and scheduler.
    ladder: step counts, ascending.
    seed: of the noise.
    margin: a gain below it counts as none.
    left_out: methods that are not defined somewhere.
    """

    blocks: tuple[Block, ...]
    ladder: tuple[int, ...]
    seed: int
    margin: float
    left_out: tuple[LeftOut, ...]

    def key(self, block: Block, steps: int, candidate: Candidate | None = None) -> str:
        """Return a hash of everything that determines a method's measurements at a step count.

        Without a method it is that of the block's iid groups. Which other methods are audited
        beside it does not matter.
        """
        method = [BASELINE] if candidate is None else list(candidate.identity(block.task))
        parts = [
            __version__,
            MEASURES,
            block.task.name,
            block.task.digest,
            str(block.scheduler),
            block.particles,
            method,
            steps,
            block.groups,
            self.seed,
        ]
        return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:16]


def parse_ladder(text: str) -> tuple[int, ...]:
    """Read step counts from `25,50,100`, ascending.

    >>> parse_ladder("100, 25")
    (25, 100)

    Raises:
        ParameterError: not whole numbers, out of range, or twice the same.

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
    """Plan every block of an audit; what is left out has the default.

    Args:
        tasks, methods, schedulers: as on the command line; iid may be among the methods.
        particles, groups: of every task, or each task's own.
        steps: the ladder.
        seed: of the noise.
        margin: a gain smaller than this counts as none.
        quick: one task, three step counts, fewer groups.
        permission: to run the Python files that `methods` name.

    Raises:
        EddyError: a name or number that cannot be used, or a method that is defined under none
            of the schedulers.

    """
    _check_numbers(particles, groups, margin)
    loaded = [load_task(name) for name in (tasks or (QUICK_TASKS if quick else DEFAULT_TASKS))]
    candidates = _candidates(methods or _default_methods(loaded), permission)
    _check_distinct("task", [task.name for task in loaded])
    specs = [MethodSpec.parse(text) for text in (schedulers or SCHEDULERS)]
    _check_distinct("scheduler", [str(spec) for spec in specs])
    for task in loaded:
        _check_twins(candidates, task)
    left_out = find_left_out(candidates, loaded, specs)
    if methods:  # what a user asks for is drawn somewhere
        check_drawn(candidates, left_out, len(loaded) * len(specs))
    skipped = {(item.label, item.task, item.scheduler) for item in left_out}
    count = groups or (QUICK_GROUPS if quick else None)
    ladder = parse_ladder(steps) if steps is not None else QUICK_LADDER if quick else LADDER
    blocks = []
    for task in loaded:
        for spec in specs:
            fitting = [
                candidate
                for candidate in candidates
                if (candidate.label, task.name, str(spec)) not in skipped
            ]
            size = particles or task.particles
            if fitting or not candidates:  # iid alone is audited too
                for candidate in fitting:
                    check_demands(candidate.method, candidate.label, size, min(ladder))
                blocks.append(Block(task, spec, size, count or task.groups, tuple(fitting)))
    ladder = parse_ladder(steps) if steps is not None else QUICK_LADDER if quick else LADDER
    notes = noted(left_out, len(loaded) * len(specs))
    return AuditPlan(tuple(blocks), ladder, seed, margin, notes)


def _check_numbers(particles: int | None, groups: int | None, margin: float) -> None:
    """Raise ParameterError for numbers out of range."""
    if groups is not None and not 2 <= groups <= MAX_GROUPS:
        raise ParameterError(f"Expected --groups from 2 to {MAX_GROUPS}, got {groups}.")
    if particles is not None and not 1 <= particles <= MAX_PARTICLES:
        raise ParameterError(f"Expected --particles from 1 to {MAX_PARTICLES}, got {particles}.")
    if not 0 < margin < float("inf"):
        raise ParameterError(f"Expected a positive --margin, got {margin}.")


def _default_methods(tasks: Sequence[Task]) -> list[str]:
    """Return every registered method that couples particles; with a condition, the others too.

    Objectives of features are left to be asked for. Selection takes an M, and a method that acts
    on each particle alone is another law: what there is to ask of it is how near to the truth it
    comes.
    """
    guided = any(task.classes is not None for task in tasks)
    methods = {name: load_method(name) for name in METHODS}
    return [
        name
        for name, method in methods.items()
        if method.audited and not method.selects and (method.interacts or guided)
    ]


def _candidates(methods: Sequence[str], permission: Permission | None) -> list[Candidate]:
    """Build the methods that are compared with iid."""
    specs = [MethodSpec.parse(text) for text in methods]
    candidates = [_candidate(spec, permission) for spec in specs if spec.name != BASELINE]
    _check_distinct("method", [candidate.label for candidate in candidates])
    return candidates


def _check_twins(candidates: Sequence[Candidate], task: Task) -> None:
    """Raise ParameterError for two spellings of a method, or a kernel that a task does not have."""
    known: dict[str, str] = {}
    for candidate in candidates:
        candidate.method.resolved_kernel(task.network is not None)
        identity = repr(candidate.identity(task))
        if identity in known:
            raise ParameterError(
                f"The methods {known[identity]!r} and {candidate.label!r} are the same. Drop one."
            )
        known[identity] = candidate.label


def _candidate(spec: MethodSpec, permission: Permission | None) -> Candidate:
    method = build_method(spec, permission)
    if method.selects and method.equal_cost_to() is not None:
        raise ParameterError(
            f"{spec.name} has no seconds to match in an audit. "
            f"Give it: {spec.name}:{method.dial}=16."
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
    name, parameters = method_name(spec), parameter_text(method)
    return Candidate(method_text(name, parameters), name, parameters, method, source_digest(spec))


def _check_distinct(kind: str, names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ParameterError(f"The {kind} {name!r} is asked for twice. Drop one.")
