"""What is known of the families of pipelines, one row each, and what a method can act on there."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch

from eddy_bench.errors import ModelError
from eddy_bench.sampling.hooks import Hooks

Decoding = Literal["scaled", "shifted", "by channel", "batch norm", "unknown"]
GuidanceRows = Literal["null first", "null last", "separate calls", "none", "unknown"]
ImageTokens = Literal["last", "first", "after text"]


@dataclass(frozen=True)
class Family:
    """A pipeline class.

    Attributes:
        class_name: in diffusers.
        decoding: how latents come into the autoencoder's own units.
            "scaled": divided by `scaling_factor`.
            "shifted": divided by `scaling_factor`, plus `shift_factor`.
            "by channel": by `latents_mean` and `latents_std` where the autoencoder has them.
            "batch norm": 2 x 2 patches by the running statistics of a batch norm.
        guidance_rows: how the network sees both branches of classifier-free guidance: in one batch
            with the null branch first or last, in separate calls, or never.
        embeddings: the denoiser's arguments that take text embeddings, pooled ones too, each with
            the argument of its padding mask (empty where there is none: tokens that are all 0 are
            padding then). A dot leads into a dictionary. Empty where they are not known.
        scale: the argument of the pipeline's call that is the scale of guidance.
        scale_offset: what is added to it to give w in null + w (cond - null).
        reshaping: arguments of the pipeline's call that change the guided output by its branches.
        renormalises: the guided output gets the norm of the conditional one, over its last axis.
        negated: the pipeline turns the sign of what its network returns.
        packed: the solver holds latents as a sequence of tokens.
        astray_masks: repeating several prompts gives their rows each other's attention masks.
        one_prompt: pads to the longest prompt and attends to the padding, so that prompts must be
            drawn one by one.
        pads_to_longest: an embedding's length is that of the longest prompt of a batch.
        blocks: the denoiser's attributes that hold its blocks, in the order in which they are
            evaluated; empty where they are not known.
        image_tokens: where image tokens are in what a block returns beside text, whether as two
            streams or as one sequence. "after text": behind each row's own text, before padding.
        sees_text: whether the network of such a pipeline sees its prompt.
    """

    class_name: str
    decoding: Decoding = "unknown"
    guidance_rows: GuidanceRows = "unknown"
    embeddings: tuple[tuple[str, str], ...] = ()
    scale: str = "guidance_scale"
    scale_offset: float = 0.0
    reshaping: tuple[str, ...] = ()
    renormalises: bool = False
    negated: bool = False
    packed: bool = False
    astray_masks: bool = False
    one_prompt: bool = False
    pads_to_longest: bool = False
    blocks: tuple[str, ...] = ()
    image_tokens: ImageTokens = "last"
    sees_text: Callable[[Any], bool] = lambda pipe: True

    def weight(self, arguments: dict[str, Any]) -> float:
        """Return w of null + w (cond - null) in a call with these arguments; 1 is no guidance."""
        given = arguments.get(self.scale)
        return (1.0 if given is None else float(given) + self.scale_offset) or 1.0


BLOCKS = ("transformer_blocks",)
DOUBLE_AND_SINGLE = ("transformer_blocks", "single_transformer_blocks")
MIDDLE = ("mid_block",)
TEXT = ("encoder_hidden_states", "")
MASKED = ("encoder_hidden_states", "encoder_attention_mask")
POOLED = ("pooled_projections", "")
ADDED = ("added_cond_kwargs.text_embeds", "")
T5 = ("encoder_hidden_states_t5", "text_embedding_mask_t5")
FAMILIES = (
    Family(
        "AuraFlowPipeline",
        "scaled",
        "null first",
        (TEXT,),
        blocks=("joint_transformer_blocks", "single_transformer_blocks"),
    ),
    Family(
        "ChromaPipeline",
        "shifted",
        "separate calls",
        (("encoder_hidden_states", "attention_mask"),),
        packed=True,
        blocks=DOUBLE_AND_SINGLE,
    ),
    Family(
        "CogView4Pipeline",
        "scaled",
        "separate calls",
        (TEXT,),
        one_prompt=True,
        pads_to_longest=True,
        blocks=BLOCKS,
        image_tokens="first",
    ),
    Family(
        "ExactPipeline",
        guidance_rows="null first",
        embeddings=(TEXT,),
        sees_text=lambda pipe: pipe.denoiser.classes is not None,
    ),
    Family(
        "Flux2KleinPipeline",
        "batch norm",
        "separate calls",
        (TEXT,),
        packed=True,
        blocks=DOUBLE_AND_SINGLE,
    ),
    Family("Flux2Pipeline", "batch norm", "none", (TEXT,), packed=True, blocks=DOUBLE_AND_SINGLE),
    Family(
        "FluxPipeline",
        "shifted",
        "separate calls",
        (TEXT, POOLED),
        scale="true_cfg_scale",
        packed=True,
        blocks=DOUBLE_AND_SINGLE,
    ),
    Family(
        "HunyuanDiTPipeline",
        "scaled",
        "null first",
        (("encoder_hidden_states", "text_embedding_mask"), T5),
        reshaping=("guidance_rescale",),
        astray_masks=True,
        blocks=("blocks",),
    ),
    Family("KolorsPipeline", "scaled", "null first", (TEXT, ADDED), blocks=MIDDLE),
    Family("LatentConsistencyModelPipeline", "scaled", "none", (TEXT,), blocks=MIDDLE),
    Family(
        "Lumina2Pipeline",
        "shifted",
        "separate calls",
        (MASKED,),
        renormalises=True,
        negated=True,
        astray_masks=True,
        blocks=("layers",),
        image_tokens="after text",
    ),
    Family("PixArtAlphaPipeline", "scaled", "null first", (MASKED,), blocks=BLOCKS),
    Family("PixArtSigmaPipeline", "scaled", "null first", (MASKED,), blocks=BLOCKS),
    Family(
        "QwenImagePipeline",
        "by channel",
        "separate calls",
        (("encoder_hidden_states", "encoder_hidden_states_mask"),),
        scale="true_cfg_scale",
        renormalises=True,
        packed=True,
        astray_masks=True,
        pads_to_longest=True,
        blocks=BLOCKS,
    ),
    Family("SanaPipeline", "scaled", "null first", (MASKED,), astray_masks=True, blocks=BLOCKS),
    Family("SanaSprintPipeline", "scaled", "none", (MASKED,), astray_masks=True, blocks=BLOCKS),
    Family(
        "StableDiffusion3Pipeline",
        "shifted",
        "null first",
        (TEXT, POOLED),
        reshaping=("skip_guidance_layers",),
        blocks=BLOCKS,
    ),
    Family(
        "StableDiffusionPipeline",
        "scaled",
        "null first",
        (TEXT,),
        reshaping=("guidance_rescale",),
        blocks=MIDDLE,
    ),
    Family(
        "StableDiffusionXLPipeline",
        "by channel",
        "null first",
        (TEXT, ADDED),
        reshaping=("guidance_rescale",),
        blocks=MIDDLE,
    ),
    Family(
        "ZImagePipeline",
        "shifted",
        "null last",
        (("cap_feats", ""),),
        scale_offset=1.0,
        reshaping=("cfg_normalization",),
        negated=True,
        blocks=("layers",),
        image_tokens="first",
    ),
)
_BY_CLASS = {family.class_name: family for family in FAMILIES}


def family_of(pipe: Any) -> Family:
    """Return the row of a pipeline's class; of an unknown class one that is taken for little."""
    name = type(pipe).__name__
    return _BY_CLASS.get(name, Family(name, pads_to_longest=True))


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
    """Return the blocks of a pipeline's network, in the order of evaluation."""
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
