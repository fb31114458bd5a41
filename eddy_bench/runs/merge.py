"""Shares of a run, drawn apart, put together."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from eddy_bench.errors import StoreError
from eddy_bench.runs.batches import REFERENCE
from eddy_bench.storage.group import FinishedGroup
from eddy_bench.storage.group_index import Entry
from eddy_bench.storage.lock import locked, unused
from eddy_bench.storage.paths import Files, expanded
from eddy_bench.storage.run_folder import RunFolder


@dataclass(frozen=True)
class Merged:
    """Groups that were copied, that were there, that were planned (the reference set among them), that are still missing; and where failures are recorded."""

    copied: int
    kept: int
    planned: int
    missing: int
    failures: list[str]


Advance = Callable[[int, str], None]


def merge(
    target: Path,
    sources: Sequence[Path],
    progress: Callable[[int], Advance] = lambda total: lambda count, label: None,
) -> Merged:
    """Copy the finished groups of run folders into another one; every image is checked against its hash on the way.

    Raises:
        StoreError: a source is no run folder, is still drawn into, or holds other settings or prompts, or a group is there with other images.

    """
    sources = [path for pattern in sources for path in expanded(pattern)]
    if not sources:
        raise StoreError("Expected run folders to merge, found none.")
    folders = [RunFolder.existing(path) for path in sources]
    if any(path.resolve() == target.resolve() for path in sources):
        raise StoreError(
            f"{target} is among the folders that are to be merged into it. Leave it out."
        )
    runs = [folder.read_run() for folder in folders]
    for folder, run in zip(folders[1:], runs[1:], strict=True):
        if run.get("prompt_digest") != runs[0].get("prompt_digest"):
            raise StoreError(
                f"{folder.path} was drawn with other prompts than {folders[0].path}. Merge shares of one run."
            )
        names = dict.fromkeys([*run["settings"], *runs[0]["settings"]])
        if different := [
            name for name in names if run["settings"].get(name) != runs[0]["settings"].get(name)
        ]:
            raise StoreError(
                f"{folder.path} was drawn with another {different[0]} than {folders[0].path}. Merge shares of one run."
            )
    store = RunFolder.prepare(target, runs[0]["settings"])
    with ExitStack() as held:
        for path in sources:
            held.enter_context(unused(path))
        check_ownership = held.enter_context(locked(target))
        earlier = [store.read_run()] if (target / "run.yaml").is_file() else []
        methods = dict.fromkeys(
            text for run in [*earlier, *runs] for text in run["suite"].get("methods", [])
        )
        measured = next((run["best_of_m"] for run in [*earlier, *runs] if "best_of_m" in run), None)
        best_of_m = {"best_of_m": measured} if measured else {}
        store.write_run(
            {**runs[0], "suite": {**runs[0]["suite"], "methods": list(methods)}, **best_of_m}
        )
        store.clear_partial()
        store.add_planned(one for folder in folders for one in folder.read_planned())
        store.write_manifest(
            {**store.read_manifest(), **folders[0].read_manifest(), "scored": None}
        )
        copied, kept = _copy(store, folders, progress, check_ownership)
        return _merged(store, folders, copied, kept)


def _merged(store: RunFolder, folders: Sequence[RunFolder], copied: int, kept: int) -> Merged:
    """What there is now, next to what was planned."""
    plans = store.read_planned()
    of_iid = [replace(one, labels=[REFERENCE]) for one in plans if "iid" in one.labels]
    planned = missing = 0
    for view, wanted in ((store, plans), (store.reference(), of_iid)):
        places = {place for one in wanted for place in one.places()}
        there = {
            name.removesuffix("/group.json") for name in view.files().names("*/*/*/group.json")
        }
        planned, missing = planned + len(places), missing + len(places - there)
    failed = [
        path for folder in folders for path in sorted((folder.path / "failed").glob("*/*/*.json"))
    ]
    return Merged(copied, kept, planned, missing, [str(path) for path in failed] if missing else [])


def _copy(
    store: RunFolder,
    folders: Sequence[RunFolder],
    progress: Callable[[int], Advance],
    check_ownership: Callable[[], None],
) -> tuple[int, int]:
    broken: list[str] = []
    parts = [
        (
            view(store),
            [group for folder in folders for group in view(folder).finished(broken=broken)],
        )
        for view in (lambda one: one, RunFolder.reference)
    ]
    if broken:
        raise StoreError(
            f"{broken[0]} ({len(broken)} groups are broken). Run that share again, then merge."
        )
    total, copied = sum(len(groups) for _, groups in parts), 0
    advance = progress(total)
    for to, groups in parts:
        files, known = to.files(), to.index.read()
        written: dict[Path, FinishedGroup] = {}
        for group in groups:
            check_ownership()
            place = group.group.place
            new = _copy_group(
                to,
                group,
                written.get(place) or _there(to, place, files, known.get(place.as_posix())),
            )
            if new is not None:
                written[place] = new
            advance(1, group.group.label)
        to.index.flush()
        copied += len(written)
    return copied, total - copied


def _there(to: RunFolder, place: Path, files: Files, entry: Entry | None) -> FinishedGroup | None:
    """A group of the target, when it is whole; one that is broken is moved aside."""
    try:
        found = to.load(place, files)
        if found is not None and entry is not None and entry.key != found.group.key:
            found.contents()  # it is doubted
    except StoreError:
        to.set_aside(place)
        return None
    return found


def _copy_group(
    store: RunFolder, found: FinishedGroup, there: FinishedGroup | None
) -> FinishedGroup | None:
    """What was written; None where the group was there."""
    if there is not None:
        if there.group.key != found.group.key or there.files != found.files:
            raise StoreError(
                f"{there.folder} and {found.folder} hold different images of one group. Remove one of them."
            )
        return None
    data = json.loads((found.folder / "group.json").read_text(encoding="utf-8"))
    details = {
        name: value for name, value in data.items() if name not in ("group", "cost", "files")
    }
    return store.write_group(found.group, found.contents(), found.cost, details)
