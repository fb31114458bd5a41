"""What an audit draws: tasks, methods, schedulers, step counts and groups."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from eddy_bench import __version__
from eddy_bench.errors import ParameterError, SchedulerError
from eddy_bench.methods.base import Method
from eddy_bench.methods.registry import (
    METHODS,
    build_method,
    method_name,
    parameter_text,
    source_digest,
)
from eddy_bench.models.exact import TIMESTEPS, ExactDenoiser, ExactPipeline, exact_scheduler
from eddy_bench.models.tasks import DEFAULT_TASKS, Task, load_task
from eddy_bench.sampling.parameterization import check_stochastic
from eddy_bench.sampling.schedulers import set_scheduler
from eddy_bench.suites.method_spec import MethodSpec

SCHEDULERS = ("ddim", "ddim:eta=1")
LADDER = (25, 50, 100, 200, 400)
QUICK_TASKS = ("ring8",)
QUICK_LADDER = (25, 50, 200)
QUICK_GROUPS = 1000
GAIN_MARGIN = 0.1  # modes; of the Vendi score where modes are not counted
MAX_PARTICLES = 256
MAX_GROUPS = 1_000_000


@dataclass(frozen=True)
class Candidate:
    """A method of an audit. label: as on the command line. source: digest of a plug-in's file."""

    label: str
    name: str
    parameters: str
    method: Method
    source: str = ""


@dataclass(frozen=True)
class Block:
    """What shares one iid baseline: a task under one scheduler, with the methods that are defined there."""

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
        """The task behind the scheduler, and arguments of the pipeline's call."""
        return open_pipeline(self.task, self.scheduler)


@dataclass(frozen=True)
class AuditPlan:
    """An audit: blocks, the ladder of step counts, seed, and the margin of a gain. skipped: methods that are left out somewhere, in words."""

    blocks: tuple[Block, ...]
    ladder: tuple[int, ...]
    seed: int
    margin: float
    skipped: tuple[str, ...]

    def key(self, block: Block, steps: int) -> str:
        """A hash of everything that determines the measurements of a block at one step count."""
        methods = [
            [one.name, one.method.resolved(False).parameters(), one.source]
            for one in block.candidates
        ]
        parts = [
            __version__,
            block.task.name,
            block.task.digest,
            str(block.scheduler),
            block.particles,
            methods,
            steps,
            block.groups,
            self.seed,
        ]
        return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:16]


def open_pipeline(task: Task, scheduler: MethodSpec) -> tuple[ExactPipeline, dict[str, Any]]:
    """A task behind a scheduler, and arguments of the pipeline's call."""
    pipe = ExactPipeline(ExactDenoiser(task.mixture), exact_scheduler())
    return pipe, set_scheduler(pipe, scheduler.name, scheduler.parameters)


