"""Whether a pipeline has the conditions and the guidance that a method changes."""

from __future__ import annotations

import inspect
from typing import Any

import torch

from eddy_bench.errors import ModelError
from eddy_bench.sampling.families import Family, family_of
from eddy_bench.sampling.hooks import Hooks


def denoiser(pipe: Any) -> torch.nn.Module:
    """Return the network that a pipeline evaluates at every step."""
    for name in ("unet", "transformer", "denoiser"):
        module = getattr(pipe, name, None)
        if isinstance(module, torch.nn.Module):
            return module
    raise TypeError(f"{type(pipe).__name__} has no unet, transformer or denoiser")


def check_known(family: Family, method: Hooks) -> None:
    """Raise ModelError where it is not known how a network sees what a method changes."""
    if method.conditions and not family.embeddings:
        raise ModelError(
            f"How {family.class_name} hands text embeddings to its network is not known here, so a "
            "method that changes them cannot be used. Use another model."
        )
    if method.reguides and family.guidance_rows in ("none", "unknown"):
        reason = (
            "has no classifier-free guidance"
            if family.guidance_rows == "none"
            else "guides in a way that is not known here"
        )
        raise ModelError(
            f"{family.class_name} {reason}, so a method that changes guidance cannot be used. "
            "Use another model."
        )


def no_guidance(family: Family) -> ModelError:
    """Return the error of a call without a null branch."""
    return ModelError(
        f"{family.class_name} draws without classifier-free guidance here, so there is none to "
        "change: it is distilled, or the guidance scale is 1. "
        "Raise --guidance-scale, or use another model."
    )


def check_call(pipe: Any, method: Hooks, arguments: dict[str, Any]) -> None:
    """Raise ModelError where a call of a pipeline has nothing that a method changes.

    Args:
        pipe: a diffusers pipeline.
        method: that may change conditions or guidance.
        arguments: of the call.

    """
    if not (method.conditions or method.reguides):
        return
    family = family_of(pipe)
    check_known(family, method)
    if method.conditions and not family.sees_text(pipe):
        raise ModelError(f"{family.class_name} has no text embeddings here that could be changed.")
    known = inspect.signature(type(pipe).__call__).parameters
    defaults = {name: parameter.default for name, parameter in known.items()}
    whole = {family.scale: defaults.get(family.scale), **arguments}
    if method.reguides and family.weight(whole) == 1:
        raise no_guidance(family)
