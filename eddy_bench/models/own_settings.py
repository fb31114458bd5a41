"""What a model is drawn with where nothing is asked for: the defaults of its pipeline's call."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

from eddy_bench.models.embedded import EMBEDDED
from eddy_bench.sampling.branch_checks import denoiser

EXACT = "exact:"


@dataclass(frozen=True)
class OwnSettings:
    """The settings of a model's own.

    Attributes:
        steps: of the solver; None where the pipeline's call has no number of them.
        guidance_scale: under whatever name the pipeline has for it; 1 where it has none.
        size: side of its images in pixels; None where it draws none, or none that are square.

    """

    steps: int | None
    guidance_scale: float
    size: int | None


def named_settings(model: str) -> dict[str, Any]:
    """Return the steps and the guidance scale of the models that are known here by name."""
    if model in EMBEDDED:
        return EMBEDDED[model].settings
    return {"steps": 20, "guidance_scale": 1.0} if model.startswith(EXACT) else {}


def own_settings(model: str, pipe: Any) -> OwnSettings:
    """Return the settings of a model's own.

    Args:
        model: as it was asked for.
        pipe: its pipeline.

    """
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
