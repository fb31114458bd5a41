"""Metrics of a method's pooled images: against real images, and against a disjoint i.i.d. set."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from eddy_bench.errors import MetricError
from eddy_bench.scoring.extractors import ASSETS, Extractor, file_digest
from eddy_bench.scoring.feature_cache import Scorer, file_name, read_features, write_features
from eddy_bench.scoring.fidelity import (
    cmmd,
    density_coverage,
    frechet_distance,
    kernel_distance,
    precision_recall,
)
from eddy_bench.scoring.metrics import METRICS, Request
from eddy_bench.storage.group import FinishedGroup
from eddy_bench.storage.run_folder import RunFolder

GARMENTS = ("fashion", "exact:fashion-kde")  # models of the same garments


def score_row(
    settings: dict[str, Any],
    group: Any,
    metric: str,
    extractor: str,
    value: float,
    signature: str,
    pooled: bool = False,
) -> dict[str, Any]:
    """A row of scores.csv; pooled metrics have neither prompt nor seed."""
    return {
        "model": settings["model"],
        "method": group.method,
        "params": group.parameters,
        "scheduler": settings["scheduler"],
        "steps": settings["steps"],
        "guidance_scale": settings["guidance_scale"],
        "particles": group.particles,
        "prompt_id": "" if pooled else group.prompt_id,
        "prompt": "" if pooled else group.prompt,
        "seed": "" if pooled else group.seed,
        "metric": metric,
        "extractor": extractor,
        "value": value,
        "higher_is_better": METRICS[metric].higher_is_better,
        "signature": signature,
        "label": group.label,
    }


def reference_groups(folder: RunFolder) -> list[FinishedGroup]:
    """The disjoint i.i.d. set for drift, one image a group."""
    return list(folder.reference().finished())


def load_reference(source: str | None, model: str) -> tuple[list[Image.Image], str] | None:
    """Real images to compare with: a folder of PNG or JPEG files, or the embedded model's held-out set; with a name.

    Raises:
        MetricError: the folder holds no image.

    """
    if source is None:
        if model not in GARMENTS:
            return None
        path = ASSETS / "reference" / "test.npz"
        with np.load(path) as data:
            padded = np.pad(data["images"], ((0, 0), (2, 2), (2, 2)))
        return [Image.fromarray(image) for image in padded], f"fashion-test@{file_digest(path)}"
    folder = Path(source)
    files = (
        sorted(
            path
            for path in folder.rglob("*")
            if path.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp")
        )
        if folder.is_dir()
        else []
    )
    if not files:
        raise MetricError(f"Expected a folder with images at --reference {source}, found none.")
    digest = hashlib.sha256(
        "".join(f"{path.relative_to(folder)}:{path.stat().st_size};" for path in files).encode()
    ).hexdigest()[:10]
    try:
        return [Image.open(path).convert("RGB") for path in files], f"{folder.name}@{digest}"
    except OSError as error:
        raise MetricError(f"--reference {source}: {error}") from None


def _stack(scorer: Scorer, extractor: str, groups: list[FinishedGroup]) -> NDArray[np.float32]:
    """Features of all groups, (groups, N, F)."""
    found = scorer.features(extractor, groups)
    return np.stack([found[group.group.key] for group in groups])


def pooled_rows(
    scorer: Scorer,
    request: Request,
    by_label: dict[str, list[FinishedGroup]],
    settings: dict[str, Any],
    real: tuple[list[Image.Image], str] | None,
) -> list[dict[str, Any]]:
    """Rows of fd, fid, kid, precision, recall, density, coverage or cmmd, one per method."""
    if real is None:
        raise MetricError(
            f"Metric {request.metric.name!r} needs real images to compare with. Give --reference DIR."
        )
    extractor = scorer.extractor(request.extractor)
    reference = _reference_features(scorer, extractor, *real)
    rows, name = [], request.metric.name
    for groups in by_label.values():
        features = _stack(scorer, extractor.name, groups)
        flat = features.reshape(-1, features.shape[-1])
        if name in ("fd", "fid"):
            value = frechet_distance(flat, reference)
        elif name == "kid":
            value = kernel_distance(flat, reference)
        elif name == "cmmd":
            value = cmmd(flat, reference)
        elif name in ("density", "coverage"):
            value = density_coverage(flat, reference)[name == "coverage"]
        else:
            value = precision_recall(flat, reference)[name == "recall"]
        signature = f"{name}|features={extractor.name}@{extractor.digest}|n={len(flat)}|ref={real[1]}:{len(reference)}"
        small = name in ("fd", "fid") and min(len(flat), len(reference)) < max(
            extractor.minimum, flat.shape[1]
        )
        rows.append(
            score_row(
                settings,
                groups[0].group,
                name,
                extractor.name,
                value,
                signature + ("|small-sample" if small else ""),
                pooled=True,
            )
        )
    return rows


def _reference_features(
    scorer: Scorer, extractor: Extractor, images: list[Image.Image], name: str
) -> NDArray[np.float32]:
    """Features of the real images, kept in the run folder."""
    path = (
        scorer.folder.path
        / "features"
        / f"{file_name(extractor.name)}-{extractor.digest}"
        / f"reference-{file_name(name)}.npz"
    )
    known = read_features(path)
    if "real" not in known:
        known = {"real": extractor.images(images)}
        write_features(path, known)
    return known["real"]


def drift_rows(
    scorer: Scorer,
    request: Request,
    by_label: dict[str, list[FinishedGroup]],
    settings: dict[str, Any],
) -> list[dict[str, Any]]:
    """Each slot of each method against the disjoint i.i.d. set of the same prompts and seeds."""
    drawn = {
        (found.group.prompt_id, found.group.seed): found
        for found in reference_groups(scorer.folder)
    }
    if not drawn:
        raise MetricError(
            "Metric 'drift' needs groups of the method iid in the run. Add --method iid."
        )
    extractor = scorer.extractor(request.extractor)
    features = scorer.features(extractor.name, list(drawn.values()))
    rows = []
    for groups in by_label.values():
        shared = [group for group in groups if (group.group.prompt_id, group.group.seed) in drawn]
        if len(shared) < 2:
            raise MetricError(
                f"Metric 'drift' needs at least 2 groups of {groups[0].group.label} that iid has too, got {len(shared)}."
            )
        ours = _stack(scorer, extractor.name, shared)
        base = np.stack(
            [
                features[drawn[group.group.prompt_id, group.group.seed].group.key][0]
                for group in shared
            ]
        )
        value = float(
            np.mean([frechet_distance(ours[:, slot], base) for slot in range(ours.shape[1])])
        )
        mark = f"features={extractor.name}@{extractor.digest}|n={len(base)}|slots={ours.shape[1]}"
        mark += "|small-sample" if len(base) < max(extractor.minimum, base.shape[1]) else ""
        rows.append(
            score_row(
                settings,
                groups[0].group,
                "drift",
                extractor.name,
                value,
                f"drift|{mark}",
                pooled=True,
            )
        )
        if groups[0].group.label == "iid":
            rows.append(
                score_row(
                    settings,
                    groups[0].group,
                    "drift_floor",
                    extractor.name,
                    value,
                    f"drift_floor|{mark}",
                    pooled=True,
                )
            )
    return rows
