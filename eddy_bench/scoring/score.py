"""Scores of the finished groups of a run folder, and their summary; reads files, draws nothing."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pandas as pd

from eddy_bench import __version__
from eddy_bench.errors import EddyError, MetricError, StoreError
from eddy_bench.models.defaults import ScoringDefaults, garment_models, scoring_defaults
from eddy_bench.models.devices import resolve_device
from eddy_bench.scoring.attribute_values import Values, values_of_run
from eddy_bench.scoring.bad_images import bad_rows
from eddy_bench.scoring.earlier_scores import EarlierScores, images_digests
from eddy_bench.scoring.extractors import ASSETS
from eddy_bench.scoring.feature_cache import Advance, Scorer
from eddy_bench.scoring.found_groups import ByLabel, FoundGroups, groups_by_label
from eddy_bench.scoring.image_scores import image_rows, kept_image_rows
from eddy_bench.scoring.metrics import COSTS, MetricSpec, parse_all
from eddy_bench.scoring.readings import Measured, measure
from eddy_bench.scoring.reference import load_reference
from eddy_bench.scoring.rows import cost_rows, marked_circular, score_row, without_infinity
from eddy_bench.scoring.score_table import by_method, compact, escaped, write_scores
from eddy_bench.scoring.signature import CIRCULAR
from eddy_bench.scoring.summary import summarise
from eddy_bench.storage.files import listing, write_text
from eddy_bench.storage.records import RunRecord, RunSettings
from eddy_bench.storage.run_files import read_manifest, write_manifest
from eddy_bench.storage.run_folder import RunFolder
from eddy_bench.suites.plugins import Permission

Progress = Callable[[int], Advance]


@dataclass(frozen=True)
class ScoringRequest:
    """Hold what scoring needs beside the run folder.

    metrics: as on the command line; None, or none, for the model's own.
    reference: a folder of real images, or a file of their statistics; None for the model's own.
    weights: a folder with weights that cannot be downloaded.
    device: of the networks, `auto` or a torch device; values differ in their last digits.
    check_ownership: is called before anything is written; raises when the folder is another
        process's by now.
    permission: to run the Python files that `metrics` name; None where a run folder names them.
    """

    metrics: Sequence[str] | None = None
    reference: str | None = None
    weights: str | None = None
    device: str = "auto"
    check_ownership: Callable[[], None] = lambda: None
    permission: Permission | None = None


@dataclass(frozen=True)
class ScoringResult:
    """Hold what scoring gave.

    summary: one row per method.
    warnings: for the user.
    columns: of the metrics that were asked for.
    groups: that were scored, by the method's label, in the table's order.
    skipped: columns that could not be computed.
    """

    summary: pd.DataFrame
    warnings: list[str]
    columns: list[str]
    groups: ByLabel
    skipped: list[str]


@dataclass(frozen=True)
class _MethodRows:
    """Rows of one metric and method, and of its single images; (metric, extractor) of its values;
    whether any is circular; groups whose value was infinite; how many have one.
    """

    rows: pd.DataFrame
    images: pd.DataFrame
    names: list[tuple[str, str]]
    circular: bool
    infinite: list[str]
    finite: int


@dataclass
class _Pass:
    """Rows, warnings and skipped columns of one scoring pass."""

    parts: list[pd.DataFrame] = field(default_factory=list)
    images: list[pd.DataFrame] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    scored: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


def score_folder(
    folder: RunFolder, found: FoundGroups, request: ScoringRequest, progress: Progress
) -> ScoringResult:
    """Score every finished group and write scores.csv and summary.csv.

    Columns that are there and were not asked for stay, where the images are what they were.

    Args:
        folder: of the run.
        found: its groups.
        request: what is scored, and with what.
        progress: is told the total once, then what is done.

    Raises:
        EddyError: a metric that was asked for by name cannot be computed, or there is no such
            device.

    """
    device = resolve_device(request.device)
    run = folder.read_run()
    by_label, notes = groups_by_label(folder, run, found)
    defaults = scoring_defaults(run.settings.model)
    real = load_reference(request.reference, defaults)
    specs = resolve_specs(request, defaults, run.settings.model, real is not None)
    weights = Path(request.weights) if request.weights else None
    scorer = Scorer(folder, weights, real, _ignore, device)
    scorer.values = _values(specs, run)
    scorer.advance = progress(_work(specs, by_label, scorer))
    done = _score_all(scorer, specs, by_label, run.settings, explicit=bool(request.metrics))
    earlier = EarlierScores.read(folder, by_label)
    computed = [*COSTS, *done.scored]
    if not (kept := earlier.without(computed)).empty:
        done.parts.append(kept)
        images, lost = kept_image_rows(folder.path, kept)
        done.images.append(images)
        done.warnings += lost
    done.warnings += [*scorer.warnings, *earlier.notes(computed), *notes]
    bad = compact(bad_rows(by_label, run.settings))
    request.check_ownership()
    labels = list(by_label)
    write_scores(folder.path, [*done.parts, bad], labels, done.images)
    summary = summarise(by_method(done.parts, labels), by_label)
    text = escaped(summary).to_csv(index=False, lineterminator="\n")
    write_text(folder.path / "summary.csv", text)
    manifest = read_manifest(folder.path).updated(scored_images=images_digests(by_label))
    write_manifest(folder.path, manifest)
    columns = [spec.column for spec in specs]
    return ScoringResult(summary, done.warnings, columns, by_label, done.skipped)


def _values(specs: Sequence[MetricSpec], run: RunRecord) -> Values:
    """Return the values that a run's prompts leave open, where a metric counts them."""
    asked = any(spec.metric.needs == "values" for spec in specs)
    return values_of_run(run) if asked else {}


def _ignore(count: int, label: str) -> None:
    pass


