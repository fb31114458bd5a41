"""Tiny randomly initialised pipelines of many text-to-image families.

They have the constants and schedulers of the real models.

Not here: Kolors, whose tokenizer needs sentencepiece.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers import FlowMatchEulerDiscreteScheduler as FlowEuler

from eddy_bench.models.base import Model
from eddy_bench.models.load import load_model
from tests.makers.pipelines import tiny_folder
from tests.makers.tokenizers import (
    CHAT,
    VERSION_4,
    bert_tokenizer,
    clip_tokenizer,
    gemma_tokenizer,
    glm_tokenizer,
    qwen_tokenizer,
    t5_tokenizer,
)

SCALED_LINEAR = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
FLUX_VAE: dict[str, Any] = {"scaling_factor": 0.3611, "shift_factor": 0.1159}
HEADS = {"num_attention_heads": 2, "attention_head_dim": 8}
ROTARY_HEADS = {"num_attention_heads": 2, "attention_head_dim": 16, "axes_dims_rope": (4, 6, 6)}
DYNAMIC = {
    "base_shift": 0.5,
    "max_shift": 1.15,
    "base_image_seq_len": 256,
    "max_image_seq_len": 4096,
    "use_dynamic_shifting": True,
}


def _clip(tokenizer: Any, projection: int | None = None, act: str = "quick_gelu") -> Any:
    config = transformers.CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=tokenizer.model_max_length,
        hidden_act=act,
        projection_dim=projection or 16,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return (
        transformers.CLIPTextModelWithProjection(config)
        if projection
        else transformers.CLIPTextModel(config)
    )


def _t5(tokenizer: Any, multilingual: bool = False) -> Any:
    sizes = {
        "vocab_size": len(tokenizer),
        "d_model": 32,
        "d_kv": 8,
        "d_ff": 32,
        "num_layers": 2,
        "num_heads": 2,
    }
    if multilingual:
        return transformers.UMT5EncoderModel(transformers.UMT5Config(**sizes))
    return transformers.T5EncoderModel(
        transformers.T5Config(**sizes, feed_forward_proj="gated-gelu")
    )


def _decoder_sizes(tokenizer: Any, layers: int = 3) -> dict[str, Any]:
    """What the configs of decoder-only text models share."""
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def _gemma() -> dict[str, Any]:
    tokenizer = gemma_tokenizer()
    return {
        "tokenizer": tokenizer,
        "text_encoder": transformers.Gemma2Model(
            transformers.Gemma2Config(**_decoder_sizes(tokenizer))
        ),
    }


def _vae(
    channels: int,
    quant: bool = False,
    widths: tuple[int, ...] = (4, 4, 8, 8),
    kind: Any = diffusers.AutoencoderKL,
    **kwargs: Any,
) -> Any:
    return kind(
        block_out_channels=widths,
        layers_per_block=1,
        norm_num_groups=2,
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        latent_channels=channels,
        sample_size=64,
        use_quant_conv=quant,
        use_post_quant_conv=quant,
        **kwargs,
    )


def _unet(**kwargs: Any) -> Any:
    return diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(1, 2),
        use_linear_projection=True,
        **kwargs,
    )


def _sd15() -> Any:
    pipe = diffusers.DiffusionPipeline.from_pretrained(tiny_folder())
    pipe.scheduler = diffusers.PNDMScheduler(
        **SCALED_LINEAR, skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1
    )
    return pipe


def _lcm() -> Any:
    tokenizer = clip_tokenizer()
    return diffusers.LatentConsistencyModelPipeline(
        vae=_vae(4, quant=True, scaling_factor=0.18215),
        unet=_unet(cross_attention_dim=16, time_cond_proj_dim=8),
        text_encoder=_clip(tokenizer),
        tokenizer=tokenizer,
        scheduler=diffusers.LCMScheduler(
            **SCALED_LINEAR, set_alpha_to_one=True, steps_offset=1, timestep_scaling=10.0
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _sd21() -> Any:
    tokenizer = clip_tokenizer()
    return diffusers.StableDiffusionPipeline(
        vae=_vae(4, quant=True, scaling_factor=0.18215),
        unet=_unet(cross_attention_dim=16),
        text_encoder=_clip(tokenizer, act="gelu"),
        tokenizer=tokenizer,
        scheduler=diffusers.DDIMScheduler(
            **SCALED_LINEAR,
            prediction_type="v_prediction",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _sdxl() -> Any:
    tokenizer = clip_tokenizer()
    return diffusers.StableDiffusionXLPipeline(
        vae=_vae(4, quant=True, scaling_factor=0.13025),
        unet=_unet(
            cross_attention_dim=32,
            transformer_layers_per_block=(1, 2),
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + 24,
        ),
        text_encoder=_clip(tokenizer),
        tokenizer=tokenizer,
        text_encoder_2=_clip(tokenizer, projection=24, act="gelu"),
        tokenizer_2=clip_tokenizer(),
        scheduler=diffusers.EulerDiscreteScheduler(
            **SCALED_LINEAR, timestep_spacing="leading", steps_offset=1
        ),
        force_zeros_for_empty_prompt=True,
        add_watermarker=False,
    )


def _sd3() -> Any:
    clip, t5 = clip_tokenizer(), t5_tokenizer()
    return diffusers.StableDiffusion3Pipeline(
        vae=_vae(16, scaling_factor=1.5305, shift_factor=0.0609),
        transformer=diffusers.SD3Transformer2DModel(
            sample_size=8,
            patch_size=2,
            in_channels=16,
            num_layers=2,
            joint_attention_dim=32,
            caption_projection_dim=16,
            pooled_projection_dim=32,
            pos_embed_max_size=16,
            **HEADS,
        ),
        text_encoder=_clip(clip, projection=16),
        tokenizer=clip,
        text_encoder_2=_clip(clip, projection=16, act="gelu"),
        tokenizer_2=clip_tokenizer(),
        text_encoder_3=_t5(t5),
        tokenizer_3=t5,
        scheduler=FlowEuler(shift=3.0),
    )


def _flux() -> Any:
    clip, t5 = clip_tokenizer(), t5_tokenizer()
    return diffusers.FluxPipeline(
        vae=_vae(16, **FLUX_VAE),
        transformer=diffusers.FluxTransformer2DModel(
            in_channels=64,
            num_layers=1,
            num_single_layers=1,
            joint_attention_dim=32,
            pooled_projection_dim=16,
            guidance_embeds=True,
            **ROTARY_HEADS,
        ),
        text_encoder=_clip(clip),
        tokenizer=clip,
        text_encoder_2=_t5(t5),
        tokenizer_2=t5,
        scheduler=FlowEuler(shift=3.0, **DYNAMIC),
    )


def _pixart_sigma() -> Any:
    t5 = t5_tokenizer()
    return diffusers.PixArtSigmaPipeline(
        vae=_vae(4, quant=True, scaling_factor=0.13025),
        transformer=diffusers.PixArtTransformer2DModel(
            sample_size=32,
            in_channels=4,
            out_channels=8,
            num_layers=2,
            cross_attention_dim=16,
            caption_channels=32,
            use_additional_conditions=False,
            **HEADS,
        ),
        text_encoder=_t5(t5),
        tokenizer=t5,
        scheduler=diffusers.DPMSolverMultistepScheduler(),
    )


def _sana_parts(**kwargs: Any) -> dict[str, Any]:
    blocks, widths, scales = (
        ("ResBlock",) * 5 + ("EfficientViTBlock",),
        (4,) * 4 + (8,) * 2,
        ((),) * 5 + ((5,),),
    )
    return {
        "vae": diffusers.AutoencoderDC(
            latent_channels=8,
            attention_head_dim=4,
            encoder_block_types=blocks,
            decoder_block_types=blocks,
            encoder_block_out_channels=widths,
            decoder_block_out_channels=widths,
            encoder_layers_per_block=(1,) * 6,
            decoder_layers_per_block=(1,) * 6,
            encoder_qkv_multiscales=scales,
            decoder_qkv_multiscales=scales,
            downsample_block_type="conv",
            upsample_block_type="interpolate",
            scaling_factor=0.41407,
        ),
        "transformer": diffusers.SanaTransformer2DModel(
            in_channels=8,
            out_channels=8,
            num_layers=2,
            num_cross_attention_heads=2,
            cross_attention_head_dim=8,
            cross_attention_dim=16,
            caption_channels=16,
            **HEADS,
            **kwargs,
        ),
        **_gemma(),
    }


def _sana() -> Any:
    return diffusers.SanaPipeline(
        scheduler=diffusers.DPMSolverMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
        **_sana_parts(sample_size=16),
    )


def _sana_sprint() -> Any:
    return diffusers.SanaSprintPipeline(
        scheduler=diffusers.SCMScheduler(),
        **_sana_parts(sample_size=32, guidance_embeds=True, qk_norm="rms_norm_across_heads"),
    )


def _lumina2() -> Any:
    return diffusers.Lumina2Pipeline(
        vae=_vae(16, **FLUX_VAE),
        transformer=diffusers.Lumina2Transformer2DModel(
            sample_size=8,
            in_channels=16,
            hidden_size=32,
            num_layers=2,
            num_refiner_layers=1,
            num_attention_heads=2,
            num_kv_heads=1,
            multiple_of=16,
            axes_dim_rope=(4, 6, 6),
            cap_feat_dim=16,
        ),
        scheduler=FlowEuler(shift=6.0),
        **_gemma(),
    )


def _qwen_image() -> Any:
    tokenizer = qwen_tokenizer()
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [1, 1, 2]}
    text = _decoder_sizes(tokenizer) | {"rope_scaling" if VERSION_4 else "rope_parameters": rope}
    vision = {
        "depth": 1,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_heads": 2,
        "out_hidden_size": 16,
    }
    return diffusers.QwenImagePipeline(
        vae=diffusers.AutoencoderKLQwenImage(base_dim=8, dim_mult=[1, 1, 1, 1], num_res_blocks=1),
        transformer=diffusers.QwenImageTransformer2DModel(
            in_channels=64, num_layers=2, joint_attention_dim=16, **ROTARY_HEADS
        ),
        text_encoder=transformers.Qwen2_5_VLForConditionalGeneration(
            transformers.Qwen2_5_VLConfig(text_config=text, vision_config=vision)
        ),
        tokenizer=tokenizer,
        scheduler=FlowEuler(
            **DYNAMIC | {"max_shift": 0.9, "max_image_seq_len": 8192}, shift_terminal=0.02
        ),
    )


def _z_image() -> Any:
    tokenizer = qwen_tokenizer()
    return diffusers.ZImagePipeline(
        vae=_vae(16, **FLUX_VAE),
        transformer=diffusers.ZImageTransformer2DModel(
            in_channels=16,
            dim=32,
            n_layers=2,
            n_refiner_layers=1,
            n_heads=2,
            n_kv_heads=2,
            cap_feat_dim=16,
            axes_dims=[4, 6, 6],
        ),
        text_encoder=transformers.Qwen3Model(transformers.Qwen3Config(**_decoder_sizes(tokenizer))),
        tokenizer=tokenizer,
        scheduler=FlowEuler(shift=6.0),
    )


def _auraflow() -> Any:
    t5 = t5_tokenizer()
    return diffusers.AuraFlowPipeline(
        vae=_vae(4, quant=True, scaling_factor=0.13025),
        transformer=diffusers.AuraFlowTransformer2DModel(
            sample_size=8,
            in_channels=4,
            num_mmdit_layers=1,
            num_single_dit_layers=1,
            joint_attention_dim=32,
            caption_projection_dim=16,
            pos_embed_max_size=64,
            **HEADS,
        ),
        text_encoder=_t5(t5, multilingual=True),
        tokenizer=t5,
        scheduler=FlowEuler(shift=1.73),
    )


def _hunyuan_dit() -> Any:
    bert, t5 = bert_tokenizer(), t5_tokenizer()
    return diffusers.HunyuanDiTPipeline(
        vae=_vae(4, quant=True, scaling_factor=0.13025),
        transformer=diffusers.HunyuanDiT2DModel(
            sample_size=8,
            in_channels=4,
            patch_size=2,
            num_layers=2,
            hidden_size=16,
            mlp_ratio=2.0,
            cross_attention_dim=16,
            cross_attention_dim_t5=32,
            pooled_projection_dim=16,
            **HEADS,
        ),
        text_encoder=transformers.BertModel(
            transformers.BertConfig(
                vocab_size=len(bert),
                hidden_size=16,
                intermediate_size=16,
                num_hidden_layers=2,
                num_attention_heads=2,
            )
        ),
        tokenizer=bert,
        text_encoder_2=_t5(t5),
        tokenizer_2=t5,
        scheduler=diffusers.DDPMScheduler(
            **SCALED_LINEAR | {"beta_end": 0.018},
            prediction_type="v_prediction",
            clip_sample=False,
            steps_offset=1,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _chroma() -> Any:
    t5 = t5_tokenizer()
    return diffusers.ChromaPipeline(
        vae=_vae(16, **FLUX_VAE),
        transformer=diffusers.ChromaTransformer2DModel(
            in_channels=64,
            num_layers=1,
            num_single_layers=1,
            joint_attention_dim=32,
            approximator_num_channels=8,
            approximator_hidden_dim=32,
            approximator_layers=1,
            **ROTARY_HEADS,
        ),
        text_encoder=_t5(t5),
        tokenizer=t5,
        scheduler=FlowEuler(use_beta_sigmas=True),
    )


def _flux2() -> Any:
    tokenizer = qwen_tokenizer("[IMG]", "[IMG_BREAK]", "[IMG_END]")
    text = _decoder_sizes(tokenizer, layers=30) | {
        "model_type": "mistral",
        "hidden_size": 8,
        "head_dim": 4,
    }
    vision = {
        "model_type": "pixtral",
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
    }
    vae = _vae(32, quant=True, kind=diffusers.AutoencoderKLFlux2)
    vae.bn.running_mean.normal_()
    vae.bn.running_var.uniform_(0.5, 4)
    return diffusers.Flux2Pipeline(
        vae=vae,
        transformer=diffusers.Flux2Transformer2DModel(
            in_channels=128,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=24,
            timestep_guidance_channels=32,
            axes_dims_rope=(4, 4, 4, 4),
        ),
        text_encoder=transformers.Mistral3ForConditionalGeneration(
            transformers.Mistral3Config(text_config=text, vision_config=vision)
        ),
        tokenizer=transformers.PixtralProcessor(
            image_processor=transformers.PixtralImageProcessor(),
            tokenizer=tokenizer,
            chat_template=CHAT,
        ),
        scheduler=FlowEuler(shift=3.0, **DYNAMIC),
    )


def _cogview4() -> Any:
    tokenizer = glm_tokenizer()
    return diffusers.CogView4Pipeline(
        vae=_vae(16, scaling_factor=0.6),
        transformer=diffusers.CogView4Transformer2DModel(
            sample_size=8,
            in_channels=16,
            out_channels=16,
            num_layers=2,
            text_embed_dim=16,
            time_embed_dim=16,
            condition_dim=8,
            pos_embed_max_size=16,
            rope_axes_dim=(16, 16),
            **HEADS,
        ),
        text_encoder=transformers.GlmModel(transformers.GlmConfig(**_decoder_sizes(tokenizer))),
        tokenizer=tokenizer,
        scheduler=FlowEuler(
            **DYNAMIC | {"base_shift": 0.25, "max_shift": 0.75}, time_shift_type="linear"
        ),
    )


BUILDERS: dict[str, Callable[[], Any]] = {
    "sd15": _sd15,
    "sd21": _sd21,
    "sdxl": _sdxl,
    "sd3": _sd3,
    "flux": _flux,
    "pixart-sigma": _pixart_sigma,
    "sana": _sana,
    "sana-sprint": _sana_sprint,
    "lcm": _lcm,
    "lumina2": _lumina2,
    "qwen-image": _qwen_image,
    "z-image": _z_image,
    "auraflow": _auraflow,
    "hunyuan-dit": _hunyuan_dit,
    # Making or loading it raises the FutureWarning of a class of diffusers that it still uses.
    "chroma": _chroma,
    "flux2": _flux2,
    "cogview4": _cogview4,
}
FAMILIES: tuple[str, ...] = tuple(BUILDERS)
SMALL_SIDES = {"sd15": 16, "sd21": 16, "lcm": 16}


def _spread(module: torch.nn.Module) -> None:
    """Draw weights large enough for a prompt to reach the pixels."""
    for name, parameter in module.named_parameters():
        if parameter.ndim > 1:
            gain = 6 if name.endswith("add_v_proj.weight") else 1
            torch.nn.init.normal_(parameter, std=gain * parameter[0].numel() ** -0.5)


@functools.cache
def family_folder(name: str) -> Path:
    """A pipeline of one family, in a temporary folder."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipe = BUILDERS[name]()
        for component in pipe.components.values():
            if isinstance(component, torch.nn.Module):
                _spread(component)
    folder = Path(tempfile.mkdtemp(prefix=f"tiny-{name}-"))
    pipe.save_pretrained(folder)
    return folder


@functools.cache
def family_model(name: str) -> Model:
    """Load the pipeline of one family, with a small random guide network."""
    model = load_model(str(family_folder(name)), device="cpu")
    torch.manual_seed(0)
    model.guide = torch.nn.Sequential(
        torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten(), torch.nn.Linear(48, 5)
    ).requires_grad_(False)
    return model


def family_side(name: str) -> int:
    """Return the height and width of a small image of one family, in pixels."""
    return SMALL_SIDES.get(name, 64)
