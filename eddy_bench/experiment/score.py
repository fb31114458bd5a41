"""Score every finished group of a run: its values, files and summary."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from eddy_bench import __version__
from eddy_bench.errors import CompareError, EddyError, MetricError, StoreError, counted
from eddy_bench.experiment.events import Listener
from eddy_bench.experiment.grids import write_grids
from eddy_bench.ids import CIRCULAR, IID, MethodId, MetricId, Signature
from eddy_bench.models.backbones import same_network
from eddy_bench.models.defaults import ScoringDefaults, garment_models, scoring_defaults
from eddy_bench.models.devices import resolve_device
from eddy_bench.models.embedded import ASSETS
from eddy_bench.results.headroom import headrooms
from eddy_bench.results.io import (
    GROUP,
    IMAGE,
    compact,
    digest_of_scores,
    image_rows,
    read_image_rows,
    read_scores,
    rows_of,
    write_scores,
)
from eddy_bench.results.results import Results, bad_images_of, bad_words, read_results, results_of
from eddy_bench.results.summary import MethodSummary, summarise, write_summary
from eddy_bench.scoring.attribute_values import Values, values_of_run
from eddy_bench.scoring.extractors import DINOV2
from eddy_bench.scoring.measure import Methods, MetricValue, measure
from eddy_bench.scoring.metric import Metric
from eddy_bench.scoring.metrics import BAD_IMAGES, COSTS, METRICS, MetricSpec, parse_all
from eddy_bench.scoring.reference import RealImages, load_reference
from eddy_bench.scoring.scorer import Advance, Scorer
from eddy_bench.storage import records
from eddy_bench.storage.files import listing
from eddy_bench.storage.group import FinishedGroup
from eddy_bench.storage.records import RunRecord, RunSettings
from eddy_bench.storage.run_folder import RunFolder, read_manifest, write_manifest
from eddy_bench.suites.plugins import Permission

Progress = Callable[[int], Advance]
_BAD = Metric(BAD_IMAGES, "cost", False, "images of a group that are bad, by reason")


@dataclass(frozen=True)
class FoundGroups:
    """The whole groups of a folder, and what is wrong with the others."""

    groups: list[FinishedGroup]
    broken: list[str]


def read_groups(folder: RunFolder) -> FoundGroups:
    """Read every group.json of a folder."""
    broken: list[str] = []
    return FoundGroups(list(folder.finished(broken=broken)), broken)


def groups_by_method(
    folder: RunFolder, run: RunRecord, found: FoundGroups
) -> tuple[dict[MethodId, list[FinishedGroup]], list[str]]:
    """Return groups by their method, in the table's order, and notes on others.

    Raises:
        StoreError: there are none.

    """
    methods: dict[MethodId, list[FinishedGroup]] = {}
    broken, particles = list(found.broken), run.settings.particles
    tags = read_manifest(folder.path, broken).tags
    for group in found.groups:
        if group.group.particles != particles:
            broken.append(
                f"{group.folder} has {group.group.particles} particles, the run "
                f"{particles}: remove it, and run again"
            )
            continue
        if tags.get(group.group.prompt_id, group.group.tags) != group.group.tags:  # changed since
            own = replace(group.group, tags=tags[group.group.prompt_id])
            group = replace(group, group=own)
        methods.setdefault(group.group.id, []).append(group)
    if not methods:
        raise StoreError(
            f"{folder.path} holds no finished group. `eddy-bench run --out {folder.path}` "
            "draws them."
        )
    order = _method_order(run.suite.methods)
    methods = dict(sorted(methods.items(), key=lambda item: order(item[0])))
    notes = []
    if broken:
        notes.append(f"left out {counted(len(broken), 'broken group')} ({broken[0]})")
    if len({len(groups) for groups in methods.values()}) > 1:
        counts = ", ".join(f"{method} {len(own)}" for method, own in methods.items())
        notes.append(
            f"the methods have different numbers of groups ({counts}): "
            "their means are over different prompts"
        )
    return methods, notes


def _method_order(methods: Iterable[str]) -> Callable[[MethodId], tuple[Any, ...]]:
    """Order iid first, then methods as in the suite, then one method's by rising numbers."""
    names = [MethodId.parse(text).name for text in methods]

    def order(method: MethodId) -> tuple[Any, ...]:
        near = names.index(method.name) if method.name in names else len(names)
        parts = re.split(r"(-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)", method.parameters)
        words = re.sub(r"\d", "", "".join(parts[::2]))
        rank = -1 if method == IID else near
        return rank, method.name, words, [float(number) for number in parts[1::2]], str(method)

    return order


