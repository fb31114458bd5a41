"""Write score files method by method, with cells that no spreadsheet runs."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import pandas as pd

from eddy_bench.errors import StoreError, why
from eddy_bench.shown import cell_text, text_of_cell
from eddy_bench.storage.files import MAX_COLUMNS
from eddy_bench.storage.paths import open_file, read_many, replacing

COLUMNS = [
    "model",
    "method",
    "params",
    "scheduler",
    "steps",
    "guidance_scale",
    "particles",
    "prompt_id",
    "prompt",
    "seed",
    "metric",
    "extractor",
    "value",
    "higher_is_better",
    "signature",
]
IMAGE = "image"  # the place of a single image in its group, from 0 on; in scores.parquet
TEXTS = (
    "model",
    "method",
    "params",
    "scheduler",
    "prompt_id",
    "prompt",
    "metric",
    "extractor",
    "signature",
)
WRITTEN = ("scores.csv", "scores.parquet", "summary.csv")


def escaped(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a table of which a spreadsheet shows every text as it is, and runs none."""
    return _mapped(frame, cell_text)


def unescaped(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a table as it was before `escaped`."""
    return _mapped(frame, text_of_cell)


def _mapped(frame: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    """Return a table with every text changed; columns of numbers alone hold none."""
    names = [name for name in frame if not pd.api.types.is_numeric_dtype(frame[name])]
    return frame.assign(
        **{
            str(name): frame[name].map(lambda cell: change(cell) if isinstance(cell, str) else cell)
            for name in names
        }
    )


def read_table(path: Path, **options: Any) -> pd.DataFrame:
    """Read a CSV file, wherever it is, as `pandas.read_csv` does.

    Raises:
        ValueError: it is no table.
        OSError: it cannot be read.

    """
    with open_file(path, "r", encoding="utf-8", newline="") as file:
        _check_shape(file)
        file.seek(0)
        frame: pd.DataFrame = pd.read_csv(file, **options)
    return frame


def _check_shape(file: IO[str]) -> None:
    """Raise ValueError for a table whose columns pandas would rename, or take for names of rows."""
    try:
        rows = csv.reader(file)
        names, first = next(rows, []), next(rows, [])
    except csv.Error as error:
        raise ValueError(str(error)) from None
    if len(names) > MAX_COLUMNS:
        raise ValueError(f"it has {len(names):,} columns")
    if len(set(names)) < len(names):
        raise ValueError("a column stands twice")
    if len(first) > len(names):
        raise ValueError(f"line 2 has {len(first):,} fields, and line 1 has {len(names):,}")


def compact(rows: pd.DataFrame | Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return rows as a table whose repeated texts are stored once."""
    return _compact(rows, [*COLUMNS, "label"])


def compact_images(rows: pd.DataFrame | Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return rows of single images, as `compact` does."""
    return _compact(rows, [*COLUMNS, IMAGE, "label"]).astype({IMAGE: "Int32"})


def _compact(rows: pd.DataFrame | Sequence[Mapping[str, Any]], columns: list[str]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=columns)
    return frame.astype(dict.fromkeys([*TEXTS, "label"], "category"))


def by_method(
    parts: Sequence[pd.DataFrame], labels: Sequence[str]
) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield the rows of each method over all parts, method by method."""
    for label in labels:
        yield label, pd.concat(_of_label(parts, label), ignore_index=True)


def _of_label(parts: Sequence[pd.DataFrame], label: str) -> list[pd.DataFrame]:
    return [
        part[part["label"] == label].astype(dict.fromkeys([*TEXTS, "label"], object))
        for part in parts
        if len(part) and label in part["label"].cat.categories
    ]


def digest_of_scores(folder: Path) -> str:
    """Return a hash of the files that scoring writes together; empty where one is missing."""
    try:
        return hashlib.sha256(
            b"".join(
                hashlib.sha256(content).digest()
                for content in read_many([folder / name for name in WRITTEN])
            )
        ).hexdigest()
    except OSError:
        return ""


def write_scores(
    folder: Path,
    parts: Sequence[pd.DataFrame],
    labels: Sequence[str],
    images: Sequence[pd.DataFrame] = (),
) -> None:
    """Replace scores.csv and scores.parquet, each in one step.

    The latter also holds the rows of single images, whose metric begins with `image:` and whose
    `image` is their place in the group; it is null in all other rows.

    Raises:
        StoreError: the folder cannot be written.

    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with (
            replacing(folder / "scores.parquet") as parquet,
            replacing(folder / "scores.csv") as table_file,
            ExitStack() as opened,
            table_file.open("w", encoding="utf-8", newline="") as file,
        ):
            writer = None
            for number, (label, rows) in enumerate(by_method(parts, labels)):
                escaped(rows[COLUMNS]).to_csv(
                    file, index=False, header=number == 0, lineterminator="\n"
                )
                whole = [rows.assign(**{IMAGE: pd.array([pd.NA] * len(rows), "Int32")})]
                whole += _of_label(images, label)
                table = pa.Table.from_pandas(
                    pd.concat(whole, ignore_index=True)[[*COLUMNS, IMAGE]].astype(
                        {"seed": str, "steps": str, "particles": str, "guidance_scale": str}
                    ),
                    preserve_index=False,
                )
                writer = writer or opened.enter_context(pq.ParquetWriter(parquet, table.schema))
                writer.write_table(table)
    except OSError as error:
        raise StoreError(
            f"{folder / 'scores.csv'} cannot be written: {why(error)}. "
            "The scores that were there are kept."
        ) from None
