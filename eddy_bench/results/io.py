"""Score files: the one place where ids of methods and metrics become text and are read back.

`scores.csv` has a row per group and metric (per method where a metric is pooled), `scores.parquet`
the same and a row for each image with a value of its own. No cell is run by a spreadsheet.
"""

from __future__ import annotations

import csv
import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd

from eddy_bench.errors import CompareError, StoreError, brief, why
from eddy_bench.ids import ASPECT, POOLED, SOURCE, MethodId, MetricId, Signature
from eddy_bench.scoring.measure import MetricValue
from eddy_bench.scoring.metric import Aspect, Metric
from eddy_bench.scoring.metrics import BAD_IMAGES, METRICS
from eddy_bench.shown import cell_text, text_of_cell
from eddy_bench.storage.files import MAX_COLUMNS
from eddy_bench.storage.paths import open_file, read_many, replacing
from eddy_bench.storage.records import RunSettings

SETTINGS = ("model", "scheduler", "steps", "guidance_scale", "particles")
COLUMNS = [
    "model",
    "method",
    *SETTINGS[1:],
    "prompt_id",
    "prompt",
    "seed",
    "metric",
    "value",
    "higher_is_better",
    "signature",
]
IDS = {"method": MethodId.parse, "metric": MetricId.parse, "signature": Signature.parse}
TEXTS = [name for name in COLUMNS if name not in ("seed", "value", "higher_is_better")]
IMAGE = "image"  # the place of a single image in its group, from 0 on; in scores.parquet
PREFIX = "image:"  # of such a row's metric, so that who selects one by name finds its groups alone
TAG = "prompt."  # of the columns that hold what the prompt set says of a prompt
GROUP = ["method", "prompt_id", "seed", "metric", "signature"]
WRITTEN = ("scores.csv", "scores.parquet", "summary.csv")
_ASPECTS: dict[str, Aspect] = {"diversity": "diversity", "fidelity": "fidelity"}


def rows_of(values: Sequence[MetricValue], settings: RunSettings) -> pd.DataFrame:
    """Return a row for each value; pooled metrics have neither prompt nor seed."""
    groups = [
        ("", "", "")
        if value.metric.scope == "pooled"
        else (value.group.prompt_id, value.group.prompt, str(value.group.seed))
        for value in values
    ]
    columns = {
        "model": settings.model,
        "method": [value.group.id for value in values],
        "scheduler": settings.scheduler,
        "steps": "" if settings.imported else str(settings.steps),
        "guidance_scale": "" if settings.imported else str(settings.guidance_scale),
        "particles": [str(value.group.particles) for value in values],
        **{name: [own[k] for own in groups] for k, name in enumerate(COLUMNS[6:9])},
        "metric": [value.id for value in values],
        "value": [value.value for value in values],
        "higher_is_better": [value.metric.higher_is_better for value in values],
        "signature": [value.signature for value in values],
    }
    tags = [{} if value.metric.scope == "pooled" else value.group.tags for value in values]
    for name in dict.fromkeys(itertools.chain.from_iterable(tags)):
        columns[TAG + name] = [own.get(name, "") for own in tags]
    return compact(pd.DataFrame(columns))


def image_rows(rows: pd.DataFrame, values: Sequence[MetricValue]) -> pd.DataFrame:
    """Return a row for each image that has a value of its own, from the rows of their groups."""
    counts = [len(value.images) for value in values]
    images = itertools.chain.from_iterable(value.images for value in values)
    places = itertools.chain.from_iterable(map(range, counts))
    return rows.loc[rows.index.repeat(counts)].assign(
        value=np.fromiter(images, np.float64), **{IMAGE: np.fromiter(places, np.int64)}
    )


def compact(rows: pd.DataFrame) -> pd.DataFrame:
    """Return rows whose repeated texts and ids are stored once."""
    return rows.astype(dict.fromkeys([*TEXTS, *tag_columns([rows])], "category"))


def tag_columns(parts: Iterable[pd.DataFrame]) -> list[str]:
    """Return the columns of tags that some of the tables have, in order."""
    names = itertools.chain.from_iterable(part.columns for part in parts)
    return [name for name in dict.fromkeys(names) if str(name).startswith(TAG)]


def with_tags(rows: pd.DataFrame, tags: Sequence[str]) -> pd.DataFrame:
    """Return rows with all of some columns of tags as texts, empty where a prompt has none."""
    there = {name: rows[name].astype(object).fillna("") for name in tags if name in rows}
    return rows.assign(**{name: there.get(name, "") for name in tags})


