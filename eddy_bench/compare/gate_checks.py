"""The tests of a gate: each gives an exit code and the figures behind it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from eddy_bench.compare.free_shares import free_shares, why_none
from eddy_bench.compare.load import ScoreSet
from eddy_bench.errors import EddyError
from eddy_bench.scoring.ceiling import NAME as FREE_SHARE
from eddy_bench.scoring.metrics import METRICS, MetricSpec
from eddy_bench.scoring.signature import SMALL_SAMPLE, Signature
from eddy_bench.scoring.statistics import detectable, mean_intervals

PASS, REGRESSION, UNUSABLE, TOO_FEW = 0, 1, 2, 3
PRECEDENCE = (UNUSABLE, REGRESSION, TOO_FEW, PASS)
WORDS = {
    PASS: "passes",
    REGRESSION: "regression",
    UNUSABLE: "could not be measured",
    TOO_FEW: "not enough data",
}
MIN_PROMPTS = 12  # with fewer an interval says little
IID = "iid"
# (label, column, signature) -> (difference, standard error) of a pooled metric
Subsample = Callable[[str, str, str], tuple[float, float] | None]


class Check(BaseModel):
    """Hold one line of a gate.

    metric: a column such as `vendi[fmnist-clip]`, `nfe`, `seconds_per_image`.
    test: `noninferior` (paired over prompts), `equal` (exactly the same mean), `ratio` (of the mean
        to iid's in the same run, against the baseline's ratio), `pooled` (of pooled metrics),
        `ceiling` (of free_share: fails where the candidate's samples are shown to have moved).
    direction: which way is better; the metric's own when left out.
    margin: what may be lost, in the metric's unit; of `ratio` and `pooled` a share of the
        baseline's.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    metric: str
    test: Literal["noninferior", "equal", "ratio", "pooled", "ceiling"]
    direction: Literal["higher", "lower"] | None = None
    margin: Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)] = 0.0

    @model_validator(mode="after")
    def _check_metric(self) -> Check:
        try:
            spec = MetricSpec.of_column(self.metric)
        except EddyError as error:
            raise ValueError(str(error)) from None
        if (spec.name == FREE_SHARE) != (self.test == "ceiling"):
            raise ValueError(f"test 'ceiling' goes with {FREE_SHARE}[EXTRACTOR] and with no other")
        if spec.name not in METRICS:  # a plug-in, of which the score files tell
            return self
        pooled = spec.metric.scope == "pooled" and self.test != "ceiling"
        if pooled != (self.test == "pooled") and self.test != "equal":
            raise ValueError(
                f"{self.metric} is {'' if pooled else 'not '}a metric of the pooled set: "
                f"test {self.test!r} does not fit it"
            )
        return self

    @property
    def sign(self) -> float:
        """1 where higher is better, -1 where lower is."""
        own = MetricSpec.of_column(self.metric).metric.higher_is_better
        return 1.0 if (self.direction == "higher" if self.direction else own) else -1.0


def noninferior(check: Check, now: pd.DataFrame, before: pd.DataFrame) -> tuple[int, str]:
    """Hold the mean gain over prompts against the margin."""
    means = [side.groupby("prompt_id")["value"].mean().sort_index() for side in (now, before)]
    return judge_gaps(check.sign * (means[0] - means[1]).to_numpy(np.float64), check.margin)


def judge_gaps(gains: NDArray[np.float64], margin: float) -> tuple[int, str]:
    """Judge non-inferiority of gains per prompt, (prompts,).

    The 95% bootstrap interval of their mean is held against -margin.
    """
    count = len(gains)
    if count and not gains.any():
        return PASS, f"no change on any of {count} prompts"
    if count < MIN_PROMPTS:
        return TOO_FEW, f"{count} prompts; {MIN_PROMPTS} are the fewest that can show anything"
    (low,), (high,) = mean_intervals(gains[None])
    text = f"{gains.mean():+.4g} [{low:+.4g}, {high:+.4g}] over {count} prompts, margin {margin:g}"
    if low > -margin or (margin == 0 and low >= 0):
        return PASS, text
    if high < -margin:
        return REGRESSION, text
    seen = margin + detectable(gains)
    return TOO_FEW, f"{text}; regressions from {seen:.3g} are seen 4 times in 5"