@dataclass(frozen=True)
class ScoringRequest:
    """What scoring needs beside the run folder.

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
class Scored:
    """What scoring gave.

    results: every value. summaries: one per method.
    requested: metrics that were requested. skipped: those that could not be computed.
    methods: the groups that were scored, in the table's order.
    warnings: for the user.
    """

    results: Results
    summaries: list[MethodSummary]
    requested: list[MetricId]
    methods: dict[MethodId, list[FinishedGroup]]
    warnings: list[str] = field(default_factory=list)
    skipped: list[MetricId] = field(default_factory=list)


@dataclass
class _Pass:
    """Rows, warnings, computed and skipped metrics of one scoring pass."""

    rows: list[pd.DataFrame] = field(default_factory=list)
    images: list[pd.DataFrame] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    scored: list[MetricId] = field(default_factory=list)
    skipped: list[MetricId] = field(default_factory=list)


def score_folder(
    folder: RunFolder, found: FoundGroups, request: ScoringRequest, progress: Progress
) -> Scored:
    """Score every finished group and write scores.csv and summary.csv.

    Metrics that are there and were not requested stay, where the images are what they were.

    Args:
        folder: of the run.
        found: its groups.
        request: what is scored, and with what.
        progress: is told the total once, then what is done.

    Raises:
        EddyError: a metric that was requested by name cannot be computed, or there is no such
            device.

    """
    device = resolve_device(request.device)
    run = folder.read_run()
    methods, notes = groups_by_method(folder, run, found)
    defaults = scoring_defaults(run.settings.model)
    real = load_reference(request.reference, defaults)
    specs = resolve_specs(request, defaults, run.settings.model, real is not None)
    weights = Path(request.weights) if request.weights else None
    scorer = Scorer(folder, weights, real, lambda count, label: None, device)
    scorer.values = _values(specs, run)
    scorer.advance = progress(_work(specs, methods, scorer))
    done = _score_all(scorer, specs, methods, run.settings, explicit=bool(request.metrics))
    computed = [*(MetricId(name) for name in COSTS), *done.scored]
    told = real.notes if isinstance(real, RealImages) else ()
    done.warnings += [
        *told,
        *scorer.warnings,
        *scorer.memory_notes,
        *_keep_earlier(folder, methods, computed, done),
        *notes,
    ]
    request.check_ownership()
    bad = rows_of(list(_bad_values(methods)), run.settings)
    write_scores(folder.path, [*done.rows, bad], list(methods), done.images)
    results = results_of([*done.rows, bad], str(folder.path))
    summaries = summarise(results, methods, headrooms(results))
    write_summary(folder.path, results, summaries)
    manifest = read_manifest(folder.path).updated(scored_images=_digests(methods))
    write_manifest(folder.path, manifest)
    requested = [spec.id for spec in specs]
    return Scored(results, summaries, requested, methods, done.warnings, done.skipped)


def scored_before(folder: RunFolder, found: FoundGroups) -> Scored:
    """Return what scoring gave before, of the very same groups."""
    methods, _ = groups_by_method(folder, folder.read_run(), found)
    results = read_results([folder.path])
    return Scored(results, summarise(results, methods, headrooms(results)), [], methods)


def _bad_values(methods: Methods) -> Iterator[MetricValue]:
    """Yield how many images of a group are bad, by reason; only of groups with any."""
    for group in itertools.chain.from_iterable(methods.values()):
        for reason, count in Counter(group.bad.values()).items():
            signature = Signature(BAD_IMAGES, (("N", str(group.group.particles)),))
            yield MetricValue(
                group.group, MetricId(BAD_IMAGES, reason), _BAD, float(count), signature
            )


def _values(specs: Sequence[MetricSpec], run: RunRecord) -> Values:
    """Return the values that a run's prompts leave open, where a metric counts them."""
    needed = any(spec.metric.needs == "values" for spec in specs)
    return values_of_run(run) if needed else {}


