"""From the latents that a solver holds to images, with a graph, as each pipeline decodes its own results."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from eddy_bench.errors import ModelError

Decode = Callable[
    [Tensor], Tensor
]  # (rows, *shape) latents to (rows, c, h, w) images in [-1, 1], float32
# Held by a test against the pipeline's own output; PixArt-Alpha, Kolors and FLUX.2 klein decode by the code of a sibling and were not built.
KNOWN = frozenset(
    {
        "StableDiffusionPipeline",
        "StableDiffusionXLPipeline",
        "StableDiffusion3Pipeline",
        "FluxPipeline",
        "Flux2Pipeline",
        "Flux2KleinPipeline",
        "PixArtAlphaPipeline",
        "PixArtSigmaPipeline",
        "SanaPipeline",
        "Lumina2Pipeline",
        "AuraFlowPipeline",
        "QwenImagePipeline",
        "ZImagePipeline",
        "KolorsPipeline",
        "ChromaPipeline",
        "CogView4Pipeline",
        "HunyuanDiTPipeline",
    }
)
SHIFTED = frozenset(
    {
        "StableDiffusion3Pipeline",
        "FluxPipeline",
        "Lumina2Pipeline",
        "ZImagePipeline",
        "ChromaPipeline",
    }
)  # the others ignore a shift


def make_decode(pipe: Any, network: torch.nn.Module, size: tuple[int, int] | None = None) -> Decode:
    """How a pipeline's latents become images.

    Args:
        pipe: a pipeline of a family in `KNOWN`. network: its autoencoder, or a small one made for the same latents.
        size: height and width of the images in pixels, which packed latents do not tell; a square when left out.

    Raises:
        ModelError: how this pipeline decodes is not known.

    """
    name = type(pipe).__name__
    if name not in KNOWN:
        raise ModelError(
            f"How {name} decodes its latents is not known here, so kernel=features and best-of-m cannot be used. Use kernel=latent."
        )
    config: Any = network.config

    def decode(latents: Tensor) -> Tensor:
        dtype = next(network.parameters()).dtype
        ready = _scaled(_unpacked(pipe, latents, size), pipe, config).to(dtype)
        images: Tensor = network.decode(ready, return_dict=False)[0]  # type: ignore[operator]
        return (images[:, :, 0] if images.ndim == 5 else images).float()

    return decode


def _unpacked(pipe: Any, latents: Tensor, size: tuple[int, int] | None) -> Tensor:
    """Latents as the autoencoder's grid: (rows, c, h, w), or (rows, c, 1, h, w) where it expects frames."""
    if latents.ndim != 3:
        return latents
    tokens, factor = latents.shape[1], pipe.vae_scale_factor
    side = math.isqrt(tokens)
    height, width = (edge // (2 * factor) for edge in size) if size else (side, side)
    if height * width != tokens:
        raise ModelError(f"{tokens} packed latents are no grid of {height} x {width}. Set --size.")
    if hasattr(pipe, "_unpack_latents"):
        grid: Tensor = pipe._unpack_latents(
            latents, height * 2 * factor, width * 2 * factor, factor
        )
        return grid
    rows: Tensor = latents.mT.unflatten(2, (height, width))
    return rows


def _scaled(latents: Tensor, pipe: Any, config: Any) -> Tensor:
    """Latents in the autoencoder's own units: scaled and shifted, or denormalised by channel."""
    scale = getattr(config, "scaling_factor", None) or 1.0
    mean, std = (getattr(config, name, None) for name in ("latents_mean", "latents_std"))
    norm = getattr(pipe.vae, "bn", None)
    if (
        norm is not None
    ):  # FLUX.2: 2 x 2 patches normalised by the running statistics of a batch norm
        spread = (norm.running_var + pipe.vae.config.batch_norm_eps).sqrt().view(1, -1, 1, 1)
        return _unpatched(
            latents * spread.to(latents) + norm.running_mean.view(1, -1, 1, 1).to(latents)
        )
    if mean is not None and std is not None:
        channels = (1, -1, *([1] * (latents.ndim - 2)))
        centre, spread = (
            torch.tensor(values, dtype=latents.dtype, device=latents.device).view(channels)
            for values in (mean, std)
        )
        return latents * spread / scale + centre
    shift = getattr(config, "shift_factor", None) if type(pipe).__name__ in SHIFTED else None
    found: Tensor = latents / scale + (shift or 0.0)
    return found


def _unpatched(latents: Tensor) -> Tensor:
    """(rows, 4 c, h, w) patches to (rows, c, 2 h, 2 w)."""
    rows, channels, height, width = latents.shape
    grid = latents.reshape(rows, channels // 4, 2, 2, height, width).permute(0, 1, 4, 2, 5, 3)
    return grid.reshape(rows, channels // 4, 2 * height, 2 * width)


def guide_decoder(pipe: Any, apart: bool) -> torch.nn.Module:
    """The pipeline's autoencoder for guidance.

    It is a copy where the pipeline's own would be moved between devices (`apart`), and a copy in float32 where half precision overflows in it.
    """
    vae: torch.nn.Module = pipe.vae
    half = next(vae.parameters()).dtype == torch.float16 and bool(
        getattr(vae.config, "force_upcast", False)
    )
    if not (apart or half):
        return vae
    own = copy.deepcopy(vae).requires_grad_(False)
    return own.float() if half else own


def load_decoder(source: str, dtype: torch.dtype) -> torch.nn.Module:
    """An `AutoencoderTiny` from a folder or hub id.

    Raises:
        ModelError: it is not there or no tiny autoencoder.

    """
    from diffusers import AutoencoderTiny

    from eddy_bench.errors import brief

    try:
        network: torch.nn.Module = AutoencoderTiny.from_pretrained(
            source, torch_dtype=dtype, use_safetensors=True
        )
    except Exception as error:
        raise ModelError(
            f"The decoder {source!r} cannot be loaded as an AutoencoderTiny: {brief(error, 160)} Give a folder saved by diffusers or a hub id."
        ) from None
    return network.eval().requires_grad_(False)
