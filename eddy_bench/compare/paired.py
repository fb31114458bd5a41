"""Paired differences to a baseline method over prompts."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eddy_bench.compare.comparable import some_of
from eddy_bench.compare.load import ScoreSet
from eddy_bench.errors import CompareError, unknown
from eddy_bench.methods.registry import method_names
from eddy_bench.scoring.ceiling import NAME as FREE_SHARE
from eddy_bench.scoring.metrics import METRICS
from eddy_bench.scoring.signature import CIRCULAR, SMALL_SAMPLE, Signature
from eddy_bench.scoring.statistics import detectable, holm, mean_intervals, zero_mean_p
from eddy_bench.storage.paths import as_path
from eddy_bench.suites.method_spec import MethodSpec, is_file_plugin

LEVEL = 0.05
MEMORY = "peak_memory_mb"
# values that only --partly lets stand side by side; no verdict is given on them
SIGNATURES = "signatures differ"


@dataclass(frozen=True)
class Difference:
    """Hold a method against the baseline on one metric.

    prompts: how many both have; 0 for pooled metrics and for costs, whose prompts share batches:
        they have no interval.
    baseline, value: means.
    low, high: 95% studentised bootstrap interval of the difference over prompts.
    effect: mean over standard deviation of the paired differences (Cohen's d_z).
    p: of no difference, by the studentised bootstrap; of a free share, one-sided, that samples
        kept their distribution.
    p_holm: corrected over the methods.
    wins: share of prompts on which the method is better, ties half.
    detectable: the smallest difference that this many prompts show 4 times in 5.
    warning: what speaks against reading much into it.
    scatter: standard deviation of the paired differences over prompts.
    """

    label: str
    column: str
    higher_is_better: bool
    prompts: int
    baseline: float
    value: float
    difference: float
    low: float = float("nan")
    high: float = float("nan")
    effect: float = float("nan")
    p: float = float("nan")
    p_holm: float = float("nan")
    wins: float = float("nan")
    detectable: float = float("nan")
    warning: str = ""
    scatter: float = float("nan")

    @property
    def better(self) -> bool | None:
        """True for a shown gain, False for a shown loss, None for neither.

        A free share's p is of samples that moved, which is no gain.
        """
        if (
            self.column.startswith(FREE_SHARE)
            or SIGNATURES in self.warning
            or not self.p_holm < LEVEL
            or not (self.low > 0 or self.high < 0)
        ):
            return None
        return (self.difference > 0) == self.higher_is_better


def by_prompt(frame: pd.DataFrame) -> pd.DataFrame:
    """Return means over seeds: prompts down, methods across, in order."""
    table = frame.pivot_table(
        index="prompt_id", columns="label", values="value", aggfunc="mean", dropna=False, sort=False
    )
    return table[list(dict.fromkeys(frame["label"]))]


def compare(
    scores: ScoreSet,
    baseline: str = "iid",
    advance: Callable[[int, str], None] = lambda count, label: None,
) -> list[Difference]:
    """Compare every method with the baseline on every metric.

    Args:
        scores: of all methods.
        baseline: one of their labels.
        advance: is called with the metric at work, and with 1 when it is done.

    Raises:
        CompareError: the baseline is not there.

    """
    if baseline not in scores.labels:
        raise _no_baseline(scores, baseline)
    differences: list[Difference] = []
    order = {name: rank for rank, name in enumerate(METRICS)}
    for column, rows in sorted(
        scores.frame.groupby("column", sort=False),
        key=lambda item: order[item[1]["metric"].iloc[0]],
    ):
        advance(0, str(column))
        group = METRICS[rows["metric"].iloc[0]].scope == "group"
        if group:
            differences += _paired(str(column), rows, baseline)
        elif column != MEMORY:  # on a CPU it is that of the process so far
            differences += _pooled(str(column), rows, scores, baseline)
        advance(1, str(column))
    return differences


def is_misspelt(baseline: str) -> bool:
    """Return whether no method has the name of a baseline."""
    name = MethodSpec.of_label(baseline).name
    return not (is_file_plugin(baseline) or name in method_names())


def _no_baseline(scores: ScoreSet, baseline: str) -> CompareError:
    """Return the error of a baseline that is not there: drawn by nobody, or misspelt."""
    if is_misspelt(baseline):
        return CompareError(
            unknown("baseline", baseline, scores.labels).replace("Available", "The run holds")
        )
    folder = next((source for source in scores.sources if as_path(source).is_dir()), "")
    out = shlex.quote(folder) if folder else "RUN"
    return CompareError(
        f"The baseline {baseline!r} is not in {', '.join(scores.sources)}, which holds "
        f"{some_of(scores.labels, baseline)}. Add it: eddy-bench run "
        f"--method {shlex.quote(baseline)} --out {out}; or name another: --baseline."
    )


def _warnings(rows: pd.DataFrame) -> str:
    signatures = [Signature.parse(text) for text in rows["signature"].unique()]
    marks = [
        mark
        for mark in (SMALL_SAMPLE, CIRCULAR)
        if any(signature.has(mark) for signature in signatures)
    ]
    return ", ".join([*marks, *([SIGNATURES] if len(signatures) > 1 else [])])


def _pooled(column: str, rows: pd.DataFrame, scores: ScoreSet, baseline: str) -> list[Difference]:
    means = rows.groupby("label", sort=False)[
        "value"
    ].median()  # of costs: no stalled batch moves it
    baselines = scores.baselines(column, baseline)
    if baseline not in means:
        return []
    higher, warning = METRICS[rows["metric"].iloc[0]].higher_is_better, _warnings(rows)
    differences = []
    for label, value in means.items():
        own = baselines.get(
            str(rows[rows["label"] == label]["source"].iloc[0]), float(means[baseline])
        )
        if label != baseline:
            differences.append(
                Difference(str(label), column, higher, 0, own, value, value - own, warning=warning)
            )
    return differences


def _paired(column: str, rows: pd.DataFrame, baseline: str) -> list[Difference]:
    table = by_prompt(rows)
    if baseline not in table.columns:
        return []
    higher, warning = METRICS[rows["metric"].iloc[0]].higher_is_better, _warnings(rows)
    labels = [str(label) for label in table.columns if label != baseline]
    if not labels:
        return []
    differences = sorted(
        _differences(column, table, labels, baseline, higher, warning),
        key=lambda difference: labels.index(difference.label),
    )
    adjusted = holm(
        [difference.p if difference.p == difference.p else 1.0 for difference in differences]
    )
    return [
        Difference(**{**vars(difference), "p_holm": p})
        for difference, p in zip(differences, adjusted, strict=True)
    ]


def _differences(
    column: str, table: pd.DataFrame, labels: list[str], baseline: str, higher: bool, warning: str
) -> Iterator[Difference]:
    values = table[labels].to_numpy(np.float64).T
    baseline_values = table[baseline].to_numpy(np.float64)
    gaps = values - baseline_values  # (methods, prompts)
    for shared in _same_prompts(gaps):
        rows = gaps[shared][:, ~np.isnan(gaps[shared[0]])]
        count = rows.shape[1]
        lows, highs = mean_intervals(rows)
        chances = zero_mean_p(rows)
        for row, k in enumerate(shared):
            own, there = rows[row], ~np.isnan(gaps[k])
            lost = int((np.isnan(values[k]) != np.isnan(baseline_values)).sum())
            smallest = detectable(own, comparisons=len(labels))
            few = "too few prompts to show anything" if count and np.isinf(smallest) else ""
            scatter = float(own.std(ddof=1)) if count > 1 else float("nan")
            yield Difference(
                labels[k],
                column,
                higher,
                count,
                float(baseline_values[there].mean()) if count else float("nan"),
                float(values[k][there].mean()) if count else float("nan"),
                float(own.mean()) if count else float("nan"),
                lows[row],
                highs[row],
                float(own.mean() / scatter) if count > 1 and scatter > 0 else float("nan"),
                chances[row],
                float("nan"),
                win_rate(own if higher else -own),
                smallest,
                ", ".join(filter(None, [warning, missing_words(lost), few])),
                scatter,
            )


def missing_words(lost: int) -> str:
    """Say how many prompts there are for which only one of two methods has a value."""
    return f"{lost} prompt{'s have' if lost > 1 else ' has'} one value only" if lost else ""


def _same_prompts(gaps: NDArray[np.float64]) -> list[list[int]]:
    """Return rows with values for the same prompts, together."""
    together: dict[bytes, list[int]] = {}
    for k, row in enumerate(gaps):
        together.setdefault(np.isnan(row).tobytes(), []).append(k)
    return list(together.values())


def win_rate(gains: NDArray[np.float64]) -> float:
    """Return the share of gains above 0, ties half.

    >>> win_rate(np.array([1.0, 0.0, -1.0, 2.0]))
    0.625
    """
    return float(((gains > 0) + 0.5 * (gains == 0)).mean()) if len(gains) else float("nan")