def resolve_specs(
    request: ScoringRequest, defaults: ScoringDefaults, model: str, has_reference: bool
) -> list[MetricSpec]:
    """Return the metrics that were requested, or the model's own, with their extractors.

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
        resolved = replace(spec, extractor=spec.extractor or own)
        specs[resolved.id] = resolved
    return list(specs.values())


def requested_metrics(run: RunRecord, request: ScoringRequest) -> list[MetricId]:
    """Return the metrics that were requested by name."""
    if not request.metrics:
        return []
    model = run.settings.model
    specs = resolve_specs(request, scoring_defaults(model), model, has_reference=True)
    return [spec.id for spec in specs]


def _work(specs: Sequence[MetricSpec], methods: Methods, scorer: Scorer) -> int:
    """Return how many groups are seen: once per extractor, and per metric that judges images."""
    count = sum(map(len, methods.values()))
    drifting = {spec.extractor for spec in specs if spec.metric.needs == "iid"}
    disjoint = len(scorer.hold_out()) if drifting else 0
    judged = [spec for spec in specs if spec.metric.needs in ("image", "image and text", "pairs")]
    extractors = {spec.extractor for spec in specs if spec not in judged}
    return count * (len(extractors) + len(judged)) + len(drifting) * disjoint


def _score_all(
    scorer: Scorer,
    specs: Sequence[MetricSpec],
    methods: Methods,
    settings: RunSettings,
    explicit: bool,
) -> _Pass:
    """Score every metric; one that fails is skipped with a warning unless it was requested."""
    done = _Pass([rows_of(list(_costs(groups)), settings) for groups in methods.values()])
    reasons: dict[str, list[str]] = {}
    for spec in specs:
        fresh = _Pass()
        try:
            _score_one(fresh, scorer, spec, methods, settings)
        except StoreError:  # an image was changed after it was drawn
            raise
        except EddyError as error:
            if explicit:
                raise
            reasons.setdefault(str(error), []).append(str(spec.id))
            done.skipped.append(spec.id)
            continue
        done.rows += fresh.rows
        done.images += fresh.images
        done.scored += dict.fromkeys(fresh.scored)
        done.warnings += fresh.warnings
    done.warnings += [f"{', '.join(names)} skipped: {why}" for why, names in reasons.items()]
    return done


def _score_one(
    done: _Pass, scorer: Scorer, spec: MetricSpec, methods: Methods, settings: RunSettings
) -> None:
    """Add the rows of a metric, one method's values in memory at a time."""
    infinite: list[str] = []
    circular, finite = False, 0
    values = measure(scorer, spec, methods)
    for method, same in itertools.groupby(values, lambda value: value.group.id):
        measured = list(same)
        judge = methods[method][0].judge
        own = [marked_circular(_finite(value), settings, judge) for value in measured]
        done.rows.append(rows := rows_of(own, settings))
        done.images.append(image_rows(rows, own))
        done.scored += [value.id for value in own]
        circular |= any(value.signature.has(CIRCULAR) for value in own)
        finite += sum(math.isfinite(value.value) for value in own)
        infinite += [
            f"{before.group.name}, {before.group.prompt_id}"
            for before, value in zip(measured, own, strict=True)
            if math.isnan(value.value) and not math.isnan(before.value)
        ]
    if infinite:
        more = f" and {len(infinite) - 1} more" if len(infinite) > 1 else ""
        done.warnings.append(f"{spec.id} is infinite for {infinite[0]}{more}: left out.")
    if done.rows and not finite:
        done.warnings.append(f"{spec.id} has no value for any group (not a number).")
    if circular:
        done.warnings.append(
            f"{spec.id} is computed with the network that also guided: "
            "its gains are inflated. Score with another one."
        )