def parse_ladder(text: str) -> tuple[int, ...]:
    """Step counts from `25,50,100`, ascending.

    >>> parse_ladder("100, 25")
    (25, 100)

    Raises:
        ParameterError: not whole numbers, out of range, or twice the same.

    """
    try:
        counts = sorted(int(part) for part in text.split(","))
    except ValueError:
        raise ParameterError(
            f"Expected --steps as whole numbers with commas between them, such as 25,50,100, got {text!r}."
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
) -> AuditPlan:
    """Every block of an audit; what is left out has the default.

    Args:
        tasks, methods, schedulers: as on the command line. particles, groups: of every task, or each task's own.
        steps: the ladder. margin: a gain smaller than this counts as none. quick: one task, three step counts, fewer groups.

    Raises:
        EddyError: a name or number that cannot be used, or a method that is defined under none of the schedulers.

    """
    if groups is not None and not 2 <= groups <= MAX_GROUPS:
        raise ParameterError(f"Expected --groups from 2 to {MAX_GROUPS}, got {groups}.")
    if particles is not None and not 1 <= particles <= MAX_PARTICLES:
        raise ParameterError(f"Expected --particles from 1 to {MAX_PARTICLES}, got {particles}.")
    if not 0 < margin < float("inf"):
        raise ParameterError(f"Expected a positive --margin, got {margin}.")
    candidates = [
        _candidate(text)
        for text in (methods or [name for name in METHODS if name not in ("iid", "best-of-m")])
    ]
    _check_distinct("method", [one.label for one in candidates])
    same = [(one.name, one.method.resolved(False).parameters(), one.source) for one in candidates]
    for place, one in enumerate(candidates):
        if same[place] in same[:place]:
            raise ParameterError(
                f"The methods {candidates[same.index(same[place])].label!r} and {one.label!r} are the same. Drop one."
            )
    loaded = [load_task(name) for name in (tasks or (QUICK_TASKS if quick else DEFAULT_TASKS))]
    _check_distinct("task", [task.name for task in loaded])
    named = [MethodSpec.parse(text) for text in (schedulers or SCHEDULERS)]
    _check_distinct("scheduler", [str(spec) for spec in named])
    blocks, skipped, used = [], [], set()
    for scheduler in named:
        fitting, problems = _fitting(candidates, loaded[0], scheduler)
        skipped += [
            f"{label} is left out under {scheduler}: {reason}" for label, reason in problems.items()
        ]
        used |= {one.label for one in fitting}
        if fitting:
            blocks += [
                _block(
                    task, scheduler, particles, groups or (QUICK_GROUPS if quick else None), fitting
                )
                for task in loaded
            ]
    for one in candidates:
        if methods and one.label not in used:
            raise SchedulerError(
                next(
                    note.partition(": ")[2]
                    for note in skipped
                    if note.startswith(f"{one.label} is left out")
                )
            )
        for block in blocks:
            if block.particles < one.method.min_particles:
                raise ParameterError(
                    f"Method {one.label!r} needs at least {one.method.min_particles} particles, got {block.particles}."
                )
    ladder = parse_ladder(steps) if steps is not None else QUICK_LADDER if quick else LADDER
    names = [task.name for task in loaded]
    by_task = sorted(blocks, key=lambda block: names.index(block.task.name))
    return AuditPlan(tuple(by_task), ladder, seed, margin, tuple(skipped))


def _block(
    task: Task,
    scheduler: MethodSpec,
    particles: int | None,
    groups: int | None,
    candidates: Sequence[Candidate],
) -> Block:
    return Block(
        task, scheduler, particles or task.particles, groups or task.groups, tuple(candidates)
    )


def _candidate(text: str) -> Candidate:
    spec = MethodSpec.parse(text)
    method = build_method(spec)
    method.resolved_kernel(False)
    if spec.name == "iid":
        raise ParameterError(
            "iid is what every method is compared with in an audit and cannot be one of them. Drop --method iid."
        )
    if method.selects:
        raise ParameterError(
            f"{spec.name} chooses among finished images by a guide network, which exact tasks do not have. Drop it."
        )
    label = method_name(spec) + (f":{changed}" if (changed := parameter_text(method)) else "")
    return Candidate(label, method_name(spec), parameter_text(method), method, source_digest(spec))


def _fitting(
    candidates: Sequence[Candidate], task: Task, scheduler: MethodSpec
) -> tuple[list[Candidate], dict[str, str]]:
    """The methods that are defined under a scheduler, and why others are not."""
    pipe, call = open_pipeline(task, scheduler)
    fitting, problems = [], {}
    for one in candidates:
        try:
            if one.method.couples_steps:
                check_stochastic(pipe.scheduler, float(call.get("eta", 0.0)))
            fitting.append(one)
        except SchedulerError as error:
            problems[one.label] = str(error)
    return fitting, problems


def _check_distinct(kind: str, names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ParameterError(f"The {kind} {name!r} is asked for twice. Drop one.")
