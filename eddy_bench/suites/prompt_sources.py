"""Prompts from data sets: COCO captions (JSON), PartiPrompts (TSV), DrawBench (CSV).

Any table or hub data set with a text column is read too.
"""

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
    """Split `prompts.csv:caption` into file and column, which is empty where none is named."""
    head, colon, column = source.rpartition(":")
    if colon and Path(head).suffix.lower() in ENDINGS and not Path(source).exists():
        return Path(head), column
    return Path(source), ""


def is_hub_source(source: str) -> bool:
    """Return whether a source is like `owner/name[:split[:column]]`, and is no local file."""
    path = Path(source.partition(":")[0])
    looks_like_a_file = (
        path.suffix.lower() in (*ENDINGS, ".txt", ".yaml", ".yml") or path.parent.is_dir()
    )
    return bool(_HUB.fullmatch(source)) and not Path(source).exists() and not looks_like_a_file


def texts_of_file(path: Path, column: str) -> list[tuple[int, str]]:
    """Read the prompts of a file, each with its line or the number of its entry, in order.

    Of COCO's captions the first of each image is taken. Empty cells are left out.

    Raises:
        PromptError: it cannot be read or parsed, or has no column with texts.
    """
    text = read_text(path, PromptError, "a prompt file", MAX_BYTES)
    if path.suffix.lower() in (".csv", ".tsv"):
        return _table(path, text, column)
    data = _json(path, text)
    if isinstance(data, dict) and isinstance(data.get("annotations"), list):
        return _coco(path, data["annotations"])
    if isinstance(data, dict) and isinstance(data.get("prompts"), list):
        data = data["prompts"]
    if not isinstance(data, list):
        raise PromptError(
            f"{path}: expected a list of prompts, or COCO's `annotations`, "
            f"got {type(data).__name__}."
        )
    return [(number, _text(path, number, entry, column)) for number, entry in enumerate(data, 1)]


def _json(path: Path, text: str) -> Any:
    try:
        if path.suffix.lower() == ".jsonl":
            return [json.loads(line) for line in text.splitlines() if line.strip()]
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PromptError(f"{path}: not valid JSON: {brief(error, 120)}.") from None


def _text(path: Path, number: int, entry: Any, column: str) -> str:
    text = entry.get(_column(path, entry, column)) if isinstance(entry, dict) else entry
    if not isinstance(text, str):
        raise PromptError(
            f"{path}, entry {number}: expected a text or a mapping with a text column, "
            f"got {str(entry)[:80]!r}."
        )
    return text


def _coco(path: Path, annotations: list[Any]) -> list[tuple[int, str]]:
    first: dict[Any, tuple[int, str]] = {}
    for number, annotation in enumerate(annotations, 1):
        if (
            not isinstance(annotation, dict)
            or not isinstance(annotation.get("caption"), str)
            or not isinstance(annotation.get("image_id"), (int, str))
        ):
            raise PromptError(
                f"{path}, annotation {number}: expected `image_id` and `caption`, "
                f"got {str(annotation)[:80]!r}."
            )
        first.setdefault(annotation["image_id"], (number, annotation["caption"]))
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
    """Return the column that holds the texts."""
    names = [str(name) for name in row]
    if column:
        if column not in names:
            raise PromptError(
                f"{path} has no column {column!r}. It has: {', '.join(names)[:300] or 'none'}."
            )
        return column
    columns = [name for wanted in TEXT_COLUMNS for name in names if name.strip().lower() == wanted]
    if not columns:
        raise PromptError(
            f"{path}: expected a column {', '.join(TEXT_COLUMNS)}; "
            f"it has {', '.join(names)[:300] or 'none'}. Name one: {path}:COLUMN."
        )
    return columns[0]


def texts_of_hub(source: str) -> list[tuple[int, str]]:
    """Read the prompts of a hub data set, `owner/name[:split[:column]]`; no code of it is run.

    By default its only or first split is taken.

    Raises:
        PromptError: the package `datasets` is missing, the data set cannot be loaded, or it has no
            text column.
    """
    match = _HUB.fullmatch(source)
    assert match is not None
    column = match["column"] or ""
    texts = []
    for number, row in enumerate(_hub_rows(source, match["name"], match["split"]), 1):
        column = column or _column(Path(match["name"]), row, "")
        text = row.get(column)
        if isinstance(text, list) and text:
            text = text[0]  # several captions of an image
        if not isinstance(text, str):
            raise PromptError(
                f"{match['name']}, row {number}: expected a text in column {column!r}, "
                f"got {str(text)[:80]!r}."
            )
        texts.append((number, text))
    return texts


def _hub_rows(source: str, name: str, split: str | None) -> Iterable[Mapping[str, Any]]:
    try:
        import datasets
    except ImportError:
        raise PromptError(
            f"The data set {source!r} needs the package datasets. "
            "Install eddy-bench[datasets], or give a file."
        ) from None
    try:
        loaded: Any = datasets.load_dataset(name)
        splits = list(loaded)
        if split and split not in splits:
            raise PromptError(
                f"The data set {name} has no split {split!r}. "
                f"It has: {', '.join(map(str, splits))}."
            )
        rows: Iterable[Mapping[str, Any]] = loaded[split or splits[0]]
    except PromptError:
        raise
    except Exception as error:
        raise PromptError(
            f"The data set {name!r} cannot be loaded: {type(error).__name__}: "
            f"{brief(error, 160)} Give a file instead."
        ) from None
    return rows
