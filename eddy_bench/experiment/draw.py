"""Draw the groups of a plan that are missing, and those of its reference set."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from eddy_bench.errors import EddyError, ModelError, StoreError, brief, counted
from eddy_bench.experiment.batches import (
    Executor,
    GroupResult,
    InProcess,
    draw_batch,
    memory_note,
    planned_batches,
)
from eddy_bench.experiment.events import Advance, Drawn, Listener
from eddy_bench.experiment.plan import Plan
from eddy_bench.experiment.setup import Setup
from eddy_bench.methods.iid import Iid
from eddy_bench.models.devices import out_of_memory, release_memory
from eddy_bench.models.prompts import MOST_BYTES, cut_text
from eddy_bench.sampling.solver_view import view_of
from eddy_bench.storage.group import Entry, FinishedGroup, doubt, entry_of, png_bytes
from eddy_bench.storage.packs import PACK_GROUPS, GroupFiles, Pack
from eddy_bench.storage.paths import is_remote
from eddy_bench.storage.records import Group
from eddy_bench.storage.run_folder import RunFolder

ALONE = "drawn alone, each in the time of a whole batch, as their batch failed: {}"
UNKEPT = f"of prompts made anew, as no more than {MOST_BYTES / 2**30:g} GiB of them are kept"


def draw_groups(
    plan: Plan,
    folder: RunFolder,
    groups: Sequence[Group],
    advance: Advance,
    *,
    executor: Executor | None = None,
    check_ownership: Callable[[], None] = lambda: None,
    warm_up: bool = True,
    pack: bool = False,
) -> Drawn:
    """Draw groups of a plan, or of its reference set, and write each when its batch is done.

    A failure is recorded, and the rest goes on. Groups are written, in order, while the next
    batch is drawn.

    Args:
        plan: that the groups belong to.
        folder: of the run, or of its reference set.
        groups: that are missing.
        advance: takes the number of groups done and the method at work.
        executor: what draws; None is this process.
        check_ownership: is called before each write, on the thread that writes; raises when the
            folder is another process's by now.
        warm_up: draw two steps outside the clock first, in this process.
        pack: put a thousand groups into a pack whenever they are finished.
    """
    model, summary = plan.setup.model, Drawn()
    for text in dict.fromkeys(group.prompt for group in groups):
        if warning := model.check_prompt(text):
            summary.warnings.append(f"prompt {text[:60]!r}: {warning}")
    if groups and (line := cut_text(plan.cut_prompts, len(plan.prompts.prompts))):
        summary.warnings.append(line)
    folder.clear_partial()
    if groups and warm_up and executor is None:
        summary.warnings += _warm_up(plan.setup, groups[0])
    running = executor or InProcess(
        lambda batch: draw_batch(plan.setup, plan.method_of(batch.groups[0]), batch)
    )
    batches = planned_batches(plan, groups)

    def write(result: GroupResult, images: list[bytes] | None) -> None:
        check_ownership()
        if images is None:
            folder.write_failure(result.group, result.reason)
            summary.failures.append((result.group, result.reason))
        else:
            judge = plan.method_of(result.group).judge
            details = {"bad": dict(result.bad), "judge": judge, "rows": result.rows}
            details |= {"tiled": True} if result.tiled else {}
            folder.write_group(result.group, images, asdict(result.cost), details)
            summary.drawn += 1
            if pack and summary.drawn % PACK_GROUPS == 0:
                folder.pack(lambda count, label: None, check_ownership)
        advance(1, result.group.name)

    unkept = 0
    with GroupWriter(write) as writer:
        for result in running.run(batches, summary.warnings):
            if result.apart:
                summary.fallbacks["group", ALONE.format(result.apart)] += 1
            unkept += result.unkept
            summary.warnings += [note for note in result.notes if note not in summary.warnings]
            writer.put(result)
    folder.index.flush()
    if unkept := unkept + model.take_unkept():
        summary.fallbacks["encoding", UNKEPT] += unkept
    summary.warnings += model.take_notes()
    return summary


def _warm_up(setup: Setup, group: Group) -> list[str]:
    """Draw two steps outside the clock: first calls allocate and choose kernels.

    Where memory runs out it begins again with less, and so does drawing; the note is returned.
    """
    size = first = setup.prompts_together
    while not _fits(setup, group, size):
        release_memory()  # after the error, which holds what it left
        if not setup.model.take_less(size):
            return []  # drawing says of every group that not even one prompt fits
        size = setup.prompts_together
    return [memory_note(size)] if size < first else []


def _fits(setup: Setup, group: Group, size: int) -> bool:
    """Draw two steps; returns whether memory sufficed, where the suite lets it be tried."""
    suite = setup.suite
    steps = max(min(2, setup.steps), view_of(setup.model.pipe.scheduler).fewest_steps)
    arguments = {**setup.call_arguments(size), "num_inference_steps": steps}
    try:
        setup.model.draw([group.prompt] * size, [0] * size, suite.particles, Iid(), arguments)
    except EddyError:
        raise
    except Exception as error:
        if suite.batch_prompts == "auto" and out_of_memory(error):
            return False
        scheduler = suite.scheduler.name
        hint = f" Its pipeline may not take scheduler {scheduler!r}: leave --scheduler out."
        raise ModelError(
            f"{suite.model} cannot draw with these settings: "
            f"{type(error).__name__}: {brief(error)}{hint if scheduler != 'default' else ''}"
        ) from None
    return True


def find_missing(
    groups: Sequence[Group], folder: RunFolder, verify: bool = False
) -> tuple[list[Group], list[str]]:
    """Return groups that are not finished, and notes on what was moved aside to redraw it.

    Args:
        groups: that are wanted.
        folder: of the run, or of its reference set.
        verify: read every group and hash its images; otherwise the index and the files' sizes
            are trusted.

    Raises:
        StoreError: a finished group holds another prompt or other parameters under the same name.
    """
    missing, learnt = [], []
    known, files = folder.index.read(), folder.files()
    notes = [f"{text}, its groups are drawn again" for text in folder.set_packs_aside(files)]
    doubted = {
        files.packed[place].pack
        for place, entry in known.items()
        if not entry.key and place in files.packed
    }
    broken: dict[Pack, list[str]] = {}  # groups of packs: a line each would be a thousand
    for group in groups:
        place = group.path.as_posix()
        entry = None if verify else known.get(place)
        if entry and entry.key == group.key and entry.is_whole(files.folders, group.particles):
            continue
        packed = files.in_pack(place)
        if packed and packed.key == group.key and not verify and packed.pack not in doubted:
            continue
        finished, note = _load(group, folder, files, entry, verify)
        if note and packed is not None:
            broken.setdefault(packed.pack, []).append(note)
            learnt.append(doubt(group.path))
        elif note:
            notes.append(note)
        if finished is None:
            missing.append(group)
        elif finished.group.key != group.key:
            raise _other_group(finished, group, folder)
        elif packed is None or entry is not None:  # doubted, and whole
            learnt.append(entry_of(finished, files.size(f"{place}/group.json") or 0))
    folder.index.add(entry for entry in learnt if known.get(entry.path) != entry)
    folder.index.flush()
    for texts in broken.values():
        more = f" ({counted(len(texts), 'broken group')} in that pack)" if len(texts) > 1 else ""
        notes.append(f"{texts[0]}{more}")
    return missing, notes


def _load(
    group: Group, folder: RunFolder, files: GroupFiles, entry: Entry | None, verify: bool
) -> tuple[FinishedGroup | None, str]:
    """Return a finished group, if it is whole; move a broken one aside, and say so."""
    try:
        finished = folder.load(group.path, files)
        if finished is None:
            return None, ""
        if verify or entry is not None or finished.packed or not is_remote(folder.path):
            finished.contents()
        if finished.group.key == group.key and finished.group != group:
            raise StoreError(f"{finished.folder} is broken: group.json was changed.")
    except StoreError as error:
        return None, f"{moved_away(error, folder, group.path, files)}, drawn again"
    return finished, ""


def _other_group(finished: FinishedGroup, group: Group, folder: RunFolder) -> StoreError:
    if finished.group.prompt == group.prompt:
        difference = "other parameters or another version of the method"
    else:
        difference = f"the prompt {finished.group.prompt[:60]!r}"
    cure = f", or remove {folder.samples / group.label}" if finished.packed is None else ""
    return StoreError(f"{finished.folder} was drawn with {difference}. Give another --out{cure}.")


def moved_away(error: StoreError, folder: RunFolder, path: Path, files: GroupFiles) -> str:
    """Move a broken group aside; say what is wrong with it, and where it is.

    One in a pack stays there: the folder that is written anew counts in its stead.
    """
    problem = str(error).removesuffix(" Run again to redraw it.").rstrip(".")
    if files.in_pack(path.as_posix()) is not None:
        return problem
    return f"{problem}; moved to {folder.set_aside(path)}"


def pack_groups(folder: RunFolder, listener: Listener, check_ownership: Callable[[], None]) -> None:
    """Move finished groups from their folders into packs, and tell how many."""
    if not (count := len(folder.folders().names("*/*/*/group.json"))):
        return
    with listener.began(f"Packing {folder.samples.name}", count) as advance:
        done = folder.pack(advance, check_ownership)
    packed = f"{counted(len(done.places), 'group')} of {folder.samples}"
    listener.tell(f"Packed {packed} into {counted(done.packs, 'file')}.", "Detail")
    if done.left:
        left = f"{counted(len(done.left), 'group')} not packed"
        listener.tell(f"{left} ({done.left[0]}); what is whole is read from its folder.", "Note")


WAITING = 16  # groups between drawing and the disk; then drawing waits
Write = Callable[[GroupResult, list[bytes] | None], None]


class GroupWriter:
    """Hand results to `write` in order, on a thread of its own, with their images as PNG.

    What was handed over is written when the block ends, also when it ends by Ctrl-C; a process
    that is killed loses what was waiting, which the next run draws again.

    Args:
        write: takes a result and its images' bytes, None for a group that failed.

    Raises:
        EddyError: what `write` raised, at the next `put` or at the end of the block.
    """

    def __init__(self, write: Write) -> None:
        self.write = write
        self.waiting: queue.Queue[tuple[GroupResult, list[Future[bytes]]] | None]
        self.waiting = queue.Queue(WAITING)
        self.pool = ThreadPoolExecutor(max(1, min(4, os.cpu_count() or 1)), "encode")
        self.thread = threading.Thread(target=self._work, name="write", daemon=True)
        self.error: BaseException | None = None

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def put(self, result: GroupResult) -> None:
        """Hand over a result; waits where the disk is slower than drawing."""
        self._raise()
        images = result.images or ()
        encoded = [self.pool.submit(png_bytes, image) for image in images]
        self.waiting.put((result, encoded))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.waiting.put(None)
        self.thread.join()
        self.pool.shutdown(cancel_futures=True)
        if error is None:
            self._raise()

    def _work(self) -> None:
        while (item := self.waiting.get()) is not None:
            if self.error is not None:
                continue  # what cannot be written is drawn again by the next run
            try:
                self.write(*_contents(*item))
            except BaseException as error:
                self.error = error

    def _raise(self) -> None:
        if self.error is not None:
            raise self.error


def _contents(
    result: GroupResult, encoded: Sequence[Future[bytes]]
) -> tuple[GroupResult, list[bytes] | None]:
    """Wait for the images of a result; one that is no image makes it a failure."""
    if result.images is None:
        return result, None
    try:
        return result, [future.result() for future in encoded]
    except Exception as error:
        reason = f"{type(error).__name__}: {brief(error)}"
        return replace(result, images=None, reason=reason), None
