"""Metrics and signatures read back what they wrote, and every metric keeps its promises."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eddy_bench.errors import EddyError, MetricError, ParameterError, UnknownName
from eddy_bench.ids import MetricId, Part, Signature
from eddy_bench.scoring.metric import Metric, Parameter
from eddy_bench.scoring.metrics import COSTS, METRICS, REQUESTABLE, MetricSpec

EXTRACTORS = st.sampled_from(["", "fmnist-clip", "timm:vit_tiny_patch16_224@64", "open_clip:A-B/c"])
WORDS = st.text(st.characters(exclude_characters="=", codec="utf-8"), min_size=1)


def _between(item: Parameter) -> st.SearchStrategy[float]:
    """A number that a parameter takes."""
    return st.floats(
        item.above, item.below, exclude_min=True, exclude_max=True, allow_subnormal=False
    )


@st.composite
def specs(draw: st.DrawFn) -> MetricSpec:
    """A metric with an extractor and parameters that it takes."""
    metric = METRICS[draw(st.sampled_from(REQUESTABLE))]
    extractor = draw(EXTRACTORS) if metric.takes_extractor else ""
    values = [(item, draw(_between(item))) for item in metric.parameters if draw(st.booleans())]
    changed = tuple((item.name, value) for item, value in values if value != item.default)
    return MetricSpec(metric, extractor, changed)


@given(specs())
def test_a_metric_reads_back_from_its_text(spec: MetricSpec) -> None:
    assert MetricSpec.parse(str(spec.id)) == spec
    assert MetricId.parse(str(spec.id)) == spec.id


PARTS = st.lists(st.one_of(WORDS, st.tuples(WORDS, st.text())), max_size=5)


@given(WORDS, PARTS)
def test_a_signature_reads_back_whatever_its_parts_hold(metric: str, parts: list[Part]) -> None:
    signature = Signature(metric, tuple(parts))
    assert Signature.parse(str(signature)) == signature


@given(st.text())
def test_any_text_is_a_signature_or_a_metric_or_one_error(text: str) -> None:
    assert Signature.parse(str(Signature.parse(text))) == Signature.parse(text)
    try:
        spec = MetricSpec.parse(text)
    except EddyError:
        return
    assert spec.name in REQUESTABLE


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("vendo", UnknownName, "Did you mean 'vendi'"),
        ("nfe", UnknownName, "Unknown metric 'nfe'"),
        ("drift_floor", UnknownName, "Unknown metric 'drift_floor'"),
        ("vendi:q=0", ParameterError, "q of vendi above 0"),
        ("vendi:q=x", ParameterError, "got 'x'"),
        ("vendi:k=2", ParameterError, "It takes q"),
        ("mss:q=2", ParameterError, "has no parameter 'q'"),
        ("fid[fmnist-clip]", MetricError, "takes no extractor"),
    ],
)
def test_a_text_that_is_no_metric_is_refused_with_its_mistake(
    text: str, error: type[EddyError], message: str
) -> None:
    with pytest.raises(error, match=message):
        MetricSpec.parse(text)


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_every_metric_carries_what_scoring_needs(metric: Metric) -> None:
    """A function of groups or of images unless it is counted or follows from scores."""
    assert metric.summary
    assert (metric.function is metric.each is None) == (metric.needs in ("cost", "scores"))
    assert (metric.load is not None) == (metric.needs == "pairs")
    assert (metric.name in COSTS) == (metric.scope == "cost")
    assert not (metric.takes_extractor and metric.extractor)


def test_metrics_of_real_images_are_zero_or_one_for_the_same_set() -> None:
    real = np.random.default_rng(0).normal(size=(60, 3))
    for name in ("fd", "fid", "cmmd"):
        assert METRICS[name](real, real) == pytest.approx(0, abs=1e-4)
    for name in ("precision", "recall", "coverage"):
        assert METRICS[name](real, real) == 1
