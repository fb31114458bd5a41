"""A gate: does a candidate do worse than a recorded baseline by more than is allowed?"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from eddy_bench.compare.load import ScoreSet, canonical, some_of
from eddy_bench.errors import CompareError, unknown
from eddy_bench.scoring.metrics import METRICS
from eddy_bench.scoring.statistics import detectable, mean_intervals
from eddy_bench.storage.files import read_yaml
from eddy_bench.storage.paths import as_path

PASS, REGRESSION, UNUSABLE, TOO_FEW = 0, 1, 2, 3
PRECEDENCE = (UNUSABLE, REGRESSION, TOO_FEW, PASS)
WORDS = {
    PASS: "passes",
    REGRESSION: "regression",
    UNUSABLE: "could not be measured",
    TOO_FEW: "not enough data",
}
MIN_PROMPTS = 12  # with fewer the bootstrap's intervals are too narrow
MAX_BYTES = 2**20
IID = "iid"

Halves = Callable[
    [str, str, str], tuple[float, float] | None
]  # (label, column, signature) -> (difference, standard error) of a pooled metric


class Check(BaseModel):
    """One line of a gate.

    metric: a column such as `vendi[fmnist-clip]`, `nfe`, `seconds_per_image`. test: `noninferior` (paired over prompts), `equal` (exactly the
    same mean), `ratio` (of the mean to iid's in the same run, against the baseline's ratio), `pooled` (of pooled metrics). direction: which way is
    better; the metric's own when left out. margin: what may be lost, in the metric's unit; of `ratio` and `pooled` a share of the baseline's.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    metric: str
    test: Literal["noninferior", "equal", "ratio", "pooled"]
    direction: Literal["higher", "lower"] | None = None
    margin: Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)] = 0.0

    @model_validator(mode="after")
    def _check_metric(self) -> Check:
        bare = self.metric.partition("[")[0].partition("-q")[0]
        if bare not in METRICS:
            raise ValueError(unknown("metric", bare, METRICS))
        pooled = METRICS[bare].scope == "pooled"
        if pooled != (self.test == "pooled") and self.test != "equal":
            raise ValueError(
                f"{self.metric} is {'' if pooled else 'not '}a metric of the pooled set: test {self.test!r} does not fit it"
            )
        return self

    @property
    def sign(self) -> float:
        """1 where higher is better, -1 where lower is."""
        own = METRICS[self.metric.partition("[")[0].partition("-q")[0]].higher_is_better
        return 1.0 if (self.direction == "higher" if self.direction else own) else -1.0


