"""Draw the groups of a plan that are missing, and those of its reference set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

from eddy_bench.errors import EddyError, ModelError, brief, counted
from eddy_bench.methods.iid import Iid
from eddy_bench.models.devices import out_of_memory
from eddy_bench.models.prompts import MOST_BYTES, cut_text
from eddy_bench.runs.batches import (
    Executor,
    GroupResult,
    InProcess,
    draw_batch,
    planned_batches,
)
from eddy_bench.runs.plan import Plan
from eddy_bench.runs.setup import Setup
from eddy_bench.runs.writer import GroupWriter
from eddy_bench.sampling.solver_view import view_of
from eddy_bench.storage.records import Group
from eddy_bench.storage.run_folder import RunFolder

ALONE = "drawn alone, each in the time of a whole batch, as their batch failed: {}"
UNKEPT = f"of prompts made anew, as no more than {MOST_BYTES / 2**30:g} GiB of them are kept"


@dataclass
class DrawSummary:
    """Hold what drawing did.

    drawn: groups. kept: groups that were there.
    failures: groups that could not be drawn, and why.
    warnings: for the user.
    fallbacks: how often something slower was done: by a noun for what, and what was done.
    """

    drawn: int = 0
    kept: int = 0
    failures: list[tuple[Group, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    fallbacks: Counter[tuple[str, str]] = field(default_factory=Counter)

    @property
    def fallback_notes(self) -> list[str]:
        """What was fallen back to, each once with its count."""
        return [f"{counted(count, noun)} {what}" for (noun, what), count in self.fallbacks.items()]

    def note(self, result: GroupResult) -> None:
        """Count what a group's drawing fell back to; notes of workers that are alike stand once."""
        if result.apart:
            self.fallbacks["group", ALONE.format(result.apart)] += 1
        self.note_unkept(result.unkept)
        self.warnings += [note for note in result.notes if note not in self.warnings]

    def note_unkept(self, count: int) -> None:
        """Count encodings of prompts that are made each time."""
        if count:
            self.fallbacks["encoding", UNKEPT] += count

    def add(self, other: DrawSummary) -> None:
        """Add failures and warnings of groups that are drawn beside, each warning once."""
        self.failures += other.failures
        self.fallbacks += other.fallbacks
        self.warnings = list(dict.fromkeys([*self.warnings, *other.warnings]))


def draw_groups(
    plan: Plan,
    folder: RunFolder,
    groups: Sequence[Group],
    advance: Callable[[int, str], None],
    *,
    executor: Executor | None = None,
    check_ownership: Callable[[], None] = lambda: None,
    warm_up: bool = True,
) -> DrawSummary:
    """Draw groups of a plan, or of its reference set, and write each when its batch is done.

    A failure is recorded, and the rest goes on. Groups are written, in order, while the next
    batch is drawn.

    Args:
        plan: that the groups belong to.
        folder: of the run, or of its reference set.
        groups: that are missing.
        advance: is called with the number of groups done and the method at work.
        executor: what draws; None is this process.
        check_ownership: is called before each write, on the thread that writes; raises when the
            folder is another process's by now.
        warm_up: draw two steps outside the clock first, in this process.

    """
    model, summary = plan.setup.model, DrawSummary()
    for text in dict.fromkeys(group.prompt for group in groups):
        if warning := model.check_prompt(text):
            summary.warnings.append(f"prompt {text[:60]!r}: {warning}")
    if groups and (line := cut_text(plan.cut_prompts, len(plan.prompts.prompts))):
        summary.warnings.append(line)
    folder.clear_partial()
    if groups and warm_up and executor is None:
        _warm_up(plan.setup, groups[0])
    running = executor or InProcess(
        lambda batch: draw_batch(plan.setup, plan.method_of(batch.groups[0]), batch)
    )
    batches = planned_batches(plan, groups)

    def write(result: GroupResult, images: list[bytes] | None) -> None:
        check_ownership()
        _record(result, images, folder, summary, plan.method_of(result.group).judge)
        advance(1, result.group.name)

    with GroupWriter(write) as writer:
        for result in running.run(batches, summary.warnings):
            summary.note(result)
            writer.put(result)
    folder.index.flush()
    summary.note_unkept(model.take_unkept())
    summary.warnings += model.take_notes()
    return summary


def _record(
    result: GroupResult,
    images: list[bytes] | None,
    folder: RunFolder,
    summary: DrawSummary,
    judge: str,
) -> None:
    """Write a group, or why there is none."""
    if images is None:
        folder.write_failure(result.group, result.reason)
        summary.failures.append((result.group, result.reason))
    else:
        details = {"bad": dict(result.bad), "judge": judge, "rows": result.rows}
        folder.write_group(result.group, images, asdict(result.cost), details)
        summary.drawn += 1


def _warm_up(setup: Setup, group: Group) -> None:
    """Draw two steps outside the clock: first calls allocate and choose kernels."""
    suite, size = setup.suite, setup.prompts_together
    steps = max(min(2, setup.steps), view_of(setup.model.pipe.scheduler).fewest_steps)
    arguments = {**setup.call_arguments(size), "num_inference_steps": steps}
    try:
        setup.model.draw([group.prompt] * size, [0] * size, suite.particles, Iid(), arguments)
    except EddyError:
        raise
    except Exception as error:
        if suite.batch_prompts == "auto" and out_of_memory(error):
            return  # drawing finds the size that fits
        hint = ""
        if suite.scheduler.name != "default":
            hint = (
                f" Its pipeline may not take scheduler {suite.scheduler.name!r}: "
                "leave --scheduler out."
            )
        raise ModelError(
            f"{suite.model} cannot draw with these settings: "
            f"{type(error).__name__}: {brief(error)}{hint}"
        ) from None
