"""Shares of a run, drawn apart, put together."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from eddy_bench.errors import StoreError
from eddy_bench.groups import FinishedGroup
from eddy_bench.lock import locked
from eddy_bench.places import expanded
from eddy_bench.store import RunFolder

Advance = Callable[[int, str], None]


def merge(
    target: Path, sources: Sequence[Path], progress: Callable[[int], Advance] = lambda total: lambda count, label: None
) -> tuple[int, int]:
    """Copy the finished groups of run folders into another one; every image is checked against its hash on the way.

    Returns:
        (groups copied, groups that were there).

    Raises:
        StoreError: a source is no run folder or holds other settings or prompts, or a group is there with other images.

    """
    sources = [path for pattern in sources for path in expanded(pattern)]
    if not sources:
        raise StoreError("Expected run folders to merge, found none.")
    folders = [RunFolder.existing(path) for path in sources]
    if any(path.resolve() == target.resolve() for path in sources):
        raise StoreError(f"{target} is among the folders that are to be merged into it. Leave it out.")
    runs = [folder.read_run() for folder in folders]
    for folder, run in zip(folders[1:], runs[1:], strict=True):
        if run.get("prompt_digest") != runs[0].get("prompt_digest"):
            raise StoreError(f"{folder.path} was drawn with other prompts than {folders[0].path}. Merge shares of one run.")
        if different := [name for name in run["settings"] if run["settings"][name] != runs[0]["settings"].get(name)]:
            raise StoreError(f"{folder.path} was drawn with another {different[0]} than {folders[0].path}. Merge shares of one run.")
    store = RunFolder.prepare(target, runs[0]["settings"])
    with locked(target):
        earlier = [store.read_run()] if (target / "run.yaml").is_file() else []
        methods = dict.fromkeys(text for run in [*earlier, *runs] for text in run["suite"].get("methods", []))
        measured = next((run["best_of_m"] for run in [*earlier, *runs] if "best_of_m" in run), None)
        kept = {"best_of_m": measured} if measured else {}
        store.write_run({**runs[0], "suite": {**runs[0]["suite"], "methods": list(methods)}, **kept})
        store.write_manifest({**store.read_manifest(), **folders[0].read_manifest(), "scored": None})
        return _copy(store, folders, progress)


def _copy(store: RunFolder, folders: Sequence[RunFolder], progress: Callable[[int], Advance]) -> tuple[int, int]:
    broken: list[str] = []
    parts = [
        (view(store), [group for folder in folders for group in view(folder).finished(broken=broken)])
        for view in (lambda one: one, RunFolder.reference)
    ]
    if broken:
        raise StoreError(f"{broken[0]} ({len(broken)} groups are broken). Run that share again, then merge.")
    total, copied = sum(len(groups) for _, groups in parts), 0
    advance = progress(total)
    for to, groups in parts:
        files = to.files()
        written: dict[Path, FinishedGroup] = {}
        for group in groups:
            place = group.group.place
            new = _copy_group(to, group, written.get(place) or to.load(place, files))
            if new is not None:
                written[place] = new
            advance(1, group.group.label)
        to.index.flush()
        copied += len(written)
    return copied, total - copied


def _copy_group(store: RunFolder, found: FinishedGroup, there: FinishedGroup | None) -> FinishedGroup | None:
    """What was written; None where the group was there."""
    if there is not None:
        if there.group.key != found.group.key or there.files != found.files:
            raise StoreError(f"{there.folder} and {found.folder} hold different images of one group. Remove one of them.")
        return None
    data = json.loads((found.folder / "group.json").read_text(encoding="utf-8"))
    details = {name: value for name, value in data.items() if name not in ("group", "cost", "files")}
    return store.write_group(found.group, found.contents(), found.cost, details)