class Gate(BaseModel):
    """A gate's file: what is checked, and for which methods (labels such as `pg` or `pg:strength=2`; all of the baseline's by default)."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    checks: Annotated[list[Check], Field(min_length=1)]
    methods: Annotated[list[str], Field(min_length=1)] | None = None


@dataclass(frozen=True)
class CheckResult:
    """One check of one method. status: an exit code. detail: in words, with the figures."""

    label: str
    metric: str
    test: str
    status: int
    detail: str


def read_gate(path: Path) -> Gate:
    """A gate from YAML.

    Raises:
        CompareError: not there, not YAML, an unknown key or metric, a test that does not fit its metric.

    """
    try:
        return Gate.model_validate(read_yaml(path, CompareError, "a gate", MAX_BYTES))
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(map(str, problem["loc"])) or "the file"
        raise CompareError(
            f"{path}: {place}: {problem['msg'].removeprefix('Value error, ')}."
        ) from None


def run_gate(
    gate: Gate, candidate: ScoreSet, baseline: ScoreSet, halves: Halves | None = None
) -> list[CheckResult]:
    """Every check of every method.

    Args:
        candidate, baseline: both sides. halves: the interval of a pooled metric's difference where features are at hand on both sides.

    """
    labels = [
        text if text in baseline.labels else canonical(text)
        for text in gate.methods or baseline.labels
    ]
    missing = [label for label in labels if label not in baseline.labels]
    if missing:
        raise CompareError(
            f"The gate names the method {missing[0]!r}, which the baseline does not hold: {some_of(baseline.labels, missing[0])}."
        )
    return [
        _outcome(check, label, candidate, baseline, halves)
        for label in labels
        for check in gate.checks
    ]


def exit_code(outcomes: Sequence[CheckResult]) -> int:
    """2 before 1 before 3 before 0."""
    found = {one.status for one in outcomes}
    return next((code for code in PRECEDENCE if code in found), PASS)


def _outcome(
    check: Check, label: str, candidate: ScoreSet, baseline: ScoreSet, halves: Halves | None
) -> CheckResult:
    sides = _with_values([_rows(side, label, check.metric) for side in (candidate, baseline)])
    usual = (
        [_rows(side, IID, check.metric) for side in (candidate, baseline)]
        if check.test == "ratio"
        else []
    )
    status, detail = UNUSABLE, ""
    if sides[1].empty:
        detail = "the baseline has no such value: leave the check out or make a new baseline"
    elif sides[0].empty:
        known = label in candidate.labels
        detail = (
            "the candidate has no such value"
            if known
            else f"the method is not in the candidate: eddy-bench run --method {shlex.quote(label)}{_out(candidate)}"
        )
    elif (signatures := {frozenset(side["signature"]) for side in sides}) and len(signatures) > 1:
        detail = f"signatures differ: {sides[0]['signature'].iloc[0]} now, {sides[1]['signature'].iloc[0]} in the baseline"
    elif not all(np.isfinite(side["value"]).all() for side in [*sides, *usual]):
        detail = f"a value is not a number in the {'candidate' if not all(np.isfinite(side['value']).all() for side in [sides[0], *usual[:1]]) else 'baseline'}"
    elif check.test != "pooled" and (
        gap := _missing_prompts(sides[0], sides[1])
        or (_missing_prompts(usual[0], usual[1]) if usual else "")
    ):
        detail = gap
    elif check.test == "noninferior":
        status, detail = _noninferior(check, sides[0], sides[1])
    elif check.test == "equal":
        status, detail = _equal(sides[0], sides[1])
    elif check.test == "ratio":
        status, detail = _ratio(check, sides, usual)
    else:
        status, detail = _pooled(check, label, sides[0], sides[1], halves)
    return CheckResult(label, check.metric, check.test, status, detail)


def _out(scores: ScoreSet) -> str:
    """The run folder that a method would be added to."""
    return f" --out {shlex.quote(scores.sources[0])}" if as_path(scores.sources[0]).is_dir() else ""


def _with_values(sides: list[pd.DataFrame]) -> list[pd.DataFrame]:
    """Both sides without the groups for which a metric is defined on neither, as `align` for prompts that name nothing."""
    keys = [
        set(zip(side["prompt_id"], side["seed"], strict=True))
        for side in (side[side["value"].isna()] for side in sides)
    ]
    undefined = keys[0] & keys[1]
    if not undefined or any(len(side) == len(undefined) for side in sides):
        return sides
    return [
        side[[key not in undefined for key in zip(side["prompt_id"], side["seed"], strict=True)]]
        for side in sides
    ]


def _rows(scores: ScoreSet, label: str, column: str) -> pd.DataFrame:
    frame = scores.frame
    return frame[(frame["label"] == label) & (frame["column"] == column)]


def _missing_prompts(now: pd.DataFrame, before: pd.DataFrame) -> str:
    ours, theirs = (
        set(zip(side["prompt_id"], side["prompt"], side["seed"], strict=True))
        for side in (now, before)
    )
    if ours == theirs:
        return ""
    one = sorted(ours ^ theirs)[0]
    where = "candidate" if one in theirs else "baseline"
    return f"the groups differ: prompt {one[0]!r}, seed {one[2]} is not in the {where} ({len(ours ^ theirs)} differ)"


def _noninferior(check: Check, now: pd.DataFrame, before: pd.DataFrame) -> tuple[int, str]:
    means = [side.groupby("prompt_id")["value"].mean().sort_index() for side in (now, before)]
    return judge_gaps(check.sign * (means[0] - means[1]).to_numpy(np.float64), check.margin)


def judge_gaps(gains: NDArray[np.float64], margin: float) -> tuple[int, str]:
    """Non-inferiority of gains per prompt, (prompts,): the 95% bootstrap interval of their mean against -margin."""
    count = len(gains)
    if count and not gains.any():
        return PASS, f"no change on any of {count} prompts"
    if count < MIN_PROMPTS:
        return TOO_FEW, f"{count} prompts; {MIN_PROMPTS} are the fewest that can show anything"
    (low,), (high,) = mean_intervals(gains[None])
    text = f"{gains.mean():+.4g} [{low:+.4g}, {high:+.4g}] over {count} prompts, margin {margin:g}"
    if low > -margin or (margin == 0 and low >= 0):
        return PASS, text
    return (
        (REGRESSION, text)
        if high < -margin
        else (
            TOO_FEW,
            f"{text}; regressions from {margin + detectable(gains):.3g} are seen 4 times in 5",
        )
    )


def _equal(now: pd.DataFrame, before: pd.DataFrame) -> tuple[int, str]:
    keys = ["prompt_id", "seed"]
    pairs = now.set_index(keys)["value"].sort_index(), before.set_index(keys)["value"].sort_index()
    different = ~np.isclose(pairs[0].to_numpy(), pairs[1].to_numpy(), rtol=1e-9, atol=0)
    if not different.any():
        return PASS, f"{before['value'].mean():g}, as in the baseline"
    return (
        REGRESSION,
        f"{now['value'].mean():g} now, {before['value'].mean():g} in the baseline; {int(different.sum())} of {len(different)} groups differ",
    )


def _ratio(
    check: Check, sides: Sequence[pd.DataFrame], usual: Sequence[pd.DataFrame]
) -> tuple[int, str]:
    for name, rows in zip(("candidate", "baseline"), usual, strict=True):
        if rows.empty or not rows["value"].mean() > 0:
            return UNUSABLE, f"the {name} has no {check.metric} of {IID} to take a ratio to"
    now, before = (
        float(side["value"].mean() / own["value"].mean())
        for side, own in zip(sides, usual, strict=True)
    )
    worse = before * (1 - check.sign * check.margin)
    failed = now < worse if check.sign > 0 else now > worse
    return (
        REGRESSION if failed else PASS,
        f"{now:.3g} times {IID} now, {before:.3g} in the baseline, allowed {worse:.3g}",
    )


def _pooled(
    check: Check, label: str, now: pd.DataFrame, before: pd.DataFrame, halves: Halves | None
) -> tuple[int, str]:
    values = float(now["value"].iloc[0]), float(before["value"].iloc[0])
    if any("small-sample" in str(side["signature"].iloc[0]) for side in (now, before)):
        return (
            TOO_FEW,
            "the sample is smaller than the metric needs (small-sample); draw more prompts or seeds on both sides",
        )
    allowed = check.margin * abs(values[1])
    found = (
        halves(label, check.metric, str(now["signature"].iloc[0])) if halves is not None else None
    )
    if found is None:
        gain = check.sign * (values[0] - values[1])
        text = f"{values[0]:.4g} now, {values[1]:.4g} in the baseline, allowed to change by {allowed:.3g}; no test without features on both sides"
        return (PASS if gain >= -allowed else REGRESSION), text
    gain, error = check.sign * found[0], found[1]
    if not np.isfinite(found).all():
        return UNUSABLE, "the features hold values that are not numbers; score both runs again"
    low, high = gain - 1.96 * error, gain + 1.96 * error
    text = f"{gain:+.4g} [{low:+.4g}, {high:+.4g}] by subsampling prompts, margin {allowed:.3g}"
    return (PASS if low >= -allowed else REGRESSION if high < -allowed else TOO_FEW), text
