"""Read scores.csv of run folders as one table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from eddy_bench.errors import CompareError
from eddy_bench.scoring.bad_images import bad_counts
from eddy_bench.scoring.metrics import COSTS, METRICS, learn
from eddy_bench.scoring.score_table import COLUMNS, TEXTS, read_table, unescaped
from eddy_bench.scoring.signature import BAD_IMAGES
from eddy_bench.scoring.summary import column_of
from eddy_bench.storage.records import method_text

SETTINGS = ("model", "scheduler", "steps", "guidance_scale", "particles")


@dataclass(frozen=True)
class ScoreSet:
    """Hold the rows of one or several score files.

    frame: the columns of scores.csv, and `label` (method with its parameters), `column` (metric
        with its order and extractor) and `source` (where a row is from).
    sources: of the rows, in order.
    copies: the costs of methods that several sources hold alike.
    bad: rows of groups that hold bad images, as `scoring.bad_images` writes them; no metric's.
    """

    frame: pd.DataFrame
    sources: tuple[str, ...]
    copies: pd.DataFrame | None = None
    bad: pd.DataFrame | None = None

    @property
    def bad_images(self) -> dict[tuple[str, str], int]:
        """How many images are none, by (method, reason)."""
        return {} if self.bad is None else bad_counts(self.bad)

    def baselines(self, column: str, label: str) -> dict[str, float]:
        """Return the median of a method's cost in each source.

        Of several runs, each is compared with its own.
        """
        if column not in COSTS:
            return {}
        frames = [part for part in (self.frame, self.copies) if part is not None]
        rows = pd.concat(
            [part[(part["column"] == column) & (part["label"] == label)] for part in frames]
        )
        medians = rows.groupby("source")["value"].median()
        return {str(source): float(value) for source, value in medians.items()}

    @property
    def labels(self) -> list[str]:
        """Methods with their parameters, in order."""
        return list(dict.fromkeys(self.frame["label"]))

    @property
    def columns(self) -> list[str]:
        """Metrics with their order and extractor, in order."""
        return list(dict.fromkeys(map(str, self.frame["column"])))


def last_run(root: Path = Path("results")) -> Path:
    """Return the run folder whose scores are newest.

    Raises:
        CompareError: there is none.

    """
    paths = sorted(root.glob("*/scores.csv"), key=lambda path: path.stat().st_mtime)
    if not paths:
        raise CompareError(
            f"Expected a scored run below {root}/, found none. "
            "Name a run folder or a CSV file, or draw one: eddy-bench run."
        )
    return paths[-1].parent


def read_scores(sources: Sequence[Path]) -> ScoreSet:
    """Read the scores of folders or CSV files as one table.

    Raises:
        CompareError: a source cannot be read or is no scores.csv, or a method's group stands in
            two of them.

    """
    frames: list[pd.DataFrame] = []
    copies: list[pd.DataFrame] = []
    bad: list[pd.DataFrame] = []
    for source in sources:
        frame = _read(source)
        alike = [
            label
            for label in dict.fromkeys(frame["label"])
            if any(_same_values(frame, earlier, label) for earlier in frames)
        ]
        costs = frame["label"].isin(alike) & frame["metric"].isin(COSTS)
        copies.append(frame[costs].assign(source=str(source)))
        # what several runs hold alike, as iid, stays once
        new = ~frame["label"].isin(alike)
        counts = frame["metric"] == BAD_IMAGES
        bad.append(frame[new & counts])
        frames.append(frame[new & ~counts].assign(source=str(source)))
    frame = pd.concat(frames, ignore_index=True)
    check_directions(frame)
    _check_once(frame)
    copied, none = (pd.concat(parts, ignore_index=True) for parts in (copies, bad))
    return ScoreSet(frame, tuple(map(str, sources)), copied, none)


def check_directions(frame: pd.DataFrame) -> None:
    """Raise CompareError for a metric whose sources differ in whether higher is better."""
    higher = frame["higher_is_better"].astype(str).str.lower() == "true"
    ours = {name: metric for name, metric in METRICS.items() if metric.source != "unknown"}
    for name in map(str, frame["metric"].unique()):
        rows = frame.assign(higher=higher)[frame["metric"] == name]
        said = {
            bool(value): source
            for value, source in zip(rows["higher"], rows["source"], strict=True)
        }
        if len(said) > 1:
            raise CompareError(
                f"Higher is better of {name} in {said[True]}, and lower in {said[False]}: two "
                "plug-ins have one name. Give one another name and score its run again."
            )
        if name in ours and ours[name].higher_is_better not in said:
            raise CompareError(
                f"{next(iter(said.values()))} says the opposite of {name} as to whether higher is "
                "better. Score its run again."
            )


def _check_once(frame: pd.DataFrame) -> None:
    """Raise CompareError where a value of a method's group stands twice."""
    doubled = frame.duplicated(["label", "column", "prompt_id", "seed"], keep=False)
    if not doubled.any():
        return
    row = frame[doubled].iloc[0]
    sources = sorted(set(frame[doubled & (frame["label"] == row["label"])]["source"]))
    where = f"twice in {sources[0]}" if len(sources) == 1 else f"in {' and in '.join(sources)}"
    raise CompareError(
        f"The values of {row['label']} for {row['column']} stand {where}. "
        "Compare them as --against, or leave one out."
    )