def resolve_specs(
    request: ScoringRequest, defaults: ScoringDefaults, model: str, has_reference: bool
) -> list[MetricSpec]:
    """Return the metrics that were asked for, or the model's own, with their extractors.

    Raises:
        EddyError: a metric that does not exist, or does not apply to the model.

    """
    specs = {}
    for spec in parse_all(request.metrics or defaults.metrics, request.permission):
        metric = spec.metric
        if not request.metrics and metric.needs == "real" and not has_reference:
            continue
        if metric.needs == "attributes" and not defaults.judges_garments:
            raise MetricError(
                f"Metric {metric.name!r} judges garments and is defined for the models "
                f"{' and '.join(garment_models())} only, not {model!r}."
            )
        own = defaults.extractor if metric.takes_extractor else metric.extractor
        resolved = MetricSpec(spec.name, spec.extractor or own, spec.parameters)
        specs[resolved.column] = resolved
    return list(specs.values())


def asked_columns(run: RunRecord, request: ScoringRequest) -> list[str]:
    """Return the columns of the metrics that were asked for by name."""
    if not request.metrics:
        return []
    model = run.settings.model
    specs = resolve_specs(request, scoring_defaults(model), model, has_reference=True)
    return [spec.column for spec in specs]


def _work(specs: Sequence[MetricSpec], by_label: ByLabel, scorer: Scorer) -> int:
    """Return how many groups are seen: once per extractor, and per metric that judges images."""
    count = sum(map(len, by_label.values()))
    drifting = {spec.extractor for spec in specs if spec.metric.needs == "iid"}
    disjoint = len(scorer.reference_groups()) if drifting else 0
    judged = [spec for spec in specs if spec.metric.needs in ("image", "image and text", "pairs")]
    extractors = {spec.extractor for spec in specs if spec not in judged}
    return count * (len(extractors) + len(judged)) + len(drifting) * disjoint


def _score_all(
    scorer: Scorer,
    specs: Sequence[MetricSpec],
    by_label: ByLabel,
    settings: RunSettings,
    explicit: bool,
) -> _Pass:
    """Score every metric; one that fails is skipped with a warning unless it was asked for."""
    done = _Pass([compact(cost_rows(groups, settings)) for groups in by_label.values()])
    judges = {label: groups[0].judge for label, groups in by_label.items()}
    reasons: dict[str, list[str]] = {}
    for spec in specs:
        try:
            parts = list(_rows_by_method(measure(scorer, spec, by_label), settings, judges))
        except StoreError:  # an image was changed after it was drawn
            raise
        except EddyError as error:
            if explicit:
                raise
            reasons.setdefault(str(error), []).append(spec.column)
            done.skipped.append(spec.column)
            continue
        done.parts += [part.rows for part in parts]
        done.images += [part.images for part in parts]
        done.scored += dict.fromkeys(
            MetricSpec(*name, spec.parameters).column for part in parts for name in part.names
        )
        done.warnings += _without_values(spec, parts)
        if any(part.circular for part in parts):
            done.warnings.append(
                f"{spec.column} is seen through the network that also guided: "
                "its gains are inflated. Score with another one."
            )
    done.warnings += [f"{', '.join(names)} skipped: {why}" for why, names in reasons.items()]
    return done


def _without_values(spec: MetricSpec, parts: Sequence[_MethodRows]) -> list[str]:
    """Say of which groups a value is missing that nobody would expect to."""
    notes = []
    if infinite := [name for part in parts for name in part.infinite]:
        more = f" and {len(infinite) - 1} more" if len(infinite) > 1 else ""
        notes.append(f"{spec.column} is infinite for {infinite[0]}{more}: left out.")
    if parts and not any(part.finite for part in parts):
        notes.append(f"{spec.column} has no value for any group (not a number).")
    return notes


def _rows_by_method(
    values: Iterable[Measured], settings: RunSettings, judges: Mapping[str, str]
) -> Iterator[_MethodRows]:
    """Yield the rows of values that come method by method, one method's in memory at a time.

    judges: of images while drawing, by the method's label.
    """
    for label, same in itertools.groupby(values, lambda value: value.group.label):
        measured = list(same)
        own = [
            marked_circular(without_infinity(value), settings, judges[label]) for value in measured
        ]
        rows = compact([score_row(value, settings) for value in own])
        yield _MethodRows(
            rows,
            image_rows(rows, own),
            list(dict.fromkeys((value.metric, value.extractor) for value in own)),
            any(value.signature.has(CIRCULAR) for value in own),
            [
                f"{before.group.name}, {before.group.prompt_id}"
                for before, value in zip(measured, own, strict=True)
                if math.isnan(value.value) and not math.isnan(before.value)
            ],
            sum(math.isfinite(value.value) for value in own),
        )


def scoring_state(run: RunRecord, found: FoundGroups, request: ScoringRequest) -> str:
    """Return a hash of what scoring depends on; unchanged means that scores.csv is up to date."""
    groups = sorted(
        json.dumps(
            [group.group.key, {name: asdict(info) for name, info in group.files.items()}]
            + ([dict(group.bad)] if group.bad else []),
            sort_keys=True,
        )
        for group in found.groups
    )
    folders = (request.reference, request.weights, str(ASSETS))
    listings = [listing(Path(path)) for path in folders if path]
    asked = [(text, MetricSpec.parse(text, request.permission)) for text in request.metrics or ()]
    metrics = [[text, spec.metric.source] for text, spec in asked]
    values = _values([spec for _, spec in asked], run)
    parts = [groups, metrics, values, request.reference, request.weights, listings, __version__]
    state = hashlib.sha256()
    for piece in json.JSONEncoder().iterencode(parts):  # a million groups are 400 MB of text
        state.update(piece.encode())
    return state.hexdigest()
