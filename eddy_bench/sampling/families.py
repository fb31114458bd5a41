"""One row per pipeline class: what is known of it, read in the source of diffusers 0.42.1.

PixArt-Alpha, Kolors and FLUX.2 klein decode by the code of a sibling and were not built; the
decoding of the others is held by a test against the pipeline's own output.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

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
