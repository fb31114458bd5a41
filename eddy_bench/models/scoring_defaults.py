"""Say how a model is drawn and scored when nothing else is asked for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from eddy_bench.models.embedded import ASSETS, EMBEDDED
from eddy_bench.models.own_settings import EXACT, named_settings


@dataclass(frozen=True)
class ScoringDefaults:
    """Hold the metrics of a model, and what its images are compared with.

    metrics: as on the command line; those that need real images are left out without them.
    extractor: through which images are seen.
    reference: an archive of held-out real images, where some ship with the model.
    judges_garments: whether prompts name garments, so that `align` and `attributes` apply.
    """

    metrics: tuple[str, ...]
    extractor: str
    reference: Path | None = None
    judges_garments: bool = False


_GARMENTS = ScoringDefaults(
    metrics=(
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
    ),
    extractor="fmnist-clip",
    reference=ASSETS / "reference" / "test.npz",
    judges_garments=True,
)
_POINTS = ScoringDefaults(metrics=("vendi", "pdist", "mss"), extractor="pixels")
_PHOTOGRAPHS = ScoringDefaults(
    metrics=("vendi", "vendi[inception]", "pdist", "mss", "lpips", "clip", "fid", "drift"),
    extractor="open_clip:ViT-B-32-quickgelu/openai",
)
_ROWS = {
    **dict.fromkeys(EMBEDDED, _GARMENTS),
    # the kernel density follows the class of a prompt alone, so `align` says nothing of it
    "exact:fashion-kde": replace(
        _GARMENTS, metrics=tuple(name for name in _GARMENTS.metrics if name != "align")
    ),
}


def scoring_defaults(model: str) -> ScoringDefaults:
    """Return how a model is scored; exact tasks draw pictures of points, others photographs.

    Args:
        model: as asked for: `fashion`, `exact:TASK`, a folder or a hub id.

    """
    return _ROWS.get(model, _POINTS if model.startswith(EXACT) else _PHOTOGRAPHS)


def garment_models() -> list[str]:
    """Return the models whose images the attribute classifier can judge."""
    return [name for name, row in _ROWS.items() if row.judges_garments]


def implied_settings(model: str) -> dict[str, Any]:
    """Return the settings that a model brings along in the place of another model's suite.

    They are those that belong to a model: None is its own (`own_settings`).
    """
    own = dict.fromkeys(("steps", "guidance_scale", "size"))
    whole = {**own, "scheduler": "default", "timesteps": "default", "negative_prompt": ""}
    return {**whole, **named_settings(model)}


def draws_with_its_own(model: str, suite_model: str) -> bool:
    """Return whether a model is not the suite's, so that the suite's settings are not for it.

    A folder or a hub id may be a copy of the model that a suite names by hub id or folder; nothing
    is a copy of an embedded model or an exact task.
    """
    kinds = [name in EMBEDDED or name.startswith(EXACT) for name in (model, suite_model)]
    return model != suite_model and any(kinds)