def _costs(groups: Sequence[FinishedGroup]) -> Iterator[MetricValue]:
    """Yield what drawing the groups cost, a value per group and counter."""
    for group in groups:
        for name in COSTS:
            value = group.cost.get(name, math.nan)
            signature = Signature(name, (("N", str(group.group.particles)),))
            yield MetricValue(group.group, MetricId(name), METRICS[name], value, signature)


def _finite(value: MetricValue) -> MetricValue:
    """Return a value without infinite ones, which no mean or interval can hold: NaN stands there.

    A group whose images have one has none itself.
    """
    images = tuple(math.nan if math.isinf(own) else own for own in value.images)
    broken = math.isinf(value.value) or any(map(math.isinf, value.images))
    return replace(value, value=math.nan, images=images) if broken else value


def marked_circular(value: MetricValue, settings: RunSettings, judge: str = "") -> MetricValue:
    """Mark a value as circular where its extractor is the network that also guided or judged.

    judge: as the method declared it when its groups were drawn; empty for none.
    """
    extractor = DINOV2 if value.id.extractor == "dinov2" else value.id.extractor
    guide, _, digest = (settings.guide or "").rpartition("@")
    words = (part if isinstance(part, str) else part[1] for part in value.signature.parts)
    same_weights = bool(guide and digest) and any(word.endswith(f"@{digest}") for word in words)
    same = any(name and same_network(extractor, name) for name in (judge, guide))
    if not (same or same_weights):
        return value
    return replace(value, signature=value.signature.adding([CIRCULAR]))


def _keep_earlier(
    folder: RunFolder, methods: Methods, computed: Sequence[MetricId], done: _Pass
) -> list[str]:
    """Keep values that the folder holds already and that still stand; returns notes on others.

    A row stands while the images of its method that were scored are what they were; one of a
    pooled metric only while no image came to them.
    """
    try:
        rows = read_scores(folder.path) if (folder.path / "scores.csv").exists() else None
    except CompareError as error:
        return [f"scores.csv could not be read and was replaced, its values are gone: {error}"]
    if rows is None:
        return []
    names = rows["metric"].map(lambda own: own in computed or own.name == BAD_IMAGES)
    rows = rows[~names.astype(bool) & rows["method"].isin(list(methods)).astype(bool)]
    digests = read_manifest(folder.path).scored_images or {}
    pooled = rows["prompt_id"].astype(str) == ""
    stands = pd.Series(False, index=rows.index)
    for method, groups in methods.items():
        own = (rows["method"] == method).astype(bool)
        current = {_key(group): group for group in groups}
        table = rows[own & ~pooled]
        scored = set(zip(table["prompt_id"], table["seed"], strict=True))
        if not scored <= current.keys():
            continue
        digest = _digest(current[key] for key in scored)
        if digests.get(str(method), digest) == digest:
            stands |= own if len(scored) == len(current) else own & ~pooled
    kept, outdated = rows[stands], set(rows[~stands]["metric"])
    notes = [
        f"{metric} of images that changed since was left out: score it again with --metric"
        for metric in sorted(map(str, outdated))
    ]
    count = sum(map(len, methods.values()))
    for metric, own_rows in kept[~pooled[stands]].groupby("metric", sort=False, observed=True):
        if metric not in outdated and (lacking := count - len(own_rows)):
            notes.append(
                f"{metric} is kept from before and {lacking} groups have none: "
                "score it again with --metric"
            )
    if kept.empty:
        return notes
    done.rows.append(compact(kept))
    try:
        images = read_image_rows(folder.path)
    except StoreError as error:
        return [*notes, f"values of single images of metrics that are kept are gone: {error}"]
    if len(images):
        keys = pd.MultiIndex.from_frame(images[GROUP].astype(str))
        standing = keys.isin(pd.MultiIndex.from_frame(kept[GROUP].astype(str)))
        done.images.append(compact(images[standing].astype({IMAGE: int})))
    return notes


