"""What is refused before a model is loaded, and before hours of drawing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from eddy_bench.errors import EddyError, MetricError, ParameterError, UnknownName, unknown
from eddy_bench.experiment.cost_matching import unmatched
from eddy_bench.experiment.options import RunOptions
from eddy_bench.experiment.plan import check_size
from eddy_bench.experiment.score import ScoringRequest, resolve_specs
from eddy_bench.methods.registry import build_method
from eddy_bench.models.backbones import same_network
from eddy_bench.models.defaults import scoring_defaults
from eddy_bench.models.devices import CPU
from eddy_bench.sampling.scheduler_table import SCHEDULERS
from eddy_bench.scoring.attribute_values import open_values
from eddy_bench.scoring.extractors import check_extractor, load_extractor
from eddy_bench.scoring.metrics import MetricSpec, parse_all
from eddy_bench.scoring.reference import read_statistics
from eddy_bench.storage.run_folder import refuse_file
from eddy_bench.suites.prompts import load_prompts
from eddy_bench.suites.suite import Suite


def check_early(suite: Suite, path: Path, options: RunOptions) -> None:
    """Raise EddyError for what can be refused before a model is loaded."""
    check_size(suite, load_prompts(suite.prompts))
    specs = parse_all(suite.metrics or [], suite.permission("metrics"))
    for metric in specs:
        check_extractor(metric.extractor)
    if suite.reference and Path(suite.reference).is_file():
        read_statistics(Path(suite.reference))
    else:
        check_folder(suite.reference, "a folder with images at --reference")
    check_folder(suite.weights, "a folder at --weights")
    refuse_file(path)
    scheduler = suite.scheduler.name
    if scheduler != "default" and scheduler not in SCHEDULERS:
        raise UnknownName(unknown("scheduler", scheduler, [*SCHEDULERS, "default"]))
    check_judges(suite, specs)
    if options.executor == "ray" and ":" in suite.device:
        kind, _, number = suite.device.partition(":")
        raise ParameterError(
            f"Expected --device {kind} with --executor ray, which gives each worker a GPU of its "
            f"own, got {suite.device}. To leave it that one set CUDA_VISIBLE_DEVICES={number}."
        )
    if (options.executor == "ray" or options.shard) and (open_specs := unmatched(suite)):
        name = open_specs[0].name
        sweep = build_method(open_specs[0], suite.permission("methods")).sweep
        raise ParameterError(
            f"{name} measures its {sweep} on the machine that draws. "
            f"With --executor ray or --shard give it: {name}:{sweep}=16."
        )


def check_judges(suite: Suite, metrics: Sequence[MetricSpec]) -> None:
    """Build the methods; raises ParameterError where a network that judges for one also scores."""
    defaults = scoring_defaults(suite.model)
    metrics = metrics or [MetricSpec.parse(text) for text in defaults.metrics]
    for spec in suite.methods:
        judge = build_method(spec, suite.permission("methods")).judge
        for metric in metrics:
            own = defaults.extractor if metric.metric.takes_extractor else ""
            extractor = metric.extractor or own
            if judge and extractor and same_network(judge, extractor):
                raise ParameterError(
                    f"Expected quality of {spec.name} by a network that does not score, got "
                    f"{judge}, with which {metric.name} is computed. Take another one, or another "
                    "--metric."
                )


def check_metrics(suite: Suite) -> list[str]:
    """Load once the networks that score; returns which of the model's own metrics lack theirs.

    What is missing is told before hours of drawing, not after them.

    Raises:
        EddyError: a metric that was requested by name cannot be computed.
    """
    defaults = scoring_defaults(suite.model)
    if not suite.metrics and not defaults.extractor.startswith("open_clip:"):
        return []  # all of it ships with the package
    weights = Path(suite.weights) if suite.weights else None
    request = ScoringRequest(suite.metrics, permission=suite.permission("metrics"))
    has_reference = bool(suite.metrics or suite.reference or defaults.reference)
    faults: dict[str, str] = {}  # of each network, by its name
    missing: dict[str, list[str]] = {}
    for spec in resolve_specs(request, defaults, suite.model, has_reference):
        load = spec.metric.sees or spec.metric.load
        source = spec.name if load else spec.extractor
        try:
            if spec.metric.needs == "values":
                open_values(load_prompts(suite.prompts), suite.prompts)
            if source and source not in faults and spec.metric.needs != "attributes":
                faults[source] = ""
                load(weights, CPU) if load else load_extractor(source, weights)
        except EddyError as error:
            if suite.metrics:
                raise
            faults[source] = str(error)
        if faults.get(source):
            missing.setdefault(faults[source], []).append(str(spec.id))
    return [f"{', '.join(ids)} will not be scored: {why}" for why, ids in missing.items()]


def check_folder(source: str | None, expected: str) -> None:
    """Raise MetricError for what should be a folder and is none."""
    if source and not Path(source).is_dir():
        there = "a file" if Path(source).exists() else "nothing"
        raise MetricError(f"Expected {expected} {source}, found {there}.")
