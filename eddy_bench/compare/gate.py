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

from eddy_bench.compare.comparable import canonical, some_of
from eddy_bench.compare.paired import Progress, quiet
from eddy_bench.errors import CompareError, counted, unknown
from eddy_bench.ids import IID, SMALL_SAMPLE, MethodId, MetricId, Signature
from eddy_bench.results.headroom import headrooms, why_no_headroom
from eddy_bench.results.results import Results
from eddy_bench.results.statistics import detectable, mean_intervals
from eddy_bench.scoring.metrics import BAD_IMAGES, METRICS, role_of
from eddy_bench.storage.files import read_yaml
from eddy_bench.storage.limits import MAX_CHECKS, MAX_METHODS
from eddy_bench.storage.paths import as_path

MAX_BYTES = 2**20
PASS, REGRESSION, UNUSABLE, TOO_FEW = 0, 1, 2, 3
PRECEDENCE = (UNUSABLE, REGRESSION, TOO_FEW, PASS)
WORDS = {
    PASS: "passes",
    REGRESSION: "regression",
    UNUSABLE: "could not be measured",
    TOO_FEW: "not enough data",
}
MIN_PROMPTS = 12  # with fewer an interval says little
# (method, metric, signature) -> (difference, standard error) of a pooled metric
Subsample = Callable[[MethodId, MetricId, Signature], tuple[float, float] | None]


class Check(BaseModel):
    """One line of a gate.

    metric: such as `vendi[fmnist-clip]`, `nfe`, `seconds_per_image`.
    test: `noninferior` (paired over prompts), `equal` (exactly the same mean), `ratio` (of the mean
        to iid's in the same run, against the baseline's ratio), `pooled` (of pooled metrics),
        `ceiling` (of headroom: fails where the candidate's marginals are shown to have shifted).
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
        headroom, name = role_of("headroom").name, self.id.name  # a text that is none is refused
        if (name == headroom) != (self.test == "ceiling"):
            raise ValueError(f"test 'ceiling' goes with {headroom}[EXTRACTOR] and with no other")
        if name not in METRICS and "." not in name:
            raise ValueError(unknown("metric", name, METRICS))
        if name not in METRICS:  # a plug-in, of which the score files tell
            return self
        pooled = METRICS[name].scope == "pooled" and self.test != "ceiling"
        if pooled != (self.test == "pooled") and self.test != "equal":
            raise ValueError(
                f"{self.metric} is {'' if pooled else 'not '}a metric of the pooled set: "
                f"test {self.test!r} does not fit it"
            )
        return self

    @property
    def id(self) -> MetricId:
        """The metric."""
        return MetricId.parse(self.metric)

    def sign(self, results: Results) -> float:
        """Return 1 where higher is better, -1 where lower is."""
        own = results.metric(self.id).higher_is_better
        return 1.0 if (self.direction == "higher" if self.direction else own) else -1.0


class Gate(BaseModel):
    """A gate's file.

    checks: what is checked.
    methods: such as `pg` or `pg:strength=2`; all of the baseline's by default.
    bad_images: how many images of a method may be bad, in the candidate.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    checks: Annotated[list[Check], Field(min_length=1, max_length=MAX_CHECKS)]
    methods: Annotated[list[str], Field(min_length=1, max_length=MAX_METHODS)] | None = None
    bad_images: Annotated[int | None, Field(ge=0, strict=True, alias=BAD_IMAGES)] = None


@dataclass(frozen=True)
class CheckResult:
    """One check of one method.

    status: an exit code.
    detail: in words, with the figures.
    """

    method: str
    metric: str
    test: str
    status: int
    detail: str


def read_gate(path: Path) -> Gate:
    """Read a gate from YAML.

    Raises:
        CompareError: not there, not YAML, an unknown key or metric, or a test that does not fit
            its metric.

    """
    try:
        return Gate.model_validate(read_yaml(path, CompareError, "a gate", MAX_BYTES))
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"])) or "the file"
        message = problem["msg"].removeprefix("Value error, ").rstrip(".")
        if problem["type"] == "model_type" and not problem["loc"]:
            message = "Expected a mapping with the key `checks`"
        raise CompareError(f"{path}: {where}: {message}.") from None


