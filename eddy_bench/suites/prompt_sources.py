"""Prompts from the field's data sets: COCO captions (JSON), PartiPrompts (TSV), DrawBench (CSV), any table or hub data set with a text column."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from eddy_bench.errors import PromptError, brief
from eddy_bench.storage.files import read_text

MAX_BYTES = 512 * 2**20
TEXT_COLUMNS = ("prompt", "prompts", "caption", "captions", "text", "description")
ENDINGS = (".json", ".jsonl", ".csv", ".tsv")
_HUB = re.compile(
    r"(?P<name>[A-Za-z0-9][\w.-]*/[\w.-]+)(?::(?P<split>[\w.-]+))?(?::(?P<column>[^:]+))?"
)


def split_column(source: str) -> tuple[Path, str]:
    """A file and the column after it: `prompts.csv:caption`; the column is empty where none is named."""
    head, colon, column = source.rpartition(":")
    if colon and Path(head).suffix.lower() in ENDINGS and not Path(source).exists():
        return Path(head), column
    return Path(source), ""


def is_hub_source(source: str) -> bool:
    """Whether a source looks like a hub data set, `owner/name[:split[:column]]`, and is no file here."""
    path = Path(source.partition(":")[0])
    looks_like_a_file = (
        path.suffix.lower() in (*ENDINGS, ".txt", ".yaml", ".yml") or path.parent.is_dir()
    )
    return bool(_HUB.fullmatch(source)) and not Path(source).exists() and not looks_like_a_file


def texts_of_file(path: Path, column: str) -> list[tuple[int, str]]:
    """The prompts of a file with the line or place each stands at, in order.

    Of COCO's captions the first of each image is taken. Empty cells are left out.

    Raises:
        PromptError: it cannot be read or parsed, or has no column with texts.

    """
    text = read_text(path, PromptError, "a prompt file", MAX_BYTES)
    if path.suffix.lower() in (".csv", ".tsv"):
        return _table(path, text, column)
    try:
        data = (
            [json.loads(line) for line in text.splitlines() if line.strip()]
            if path.suffix.lower() == ".jsonl"
            else json.loads(text)
        )
    except (ValueError, RecursionError) as error:
        raise PromptError(f"{path}: not valid JSON: {brief(error, 120)}.") from None
    if isinstance(data, dict) and isinstance(data.get("annotations"), list):
        return _coco(path, data["annotations"])
    if isinstance(data, dict) and isinstance(data.get("prompts"), list):
        data = data["prompts"]
    if not isinstance(data, list):
        raise PromptError(
            f"{path}: expected a list of prompts, or COCO's `annotations`, got {type(data).__name__}."
        )
    found = []
    for place, item in enumerate(data, 1):
        value = (
            item
            if isinstance(item, str)
            else item.get(_column(path, item, column))
            if isinstance(item, dict)
            else None
        )
        if not isinstance(value, str):
            raise PromptError(
                f"{path}, entry {place}: expected a text or a mapping with a text column, got {str(item)[:80]!r}."
            )
        found.append((place, value))
    return found


def _coco(path: Path, annotations: list[Any]) -> list[tuple[int, str]]:
    first: dict[Any, tuple[int, str]] = {}
    for place, item in enumerate(annotations, 1):
        if (
            not isinstance(item, dict)
            or not isinstance(item.get("caption"), str)
            or not isinstance(item.get("image_id"), (int, str))
        ):
            raise PromptError(
                f"{path}, annotation {place}: expected `image_id` and `caption`, got {str(item)[:80]!r}."
            )
        first.setdefault(item["image_id"], (place, item["caption"]))
    return list(first.values())


def _table(path: Path, text: str, column: str) -> list[tuple[int, str]]:
    csv.field_size_limit(2**24)
    try:
        reader = csv.DictReader(
            io.StringIO(text, newline=""),
            delimiter="\t" if path.suffix.lower() == ".tsv" else ",",
            strict=False,
        )
        name = _column(path, dict.fromkeys(reader.fieldnames or ()), column)
        return [(reader.line_num, row[name] or "") for row in reader if (row[name] or "").strip()]
    except csv.Error as error:
        raise PromptError(f"{path} is not a table: {brief(error, 120)}.") from None


def _column(path: Path, row: Mapping[str, Any], column: str) -> str:
    """The column that holds the texts."""
    names = [str(name) for name in row]
    if column:
        if column not in names:
            raise PromptError(
                f"{path} has no column {column!r}. It has: {', '.join(names)[:300] or 'none'}."
            )
        return column
    found = [name for wanted in TEXT_COLUMNS for name in names if name.strip().lower() == wanted]
    if not found:
        raise PromptError(
            f"{path}: expected a column {', '.join(TEXT_COLUMNS)}; it has {', '.join(names)[:300] or 'none'}. Name one: {path}:COLUMN."
        )
    return found[0]


def texts_of_hub(source: str) -> list[tuple[int, str]]:
    """The prompts of a hub data set, `owner/name[:split[:column]]`, its only or first split by default; no code of it is run.

    Raises:
        PromptError: the package `datasets` is missing, it cannot be had, or has no text column.

    """
    match = _HUB.fullmatch(source)
    assert match is not None
    try:
        import datasets
    except ImportError:
        raise PromptError(
            f"The data set {source!r} needs the package datasets. Install eddy-bench[datasets], or give a file."
        ) from None
    try:
        loaded: Any = datasets.load_dataset(match["name"])
        splits = list(loaded)
        if match["split"] and match["split"] not in splits:
            raise PromptError(
                f"The data set {match['name']} has no split {match['split']!r}. It has: {', '.join(map(str, splits))}."
            )
        rows: Iterable[Mapping[str, Any]] = loaded[match["split"] or splits[0]]
    except PromptError:
        raise
    except Exception as error:
        raise PromptError(
            f"The data set {match['name']!r} cannot be loaded: {type(error).__name__}: {brief(error, 160)} Give a file instead."
        ) from None
    column, found = match["column"] or "", []
    for place, row in enumerate(rows, 1):
        column = column or _column(Path(match["name"]), row, "")
        value = row.get(column)
        value = (
            value[0] if isinstance(value, list) and value else value
        )  # several captions of one image
        if not isinstance(value, str):
            raise PromptError(
                f"{match['name']}, row {place}: expected a text in column {column!r}, got {str(value)[:80]!r}."
            )
        found.append((place, value))
    return found
