"""Which groups of a folder are still to be drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from eddy_bench.errors import StoreError
from eddy_bench.storage.group import Entry, FinishedGroup, entry_of
from eddy_bench.storage.paths import Files, is_remote
from eddy_bench.storage.records import Group
from eddy_bench.storage.run_folder import RunFolder


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
    missing, notes, learnt = [], [], []
    known, files = folder.index.read(), folder.files()
    for group in groups:
        entry = None if verify else known.get(group.path.as_posix())
        if entry is not None and entry.key == group.key and entry.is_whole(files, group.particles):
            continue
        finished, note = _load(group, folder, files, entry, verify)
        notes += [note] if note else []
        if finished is None:
            missing.append(group)
        elif finished.group.key != group.key:
            raise _other_group(finished, group, folder)
        else:
            size = files.size(f"{group.path.as_posix()}/group.json") or 0
            learnt.append(entry_of(finished, size))
    folder.index.add(entry for entry in learnt if known.get(entry.path) != entry)
    folder.index.flush()
    return missing, notes


def _load(
    group: Group, folder: RunFolder, files: Files, entry: Entry | None, verify: bool
) -> tuple[FinishedGroup | None, str]:
    """Return a finished group, if it is whole; move a broken one aside, and say so."""
    try:
        finished = folder.load(group.path, files)
        if finished is None:
            return None, ""
        if verify or entry is not None or not is_remote(folder.path):
            finished.contents()
        if finished.group.key == group.key and finished.group != group:
            raise StoreError(f"{finished.folder} is broken: group.json was changed.")
    except StoreError as error:
        return None, f"{moved_away(error, folder.set_aside(group.path))}, drawn again"
    return finished, ""


def _other_group(finished: FinishedGroup, group: Group, folder: RunFolder) -> StoreError:
    if finished.group.prompt == group.prompt:
        difference = "other parameters or another version of the method"
    else:
        difference = f"the prompt {finished.group.prompt[:60]!r}"
    return StoreError(
        f"{finished.folder} was drawn with {difference}. "
        f"Give another --out, or remove {folder.samples / group.label}."
    )


def moved_away(error: StoreError, target: Path) -> str:
    """Say what is wrong with a group, and where it was moved to."""
    problem = str(error).removesuffix(" Run again to redraw it.").rstrip(".")
    return f"{problem}; moved to {target}"