def _same_values(frame: pd.DataFrame, other: pd.DataFrame, label: str) -> bool:
    """Return whether two tables hold the same values of a method's groups, costs aside."""
    keys = ["column", "prompt_id", "prompt", "seed", "signature"]
    sides = [
        side[(side["label"] == label) & ~side["metric"].isin(COSTS)]
        .set_index(keys)["value"]
        .sort_index()
        for side in (frame, other)
    ]
    return not sides[1].empty and sides[0].equals(sides[1])


def _read(source: Path) -> pd.DataFrame:
    """Read one score file, checked."""
    path = source / "scores.csv" if source.is_dir() else source
    if not path.is_file():
        scored = (source / "run.yaml").is_file()
        hint = f" `eddy-bench score {source}` writes it." if scored else ""
        raise CompareError(
            f"Expected a run folder with scores.csv, or a CSV file, got {source}.{hint}"
        )
    types = dict.fromkeys([*TEXTS, "seed", "value"], str)
    try:
        frame = read_table(path, dtype=types, keep_default_na=False)
    except (
        pd.errors.ParserError,
        pd.errors.EmptyDataError,
        UnicodeDecodeError,
        ValueError,
    ) as error:
        reason = str(error).splitlines()[0]
        raise CompareError(f"{path} is not a scores.csv: {reason}. Score the run again.") from None
    missing = [name for name in COLUMNS if name not in frame.columns]
    if missing:
        raise CompareError(
            f"{path} has no column {missing[0]!r}: expected those of scores.csv. "
            "Score the run again."
        )
    if frame.empty:
        raise CompareError(f"{path} has no rows. Score the run again.")
    frame = unescaped(frame)
    frame["value"] = _numbers(path, frame["value"])
    _check_rows(path, frame)
    return frame.assign(label=label_of(frame), column=column_of(frame))


def _numbers(path: Path, texts: pd.Series) -> pd.Series:
    """Return values as numbers; raises CompareError for what is none."""
    values: pd.Series[float] = pd.to_numeric(texts, errors="coerce")
    blank = texts.str.strip().str.lower().isin(("", "nan"))
    wrong = (values.isna() & ~blank) | values.abs().eq(np.inf)
    if wrong.any():
        line = int(wrong.to_numpy().argmax())
        raise CompareError(
            f"{path}, line {line + 2}: expected a finite number or nothing in `value`, "
            f"got {texts.iloc[line]!r}."
        )
    return values


def _check_rows(path: Path, frame: pd.DataFrame) -> None:
    """Raise CompareError for rows that are cut short, of an unknown metric, or of several runs."""
    short = frame["signature"].isna() | (frame["signature"] == "")
    if short.any():
        line = int(short.to_numpy().argmax()) + 2
        raise CompareError(
            f"{path}, line {line}: expected {len(COLUMNS)} fields, the signature is missing; "
            "the file may be cut short. Score the run again."
        )
    known = frame[frame["metric"] != BAD_IMAGES].drop_duplicates(["metric", "signature"])
    higher = known["higher_is_better"].astype(str).str.lower() == "true"
    learn(known["metric"].astype(str), known["signature"].astype(str), higher)
    unknown = set(frame["metric"]) - METRICS.keys() - {BAD_IMAGES}
    if unknown:
        raise CompareError(
            f"{path}: unknown metric {sorted(unknown)[0]!r}; it was written by another version."
        )
    _check_whole(path, "seed", frame["seed"].where(frame["seed"] != "", "0"))
    _check_whole(path, "particles", frame["particles"].astype(str))
    for name in SETTINGS:
        values = frame[name].unique()
        if len(values) > 1:
            raise CompareError(
                f"{path} mixes runs: {name} is {values[0]} in some rows and {values[1]} in others. "
                "Give one file per run."
            )


def _check_whole(path: Path, name: str, texts: pd.Series) -> None:
    """Raise CompareError for what is no whole number."""
    wrong = ~texts.str.fullmatch(r"[0-9]{1,18}")
    if wrong.any():
        line = int(wrong.to_numpy().argmax())
        raise CompareError(
            f"{path}, line {line + 2}: expected a whole number in `{name}`, "
            f"got {texts.iloc[line]!r}. Score the run again."
        )


def label_of(frame: pd.DataFrame) -> pd.Series:
    """Return `method` or `method:key=value,...` of each row."""
    texts = {params: method_text("", params) for params in frame["params"].unique()}
    return frame["method"] + frame["params"].map(texts)