def run_gate(
    gate: Gate,
    candidate: Results,
    baseline: Results,
    subsample: Subsample = lambda method, metric, signature: None,
    progress: Progress = quiet,
) -> list[CheckResult]:
    """Run every check of every method.

    Args:
        gate: what is checked.
        candidate, baseline: both sides.
        subsample: the difference of a pooled metric and its error, where features are at hand on
            both sides.
        progress: over methods.

    """
    methods = list(baseline.methods)
    if gate.methods is not None:
        typed = [MethodId.parse(text) for text in gate.methods]
        methods = [own if own in methods else canonical(str(own)) for own in typed]
    missing = [method for method in methods if method not in baseline.methods]
    if missing:
        raise CompareError(
            f"The gate names the method {str(missing[0])!r}, which the baseline does not hold: "
            f"{some_of(baseline.methods, missing[0])}."
        )
    outcomes, advance = [], progress(len(methods))
    for method in methods:
        advance(0, str(method))
        for check in gate.checks:
            if check.test != "ceiling" or method != IID:
                outcome = _outcome(check, method, candidate, baseline, subsample)
                outcomes.append(CheckResult(str(method), check.metric, check.test, *outcome))
        outcomes += _bad_images(gate, method, candidate)
        advance(1, str(method))
    return outcomes


def exit_code(results: Sequence[CheckResult]) -> int:
    """Return 2 before 1 before 3 before 0."""
    codes = {result.status for result in results}
    return next((code for code in PRECEDENCE if code in codes), PASS)


def _bad_images(gate: Gate, method: MethodId, candidate: Results) -> list[CheckResult]:
    """Check a method's bad images against those allowed, 0 where the gate does not say.

    A gate that does not say has no line of methods without any.
    """
    bad = candidate.bad_images.items()
    count = sum(own for (name, _), own in bad if name == str(method))
    if not count and gate.bad_images is None:
        return []
    allowed = gate.bad_images or 0
    detail = f"{counted(count, 'image')} of no use, {allowed} allowed"
    status = PASS if count <= allowed else REGRESSION
    return [CheckResult(str(method), BAD_IMAGES, BAD_IMAGES, status, detail)]


def _outcome(
    check: Check, method: MethodId, candidate: Results, baseline: Results, subsample: Subsample
) -> tuple[int, str]:
    """Run one check of one method: what speaks against measuring it comes first."""
    if check.test == "ceiling":
        return ceiling(check.id, method, candidate)
    both = candidate, baseline
    sides = _with_values(_good_rows(both, method, check.id))
    iid = _good_rows(both, IID, check.id) if check.test == "ratio" else []
    problem = (
        _missing_values(sides, method, candidate)
        or _unlike(sides, iid)
        or ("" if check.test == "pooled" else _missing_groups(sides, iid))
    )
    if problem:
        return UNUSABLE, problem
    if check.test == "equal":
        return equal(*sides)
    sign = check.sign(baseline)
    if check.test == "noninferior":
        return noninferior(sign, check.margin, *sides)
    if check.test == "ratio":
        return ratio(check, sign, sides, iid)
    return pooled(check, sign, method, sides, subsample)


def _missing_values(sides: Sequence[pd.DataFrame], method: MethodId, candidate: Results) -> str:
    """Say which side has no values."""
    if sides[1].empty:
        return "the baseline has no such value: leave the check out or make a new baseline"
    if not sides[0].empty:
        return ""
    if method in candidate.methods:
        return "the candidate has no such value"
    return _not_there(method, candidate)


def _not_there(method: MethodId, candidate: Results) -> str:
    """Say how a method is added to a candidate that lacks it."""
    add = f"eddy-bench run --method {shlex.quote(str(method))}{_out(candidate)}"
    return f"the method is not in the candidate: {add}"


def _unlike(sides: Sequence[pd.DataFrame], iid: Sequence[pd.DataFrame]) -> str:
    """Say why values cannot be compared: other signatures, or no numbers."""
    if len({frozenset(side["signature"]) for side in sides}) > 1:
        now, before = (side["signature"].iloc[0] for side in sides)
        return f"signatures differ: {now} now, {before} in the baseline"
    for name, frames in (("candidate", [sides[0], *iid[:1]]), ("baseline", [sides[1], *iid[1:]])):
        if not all(np.isfinite(frame["value"]).all() for frame in frames):
            return f"a value is not a number in the {name}"
    return ""


def _missing_groups(sides: Sequence[pd.DataFrame], iid: Sequence[pd.DataFrame]) -> str:
    """Say which group one side lacks, of the method or of iid."""
    return _missing_prompts(*sides) or (_missing_prompts(*iid) if iid else "")


def _out(results: Results) -> str:
    """Return the option that names the run folder, to which a method would be added."""
    source = results.sources[0]
    return f" --out {shlex.quote(source)}" if as_path(source).is_dir() else ""


def _with_values(sides: list[pd.DataFrame]) -> list[pd.DataFrame]:
    """Leave out the groups for which a metric is defined on neither side.

    Such is `align` for prompts that name nothing.
    """
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


