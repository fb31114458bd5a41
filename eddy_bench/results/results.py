"""Results: the rows of one or several score files, with the metrics that they are values of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from eddy_bench.errors import CompareError, counted
from eddy_bench.ids import IID, MethodId, MetricId
from eddy_bench.results.io import metrics_of, read_scores, tag_columns, with_tags
from eddy_bench.scoring.metric import Aspect, Metric
from eddy_bench.scoring.metrics import BAD_IMAGES, COSTS, METRICS
from eddy_bench.storage.group import FinishedGroup

BadImages = Mapping[tuple[str, str], int]  # how many images are bad, by method and reason


@dataclass(frozen=True)
class Results:
    """The scores of one or several runs.

    frame: the columns of scores.csv with ids of methods and metrics, and `source`.
    metrics: those of the rows, by name.
    sources: of the rows, in order.
    copies: the costs of methods that several sources hold alike.
    bad: rows of groups that hold bad images, a row for each reason; no metric's.
    baseline: what the other methods are compared with.
    """

    frame: pd.DataFrame
    metrics: Mapping[str, Metric]
    sources: tuple[str, ...]
    copies: pd.DataFrame = field(default_factory=pd.DataFrame)
    bad: pd.DataFrame = field(default_factory=pd.DataFrame)
    baseline: MethodId = IID

    @property
    def methods(self) -> list[MethodId]:
        """Methods in order."""
        return list(dict.fromkeys(self.frame["method"]))

    @property
    def columns(self) -> list[MetricId]:
        """Metrics in order."""
        return list(dict.fromkeys(self.frame["metric"]))

    def metric(self, column: MetricId) -> Metric:
        """Return the metric of a column; headroom is in no row."""
        return self.metrics.get(column.name) or METRICS[column.name]

    def of_aspect(self, aspect: Aspect, columns: Sequence[MetricId]) -> list[MetricId]:
        """Return those of some columns that weigh an aspect of groups, the leading one first.

        Ours come first, in the order of the registry, then plug-ins.
        """
        own = [
            column
            for column in columns
            if (metric := self.metric(column)).aspect == aspect and metric.scope == "group"
        ]
        return self.in_order(own)

    def in_order(self, columns: Sequence[MetricId]) -> list[MetricId]:
        """Return metrics in the order of the registry, plug-ins after ours."""
        order = list(dict.fromkeys([*METRICS, *self.metrics]))
        return sorted(columns, key=lambda column: order.index(column.name))

    def rows(self, method: MethodId | None = None, column: MetricId | None = None) -> pd.DataFrame:
        """Return the rows of a method, of a metric, or of both."""
        frame = self.frame
        if column is not None:
            frame = frame[frame["metric"] == column]
        return frame if method is None else frame[frame["method"] == method]

    def baseline_costs(self, column: MetricId) -> dict[str, float]:
        """Return the median of the baseline's cost in each source.

        Of several runs, each is compared with its own.
        """
        if column.name not in COSTS:
            return {}
        parts = [part for part in (self.frame, self.copies) if len(part)]
        kept = [
            part[(part["metric"] == column) & (part["method"] == self.baseline)] for part in parts
        ]
        medians = pd.concat(kept).groupby("source", sort=False)["value"].median()
        return {str(source): float(value) for source, value in medians.items()}

    @property
    def bad_images(self) -> BadImages:
        """How many images are bad, by method and reason."""
        counts: Counter[tuple[str, str]] = Counter()
        if len(self.bad):
            columns = (self.bad[name] for name in ("method", "metric", "value"))
            for method, metric, count in zip(*columns, strict=True):
                counts[str(method), metric.extractor] += int(count)
        return counts


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


def read_results(sources: Sequence[Path]) -> Results:
    """Read the scores of folders or CSV files as one.

    Raises:
        CompareError: a source cannot be read or is no scores.csv, a method's group stands in two of
            them, or two plug-ins of one name differ.

    """
    frames: list[pd.DataFrame] = []
    copies: list[pd.DataFrame] = []
    bad: list[pd.DataFrame] = []
    for source in sources:
        frame = read_scores(source).assign(source=str(source))
        counts = frame["metric"].map(lambda own: own.name == BAD_IMAGES).astype(bool)
        bad_rows, frame = frame[counts], frame[~counts]
        alike = [
            method
            for method in dict.fromkeys(frame["method"])
            if any(_same_values(frame, earlier, method) for earlier in frames)
        ]
        copied = frame["method"].isin(alike)
        copies.append(frame[copied & _are_costs(frame)])
        bad.append(bad_rows[~bad_rows["method"].isin(alike)])
        frames.append(frame[~copied])  # what several runs hold alike, as iid, stays once
    joined, copy, none = (pd.concat(parts, ignore_index=True) for parts in (frames, copies, bad))
    joined = with_tags(joined, tag_columns([joined]))
    metrics = metrics_of(joined)
    _check_once(joined)
    return Results(joined, metrics, tuple(map(str, sources)), copy, none)


def _are_costs(frame: pd.DataFrame) -> pd.Series:
    return frame["metric"].map(lambda own: own.name in COSTS).astype(bool)


def _check_once(frame: pd.DataFrame) -> None:
    """Raise CompareError where a value of a method's group stands twice."""
    doubled = frame.duplicated(["method", "metric", "prompt_id", "seed"], keep=False)
    if not doubled.any():
        return
    row = frame[doubled].iloc[0]
    sources = sorted(set(frame[doubled & (frame["method"] == row["method"])]["source"]))
    where = f"twice in {sources[0]}" if len(sources) == 1 else f"in {' and in '.join(sources)}"
    raise CompareError(
        f"The values of {row['method']} for {row['metric']} stand {where}. "
        "Compare them as --against, or leave one out."
    )


