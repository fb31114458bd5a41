"""The small files of a run folder, read as typed records: run.yaml, manifest.json, planned.json."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from eddy_bench.errors import StoreError, brief
from eddy_bench.storage.files import parse_json, parse_yaml, read_text, write_text
from eddy_bench.storage.group import GroupGrid
from eddy_bench.storage.limits import MAX_GROUPS, refuse_more
from eddy_bench.storage.records import Manifest, RunRecord

_GRID = TypeAdapter(GroupGrid)
PLANNED_CURE = "Remove it; the next run writes it."
MAX_BYTES = 2**30  # a million prompts in planned.json are 60 MB


def read_run(folder: Path) -> RunRecord:
    """Read run.yaml.

    Raises:
        StoreError: it is not there, cannot be read, or is not a run's.

    """
    path = folder / "run.yaml"
    try:
        data = parse_yaml(path, read_text(path, StoreError, "run.yaml", MAX_BYTES), StoreError)
    except StoreError as error:
        raise StoreError(f"{error} Take another run folder.") from None
    try:
        record = RunRecord.model_validate(data)
    except ValidationError as error:
        raise StoreError(
            f"{path} is not a run's: {_expected(data, error)}. Take another run folder."
        ) from None
    if (read_manifest(folder).settings or record.settings.digest) != record.settings.digest:
        raise StoreError(
            f"The settings in {path} were changed after its images were drawn with others. "
            "Put them back, or draw into another folder: --out."
        )
    return record


def _expected(data: Any, error: ValidationError) -> str:
    """Return in words what a run.yaml lacks."""
    if not isinstance(data, dict) or not all(
        isinstance(data.get(key), dict) for key in ("settings", "suite")
    ):
        return "expected `suite` and `settings`"
    part, name = ([*map(str, error.errors()[0]["loc"]), ""])[:2]
    if part == "settings":
        return f"`{name}` is missing in `settings`, or no single value"
    if name == "methods":
        return "expected a list of texts in `methods`"
    return f"expected texts in `{part}`"


def write_run(folder: Path, record: RunRecord) -> None:
    """Replace run.yaml."""
    text = yaml.safe_dump(record.as_dict(), sort_keys=False, allow_unicode=True)
    write_text(folder / "run.yaml", text)


def read_manifest(folder: Path) -> Manifest:
    """Read manifest.json; an empty one where there is none yet, or none that can be read."""
    try:
        text = read_text(folder / "manifest.json", StoreError, "manifest.json", MAX_BYTES)
        return Manifest.model_validate(parse_json(text))
    except (StoreError, ValueError):
        return Manifest()


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Replace manifest.json."""
    text = json.dumps(manifest.as_dict(), indent=2, ensure_ascii=False) + "\n"
    write_text(folder / "manifest.json", text)


def read_planned(folder: Path) -> list[GroupGrid]:
    """Read planned.json: what commands set out to draw; nothing where that is not known.

    Raises:
        StoreError: it is broken.

    """
    path = folder / "planned.json"
    if not path.exists():
        return []
    try:
        entries = parse_json(read_text(path, StoreError, "planned.json", MAX_BYTES))
        grids = [_GRID.validate_python(grid) for grid in entries]
    except (StoreError, ValueError, TypeError) as error:
        problem = brief(error, 200).rstrip(".")
        raise StoreError(f"{path} cannot be read: {problem}. {PLANNED_CURE}") from None
    total = sum(grid.count for grid in grids)
    refuse_more([total], MAX_GROUPS, f"planned groups in {path}", PLANNED_CURE, StoreError)
    return grids


def add_planned(folder: Path, grids: Iterable[GroupGrid]) -> None:
    """Add to planned.json what it does not hold yet."""
    known = read_planned(folder)
    planned = list(known)
    for grid in grids:
        if grid not in planned:
            planned.append(grid)
    if planned != known:
        text = json.dumps([asdict(grid) for grid in planned], ensure_ascii=False) + "\n"
        write_text(folder / "planned.json", text)
