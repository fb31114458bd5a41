"""Black, identical and broken images: the first thing that a diversity metric must not reward."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from eddy_bench.models.attributes import parse
from eddy_bench.results.headroom import headroom
from eddy_bench.scoring.metrics import METRICS
from eddy_bench.scoring.perceptual import ms_ssim_distance

Array = NDArray[np.float64]
COUNT = 6
RNG = np.random.default_rng(0)
DIVERSITY = [name for name, metric in METRICS.items() if metric.aspect == "diversity"]
ON_FEATURES = [name for name in DIVERSITY if METRICS[name].needs == "features"]
EQUAL = {
    "black": np.zeros((COUNT, 5)),
    "alike": np.repeat(RNG.normal(size=(1, 5)), COUNT, 0),
    "faint": np.full((COUNT, 5), 1e-20),
}


def on_features(name: str, features: Array) -> float:
    """A metric of features, the more diverse the larger."""
    return METRICS[name](features) * (1 if METRICS[name].higher_is_better else -1)


@pytest.mark.parametrize("name", ON_FEATURES)
@pytest.mark.parametrize("kind", EQUAL)
def test_equal_images_are_the_least_diverse(name: str, kind: str) -> None:
    """Whatever their features are, zeros included; and nothing that differs scores as little."""
    least = on_features(name, EQUAL["alike"])
    assert on_features(name, EQUAL[kind]) == pytest.approx(least, abs=1e-9)
    for seed in range(20):
        others = np.random.default_rng(seed).normal(size=(COUNT, 5))
        assert on_features(name, others) > least + 1e-3
        others[: seed % COUNT] = 0
        assert on_features(name, others) > least + 1e-3


@pytest.mark.parametrize("name", ON_FEATURES)
def test_more_black_images_are_never_more_diverse_than_other_equal_ones(name: str) -> None:
    """A zero is a direction of its own: like a vector that is orthogonal to all others."""
    others = np.c_[RNG.normal(size=(COUNT, 4)), np.zeros(COUNT)]
    black, apart = others.copy(), others.copy()
    black[:3] = 0
    apart[:3] = np.eye(5)[4]
    assert METRICS[name](black) == pytest.approx(METRICS[name](apart))


@pytest.mark.parametrize("name", ON_FEATURES)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_features_that_are_no_numbers_have_no_diversity(name: str, value: float) -> None:
    features = RNG.normal(size=(COUNT, 5))
    features[2, 1] = value
    with np.errstate(invalid="ignore"):
        assert math.isnan(METRICS[name](features))


def test_every_other_diversity_metric_is_at_its_least_too() -> None:
    """Those that see no features of one group: pairs, attributes, values."""
    rest = {name: METRICS[name] for name in DIVERSITY if name not in ON_FEATURES}
    assert {metric.needs for metric in rest.values()} == {"pairs", "attributes", "values"}
    assert METRICS["attributes"](np.zeros((COUNT, 3), int), parse("a dress")) == 1
    for features in EQUAL.values():
        assert METRICS["values-seen"](features, [np.eye(5), np.eye(5)[:2]]) == 1
    for pixels in (torch.zeros(2, 40, 40, 3), torch.full((2, 40, 40, 3), 255)):
        assert ms_ssim_distance(pixels.byte(), pixels.byte()).abs().max() < 1e-6


def test_black_groups_use_no_headroom() -> None:
    black, own = (2 * (1 - METRICS["mss"](EQUAL[kind])) for kind in ("black", "alike"))
    assert black == own == 0
    value, *_ = headroom(np.full(9, black), np.full(9, 0.5), COUNT)
    assert value == pytest.approx(1 - COUNT)
    rounded = np.full(9, 1e-13)  # i.i.d. images that are equal up to rounding
    assert math.isnan(headroom(np.full(9, 0.5), rounded, COUNT)[0])