def write_scores(
    folder: Path,
    parts: Sequence[pd.DataFrame],
    methods: Sequence[MethodId],
    images: Sequence[pd.DataFrame],
) -> None:
    """Replace scores.csv and scores.parquet, each in one step, method by method.

    Raises:
        StoreError: the folder cannot be written.

    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    tags = tag_columns([*parts, *images])
    try:
        with (
            replacing(folder / "scores.parquet") as parquet,
            replacing(folder / "scores.csv") as table_file,
            ExitStack() as opened,
            table_file.open("w", encoding="utf-8", newline="") as file,
        ):
            writer = None
            for number, (method, rows) in enumerate(by_method(parts, methods)):
                texts = with_tags(with_texts(rows), tags)[[*COLUMNS, *tags]]
                header = number == 0
                escaped(texts).to_csv(file, index=False, header=header, lineterminator="\n")
                whole = [texts.assign(**{IMAGE: pd.array([pd.NA] * len(rows), "Int32")})]
                for part in _of_method(images, method):
                    own = with_tags(with_texts(part), tags).astype({IMAGE: "Int32"})
                    whole.append(own.assign(metric=PREFIX + own["metric"]))
                table = pa.Table.from_pandas(pd.concat(whole), preserve_index=False)
                writer = writer or opened.enter_context(pq.ParquetWriter(parquet, table.schema))
                writer.write_table(table)
    except OSError as error:
        raise StoreError(
            f"{folder / 'scores.csv'} cannot be written: {why(error)}. "
            "The scores that were there are kept."
        ) from None


def write_baseline(path: Path, rows: pd.DataFrame) -> None:
    """Write scores into one CSV file, in one step, for later runs to be compared with.

    Raises:
        StoreError: it is a folder, or cannot be written.
    """
    if path.is_dir():
        raise StoreError(f"Expected a CSV file to write, got the folder {path}.")
    texts = escaped(with_texts(rows))[[*COLUMNS, *tag_columns([rows])]]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            texts.to_csv(file, index=False, lineterminator="\n", encoding="utf-8")
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {why(error)}.") from None


def by_method(
    parts: Sequence[pd.DataFrame], methods: Sequence[MethodId]
) -> Iterator[tuple[MethodId, pd.DataFrame]]:
    """Yield the rows of each method over all parts, method by method."""
    for method in methods:
        yield method, pd.concat(_of_method(parts, method), ignore_index=True)


def _of_method(parts: Sequence[pd.DataFrame], method: MethodId) -> list[pd.DataFrame]:
    own = [part[part["method"] == method] for part in parts]
    return [part.astype(dict.fromkeys(TEXTS, object)) for part in own if len(part)]


def with_texts(rows: pd.DataFrame) -> pd.DataFrame:
    """Return rows with the texts of ids."""
    texts = {name: rows[name].map({own: str(own) for own in rows[name].unique()}) for name in IDS}
    return rows.assign(**texts)


def escaped(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a table of which a spreadsheet shows every text as it is, and runs none."""
    return _mapped(frame, cell_text)


