"""Turn measurements over a list of step counts into a verdict in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eddy_bench.audit.energy_distance import shift_of
from eddy_bench.audit.estimates import Estimate, group_mean, groups_needed
from eddy_bench.audit.measure import Measured, Values, row_of
from eddy_bench.results.statistics import holm

LEVEL = 0.05
SHIFT_MARGIN = 0.05  # standard deviations of a normal distribution with the same energy coefficient
SPREAD_MARGIN = 0.05  # relative change of the mean squared Mahalanobis distance
FITTED = 3  # finest step counts on which the limit is fitted; fewer cannot show a real gain
# Relative changes between the two finest step counts, beyond which the solver does not follow the
# drift yet.
UNSETTLED_GAIN, UNSETTLED_SPREAD = 0.25, 0.1

REAL_KEPT = "real gain, marginal kept"
REAL_SHIFTED = "real gain, marginal shifted"
VANISHES = "gain vanishes with finer steps"
UNRESOLVED = "gain persists, cause unresolved"
NO_GAIN = "no gain"
NO_GAIN_SHIFTED = "no gain, marginal shifted"
LOSS = "loss"
FEW = "not enough groups to tell"


@dataclass(frozen=True)
class Tests:
    """Holm-adjusted p-values of a method: a small `gain` shows a gain, a small `none` none."""

    gain: tuple[float, ...]  # of no gain, per step count
    none: float  # of a finest gain beyond the margin
    limit: float  # of no gain in the limit of fine steps
    shifted: float  # of the finest marginal being iid's
    kept: float  # of the finest marginal lying beyond its margins
    beyond: float  # of the finest pairs lying no farther apart than kept distributions allow


@dataclass(frozen=True)
class Verdict:
    """What an audit concludes about a method on one task under one scheduler."""

    text: str  # in words
    gains: tuple[Estimate, ...] = ()  # one per step count
    # the gain extrapolated to endless steps; None with one step count
    limit: Estimate | None = None
    marginal: str = "open"  # `kept`, `shifted` or `open` at the finest step count
    tests: Tests | None = None  # the p-values behind it; None where nothing could be measured


def limit_gain(steps: Sequence[int], gains: Sequence[Values]) -> Estimate | None:
    """Return the gain at 1 / steps = 0; None with one step count.

    A straight line through the finest step counts is fitted per group. An artefact of finite steps
    falls to 0 there; solvers of order one err in proportion to 1 / steps.

    Args:
        steps: ascending. gains: per group at each of them, (G,).
    """
    if len(steps) < 2:
        return None
    x = 1 / np.asarray(steps[-FITTED:], np.float64)
    centred = x - x.mean()
    weights = 1 / len(x) - centred * x.mean() / (centred**2).sum()
    return group_mean(
        sum(weight * gain for weight, gain in zip(weights, gains[-FITTED:], strict=True))
    )


def judge_block(
    steps: Sequence[int], methods: Sequence[Sequence[Measured]], margin: float
) -> list[Verdict]:
    """Judge the methods of one task and scheduler, corrected for how many there are.

    Args:
        steps: ascending.
        methods: of each method, one measurement per step count.
        margin: a smaller gain counts as none.
    """
    gains = [tuple(gain_estimate(measured.gain) for measured in by_steps) for by_steps in methods]
    limits = [limit_gain(steps, [measured.gain for measured in by_steps]) for by_steps in methods]
    flat = holm([gain.difference_p() for by_steps in gains for gain in by_steps])
    families = zip(
        holm([by_steps[-1].equivalence_p(margin) for by_steps in gains]),
        holm([1.0 if limit is None else limit.above_p(0.0) for limit in limits]),
        holm([_shifted_p(by_steps[-1]) for by_steps in methods]),
        holm([_kept_p(by_steps[-1]) for by_steps in methods]),
        holm([by_steps[-1].beyond_p for by_steps in methods]),
        strict=True,
    )
    tests = [
        Tests(tuple(flat[k * len(steps) : (k + 1) * len(steps)]), *p_values)
        for k, p_values in enumerate(families)
    ]
    return [
        _judge(*parts, margin, len(methods))
        for parts in zip(methods, gains, limits, tests, strict=True)
    ]


def gain_estimate(gain: Values) -> Estimate:
    """Return the mean gain over groups.

    Counts of modes may all be equal, so its standard error is at least that of one group that
    differs by half a mode.
    """
    mean = group_mean(gain)
    return Estimate(mean.value, max(mean.error, 0.5 / max(len(gain), 1)), mean.groups)


def frequency_p(finest: Measured) -> float:
    """Return the p-value of equal mode frequencies, from Wald's statistic by Hotelling's F.

    It is 1 where modes are not counted or groups are too few.
    """
    from scipy.stats import f

    row, groups = row_of(finest.rows, "mode_chi2_to_iid"), finest.spread.groups
    if not row.floor > 0 or 2 * groups - 1 <= row.floor:
        return 1.0
    freedom = 2 * groups - 1 - row.floor
    return float(f.sf(row.value * freedom / (row.floor * (2 * groups - 2)), row.floor, freedom))


def _shifted_p(finest: Measured) -> float:
    """Return the smallest of four p-values: location and shape, spread, modes' shares, one slot."""
    energy = finest.energy.difference_p() if finest.energy.value > 0 else 1.0
    return min(holm([energy, finest.spread.difference_p(), frequency_p(finest), finest.slot_p]))


