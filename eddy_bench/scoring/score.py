"""Scores of the finished groups of a run folder, and their summary; reads files only, draws nothing."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image

from eddy_bench import __version__
from eddy_bench.errors import EddyError, MetricError, StoreError
from eddy_bench.models.attributes import parse
from eddy_bench.models.backbones import same_network
from eddy_bench.models.images import image_tensor
from eddy_bench.scoring.diversity import mean_similarity, pairwise_distance, vendi
from eddy_bench.scoring.extractors import ASSETS, DINOV2, file_digest, load_lpips
from eddy_bench.scoring.feature_cache import Advance, Scorer
from eddy_bench.scoring.fidelity import align, clip_score, distinct_attributes
from eddy_bench.scoring.metrics import COSTS, Request, parse_metric
from eddy_bench.scoring.pooled import (
    GARMENTS,
    drift_rows,
    load_reference,
    pooled_rows,
    reference_groups,
    score_row,
)
from eddy_bench.scoring.score_table import by_method, compact, escaped, write_scores
from eddy_bench.scoring.summary import summarise
from eddy_bench.storage.files import write_text
from eddy_bench.storage.group import FinishedGroup, Group
from eddy_bench.storage.run_folder import RunFolder

Progress = Callable[[int], Advance]
EMBEDDED_METRICS = (
    "vendi",
    "pdist",
    "mss",
    "attributes",
    "clip",
    "align",
    "fd",
    "kid",
    "precision",
    "recall",
    "drift",
)
KDE_METRICS = tuple(
    name for name in EMBEDDED_METRICS if name != "align"
)  # it follows the class of a prompt alone
POINT_METRICS = ("vendi", "pdist", "mss")  # of the pictures of points
OTHER_METRICS = ("vendi", "vendi[inception]", "pdist", "mss", "lpips", "clip", "fid", "drift")
OPEN_CLIP = "open_clip:ViT-B-32-quickgelu/openai"
POOLED_WITH_REFERENCE = ("fd", "fid", "kid", "precision", "recall", "density", "coverage", "cmmd")


def default_extractor(model: str) -> str:
    """The scoring extractor of a model when none is named."""
    return (
        "fmnist-clip"
        if model in GARMENTS
        else "pixels"
        if model.startswith("exact:")
        else OPEN_CLIP
    )


def default_metrics(model: str) -> tuple[str, ...]:
    """The metrics of a model when none is named."""
    if model in GARMENTS:
        return EMBEDDED_METRICS if model == "fashion" else KDE_METRICS
    return POINT_METRICS if model.startswith("exact:") else OTHER_METRICS


@dataclass(frozen=True)
class ScoringResult:
    """What scoring gave: the summary, warnings, the metrics' columns, the methods in the table's order, and whether a metric was skipped."""

    summary: pd.DataFrame
    warnings: list[str]
    columns: list[str]
    labels: list[str]
    skipped: bool


def resolve_requests(texts: Iterable[str] | None, model: str, has_reference: bool) -> list[Request]:
    """Metrics that were asked for, or the model's own, with their extractors."""
    texts = list(texts) if texts is not None else None
    names: Iterable[str] = texts if texts else default_metrics(model)
    requests = {}
    for text in names:
        request = parse_metric(text, explicit=bool(texts))
        if not texts and request.metric.name in POOLED_WITH_REFERENCE and not has_reference:
            continue
        extractor = request.extractor
        if request.metric.name == "lpips":
            extractor = "alex"
        elif request.metric.name == "fid":
            extractor = "inception"
        elif request.metric.extractors and not extractor:
            extractor = default_extractor(model)
        elif request.metric.name in ("align", "attributes"):
            if model not in GARMENTS:
                raise MetricError(
                    f"Metric {request.metric.name!r} judges garments and is defined for the models {' and '.join(GARMENTS)} only, not {model!r}."
                )
            extractor = "classifier"
        resolved = Request(request.metric, extractor, request.parameters, request.explicit)
        requests[resolved.column] = resolved
    return list(requests.values())


