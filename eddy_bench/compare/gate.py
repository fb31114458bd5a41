"""A gate: does a candidate do worse than a recorded baseline by more than is allowed?"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from eddy_bench.compare.comparable import canonical, some_of
from eddy_bench.compare.gate_checks import (
    IID,
    PASS,
    PRECEDENCE,
    REGRESSION,
    UNUSABLE,
    Check,
    Subsample,
    ceiling,
    equal,
    noninferior,
    pooled,
    ratio,
)
from eddy_bench.compare.load import ScoreSet
from eddy_bench.errors import CompareError, counted
from eddy_bench.scoring.signature import BAD_IMAGES
from eddy_bench.storage.files import MAX_CHECKS, MAX_METHODS, read_yaml
from eddy_bench.storage.paths import as_path

MAX_BYTES = 2**20


class Gate(BaseModel):
    """Hold a gate's file.

    checks: what is checked.
    methods: labels such as `pg` or `pg:strength=2`; all of the baseline's by default.
    bad_images: how many images of a method may be none, in the candidate.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    checks: Annotated[list[Check], Field(min_length=1, max_length=MAX_CHECKS)]
    methods: Annotated[list[str], Field(min_length=1, max_length=MAX_METHODS)] | None = None
    bad_images: Annotated[int | None, Field(ge=0, strict=True, alias=BAD_IMAGES)] = None


@dataclass(frozen=True)
class CheckResult:
    """Hold one check of one method.

    status: an exit code.
    detail: in words, with the figures.
    """

    label: str
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
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "model_type" and not problem["loc"]:
            message = "Expected a mapping with the key `checks`"
        raise CompareError(f"{path}: {where}: {message}.") from None


def run_gate(
    gate: Gate,
    candidate: ScoreSet,
    baseline: ScoreSet,
    subsample: Subsample | None = None,
    progress: Callable[[int], Callable[[int, str], None]] = lambda total: lambda count, label: None,
) -> list[CheckResult]:
    """Run every check of every method.

    Args:
        gate: what is checked.
        candidate, baseline: both sides.
        subsample: the difference of a pooled metric and its error, where features are at hand on
            both sides.
        progress: over methods.

    """
    labels = [
        text if text in baseline.labels else canonical(text)
        for text in gate.methods or baseline.labels
    ]
    missing = [label for label in labels if label not in baseline.labels]
    if missing:
        raise CompareError(
            f"The gate names the method {missing[0]!r}, which the baseline does not hold: "
            f"{some_of(baseline.labels, missing[0])}."
        )
    results, advance = [], progress(len(labels))
    for label in labels:
        advance(0, label)
        results += [
            _result(check, label, candidate, baseline, subsample)
            for check in gate.checks
            if check.test != "ceiling" or label != IID
        ]
        results += _bad_images(gate, label, candidate)
        advance(1, label)
    return results


def exit_code(results: Sequence[CheckResult]) -> int:
    """Return 2 before 1 before 3 before 0."""
    codes = {result.status for result in results}
    return next((code for code in PRECEDENCE if code in codes), PASS)


def _bad_images(gate: Gate, label: str, candidate: ScoreSet) -> list[CheckResult]:
    """Hold a method's bad images against those allowed, 0 where the gate does not say.

    A gate that does not say has no line of methods without any.
    """
    count = sum(own for (name, _), own in candidate.bad_images.items() if name == label)
    if not count and gate.bad_images is None:
        return []
    allowed = gate.bad_images or 0
    detail = f"{counted(count, 'image')} of no use, {allowed} allowed"
    status = PASS if count <= allowed else REGRESSION
    return [CheckResult(label, BAD_IMAGES, BAD_IMAGES, status, detail)]


def _result(
    check: Check,
    label: str,
    candidate: ScoreSet,
    baseline: ScoreSet,
    subsample: Subsample | None,
) -> CheckResult:
    """Run one check of one method: what speaks against measuring it comes first."""
    if check.test == "ceiling":
        if label not in candidate.labels:
            detail = _not_there(label, candidate)
            return CheckResult(label, check.metric, check.test, UNUSABLE, detail)
        status, detail = ceiling(check.metric, label, candidate)
        return CheckResult(label, check.metric, check.test, status, detail)
    both = candidate, baseline
    sides = _with_values(_good_rows(both, label, check.metric))
    iid = _good_rows(both, IID, check.metric) if check.test == "ratio" else []
    problem = (
        _missing_values(sides, label, candidate)
        or _unlike(sides, iid)
        or ("" if check.test == "pooled" else _missing_groups(sides, iid))
    )
    if problem:
        status, detail = UNUSABLE, problem
    elif check.test == "noninferior":
        status, detail = noninferior(check, *sides)
    elif check.test == "equal":
        status, detail = equal(*sides)
    elif check.test == "ratio":
        status, detail = ratio(check, sides, iid)
    else:
        status, detail = pooled(check, label, sides, subsample)
    return CheckResult(label, check.metric, check.test, status, detail)


def _missing_values(sides: Sequence[pd.DataFrame], label: str, candidate: ScoreSet) -> str:
    """Say which side has no values."""
    if sides[1].empty:
        return "the baseline has no such value: leave the check out or make a new baseline"
    if not sides[0].empty:
        return ""
    if label in candidate.labels:
        return "the candidate has no such value"
    return _not_there(label, candidate)


def _not_there(label: str, candidate: ScoreSet) -> str:
    """Say how a method is added to a candidate that lacks it."""
    add = f"eddy-bench run --method {shlex.quote(label)}{_out(candidate)}"
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


def _out(scores: ScoreSet) -> str:
    """Return the option that names the run folder, to which a method would be added."""
    return f" --out {shlex.quote(scores.sources[0])}" if as_path(scores.sources[0]).is_dir() else ""


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


def _good_rows(both: Sequence[ScoreSet], label: str, column: str) -> list[pd.DataFrame]:
    """Return a method's rows on both sides, without groups that hold bad images on either."""
    sides = [_rows(scores, label, column) for scores in both]
    held = [side.bad for side in both if side.bad is not None and len(side.bad)]
    if not held:
        return sides
    bad = pd.concat(held)
    bad = bad[bad["label"] == label]
    keys = pd.MultiIndex.from_frame(bad[["prompt_id", "seed"]])
    return [
        side[~pd.MultiIndex.from_frame(side[["prompt_id", "seed"]]).isin(keys)] for side in sides
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
    different = sorted(ours ^ theirs)
    identity, _, seed = different[0]
    where = "candidate" if different[0] in theirs else "baseline"
    return (
        f"the groups differ: prompt {identity!r}, seed {seed} is not in the {where} "
        f"({len(different)} differ)"
    )
