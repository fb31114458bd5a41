"""What is drawn at once, and by whom: batches, their results, and the executor of this process."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Protocol, Self, TypeVar

from PIL import Image

from eddy_bench.errors import reason_of
from eddy_bench.experiment.plan import REFERENCE, Plan
from eddy_bench.experiment.setup import Setup
from eddy_bench.methods.base import Method
from eddy_bench.models.base import Cost
from eddy_bench.models.devices import out_of_memory, release_memory
from eddy_bench.models.images import fault
from eddy_bench.storage.records import NOT_FINITE, Fault, Group

NONE_FINITE = (
    "None of its images is finite. Use --dtype float32 or bfloat16, or another --scheduler."
)


@dataclass(frozen=True)
class Batch:
    """Hold groups of one method that share forward passes of `size` prompts.

    Fewer groups are padded, so that the arithmetic stays the same.
    """

    groups: tuple[Group, ...]
    size: int

    def split(self) -> list[Batch]:
        """Return the same groups with half as many prompts at once; no group is split."""
        size = max(1, self.size // 2)
        return [Batch(self.groups[k : k + size], size) for k in range(0, len(self.groups), size)]


@dataclass(frozen=True)
class GroupResult:
    """Hold what drawing a group gave.

    images: as the pipeline returned them, or as PNG; None where it failed.
    rows: of the forward passes.
    reason: why it failed.
    apart: why its batch failed, where it was drawn alone then; empty where it was not.
    notes: of the worker that drew it, for the user. unkept: encodings that it did not keep.
    bad: images that are none, by their place, and why. tiled: they were decoded in tiles.
    """

    group: Group
    images: tuple[Image.Image | bytes, ...] | None
    cost: Cost
    rows: int
    reason: str = ""
    apart: str = ""
    notes: tuple[str, ...] = ()
    unkept: int = 0
    bad: Mapping[int, Fault] = field(default_factory=dict)
    tiled: bool = False


class OutOfMemory(Exception):
    """A batch did not fit and is tried again: fewer prompts at once, or images decoded singly."""


class Executor(Protocol):
    """Draw batches. title: for the progress bar."""

    @property
    def title(self) -> str:
        """Who draws."""

    def run(self, batches: Sequence[Batch], notes: list[str]) -> Iterator[GroupResult]:
        """Yield results as they come, in any order; what users should know goes to `notes`."""


class Splitting(Protocol):
    """Work of any kind that is drawn at once, and can be halved where memory runs out."""

    @property
    def size(self) -> int:
        """How much there is; 1 is never split."""

    def split(self) -> Sequence[Self]:
        """Return the same work in halves."""


Work = TypeVar("Work", bound=Splitting)
Result = TypeVar("Result")


@dataclass(frozen=True)
class InProcess(Generic[Work, Result]):
    """Draw batches in this process, one after another."""

    draw: Callable[[Work], Sequence[Result]]
    title = "this process"

    def run(self, batches: Sequence[Work], notes: list[str]) -> Iterator[Result]:
        """Yield results in order; once memory ran out, all that follows is drawn in less."""
        left, size = deque(batches), max((batch.size for batch in batches), default=1)
        shrunk = False
        while left:
            batch = left.popleft()
            if batch.size > size:
                left.extendleft(reversed(batch.split()))
                continue
            try:
                yield from self.draw(batch)
            except OutOfMemory:
                size, shrunk = max(1, batch.size // 2), True
                left.appendleft(batch)
        if shrunk:
            notes.append(memory_note(size))


def batches_of(groups: Sequence[Group], size: int) -> list[Batch]:
    """Return batches of one method each, of at most `size` groups.

    Prompts with a negative prompt of their own share none with others: some pipelines encode an
    empty negative prompt otherwise than a missing one.
    """
    batches = []
    for _, run in itertools.groupby(groups, key=lambda group: group.label):
        whole = tuple(run)
        for own in (False, True):
            same = tuple(group for group in whole if bool(group.negative) == own)
            batches += [Batch(same[k : k + size], size) for k in range(0, len(same), size)]
    return batches


def planned_batches(plan: Plan, groups: Sequence[Group]) -> list[Batch]:
    """Return the batches of groups of a plan, or of its reference set, in the order of drawing.

    Methods take turns, batch by batch, so that a machine that slows down slows all of them: their
    seconds are of the same minutes. A method that sees earlier seeds comes last.
    """
    methods = method_batches(plan, groups)
    remembering = [
        bool(batches) and plan.method_of(batches[0].groups[0]).remembers for batches in methods
    ]
    turns = [own for own, last in zip(methods, remembering, strict=True) if not last]
    rounds = itertools.zip_longest(*turns)
    taken = [batch for batches in rounds for batch in batches if batch is not None]
    last = [own for own, remembers in zip(methods, remembering, strict=True) if remembers]
    return taken + [batch for batches in last for batch in batches]


def method_batches(plan: Plan, groups: Sequence[Group]) -> list[list[Batch]]:
    """Return the batches of each method.

    Groups of a method that sees earlier seeds come seed after seed, a few prompts at a time, each
    batch with one seed: what a batch needs was drawn by those before it.
    """
    if not groups:
        return []
    size = plan.groups_together(groups[0])
    methods = []
    for _, run in itertools.groupby(groups, key=lambda group: group.label):
        same = list(run)
        parts = _by_seed(same, size) if plan.method_of(same[0]).remembers else [same]
        methods.append([batch for part in parts for batch in batches_of(part, size)])
    return methods


def _by_seed(groups: Sequence[Group], size: int) -> list[list[Group]]:
    """Return groups of at most `size` prompts and one seed each, seed after seed."""
    place = {prompt: k for k, prompt in enumerate(dict.fromkeys(g.prompt_id for g in groups))}
    parts: dict[tuple[int, int], list[Group]] = {}
    for group in groups:
        parts.setdefault((place[group.prompt_id] // size, group.seed), []).append(group)
    return [parts[key] for key in sorted(parts)]


def memory_note(size: int) -> str:
    """Return the note on batches that got smaller."""
    return f"memory: {size} prompt{'s share' if size > 1 else ' has'} a forward pass"


def draw_batch(setup: Setup, method: Method, batch: Batch) -> list[GroupResult]:
    """Draw a batch; where that fails, each of its groups is tried alone at the same size.

    Raises:
        OutOfMemory: memory ran out, and the suite lets the model take less.
    """
    try:
        groups, cost = _draw(setup, method, batch)
    except (Exception, SystemExit) as error:
        # a method or a model may raise anything; the rest of the run goes on
        if out_of_memory(error):
            release_memory()
            if setup.suite.batch_prompts == "auto" and setup.model.take_less(batch.size):
                raise OutOfMemory from None
        elif len(batch.groups) > 1:
            return _draw_apart(setup, method, batch, _reason(error, batch.size, method))
        reason = _reason(error, batch.size, method)
        return [GroupResult(group, None, Cost(), 0, reason) for group in batch.groups]
    rows = batch.size * batch.groups[0].particles
    return [
        replace(_result(group, images, cost, rows), tiled=setup.model.tiled)
        for group, images in zip(batch.groups, groups, strict=False)
    ]


def _result(group: Group, images: Sequence[Any], cost: Cost, rows: int) -> GroupResult:
    """Return a group that was drawn, or its failure where none of its images is finite."""
    found = {place: fault(image) for place, image in enumerate(images)}
    bad = {place: reason for place, reason in found.items() if reason is not None}
    if list(bad.values()).count(NOT_FINITE) == len(images):
        return GroupResult(group, None, Cost(), 0, NONE_FINITE)
    return GroupResult(group, tuple(images), cost, rows, bad=bad)


def _draw_apart(setup: Setup, method: Method, batch: Batch, why: str) -> list[GroupResult]:
    """Draw the groups of a batch that failed, each alone in the time of the whole."""
    alone = (replace(batch, groups=(group,)) for group in batch.groups)
    results = [result for part in alone for result in draw_batch(setup, method, part)]
    return [replace(result, apart=why) for result in results]


def _draw(setup: Setup, method: Method, batch: Batch) -> tuple[list[list[Any]], Cost]:
    """Draw one forward batch, padded with its last group."""
    padded = [*batch.groups, *[batch.groups[-1]] * (batch.size - len(batch.groups))]
    seeds = [-1 - group.seed if group.label == REFERENCE else group.seed for group in padded]
    prompts, negatives = zip(*((group.prompt, group.negative) for group in padded), strict=True)
    return setup.draw(prompts, seeds, padded[0].particles, method, negatives)


def _reason(error: BaseException, size: int, method: Method) -> str:
    """Return on one line why a group could not be drawn."""
    reason = reason_of(error)
    if not out_of_memory(error):
        return reason
    if size > 1:
        return f"{reason} Take fewer prompts at once: --batch-prompts auto."
    fewer = (
        f"fewer --particles or a lower {method.sweep}" if method.selects else "fewer --particles"
    )
    return f"{reason} Not even one prompt fits: take a smaller --size, {fewer}."