def score_folder(
    folder: RunFolder,
    metrics: Iterable[str] | None,
    reference: str | None,
    weights: str | None,
    progress: Progress,
    check_ownership: Callable[[], None] = lambda: None,
) -> ScoringResult:
    """Score every finished group and write scores.csv and summary.csv.

    Args:
        metrics: as on the command line, or None for the model's own. progress: told the total once, then what is done.
        check_ownership: called before anything is written; raises when the folder is another process's by now.

    Returns:
        The summary, what is to be said, and the columns that were asked for.

    Raises:
        EddyError: a metric that was asked for by name cannot be computed.

    """
    run = folder.read_run()
    settings = run["settings"]
    model = settings["model"]
    by_label: dict[str, list[FinishedGroup]] = {}
    broken: list[str] = []
    for found in folder.finished(broken=broken):
        if found.group.particles != settings["particles"]:
            broken.append(
                f"{found.folder} has {found.group.particles} particles, the run {settings['particles']}"
            )
            continue
        by_label.setdefault(found.group.label, []).append(found)
    if not by_label:
        raise StoreError(
            f"{folder.path} holds no finished group. `eddy-bench run --out {folder.path}` draws them."
        )
    order = _method_order(run)
    by_label = dict(sorted(by_label.items(), key=lambda item: order(item[1][0].group)))
    real = load_reference(reference, model)
    requests = resolve_requests(metrics, model, real is not None)
    count = sum(map(len, by_label.values()))
    drifting = {request.extractor for request in requests if request.metric.name == "drift"}
    units = count * len({request.extractor for request in requests}) + len(drifting) * len(
        reference_groups(folder)
    )
    advance = progress(units)
    scorer = Scorer(folder, Path(weights) if weights else None, advance)
    rows, warnings = [compact(_cost_rows(groups, settings)) for groups in by_label.values()], []
    for request in requests:
        try:
            rows.append(
                compact(
                    marked(
                        _score(scorer, request, by_label, settings, real),
                        request.extractor,
                        settings,
                    )
                )
            )
            if rows[-1]["signature"].astype(str).str.endswith("circular").any():
                warnings.append(
                    f"{request.column} is seen through the network that also guided: its gains are inflated. Score with another one."
                )
        except StoreError:  # an image was changed after it was drawn
            raise
        except EddyError as error:
            if request.explicit:
                raise
            warnings.append(f"{request.column} skipped: {error}")
    warnings += scorer.warnings
    if broken:
        warnings.append(
            f"{len(broken)} groups are broken and were left out ({broken[0]}); run again to redraw them"
        )
    if len({len(groups) for groups in by_label.values()}) > 1:
        counts = ", ".join(f"{label} {len(groups)}" for label, groups in by_label.items())
        warnings.append(
            f"the methods have different numbers of groups ({counts}): their means are over different prompts"
        )
    check_ownership()
    write_scores(folder.path, rows, list(by_label))
    summary = summarise(by_method(rows, list(by_label)), by_label)
    write_text(
        folder.path / "summary.csv", escaped(summary).to_csv(index=False, lineterminator="\n")
    )
    return ScoringResult(
        summary,
        warnings,
        [request.column for request in requests],
        list(by_label),
        any("skipped" in note for note in warnings),
    )


def marked(
    rows: list[dict[str, Any]], extractor: str, settings: dict[str, Any]
) -> list[dict[str, Any]]:
    """Rows whose signature says `circular` where the extractor is the network that also guided."""
    guide, _, digest = str(settings.get("guide") or "").rpartition("@")
    seen = any(f"@{digest}|" in f"{row['signature']}|" for row in rows) if digest else False
    if not guide or not (
        seen or same_network(DINOV2 if extractor == "dinov2" else extractor, guide)
    ):
        return rows
    return [{**row, "signature": f"{row['signature']}|circular"} for row in rows]


def _method_order(run: dict[str, Any]) -> Callable[[Group], tuple[Any, ...]]:
    """Iid first, then methods as in the suite, one method's versions by their other parameters and rising numbers."""
    names = [str(text).partition(":")[0] for text in run.get("suite", {}).get("methods", [])]

    def order(group: Group) -> tuple[Any, ...]:
        near = [k for k, name in enumerate(names) if name == group.method]
        parts = re.split(r"(-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)", group.parameters)
        place = -1 if group.label == "iid" else near[0] if near else len(names)
        return (
            place,
            group.method,
            re.sub(r"\d", "", "".join(parts[::2])),
            [float(number) for number in parts[1::2]],
            group.label,
        )

    return order


def _cost_rows(groups: list[FinishedGroup], settings: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        score_row(
            settings,
            found.group,
            name,
            "",
            found.cost.get(name, float("nan")),
            f"{name}|N={found.group.particles}",
        )
        for found in groups
        for name in COSTS
    ]