def _kept_p(finest: Measured) -> float:
    """Return the larger p-value of equivalence in both measures that have a margin."""
    return max(
        finest.energy.below_p(SHIFT_MARGIN**2 / 4), finest.spread.equivalence_p(SPREAD_MARGIN)
    )


def settled(by_steps: Sequence[Measured]) -> bool:
    """Return whether gain and spread hardly change between the two finest of three step counts.

    A drift that the solver does not follow yet may gain the same at several step counts; its
    spread, or its gain, still changes.
    """
    if len(by_steps) < FITTED:
        return False
    before, finest = (float(measured.gain.mean()) for measured in by_steps[-2:])
    spreads = [1 + measured.spread.value for measured in by_steps[-2:]]
    return (
        abs(finest - before) <= UNSETTLED_GAIN * abs(finest)
        and abs(spreads[1] - spreads[0]) <= UNSETTLED_SPREAD * spreads[1]
    )


def _judge(
    by_steps: Sequence[Measured],
    gains: tuple[Estimate, ...],
    limit: Estimate | None,
    tests: Tests,
    margin: float,
    family: int,
) -> Verdict:
    finest = gains[-1]
    marginal = "shifted" if tests.shifted < LEVEL else "open"
    # slots and frequencies have no margin within which a shown difference could be kept
    if tests.kept < LEVEL <= family * min(by_steps[-1].slot_p, frequency_p(by_steps[-1])):
        marginal = "kept"
    shown = [p < LEVEL for p in tests.gain]
    needed = ""
    if tests.none < LEVEL:
        coarser = any(
            seen and estimate.value > margin
            for seen, estimate in zip(shown[:-1], gains[:-1], strict=True)
        )
        text = VANISHES if coarser else NO_GAIN_SHIFTED if marginal == "shifted" else NO_GAIN
    elif shown[-1] and finest.value < 0:
        text = LOSS
    elif shown[-1] and not (tests.limit < LEVEL and settled(by_steps)):
        text = UNRESOLVED
    elif shown[-1] and marginal != "open":
        text = (
            REAL_KEPT if marginal == "kept" else f"{REAL_SHIFTED} (by {shifted_by(by_steps[-1])})"
        )
    else:
        text = FEW
        needed = f" (need about {_needed(finest, by_steps[-1], margin, family, shown[-1]):,})"
    return Verdict(text + needed + direction(by_steps[-1]), gains, limit, marginal, tests)


def direction(finest: Measured) -> str:
    """Say whether samples went towards the truth, which guidance had left, or away from it."""
    change = finest.from_truth
    if change is None:
        return ""
    if change.difference_p() >= LEVEL:
        return ", no closer to the target"
    return ", closer to the target" if change.value < 0 else ", farther from the target"


def shifted_by(finest: Measured) -> str:
    """Say how far a marginal shifted: in standard deviations, and in spread."""
    ratio = 1 + finest.spread.value
    if ratio >= 100:
        return f"spread x{ratio:.0f}"
    return f"{max(shift_of(finest.energy.value), 0):.2f} std, spread x{ratio:.2f}"


def _needed(gain: Estimate, finest: Measured, margin: float, family: int, gain_shown: bool) -> int:
    """Return about how many groups settle what is open, to two digits."""
    level = LEVEL / family
    # where a gain is shown, the marginal is open; for equal distributions its error falls as 1 / n
    if gain_shown:
        quantiles = groups_needed(Estimate(0.0, 1.0, 1), 1.0, level) ** 0.5
        shift = gain.groups * finest.energy.error * quantiles / (SHIFT_MARGIN**2 / 4)
        count = max(shift, groups_needed(finest.spread, SPREAD_MARGIN, level))
    else:
        count = min(
            groups_needed(gain, margin - abs(gain.value), level),
            groups_needed(gain, abs(gain.value), level),
        )
    count = max(count, 1.1 * gain.groups, 10)
    scale = 10 ** (len(str(int(count))) - 2)
    return int(-(-count // scale) * scale)
