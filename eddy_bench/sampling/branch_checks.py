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


def uncompiled(network: Any) -> Any:
    """Return the module inside what `torch.compile` returned."""
    return getattr(network, "_orig_mod", network)


def signature_of(network: Any) -> inspect.Signature:
    """Return the signature of a network's forward pass, whatever hides it."""
    inside = uncompiled(network)
    return inspect.signature(type(inside).forward.__get__(inside))


def evaluation_of(pipe: Any) -> tuple[torch.nn.Module, str]:
    """Return the network and the attribute of it that an evaluation goes through, outermost."""
    network = denoiser(pipe)
    compiled = getattr(network, "_compiled_call_impl", None) is not None
    return network, "_compiled_call_impl" if compiled else "forward"


def is_compiled(network: Any) -> bool:
    """Return whether a network, or its forward pass, is compiled."""
    return (
        uncompiled(network) is not network
        or getattr(network, "_compiled_call_impl", None) is not None
        or hasattr(network.forward, "_torchdynamo_orig_callable")
    )


def check_known(pipe: Any, method: Hooks) -> None:
    """Raise ModelError where it is not known how a network sees what a method changes."""
    family = family_of(pipe)
    if method.conditions and not family.embeddings:
        raise ModelError(
            f"How {family.class_name} hands text embeddings to its network is not known here, so a "
            "method that changes them cannot be used. Use another model."
        )
    unusable = ("none", "unknown") if method.reguides else ("unknown",)
    if (method.reguides or method.extra_starts) and family.guidance_rows in unusable:
        reason = (
            "has no classifier-free guidance"
            if family.guidance_rows == "none"
            else "guides in a way that is not known here"
        )
        raise ModelError(
            f"{family.class_name} {reason}, so a method that changes guidance, or looks at the "
            "start without it, cannot be used. Use another model."
        )


def blocks_of(pipe: Any, family: Family) -> list[torch.nn.Module]:
    """Return the blocks of a pipeline's network, in the order of evaluation.

    Raises:
        ModelError: they are not known, or compiled into one with the rest.

    """
    if not family.blocks:
        raise ModelError(
            f"The blocks of {family.class_name}'s network are not known here, so a method that "
            "edits its features cannot be used. Use another model."
        )
    network = denoiser(pipe)
    parts = [getattr(network, name) for name in family.blocks]
    blocks = [
        block
        for part in parts
        for block in (part if isinstance(part, torch.nn.ModuleList) else [part])
    ]
    if is_compiled(network) or any(map(is_compiled, blocks)):
        raise ModelError(
            "A compiled network has no blocks that a method could act on. "
            "Leave --compile out, or do not compile the pipeline's network."
        )
    return blocks


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
        method: that may change conditions, guidance or features.
        arguments: of the call.

    """
    family = family_of(pipe)
    if method.edits_features:
        method.edited_block(family.class_name, len(blocks_of(pipe, family)))
    if not (method.conditions or method.reguides or method.extra_starts):
        return
    check_known(pipe, method)
    if method.conditions and not family.sees_text(pipe):
        raise ModelError(f"{family.class_name} has no text embeddings here that could be changed.")
    known = inspect.signature(type(pipe).__call__).parameters
    defaults = {name: parameter.default for name, parameter in known.items()}
    whole = {family.scale: defaults.get(family.scale), **arguments}
    if method.reguides and family.weight(whole) == 1:
        raise no_guidance(family)