def _digests(methods: Methods) -> dict[str, str]:
    """Return a hash of each method's images."""
    return {str(method): _digest(groups) for method, groups in methods.items()}


def _digest(groups: Iterable[FinishedGroup]) -> str:
    lines = sorted(f"{'/'.join(_key(group))} {group.fingerprint}" for group in groups)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _key(group: FinishedGroup) -> tuple[str, str]:
    return group.group.prompt_id, str(group.group.seed)


def scoring_state(
    run: RunRecord,
    found: FoundGroups,
    request: ScoringRequest,
    tags: Mapping[str, Any] | None = None,
) -> str:
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
    specs = [(text, MetricSpec.parse(text, request.permission)) for text in request.metrics or ()]
    metrics = [[text, spec.metric.source] for text, spec in specs]
    values = _values([spec for _, spec in specs], run)
    asked = [metrics, values, request.reference, request.weights]
    parts = [groups, *asked, listings, tags or {}, __version__]
    state = hashlib.sha256()
    for piece in json.JSONEncoder().iterencode(parts):  # a million groups are 400 MB of text
        state.update(piece.encode())
    return state.hexdigest()


def score_if_needed(folder: RunFolder, request: ScoringRequest, listener: Listener) -> None:
    """Score a folder unless its scores are of these very images, metrics and weights."""
    found = read_groups(folder)
    tags = read_manifest(folder.path).tags
    state = scoring_state(folder.read_run(), found, request, tags)
    digest = digest_of_scores(folder.path)
    if digest and read_manifest(folder.path).scored == records.Scored(state=state, files=digest):
        tell_bad(folder, listener, found)
        listener.tell("Nothing to score: scores.csv is up to date.")
        requested = requested_metrics(folder.read_run(), request)
        listener.scored(folder, scored_before(folder, found), [], requested)
        return
    complete = score(folder, request, listener, found)
    scored = records.Scored(state=state, files=digest_of_scores(folder.path))
    manifest = read_manifest(folder.path).updated(scored=scored if complete else None)
    write_manifest(folder.path, manifest)


def score_again(folder: RunFolder, request: ScoringRequest, listener: Listener) -> None:
    """Score a folder; what is there and was not requested stays."""
    score(folder, request, listener, read_groups(folder))
    # the next run scores what its suite asks for
    write_manifest(folder.path, read_manifest(folder.path).updated(scored=None))


def score(
    folder: RunFolder, request: ScoringRequest, listener: Listener, found: FoundGroups
) -> bool:
    """Score and draw the grids; returns whether no metric was skipped."""
    tell_bad(folder, listener, found)
    with ExitStack() as stage:

        def progress(total: int) -> Advance:
            return stage.enter_context(listener.began("Scoring", total))

        scored = score_folder(folder, found, request, progress)
    grids = write_grids(folder, scored.methods)
    listener.tell_all(scored.warnings, "Warning")
    listener.scored(folder, scored, grids, scored.requested if request.metrics else [])
    return not scored.skipped


def tell_bad(folder: RunFolder, listener: Listener, found: FoundGroups | None = None) -> None:
    """Tell how many images of all groups of a run are bad, whether drawn now or before."""
    groups = (found or read_groups(folder)).groups
    words = bad_words(bad_images_of(groups, folder.reference().finished()))
    listener.tell_all(words, "Warning")
