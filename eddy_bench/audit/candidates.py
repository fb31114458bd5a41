"""Methods of an audit, and where they are not defined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from eddy_bench.errors import EddyError, ModelError, SchedulerError
from eddy_bench.methods.base import Method
from eddy_bench.models.exact import ExactDenoiser, ExactPipeline, exact_scheduler
from eddy_bench.models.tasks import Task
from eddy_bench.sampling.extra_steps import check_restarts
from eddy_bench.sampling.schedulers import set_scheduler
from eddy_bench.sampling.solver_view import check_stochastic
from eddy_bench.suites.method_spec import MethodSpec

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
