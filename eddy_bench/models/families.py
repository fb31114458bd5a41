"""One row per pipeline class: what is known of it, read in the source of diffusers 0.42.1.

PixArt-Alpha, Kolors and FLUX.2 klein decode by the code of a sibling and were not built; the
decoding of the others is held by a test against the pipeline's own output.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Decoding = Literal["scaled", "shifted", "by channel", "batch norm", "unknown"]
GuidanceRows = Literal["null first", "null last", "separate calls", "none", "unknown"]


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
        condition: the denoiser's argument that takes the text embedding; pooled and second
            embeddings come beside it. Empty where it is not known.
        packed: the solver holds latents as a sequence of tokens.
        astray_masks: repeating several prompts gives their rows each other's attention masks.
        one_prompt: pads to the longest prompt and attends to the padding, so that prompts must be
            drawn one by one.
        pads_to_longest: an embedding's length is that of the longest prompt of a batch.

    """

    class_name: str
    decoding: Decoding = "unknown"
    guidance_rows: GuidanceRows = "unknown"
    condition: str = ""
    packed: bool = False
    astray_masks: bool = False
    one_prompt: bool = False
    pads_to_longest: bool = False


TEXT = "encoder_hidden_states"
FAMILIES = (
    Family("AuraFlowPipeline", "scaled", "null first", TEXT),
    Family("ChromaPipeline", "shifted", "separate calls", TEXT, packed=True),
    Family(
        "CogView4Pipeline",
        "scaled",
        "separate calls",
        TEXT,
        one_prompt=True,
        pads_to_longest=True,
    ),
    Family("Flux2KleinPipeline", "batch norm", "separate calls", TEXT, packed=True),
    Family("Flux2Pipeline", "batch norm", "none", TEXT, packed=True),
    Family("FluxPipeline", "shifted", "separate calls", TEXT, packed=True),
    Family("HunyuanDiTPipeline", "scaled", "null first", TEXT, astray_masks=True),
    Family("KolorsPipeline", "scaled", "null first", TEXT),
    Family("Lumina2Pipeline", "shifted", "separate calls", TEXT, astray_masks=True),
    Family("PixArtAlphaPipeline", "scaled", "null first", TEXT),
    Family("PixArtSigmaPipeline", "scaled", "null first", TEXT),
    Family(
        "QwenImagePipeline",
        "by channel",
        "separate calls",
        TEXT,
        packed=True,
        astray_masks=True,
        pads_to_longest=True,
    ),
    Family("SanaPipeline", "scaled", "null first", TEXT, astray_masks=True),
    Family("StableDiffusion3Pipeline", "shifted", "null first", TEXT),
    Family("StableDiffusionPipeline", "scaled", "null first", TEXT),
    Family("StableDiffusionXLPipeline", "by channel", "null first", TEXT),
    Family("ZImagePipeline", "shifted", "null last", "cap_feats"),
)
_BY_CLASS = {family.class_name: family for family in FAMILIES}


def family_of(pipe: Any) -> Family:
    """Return the row of a pipeline's class; of an unknown class one that is taken for little."""
    name = type(pipe).__name__
    return _BY_CLASS.get(name, Family(name, pads_to_longest=True))
