"""Networks that judge while drawing, and those that score: never the same."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from eddy_bench.errors import MetricError, ParameterError
from eddy_bench.experiment.score import ScoringRequest, resolve_specs
from eddy_bench.methods.registry import build_method
from eddy_bench.models.backbones import same_network
from eddy_bench.models.defaults import scoring_defaults
from eddy_bench.models.devices import CPU
from eddy_bench.scoring.attribute_values import open_values
from eddy_bench.scoring.extractors import load_extractor
from eddy_bench.scoring.metrics import MetricSpec
from eddy_bench.suites.method_spec import MethodSpec
from eddy_bench.suites.prompts import load_prompts
from eddy_bench.suites.suite import Suite


def check_judge(spec: MethodSpec, suite: Suite, metrics: Sequence[MetricSpec]) -> None:
    """Build a method; raises ParameterError where what judges for it also scores its images."""
    judge = build_method(spec, suite.permission("methods")).judge
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


def check_metrics(suite: Suite) -> None:
    """Load once what metrics that were asked for by name see images through.

    What is missing is told before hours of drawing, not after them.
    """
    if not suite.metrics:
        return
    weights = Path(suite.weights) if suite.weights else None
    seen = set()
    request = ScoringRequest(suite.metrics, permission=suite.permission("metrics"))
    for spec in resolve_specs(request, scoring_defaults(suite.model), suite.model, True):
        metric = spec.metric
        if metric.needs == "values":
            open_values(load_prompts(suite.prompts), suite.prompts)
        load = metric.sees or metric.load
        source = spec.name if load else spec.extractor
        if source in seen or not source or metric.needs == "attributes":
            continue  # loaded already, or ships with the package
        seen.add(source)
        if load:
            load(weights, CPU)
        else:
            load_extractor(source, weights)


def check_folder(source: str | None, expected: str) -> None:
    """Raise MetricError for what should be a folder and is none."""
    if source and not Path(source).is_dir():
        there = "a file" if Path(source).exists() else "nothing"
        raise MetricError(f"Expected {expected} {source}, found {there}.")
