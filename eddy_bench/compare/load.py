"""Reading scores.csv of run folders, and what may be compared with what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from eddy_bench.errors import CompareError, EddyError
from eddy_bench.methods.registry import build_method, method_name, parameter_text
from eddy_bench.scoring.metrics import COSTS, METRICS
from eddy_bench.scoring.score_table import read_table, unescaped
from eddy_bench.storage.paths import as_path
from eddy_bench.storage.run_folder import RunFolder
from eddy_bench.suites.method_spec import MethodSpec

COLUMNS = (
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
)
SETTINGS = ("model", "scheduler", "steps", "guidance_scale", "particles")
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


@dataclass(frozen=True)
class ScoreSet:
    """The rows of one or several score files.

    Columns are those of scores.csv, and: label (method with its parameters), column (metric with its order and extractor), unit (of the
    sample: prompt and seed; empty for pooled metrics), source (where from). copies: the costs of methods that several sources hold alike.
    """

    frame: pd.DataFrame
    sources: tuple[str, ...]
    copies: pd.DataFrame | None = None

    def baselines(self, column: str, label: str) -> dict[str, float]:
        """The mean of a cost of one method in each source: of several runs, each is compared with its own."""
        frames = [part for part in (self.frame, self.copies) if part is not None]
        rows = pd.concat(
            [part[(part["column"] == column) & (part["label"] == label)] for part in frames]
        )
        return (
            {
                str(source): float(value)
                for source, value in rows.groupby("source")["value"].mean().items()
            }
            if column in COSTS
            else {}
        )

    @property
    def labels(self) -> list[str]:
        """Methods with their parameters, in order."""
        return list(dict.fromkeys(self.frame["label"]))


def last_run(root: Path = Path("results")) -> Path:
    """The run folder whose scores are newest.

    Raises:
        CompareError: there is none.

    """
    found = sorted(root.glob("*/scores.csv"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise CompareError(
            f"Expected a scored run below {root}/, found none. Name a run folder or a CSV file, or draw one: eddy-bench run."
        )
    return found[-1].parent


def read_scores(sources: Sequence[Path]) -> ScoreSet:
    """The scores of folders or CSV files, as one table.

    Raises:
        CompareError: a source cannot be read or is no scores.csv, or a method's group stands in two of them.

    """
    frames: list[pd.DataFrame] = []
    dropped: list[pd.DataFrame] = []
    for source in sources:
        frame = _read(source)
        copies = [
            label
            for label in dict.fromkeys(frame["label"])
            if any(_same_values(frame, earlier, label) for earlier in frames)
        ]
        dropped.append(
            frame[frame["label"].isin(copies) & frame["metric"].isin(COSTS)].assign(
                source=str(source)
            )
        )
        frames.append(
            frame[~frame["label"].isin(copies)].assign(source=str(source))
        )  # what several runs hold alike, as iid, stays once
    frame = pd.concat(frames, ignore_index=True)
    doubled = frame.duplicated(["label", "column", "prompt_id", "seed"], keep=False)
    if doubled.any():
        row = frame[doubled].iloc[0]
        places = sorted(set(frame[doubled & (frame["label"] == row["label"])]["source"]))
        where = f"twice in {places[0]}" if len(places) == 1 else f"in {' and in '.join(places)}"
        raise CompareError(
            f"The values of {row['label']} for {row['column']} stand {where}. Compare them as --against, or leave one out."
        )
    return ScoreSet(frame, tuple(map(str, sources)), pd.concat(dropped, ignore_index=True))


def _same_values(frame: pd.DataFrame, other: pd.DataFrame, label: str) -> bool:
    """Whether two tables hold the same groups of a method with the same values, costs aside."""
    keys = ["column", "prompt_id", "prompt", "seed", "signature"]
    sides = [
        side[(side["label"] == label) & ~side["metric"].isin(COSTS)]
        .set_index(keys)["value"]
        .sort_index()
        for side in (frame, other)
    ]
    return not sides[1].empty and sides[0].equals(sides[1])


def _read(source: Path) -> pd.DataFrame:
    path = source / "scores.csv" if source.is_dir() else source
    if not path.is_file():
        hint = f" `eddy-bench score {source}` writes it." if (source / "run.yaml").is_file() else ""
        raise CompareError(
            f"Expected a run folder with scores.csv, or a CSV file, got {source}.{hint}"
        )
    try:
        frame = read_table(
            path,
            dtype=dict.fromkeys(TEXTS, str) | {"seed": str, "value": str},
            keep_default_na=False,
        )
    except (
        pd.errors.ParserError,
        pd.errors.EmptyDataError,
        UnicodeDecodeError,
        ValueError,
    ) as error:
        raise CompareError(
            f"{path} is not a scores.csv: {str(error).splitlines()[0]}. Score the run again."
        ) from None
    missing = [name for name in COLUMNS if name not in frame.columns]
    if missing:
        raise CompareError(
            f"{path} has no column {missing[0]!r}: expected those of scores.csv. Score the run again."
        )
    if frame.empty:
        raise CompareError(f"{path} has no rows. Score the run again.")
    frame = unescaped(frame)
    values: pd.Series[float] = pd.to_numeric(frame["value"], errors="coerce")
    wrong = (
        values.isna() & ~frame["value"].str.strip().str.lower().isin(("", "nan"))
    ) | values.abs().eq(np.inf)
    if wrong.any():
        line = int(wrong.to_numpy().argmax())
        raise CompareError(
            f"{path}, line {line + 2}: expected a finite number or nothing in `value`, got {frame['value'].iloc[line]!r}."
        )
    frame["value"] = values
    short = frame["signature"].isna() | (frame["signature"] == "")
    if short.any():
        line = int(short.to_numpy().argmax()) + 2
        raise CompareError(
            f"{path}, line {line}: expected {len(COLUMNS)} fields, the signature is missing; the file may be cut short. Score the run again."
        )
    unknown = set(frame["metric"]) - METRICS.keys()
    if unknown:
        raise CompareError(
            f"{path}: unknown metric {sorted(unknown)[0]!r}; it was written by another version."
        )
    frame["label"] = label_of(frame)
    frame["column"] = column_of(frame)
    for name in SETTINGS:
        found = frame[name].unique()
        if len(found) > 1:
            raise CompareError(
                f"{path} mixes runs: {name} is {found[0]} in some rows and {found[1]} in others. Give one file per run."
            )
    return frame


def check_settings(candidate: ScoreSet, baseline: ScoreSet) -> None:
    """Raise CompareError where a candidate was drawn with other settings than its baseline."""
    different = []
    for name in SETTINGS:
        values = list(
            dict.fromkeys([*map(str, baseline.frame[name]), *map(str, candidate.frame[name])])
        )
        different += (
            [f"{name} is {values[0]} in the baseline and {values[1]} now"]
            if len(values) > 1
            else []
        )
    different += _other_settings(list(dict.fromkeys([*baseline.sources, *candidate.sources])))
    if different:
        raise CompareError(
            f"The candidate was drawn with other settings: {'; '.join(different)}. Draw it as the baseline was, or make a new baseline."
        )


def _other_settings(sources: Sequence[str]) -> list[str]:
    """What run folders hold fixed beside the columns of scores.csv, where it differs."""
    folders = [RunFolder(as_path(source)) for source in sources]
    held = [folder.read_run().settings for folder in folders if folder.has_run]
    return [
        f"{name} differs: {held[0].as_dict().get(name)} and {settings.as_dict().get(name)}"
        for settings in held[1:]
        for name in held[0].differences(settings)
        if name not in SETTINGS
    ][:3]


def label_of(frame: pd.DataFrame) -> pd.Series:
    """`method` or `method:key=value,...`."""
    return frame["method"] + frame["params"].where(frame["params"] == "", ":" + frame["params"])


def column_of(frame: pd.DataFrame) -> pd.Series:
    """The metric with its order and extractor, as in summary.csv: `vendi-q2[fmnist-clip]`."""
    order = frame["signature"].str.extract(r"^vendi\|q=([^|]+)\|", expand=False)
    suffix = order.map(
        lambda q: f"-q{q}" if isinstance(q, str) and q != "1" else "", na_action=None
    )
    return (
        frame["metric"] + suffix + frame["extractor"].map(lambda name: f"[{name}]" if name else "")
    )


def canonical(text: str) -> str:
    """A method as score files name it: its parameters that are not the defaults, in order. Text that is no method stays what it is.

    >>> canonical("pg:kernel=features,strength=2"), canonical("pg:kernel=auto")
    ('pg:strength=2.0,kernel=features', 'pg')
    """
    try:
        spec = MethodSpec.parse(text)
        method = build_method(spec)
    except EddyError:
        return text
    parameters = parameter_text(method)
    return f"{method_name(spec)}:{parameters}" if parameters else method_name(spec)


def some_of(labels: Sequence[str], wanted: str) -> str:
    """A few labels, those of the same method first."""
    name = wanted.partition(":")[0]
    ordered = sorted(labels, key=lambda label: label.partition(":")[0] != name)
    return ", ".join(ordered[:8]) + (f" and {len(ordered) - 8} more" if len(ordered) > 8 else "")


def lacking(scores: ScoreSet) -> list[str]:
    """Notes on methods that have no value at all of a metric which others have, as after a file was cut short."""
    notes = []
    for column, rows in scores.frame.groupby("column", sort=False):
        without = [label for label in scores.labels if label not in set(rows["label"])]
        if without and rows["metric"].iloc[0] != "drift_floor":
            notes.append(
                f"{', '.join(without[:5])}{' and more' if len(without) > 5 else ''}: no value of {column}, which other methods have"
            )
    return notes


def settings_of(scores: ScoreSet) -> dict[str, tuple[str, ...]]:
    """What each setting is, over all sources."""
    return {name: tuple(dict.fromkeys(map(str, scores.frame[name]))) for name in SETTINGS}


def check_comparable(
    scores: ScoreSet, other: ScoreSet | None = None, partly: bool = False
) -> list[str]:
    """What differs between sources that are to be compared.

    Args:
        scores, other: one table, or two sides. partly: compare what both sides have.

    Returns:
        Notes on what was left out or differs, when `partly`.

    Raises:
        CompareError: settings, signatures or prompt sets differ and `partly` is not set.

    """
    frame = (
        scores.frame if other is None else pd.concat([scores.frame, other.frame], ignore_index=True)
    )
    notes = []
    for name in SETTINGS:
        values = list(dict.fromkeys(map(str, frame[name])))
        if len(values) > 1:
            notes.append(f"{name} differs: {values[0]} and {values[1]}")
    notes += _other_settings(
        list(dict.fromkeys([*scores.sources, *(other.sources if other else ())]))
    )
    signatures = frame.groupby("column")["signature"].unique()
    for column, found in signatures.items():
        if len(found) > 1:
            notes.append(f"the signatures of {column} differ: {found[0]} and {found[1]}")
    group = frame[frame["prompt_id"] != ""]
    sets = {
        key: frozenset(zip(rows["prompt_id"], rows["prompt"], rows["seed"], strict=True))
        for key, rows in group.groupby(["source", "label"])
    }
    first = next(iter(sets), None)
    second = next((key for key in sets if first and sets[key] != sets[first]), None)
    if first and second:
        missing = sorted(sets[first] ^ sets[second])
        notes.append(
            f"prompts differ: {missing[0][0]!r} ({missing[0][1][:40]!r}, seed {missing[0][2]}) is not in both {first[1]} ({first[0]}) and {second[1]} ({second[0]}), {len(missing)} in all"
        )
    if notes and not partly:
        raise CompareError(
            f"Cannot compare: {'; '.join(notes)}. Add --partly to compare what both have."
        )
    return notes
