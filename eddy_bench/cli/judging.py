"""Networks that judge while drawing, and those that score: never the same."""

from __future__ import annotations

from collections.abc import Sequence

from eddy_bench.errors import ParameterError
from eddy_bench.methods.registry import build_method
from eddy_bench.models.backbones import same_network
from eddy_bench.models.scoring_defaults import scoring_defaults
from eddy_bench.scoring.metrics import MetricSpec
from eddy_bench.suites.method_spec import MethodSpec
from eddy_bench.suites.suite import Suite


def check_judge(spec: MethodSpec, suite: Suite, metrics: Sequence[MetricSpec]) -> None:
    """Build a method; raises ParameterError where what judges for it also scores its images."""
    judge = build_method(spec).judge
    defaults = scoring_defaults(suite.model)
    asked = metrics or [MetricSpec.parse(text) for text in defaults.metrics]
    for metric in asked:
        extractor = metric.extractor or (
            defaults.extractor if metric.metric.takes_extractor else ""
        )
        if judge and extractor and same_network(judge, extractor):
            raise ParameterError(
                f"Expected quality of {spec.name} by a network that does not score, got {judge}, "
                f"through which {metric.name} is seen. Take another one, or another --metric."
            )
