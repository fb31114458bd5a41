"""What is drawn at once, and by whom: jobs, their outcomes, and the executor of this process."""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch

from eddy_bench.errors import EddyError, brief
from eddy_bench.methods.base import Method
from eddy_bench.models.base import Cost, Model
from eddy_bench.runs.plan import call_arguments
from eddy_bench.storage.group import Group, png_bytes
from eddy_bench.suites.suite import Suite

REFERENCE = "reference"


@dataclass(frozen=True)
class Batch:
    """Groups of one method that share forward passes of `size` prompts; fewer groups are padded, so that the arithmetic stays the same."""

    groups: tuple[Group, ...]
    size: int

    def halves(self) -> list[Batch]:
        """The same groups with half as many prompts at once; no group is split."""
        size = max(1, self.size // 2)
        return [Batch(self.groups[k : k + size], size) for k in range(0, len(self.groups), size)]


@dataclass(frozen=True)
class GroupResult:
    """One group: its images as PNG, or why there are none. rows: of the forward passes."""

    group: Group
    images: tuple[bytes, ...] | None
    cost: Cost
    rows: int
    reason: str = ""


class OutOfMemory(Exception):
    """A job that did not fit and may be tried with fewer prompts at once."""


class Executor(Protocol):
    """Draws jobs. title: for the progress bar."""

    @property
    def title(self) -> str:
        """Who draws."""

    def run(self, jobs: Sequence[Batch], notes: list[str]) -> Iterator[GroupResult]:
        """Outcomes as they come, in any order; what is to be said goes into `notes`."""


@dataclass(frozen=True)
class InProcess:
    """The executor of this process, one job after another."""

    draw: Callable[[Batch], list[GroupResult]]
    title = "this process"

    def run(self, jobs: Sequence[Batch], notes: list[str]) -> Iterator[GroupResult]:
        """Outcomes in order."""
        left, size = deque(jobs), max((job.size for job in jobs), default=1)
        while left:
            job = left.popleft()
            if job.size > size:
                left.extendleft(reversed(job.halves()))
                continue
            try:
                yield from self.draw(job)
            except OutOfMemory:
                size = max(1, job.size // 2)
                notes.append(memory_note(size))
                left.appendleft(job)


def memory_note(size: int) -> str:
    """What is said when batches get smaller."""
    return f"out of memory: {size} prompts share a forward pass from here on"


def draw_batch(suite: Suite, model: Model, method: Method, job: Batch) -> list[GroupResult]:
    """The outcomes of a job; where it fails, each of its groups is tried alone in a batch of the same size.

    Raises:
        OutOfMemory: memory ran out, more than one prompt was at work, and the suite lets batches shrink.

    """
    try:
        images, cost = _draw(suite, model, method, job)
    except (
        Exception,
        SystemExit,
    ) as error:  # a method or a model may raise anything; the rest of the run goes on
        if out_of_memory(error):
            free_memory()
            if job.size > 1 and suite.batch_prompts == "auto":
                raise OutOfMemory from None
        elif len(job.groups) > 1:
            return [
                outcome
                for group in job.groups
                for outcome in draw_batch(suite, model, method, replace(job, groups=(group,)))
            ]
        return [
            GroupResult(group, None, Cost(), 0, _reason(error, job.size)) for group in job.groups
        ]
    rows = job.size * job.groups[0].particles
    return [
        GroupResult(group, tuple(map(png_bytes, found)), cost, rows)
        for group, found in zip(job.groups, images, strict=False)
    ]


def _draw(suite: Suite, model: Model, method: Method, job: Batch) -> tuple[list[list[Any]], Cost]:
    """One forward batch, padded with its last group."""
    padded = [*job.groups, *[job.groups[-1]] * (job.size - len(job.groups))]
    seeds = [
        -1 - group.seed if (group.method, group.label) == ("iid", REFERENCE) else group.seed
        for group in padded
    ]
    return model.draw(
        [group.prompt for group in padded],
        seeds,
        padded[0].particles,
        method,
        call_arguments(suite, model, len(padded)),
    )


def _reason(error: BaseException, size: int) -> str:
    """Why a group could not be drawn, on one line."""
    reason = (
        str(error) if isinstance(error, EddyError) else f"{type(error).__name__}: {brief(error)}"
    )
    if not out_of_memory(error):
        return reason
    return (
        f"{reason} Take fewer prompts at once: --batch-prompts auto."
        if size > 1
        else f"{reason} Not even one prompt fits: take a smaller --size or fewer --particles."
    )


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or on the CPU."""
    said = str(error).lower()
    return (
        isinstance(error, (torch.OutOfMemoryError, MemoryError))
        or "can't allocate memory" in said
        or "out of memory" in said
    )


def free_memory() -> None:
    """Give back what a failed batch held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