def _good_rows(both: Sequence[Results], method: MethodId, column: MetricId) -> list[pd.DataFrame]:
    """Return a method's rows on both sides, without groups that hold bad images on either."""
    sides = [results.rows(method, column) for results in both]
    bad: set[tuple[str, str]] = set()
    for results in both:
        if len(results.bad):
            own = results.bad[results.bad["method"] == method]
            bad |= set(zip(own["prompt_id"], own["seed"], strict=True))
    if not bad:
        return sides
    return [
        side[[key not in bad for key in zip(side["prompt_id"], side["seed"], strict=True)]]
        for side in sides
    ]


def _missing_prompts(now: pd.DataFrame, before: pd.DataFrame) -> str:
    ours, theirs = (
        set(zip(side["prompt_id"], side["prompt"], side["seed"], strict=True))
        for side in (now, before)
    )
    if ours == theirs:
        return ""
    different = sorted(ours ^ theirs)
    identity, _, seed = different[0]
    where = "candidate" if different[0] in theirs else "baseline"
    return (
        f"the groups differ: prompt {identity!r}, seed {seed} is not in the {where} "
        f"({len(different)} differ)"
    )


def noninferior(
    sign: float, margin: float, now: pd.DataFrame, before: pd.DataFrame
) -> tuple[int, str]:
    """Compare the mean gain over prompts with the margin."""
    means = [
        side.groupby("prompt_id", observed=True)["value"].mean().sort_index()
        for side in (now, before)
    ]
    return judge_gaps(sign * (means[0] - means[1]).to_numpy(np.float64), margin)


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


def ceiling(column: MetricId, method: MethodId, candidate: Results) -> tuple[int, str]:
    """Ask whether the scores prove that a method's marginals have shifted."""
    if method not in candidate.methods:
        return UNUSABLE, _not_there(method, candidate)
    found = {(own.method, own.column): own for own in headrooms(candidate)}
    own = found.get((method, column))
    if own is None or not own.words:
        return UNUSABLE, why_no_headroom(candidate) or f"{column} is not defined for {method}"
    return (REGRESSION if own.shifted else PASS), own.words


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
    check: Check, sign: float, sides: Sequence[pd.DataFrame], iid: Sequence[pd.DataFrame]
) -> tuple[int, str]:
    """Compare the ratio to iid of the same run with the ratio in the baseline.

    Of medians over groups, which no batch that something else stalled moves.
    """
    for name, rows in zip(("candidate", "baseline"), iid, strict=True):
        if rows.empty or not rows["value"].median() > 0:
            return UNUSABLE, f"the {name} has no {check.metric} of {IID} to take a ratio to"
    now, before = (
        float(side["value"].median() / own["value"].median())
        for side, own in zip(sides, iid, strict=True)
    )
    worse = before * (1 - sign * check.margin)
    failed = now < worse if sign > 0 else now > worse
    return (
        REGRESSION if failed else PASS,
        f"{now:.3g} times {IID} now, {before:.3g} in the baseline, allowed {worse:.3g}",
    )


def pooled(
    check: Check,
    sign: float,
    method: MethodId,
    sides: Sequence[pd.DataFrame],
    subsample: Subsample,
) -> tuple[int, str]:
    """Compare the difference of a pooled metric with a share of the baseline's value."""
    now, before = sides
    values = float(now["value"].iloc[0]), float(before["value"].iloc[0])
    signatures = [side["signature"].iloc[0] for side in (now, before)]
    if any(signature.has(SMALL_SAMPLE) for signature in signatures):
        return (
            TOO_FEW,
            "the sample is smaller than the metric needs (small-sample); "
            "draw more prompts or seeds on both sides",
        )
    allowed = check.margin * abs(values[1])
    sampled = subsample(method, check.id, signatures[0])
    if sampled is None:
        gain = sign * (values[0] - values[1])
        text = (
            f"{values[0]:.4g} now, {values[1]:.4g} in the baseline, "
            f"allowed to change by {allowed:.3g}; no test without features on both sides"
        )
        return (PASS if gain >= -allowed else REGRESSION), text
    gain, error = sign * sampled[0], sampled[1]
    if not np.isfinite(sampled).all():
        return UNUSABLE, "the features hold values that are not numbers; score both runs again"
    low, high = gain - 1.96 * error, gain + 1.96 * error
    text = f"{gain:+.4g} [{low:+.4g}, {high:+.4g}] by subsampling prompts, margin {allowed:.3g}"
    return (PASS if low >= -allowed else REGRESSION if high < -allowed else TOO_FEW), text