def _same_values(frame: pd.DataFrame, other: pd.DataFrame, method: MethodId) -> bool:
    """Return whether two tables hold the same values of a method's groups, costs aside."""
    keys = ["metric", "prompt_id", "prompt", "seed", "signature"]
    sides = [
        {tuple(key): value for *key, value in rows[[*keys, "value"]].itertuples(index=False)}
        for rows in (
            side[(side["method"] == method) & ~_are_costs(side)] for side in (frame, other)
        )
    ]
    same = bool(sides[1]) and sides[0].keys() == sides[1].keys()
    return same and all(
        value == sides[1][key] or (value != value and sides[1][key] != sides[1][key])
        for key, value in sides[0].items()
    )


def results_of(parts: Sequence[pd.DataFrame], source: str) -> Results:
    """Return rows of scores that were just computed as one run's results."""
    frame = pd.concat([part for part in parts if len(part)], ignore_index=True)
    frame = with_tags(frame.assign(source=source), tag_columns([frame]))
    counts = frame["metric"].map(lambda own: own.name == BAD_IMAGES).astype(bool)
    return Results(frame[~counts], metrics_of(frame[~counts]), (source,), bad=frame[counts])


def bad_images_of(groups: Iterable[FinishedGroup], hold_out: Iterable[FinishedGroup]) -> BadImages:
    """Return how many images are bad, by method and reason; of the hold-out as its own method."""
    named = [(group.group.name, group) for group in groups]
    named += [("the set for drift", group) for group in hold_out]
    return Counter((name, why) for name, own in named for why in own.bad.values())


def bad_words(parts: BadImages) -> list[str]:
    """Say how many images are bad, by method and reason; nothing where there are none."""
    if not parts:
        return []
    listed = ", ".join(f"{name} {count} ({reason})" for (name, reason), count in parts.items())
    return [
        f"{counted(sum(parts.values()), 'bad image')}: {listed}. Their groups have no score, "
        "and metrics of whole sets leave them out."
    ]