def _score(
    scorer: Scorer,
    request: Request,
    by_label: dict[str, list[FinishedGroup]],
    settings: dict[str, Any],
    real: tuple[list[Image.Image], str] | None,
) -> list[dict[str, Any]]:
    """Rows of one metric over all methods."""
    name = request.metric.name
    if name == "drift":
        return drift_rows(scorer, request, by_label, settings)
    if request.metric.scope == "pooled":
        return pooled_rows(scorer, request, by_label, settings, real)
    values = _group_values(scorer, request)
    rows = []
    for groups in by_label.values():
        found, signature = values(groups)
        for group in groups:
            row = score_row(
                settings,
                group.group,
                name,
                request.extractor,
                found[group.group.key],
                f"{signature}|N={group.group.particles}",
            )
            rows.append(row)
    return rows


def _group_values(
    scorer: Scorer, request: Request
) -> Callable[[list[FinishedGroup]], tuple[dict[str, float], str]]:
    """A function from the groups of a method to a value per key, and the signature."""
    name = request.metric.name
    if name in ("align", "attributes"):
        judge = align if name == "align" else distinct_attributes
        signature = f"{name}|classifier@{file_digest(ASSETS / 'classifier' / 'model.safetensors')}"

        def judged(groups: list[FinishedGroup]) -> tuple[dict[str, float], str]:
            predicted = scorer.attributes(groups)
            return {
                g.group.key: judge(predicted[g.group.key], parse(g.group.prompt)) for g in groups
            }, signature

        return judged
    if name == "lpips":
        distance, digest = load_lpips(scorer.weights)

        def perceived(groups: list[FinishedGroup]) -> tuple[dict[str, float], str]:
            values = {}
            for group in groups:
                values[group.group.key] = _lpips(distance, group.images())
                scorer.advance(1, f"{group.group.label} lpips")
            return values, f"lpips|net=alex@{digest}|size=64+"

        return perceived
    extractor = scorer.extractor(request.extractor)
    mark = f"features={extractor.name}@{extractor.digest}"
    if name == "clip":
        if extractor.texts is None:
            raise MetricError(
                f"Metric 'clip' needs an extractor with a text tower, got {extractor.name!r}. Use fmnist-clip or open_clip:MODEL/WEIGHTS."
            )
        to_text = extractor.texts

        def clipped(groups: list[FinishedGroup]) -> tuple[dict[str, float], str]:
            features = scorer.features(extractor.name, groups)
            prompts = list(dict.fromkeys(g.group.prompt for g in groups))
            texts = dict(zip(prompts, to_text(prompts), strict=True))
            scorer.note_truncated(extractor, prompts)
            return {
                g.group.key: clip_score(features[g.group.key], texts[g.group.prompt])
                for g in groups
            }, f"clip|100cos|{mark}"

        return clipped
    q = request.parameters.get("q", 1.0)
    function: Callable[[NDArray[np.float32]], float] = {
        "vendi": lambda x: vendi(x, q),
        "pdist": pairwise_distance,
        "mss": mean_similarity,
    }[name]
    prefix = f"vendi|q={q:g}|k=cos" if name == "vendi" else name

    def measured(groups: list[FinishedGroup]) -> tuple[dict[str, float], str]:
        features = scorer.features(extractor.name, groups)
        return {key: function(value) for key, value in features.items()}, f"{prefix}|{mark}"

    return measured


def _lpips(
    distance: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], images: list[Image.Image]
) -> float:
    """Mean over pairs i < j; images under 64 pixels are enlarged, which AlexNet's strides need."""
    batch = torch.stack([image_tensor(image.convert("RGB")) for image in images])
    if min(batch.shape[-2:]) < 64:
        batch = torch.nn.functional.interpolate(
            batch, scale_factor=64 / min(batch.shape[-2:]), mode="bilinear", align_corners=False
        )
    i, j = np.triu_indices(len(batch), 1)
    if not len(i):
        return float("nan")
    with torch.inference_mode():
        return float(distance(batch[i], batch[j]).mean())


def scoring_state(
    folder: RunFolder, metrics: Iterable[str] | None, reference: str | None, weights: str | None
) -> str:
    """A hash of what scoring depends on: unchanged means that scores.csv is up to date."""
    groups = sorted(
        json.dumps([found.group.key, found.files], sort_keys=True) for found in folder.finished()
    )
    files = [_listing(Path(place)) for place in (reference, weights, str(ASSETS)) if place]
    parts = [
        groups,
        list(metrics) if metrics is not None else None,
        reference,
        weights,
        files,
        __version__,
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _listing(folder: Path) -> list[list[Any]]:
    """Names, sizes and times of the files of a folder."""
    found = [(path, path.stat()) for path in sorted(folder.rglob("*")) if path.is_file()]
    return [[str(path), status.st_size, status.st_mtime_ns] for path, status in found]
