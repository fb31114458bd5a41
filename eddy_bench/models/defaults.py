"""How a model is drawn and scored where nothing else is requested."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from eddy_bench.models.embedded import ASSETS, EMBEDDED
from eddy_bench.sampling.families import denoiser

EXACT = "exact:"


@dataclass(frozen=True)
class OwnSettings:
    """The settings of a model's own."""

    steps: int | None  # of the solver; None where the pipeline's call has no number of them
    guidance_scale: float  # under whatever name the pipeline has for it; 1 where it has none
    # side of its images in pixels; None where it draws none, or none that are square
    size: int | None


def named_settings(model: str) -> dict[str, Any]:
    """Return the steps and the guidance scale of the models that are known here by name."""
    if model in EMBEDDED:
        return EMBEDDED[model].settings
    return {"steps": 20, "guidance_scale": 1.0} if model.startswith(EXACT) else {}


def own_settings(model: str, pipe: Any) -> OwnSettings:
    """Return the settings of a model's own; model: its name, as requested."""
    defaults = {name: value.default for name, value in call_parameters(pipe).items()}
    named = named_settings(model)
    steps = named.get("steps", defaults.get("num_inference_steps"))
    scale = named.get("guidance_scale", defaults.get(scale_argument(pipe)))
    guidance = float(scale) if isinstance(scale, int | float) else 1.0
    return OwnSettings(steps if isinstance(steps, int) else None, guidance, own_size(pipe))


def call_parameters(pipe: Any) -> dict[str, inspect.Parameter]:
    """Return the parameters of a pipeline's call by name."""
    return dict(inspect.signature(type(pipe).__call__).parameters)


def scale_argument(pipe: Any) -> str:
    """Return a pipeline's name for its guidance scale, distilled or not; empty where it has none.

    A few pipelines of classifier-free guidance have `guidance_scale` for what a distilled sibling
    takes, and their own scale beside it.
    """
    known = call_parameters(pipe)
    if "true_cfg_scale" in known and known["true_cfg_scale"].default != 1.0:
        return "true_cfg_scale"
    return "guidance_scale" if "guidance_scale" in known else ""


def own_size(pipe: Any) -> int | None:
    """Return the side of the images that a pipeline draws by default, in pixels."""
    height, width = (call_parameters(pipe).get(name) for name in ("height", "width"))
    if height is None or width is None:
        return None
    if isinstance(height.default, int):
        return height.default if height.default == width.default else None
    config = getattr(denoiser(pipe), "config", {})
    side = getattr(pipe, "default_sample_size", None) or config.get("sample_size")
    factor = getattr(pipe, "vae_scale_factor", None)
    return side * factor if isinstance(side, int) and isinstance(factor, int) else None


@dataclass(frozen=True)
class ScoringDefaults:
    """The metrics of a model, and what its images are compared with."""

    # as on the command line; those that need real images are left out without them
    metrics: tuple[str, ...]
    extractor: str  # through which images are seen
    # an archive of held-out real images, where some ship with the model
    reference: Path | None = None
    # whether prompts name garments, so that `align` and `attributes` apply
    judges_garments: bool = False


_GARMENTS = ScoringDefaults(
    metrics=(
        *("vendi", "pdist", "mss", "attributes", "clip", "align"),
        *("fd", "kid", "precision", "recall", "drift"),
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
