"""Put the shards of a run, drawn apart, together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from eddy_bench.errors import StoreError, counted
from eddy_bench.experiment.draw import moved_away, pack_groups
from eddy_bench.experiment.events import Advance, Listener
from eddy_bench.experiment.plan import REFERENCE
from eddy_bench.storage.group import Entry, FinishedGroup, parse_group
from eddy_bench.storage.lock import locked, unused
from eddy_bench.storage.packs import PACK_GROUPS, GroupFiles
from eddy_bench.storage.paths import expanded
from eddy_bench.storage.provenance import differing, distinct
from eddy_bench.storage.records import RunRecord
from eddy_bench.storage.run_folder import (
    RunFolder,
    add_planned,
    read_manifest,
    read_planned,
    write_manifest,
    write_run,
)

SHOWN_FAILURES = 20


def merge(target: Path, sources: Sequence[Path], listener: Listener, pack: bool = False) -> int:
    """Copy the finished groups of run folders into another one, every image checked by its hash.

    pack: put them into packs there.

    Returns:
        How many planned groups are in none of them.

    Raises:
        StoreError: a source is no run folder, is still drawn into, or holds other settings or
            prompts, or a group is there with other images.
    """
    folders = [RunFolder.existing(path) for path in _sources(target, sources)]
    runs = [folder.read_run() for folder in folders]
    _check_alike(folders, runs)
    with ExitStack() as stack:
        for folder in folders:
            stack.enter_context(unused(folder.path, listener.tell))
        drawn = [_drawn(folders), _drawn([folder.reference() for folder in folders])]
        store = RunFolder.prepare(target, runs[0].settings)
        check_ownership = stack.enter_context(locked(target, listener.tell))
        moved, broken = list[str](), list[str]()
        unlike = _record(store, folders, runs, broken)
        listener.tell_all(broken, "Warning")
        total, copied = sum(map(len, drawn)), 0
        for place, groups in zip((store, store.reference()), drawn, strict=True):
            if pack:  # what is there already
                pack_groups(place, listener, check_ownership)
            with listener.began("Merging", len(groups)) as advance:
                copied += _copy(place, groups, advance, check_ownership, moved, pack)
            if pack:
                pack_groups(place, listener, check_ownership)
        planned, missing = _planned(store)
    listener.tell(f"{target}: {copied} groups copied, {total - copied} were there.")
    if unlike:
        listener.tell(f"{unlike}: figures may differ by more than the method.", "Warning")
    listener.tell_all([f"{text}, copied again" for text in moved], "Warning")
    if missing:
        failures = [path for folder in folders for path in folder.failures()]
        listener.tell_all(list(map(str, failures[:SHOWN_FAILURES])), "Failed")
        lacking = f"{missing} of {planned} groups are in no shard"
        listener.tell(f"{lacking}; the scores are of the others.", "Missing")
    return missing


def _sources(target: Path, sources: Sequence[Path]) -> list[Path]:
    """Return the folders to merge; raises StoreError for one that is given twice, or the target."""
    paths = [path for pattern in sources for path in expanded(pattern)]
    if not paths:
        raise StoreError("Expected run folders to merge, found none.")
    if any(path.resolve() == target.resolve() for path in paths):
        raise StoreError(
            f"{target} is among the folders that are to be merged into it. Leave it out."
        )
    known: dict[Path, Path] = {}
    for path in paths:
        if (first := known.setdefault(path.resolve(), path)) is not path:
            raise StoreError(f"{first} and {path} are one folder. Give each shard once.")
    return paths


def _drawn(folders: Sequence[RunFolder]) -> list[FinishedGroup]:
    """Return the groups of shards; raises StoreError where one is broken, or two differ."""
    broken: list[str] = []
    groups = [group for folder in folders for group in folder.finished(broken=broken)]
    if broken:
        raise StoreError(
            f"{broken[0]} ({counted(len(broken), 'broken group')}). Merge when that is done."
        )
    known: dict[Path, FinishedGroup] = {}
    for group in groups:
        _check_same(known.setdefault(group.group.path, group), group)
    return groups


def _check_same(there: FinishedGroup, group: FinishedGroup) -> None:
    """Raise StoreError for other images of one group."""
    if there.group.key != group.group.key or there.files != group.files:
        raise StoreError(
            f"{there.folder} and {group.folder} hold different images of one group. "
            "Remove one of them."
        )


def _check_alike(folders: Sequence[RunFolder], runs: Sequence[RunRecord]) -> None:
    """Raise StoreError for folders that are not shards of one run."""
    for folder, run in zip(folders[1:], runs[1:], strict=True):
        difference = [f"another {name}" for name in runs[0].settings.differences(run.settings)]
        if run.prompt_digest != runs[0].prompt_digest:
            difference = ["other prompts"]
        if difference:
            raise StoreError(
                f"{folder.path} was drawn with {difference[0]} than {folders[0].path}. "
                "Merge shards of one run."
            )


def _record(
    store: RunFolder, folders: Sequence[RunFolder], runs: Sequence[RunRecord], broken: list[str]
) -> str:
    """Write run.yaml, planned.json and manifest.json of the merged run.

    Returns in what the environments of its images differ; `broken` is told of manifests that
    cannot be read.
    """
    known = [*([store.read_run()] if store.has_run else []), *runs]
    methods = dict.fromkeys(text for run in known for text in run.suite.methods)
    suite = runs[0].suite.model_copy(update={"methods": list(methods)})
    matched = next((run.matched for run in known if run.matched), [])
    write_run(store.path, runs[0].model_copy(update={"suite": suite, "matched": matched}))
    store.clear_partial()
    add_planned(store.path, (grid for folder in folders for grid in read_planned(folder.path)))
    own, *shards = (read_manifest(folder.path, broken) for folder in (store, *folders))
    environments = distinct(one for known in (own, *shards) for one in known.environments)
    kept = {"scored": None, "scored_images": own.scored_images, "environments": environments}
    write_manifest(store.path, own.updated(**{**shards[0].as_dict(), **kept}))
    return differing(environments)


def _planned(store: RunFolder) -> tuple[int, int]:
    """Return how many groups were planned, and how many of them lack, the hold-out set included."""
    grids = read_planned(store.path)
    reference = [replace(grid, labels=[REFERENCE]) for grid in grids if "iid" in grid.labels]
    planned = missing = 0
    for view, wanted in ((store, grids), (store.reference(), reference)):
        paths = {path for grid in wanted for path in grid.paths()}
        there = view.files().places()
        planned, missing = planned + len(paths), missing + len(paths - there.keys())
    return planned, missing


def _copy(
    target: RunFolder,
    groups: Sequence[FinishedGroup],
    advance: Advance,
    check_ownership: Callable[[], None],
    moved: list[str],
    pack: bool,
) -> int:
    """Copy groups; returns how many were not there. `moved` is told which broken ones were.

    pack: put a thousand groups into a pack whenever they are copied.
    """
    files, known = target.files(), target.index.read()
    moved += target.set_packs_aside(files)
    written: dict[Path, FinishedGroup] = {}
    for group in groups:
        check_ownership()
        path = group.group.path
        entry = known.get(path.as_posix())
        there = written.get(path) or _there(target, path, files, entry, moved)
        if there is None:
            details = parse_group(group.text(), path).details
            written[path] = target.write_group(group.group, group.contents(), group.cost, details)
            if pack and len(written) % PACK_GROUPS == 0:
                target.pack(lambda count, label: None, check_ownership)
        else:
            _check_same(there, group)
        advance(1, group.group.name)
    target.index.flush()
    return len(written)


def _there(
    target: RunFolder, path: Path, files: GroupFiles, entry: Entry | None, moved: list[str]
) -> FinishedGroup | None:
    """Return a group of the target, when it is whole; move a broken one aside."""
    try:
        group = target.load(path, files)
        if group is not None and entry is not None and entry.key != group.group.key:
            group.contents()  # it is doubted
    except StoreError as error:
        moved.append(moved_away(error, target, path, files))
        return None
    return group