def ceiling(metric: str, label: str, candidate: ScoreSet) -> tuple[int, str]:
    """Ask whether the scores prove that a method's samples have moved."""
    shares = {(share.label, share.column): share for share in free_shares(candidate)}
    share = shares.get((label, metric))
    if share is None or not share.words:
        return UNUSABLE, why_none(candidate) or f"{metric} is not defined for {label}"
    return (REGRESSION if share.moved else PASS), share.words


def equal(now: pd.DataFrame, before: pd.DataFrame) -> tuple[int, str]:
    """Ask for the same value in every group."""
    keys = ["prompt_id", "seed"]
    pairs = now.set_index(keys)["value"].sort_index(), before.set_index(keys)["value"].sort_index()
    different = ~np.isclose(pairs[0].to_numpy(), pairs[1].to_numpy(), rtol=1e-9, atol=0)
    if not different.any():
        return PASS, f"{before['value'].mean():g}, as in the baseline"
    return (
        REGRESSION,
        f"{now['value'].mean():g} now, {before['value'].mean():g} in the baseline; "
        f"{int(different.sum())} of {len(different)} groups differ",
    )


def ratio(
    check: Check, sides: Sequence[pd.DataFrame], iid: Sequence[pd.DataFrame]
) -> tuple[int, str]:
    """Hold the ratio to iid of the same run against the ratio in the baseline.

    Of medians over groups, which no batch that something else stalled moves.
    """
    for name, rows in zip(("candidate", "baseline"), iid, strict=True):
        if rows.empty or not rows["value"].median() > 0:
            return UNUSABLE, f"the {name} has no {check.metric} of {IID} to take a ratio to"
    now, before = (
        float(side["value"].median() / own["value"].median())
        for side, own in zip(sides, iid, strict=True)
    )
    worse = before * (1 - check.sign * check.margin)
    failed = now < worse if check.sign > 0 else now > worse
    return (
        REGRESSION if failed else PASS,
        f"{now:.3g} times {IID} now, {before:.3g} in the baseline, allowed {worse:.3g}",
    )


def pooled(
    check: Check, label: str, sides: Sequence[pd.DataFrame], subsample: Subsample | None
) -> tuple[int, str]:
    """Hold the difference of a pooled metric against a share of the baseline's value."""
    now, before = sides
    values = float(now["value"].iloc[0]), float(before["value"].iloc[0])
    signatures = [str(side["signature"].iloc[0]) for side in (now, before)]
    if any(Signature.parse(text).has(SMALL_SAMPLE) for text in signatures):
        return (
            TOO_FEW,
            "the sample is smaller than the metric needs (small-sample); "
            "draw more prompts or seeds on both sides",
        )
    allowed = check.margin * abs(values[1])
    sampled = subsample(label, check.metric, signatures[0]) if subsample is not None else None
    if sampled is None:
        gain = check.sign * (values[0] - values[1])
        text = (
            f"{values[0]:.4g} now, {values[1]:.4g} in the baseline, "
            f"allowed to change by {allowed:.3g}; no test without features on both sides"
        )
        return (PASS if gain >= -allowed else REGRESSION), text
    gain, error = check.sign * sampled[0], sampled[1]
    if not np.isfinite(sampled).all():
        return UNUSABLE, "the features hold values that are not numbers; score both runs again"
    low, high = gain - 1.96 * error, gain + 1.96 * error
    text = f"{gain:+.4g} [{low:+.4g}, {high:+.4g}] by subsampling prompts, margin {allowed:.3g}"
    return (PASS if low >= -allowed else REGRESSION if high < -allowed else TOO_FEW), text
