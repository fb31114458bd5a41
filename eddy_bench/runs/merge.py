"""Put the shards of a run, drawn apart, together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from eddy_bench.errors import StoreError, counted
from eddy_bench.runs.plan import REFERENCE
from eddy_bench.storage.group import FinishedGroup, parse_group
from eddy_bench.storage.group_index import Entry
from eddy_bench.storage.lock import locked, unused
from eddy_bench.storage.paths import Files, expanded
from eddy_bench.storage.records import RunRecord
from eddy_bench.storage.run_files import (
    add_planned,
    read_manifest,
    read_planned,
    write_manifest,
    write_run,
)
from eddy_bench.storage.run_folder import RunFolder

Advance = Callable[[int, str], None]


@dataclass(frozen=True)
class Merged:
    """Hold what merging did.

    copied, kept: groups that were copied, and that were there.
    planned, missing: groups that were planned, the reference set among them, and that lack.
    failures: paths of recorded failures, where groups are missing.
    """

    copied: int
    kept: int
    planned: int
    missing: int
    failures: list[str]


def merge(
    target: Path,
    sources: Sequence[Path],
    progress: Callable[[int], Advance] = lambda total: lambda count, label: None,
) -> Merged:
    """Copy the finished groups of run folders into another one, every image checked by its hash.

    Raises:
        StoreError: a source is no run folder, is still drawn into, or holds other settings or
            prompts, or a group is there with other images.

    """
    paths = [path for pattern in sources for path in expanded(pattern)]
    if not paths:
        raise StoreError("Expected run folders to merge, found none.")
    folders = [RunFolder.existing(path) for path in paths]
    if any(path.resolve() == target.resolve() for path in paths):
        raise StoreError(
            f"{target} is among the folders that are to be merged into it. Leave it out."
        )
    runs = [folder.read_run() for folder in folders]
    _check_alike(folders, runs)
    store = RunFolder.prepare(target, runs[0].settings)
    with ExitStack() as stack:
        for path in paths:
            stack.enter_context(unused(path))
        check_ownership = stack.enter_context(locked(target))
        _record(store, folders, runs)
        copied, kept = _copy(store, folders, progress, check_ownership)
        return _merged(store, folders, copied, kept)


def _check_alike(folders: Sequence[RunFolder], runs: Sequence[RunRecord]) -> None:
    """Raise StoreError for folders that are not shards of one run."""
    for folder, run in zip(folders[1:], runs[1:], strict=True):
        difference = [f"another {name}" for name in runs[0].settings.differences(run.settings)]
        if run.prompt_digest != runs[0].prompt_digest:
            difference = ["other prompts"]
        if difference:
            raise StoreError(
                f"{folder.path} was drawn with {difference[0]} than {folders[0].path}. "
                "Merge shares of one run."
            )


def _record(store: RunFolder, folders: Sequence[RunFolder], runs: Sequence[RunRecord]) -> None:
    """Write run.yaml, planned.json and manifest.json of the merged run."""
    known = [*([store.read_run()] if store.has_run else []), *runs]
    methods = dict.fromkeys(text for run in known for text in run.suite.methods)
    suite = runs[0].suite.model_copy(update={"methods": list(methods)})
    matched = next((run.matched for run in known if run.matched), [])
    write_run(store.path, runs[0].model_copy(update={"suite": suite, "matched": matched}))
    store.clear_partial()
    add_planned(store.path, (grid for folder in folders for grid in read_planned(folder.path)))
    own, shard = (read_manifest(folder.path) for folder in (store, folders[0]))
    entries = {**shard.as_dict(), "scored": None, "scored_images": own.scored_images}
    write_manifest(store.path, own.updated(**entries))


def _merged(store: RunFolder, folders: Sequence[RunFolder], copied: int, kept: int) -> Merged:
    """Return what there is now, next to what was planned."""
    grids = read_planned(store.path)
    reference = [replace(grid, labels=[REFERENCE]) for grid in grids if "iid" in grid.labels]
    planned = missing = 0
    for view, wanted in ((store, grids), (store.reference(), reference)):
        paths = {path for grid in wanted for path in grid.paths()}
        names = view.files().names("*/*/*/group.json")
        there = {name.removesuffix("/group.json") for name in names}
        planned, missing = planned + len(paths), missing + len(paths - there)
    failures = [
        str(path)
        for folder in folders
        for path in sorted((folder.path / "failed").glob("*/*/*.json"))
    ]
    return Merged(copied, kept, planned, missing, failures if missing else [])


def _copy(
    store: RunFolder,
    folders: Sequence[RunFolder],
    progress: Callable[[int], Advance],
    check_ownership: Callable[[], None],
) -> tuple[int, int]:
    """Copy groups and the reference set; returns how many were copied, and were there."""
    broken: list[str] = []
    views: tuple[Callable[[RunFolder], RunFolder], ...] = (lambda run: run, RunFolder.reference)
    parts = [
        (
            view(store),
            [group for folder in folders for group in view(folder).finished(broken=broken)],
        )
        for view in views
    ]
    if broken:
        raise StoreError(
            f"{broken[0]} ({counted(len(broken), 'broken group')}). "
            "Run that share again, then merge."
        )
    total, copied = sum(len(groups) for _, groups in parts), 0
    advance = progress(total)
    for target, groups in parts:
        files, known = target.files(), target.index.read()
        written: dict[Path, FinishedGroup] = {}
        for group in groups:
            check_ownership()
            path = group.group.path
            entry = known.get(path.as_posix())
            there = written.get(path) or _there(target, path, files, entry)
            new = _copy_group(target, group, there)
            if new is not None:
                written[path] = new
            advance(1, group.group.name)
        target.index.flush()
        copied += len(written)
    return copied, total - copied


def _there(
    target: RunFolder, path: Path, files: Files, entry: Entry | None
) -> FinishedGroup | None:
    """Return a group of the target, when it is whole; move a broken one aside."""
    try:
        group = target.load(path, files)
        if group is not None and entry is not None and entry.key != group.group.key:
            group.contents()  # it is doubted
    except StoreError:
        target.set_aside(path)
        return None
    return group


def _copy_group(
    store: RunFolder, group: FinishedGroup, there: FinishedGroup | None
) -> FinishedGroup | None:
    """Return what was written; None where the group was there."""
    if there is not None:
        if there.group.key != group.group.key or there.files != group.files:
            raise StoreError(
                f"{there.folder} and {group.folder} hold different images of one group. "
                "Remove one of them."
            )
        return None
    record = parse_group((group.folder / "group.json").read_bytes(), group.group.path)
    return store.write_group(group.group, group.contents(), group.cost, record.details)