def _mapped(frame: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    """Return a table with every text changed; columns of numbers alone hold none."""
    changed = {}
    for name in frame:
        if not pd.api.types.is_numeric_dtype(frame[name]):
            cells = {cell: change(cell) for cell in frame[name].unique() if isinstance(cell, str)}
            changed[str(name)] = frame[name].map(lambda cell, known=cells: known.get(cell, cell))
    return frame.assign(**changed)


def read_table(path: Path, **options: Any) -> pd.DataFrame:
    """Read a CSV file that `escaped` texts were written to, as `pandas.read_csv` does.

    Raises:
        ValueError: it is no table.
        OSError: it cannot be read.

    """
    with open_file(path, "r", encoding="utf-8", newline="") as file:
        _check_shape(file)
        file.seek(0)
        frame: pd.DataFrame = pd.read_csv(file, **options)
    return _mapped(frame, text_of_cell)


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


def read_scores(source: Path) -> pd.DataFrame:
    """Read a score file, or that of a folder, with its ids.

    Raises:
        CompareError: there is none, it is damaged, or it is of several runs.

    """
    path = source / "scores.csv" if source.is_dir() else source
    if not path.is_file():
        scored = (source / "run.yaml").is_file()
        hint = f" `eddy-bench score {source}` writes it." if scored else ""
        raise CompareError(
            f"Expected a run folder with scores.csv, or a CSV file, got {source}.{hint}"
        )
    try:
        frame = read_table(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:  # of pandas' parser and of texts that are none, too
        raise CompareError(
            f"{path} is not a scores.csv: {brief(error, 120)}. Score the run again."
        ) from None
    missing = [name for name in COLUMNS if name not in frame.columns]
    if missing:
        raise CompareError(
            f"{path} has no column {missing[0]!r}: expected those of scores.csv. "
            "Score the run again."
        )
    if frame.empty:
        raise CompareError(f"{path} has no rows. Score the run again.")
    _check_rows(path, frame)
    for name, parse in IDS.items():
        try:
            ids = {text: parse(text) for text in frame[name].unique()}
        except ValueError as error:
            raise CompareError(f"{path}: {brief(error)}. Score the run again.") from None
        frame[name] = frame[name].map(ids)
    return compact(
        frame[[*COLUMNS, *tag_columns([frame])]].assign(
            value=_numbers(path, frame["value"]),
            higher_is_better=frame["higher_is_better"].astype(str).str.lower() == "true",
        )
    )


def _numbers(path: Path, texts: pd.Series) -> pd.Series:
    """Return values as numbers; raises CompareError for what is none."""
    values: pd.Series[float] = pd.to_numeric(texts, errors="coerce")
    blank = texts.str.strip().str.lower().isin(("", "nan"))
    wrong = (values.isna() & ~blank) | values.abs().eq(np.inf)
    _refuse(path, "a finite number or nothing in `value`", texts, wrong)
    return values


def _refuse(path: Path, expected: str, texts: pd.Series, wrong: pd.Series) -> None:
    """Raise CompareError that names the first wrong line."""
    if wrong.any():
        line = int(wrong.to_numpy().argmax())
        raise CompareError(
            f"{path}, line {line + 2}: expected {expected}, got {texts.iloc[line]!r}. "
            "Score the run again."
        )


def _check_rows(path: Path, frame: pd.DataFrame) -> None:
    """Raise CompareError for rows that are cut short, or of several runs."""
    short = frame["signature"].isna() | (frame["signature"] == "")
    if short.any():
        line = int(short.to_numpy().argmax()) + 2
        raise CompareError(
            f"{path}, line {line}: expected {len(COLUMNS)} fields, the signature is missing; "
            "the file may be cut short. Score the run again."
        )
    for name in ("seed", "particles"):
        texts = frame[name].astype(str)
        wrong = ~texts.str.fullmatch(r"[0-9]{1,18}" + ("|" if name == "seed" else ""))
        _refuse(path, f"a whole number in `{name}`", texts, wrong)
    for name in SETTINGS:
        values = frame[name].unique()
        if len(values) > 1:
            raise CompareError(
                f"{path} mixes runs: {name} is {values[0]} in some rows and {values[1]} in others. "
                "Give one file per run."
            )


def metrics_of(frame: pd.DataFrame) -> Mapping[str, Metric]:
    """Return the metrics of score rows by name, plug-ins as the rows tell of them.

    Their code is not run: it may not be at hand, or not be trusted.

    Raises:
        CompareError: rows disagree in whether higher is better, or are of an unknown metric.

    """
    metrics: dict[str, Metric] = {}
    told: dict[str, tuple[bool, str]] = {}
    kinds = ["metric", "signature", "higher_is_better"]
    origin = frame["source"] if "source" in frame else pd.Series("the file", index=frame.index)
    rows = frame.assign(source=origin)[[*kinds, "source"]].drop_duplicates()
    for metric, signature, higher, source in rows.itertuples(index=False):
        name = metric.name
        if name == BAD_IMAGES:
            continue
        if name not in METRICS and not signature.value(SOURCE):
            raise CompareError(
                f"{source}: unknown metric {name!r}; it was written by another version."
            )
        said, first = told.setdefault(name, (bool(higher), str(source)))
        if said != higher:
            raise CompareError(
                f"Higher is better of {name} in {first if said else source}, and lower in "
                f"{source if said else first}: two plug-ins have one name. Give one another name "
                "and score its run again."
            )
        if name in METRICS and METRICS[name].higher_is_better != higher:
            raise CompareError(
                f"{source} says the opposite of {name} as to whether higher is better. "
                "Score its run again."
            )
        metrics[name] = METRICS.get(name) or _plugin(name, signature, bool(higher))
    return metrics


def _plugin(name: str, signature: Signature, higher: bool) -> Metric:
    return Metric(
        name,
        "real" if signature.has(POOLED) else "image",
        higher,
        "a plug-in's",
        aspect=_ASPECTS.get(signature.value(ASPECT), ""),
        source=signature.value(SOURCE),
    )


def read_image_rows(folder: Path) -> pd.DataFrame:
    """Read the rows of single images of a run; none where the file is missing.

    Raises:
        StoreError: the file is damaged.

    """
    path = folder / "scores.parquet"
    try:
        with open_file(path) as file:
            rows: pd.DataFrame = pd.read_parquet(file, filters=[(IMAGE, ">=", 0)])
        rows = rows[[*COLUMNS, *tag_columns([rows]), IMAGE]].reset_index(drop=True)
        rows = rows.astype({**dict.fromkeys([*TEXTS, "seed"], str), "value": float, IMAGE: int})
        rows["metric"] = rows["metric"].str.removeprefix(PREFIX)
        for name, parse in IDS.items():
            rows[name] = rows[name].map({text: parse(text) for text in rows[name].unique()})
    except FileNotFoundError:
        return compact(pd.DataFrame(columns=[*COLUMNS, IMAGE]))
    except Exception as error:  # pyarrow has many
        raise StoreError(
            f"{path} cannot be read: {brief(error, 120)}. Score the run again: "
            f"eddy-bench score {folder}."
        ) from None
    return compact(rows)


def digest_of_scores(folder: Path) -> str:
    """Return a hash of the files that scoring writes together; empty where one is missing."""
    try:
        contents = read_many([folder / name for name in WRITTEN])
    except OSError:
        return ""
    digests = (hashlib.sha256(content).digest() for content in contents)
    return hashlib.sha256(b"".join(digests)).hexdigest()
