"""Verdicts from made-up measurements whose truth is known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from eddy_bench.audit.measure import Measured
from eddy_bench.audit.verdict import SHIFT_MARGIN, judge_block, limit_gain
from eddy_bench.statistics import Estimate

STEPS = (25, 50, 100, 200, 400)
GROUPS = 4000


def measured(gain: float, *, shift: float = 0.0, spread: float = 0.0, seed: int = 0, groups: int = GROUPS, slot_p: float = 1.0) -> Measured:
    """Groups whose mean gain is exactly `gain`, with a standard deviation of 1."""
    noise = np.random.default_rng(seed).normal(size=groups)
    noise = (noise - noise.mean()) / noise.std()
    energy = Estimate(shift**2 / 4, 0.1 / groups, groups)
    return Measured(gain + noise, energy, Estimate(spread, 0.3 / groups**0.5, groups), slot_p, ())


def verdict(gains: Sequence[float], *, groups: int = GROUPS, shift: float = 0.0, spread: float = 0.0, slot_p: float = 1.0) -> str:
    ladder = [measured(gain, shift=shift, spread=spread, seed=k, groups=groups, slot_p=slot_p) for k, gain in enumerate(gains)]
    return judge_block(STEPS[: len(gains)], [ladder], 0.1)[0].text


@pytest.mark.parametrize(
    ("gains", "options", "expected"),
    [
        ([0.5] * 5, {}, "real gain, marginal kept"),
        ([0.5] * 5, {"shift": 0.3}, "real gain, marginal moved (by 0.30 std, spread x1.00)"),
        ([0.5] * 5, {"spread": 0.36}, "real gain, marginal moved (by 0.00 std, spread x1.36)"),
        ([0.5] * 5, {"slot_p": 1e-6}, "real gain, marginal moved (by 0.00 std, spread x1.00)"),
        ([0.48, 0.31, 0.15, 0.08, 0.0], {}, "gain vanishes with finer steps"),
        ([2.4, 1.2, 0.6, 0.3, 0.15], {}, "gain persists, cause unresolved"),
        ([0.5], {}, "gain persists, cause unresolved"),
        ([0.0] * 5, {}, "no gain"),
        ([0.04] * 5, {}, "no gain"),
        ([0.0] * 5, {"shift": 0.3}, "no gain, marginal moved"),
        ([-0.5] * 5, {}, "loss"),
        ([0.0] * 5, {"groups": 100}, "not enough groups to tell (need about 630)"),
        ([0.6] * 5, {"groups": 40, "spread": 0.04}, "not enough groups to tell (need about 5,600)"),
    ],
)  # fmt: skip
def test_verdict(gains: list[float], options: dict[str, float], expected: str) -> None:
    assert verdict(gains, **options) == expected  # type: ignore[arg-type]


def test_the_number_of_groups_it_asks_for_is_enough() -> None:
    assert verdict([0.0] * 5, groups=630) == "no gain"


def test_the_limit_of_fine_steps_is_that_of_a_straight_line() -> None:
    gains = [0.2 + 3 / steps + np.zeros(10) for steps in STEPS]
    limit = limit_gain(STEPS, gains)
    assert limit is not None
    assert limit.value == pytest.approx(0.2)
    assert limit_gain((25,), gains[:1]) is None


def test_more_methods_make_a_claim_harder() -> None:
    """A gain that one method alone shows is not shown among twenty."""
    gains = [0.2] * 3
    ladder = [measured(gain, seed=k, groups=170) for k, gain in enumerate(gains)]
    nothing = [measured(0.0, seed=50 + k, groups=170) for k in range(3)]
    assert judge_block(STEPS[:3], [ladder], 0.01)[0].tests.gain[-1] < 0.05  # type: ignore[union-attr]
    assert judge_block(STEPS[:3], [ladder] + [nothing] * 19, 0.01)[0].text.startswith("not enough groups")


def test_a_difference_within_the_margin_is_kept_however_significant() -> None:
    ladder = [measured(0.5, shift=SHIFT_MARGIN / 2, seed=k) for k in range(5)]
    found = judge_block(STEPS, [ladder], 0.1)[0]
    assert found.tests is not None
    assert found.tests.moved < 1e-6
    assert found.marginal == "kept"
