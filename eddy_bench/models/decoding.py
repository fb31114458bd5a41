"""Decode the latents of a solver, with a graph, as each pipeline decodes its own results."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from eddy_bench.errors import ModelError, brief
from eddy_bench.models.images import by_channel
from eddy_bench.sampling.families import Family, family_of

# (rows, *shape) latents to (rows, c, h, w) images in [-1, 1], float32
Decode = Callable[[Tensor], Tensor]


def make_decode(pipe: Any, network: torch.nn.Module, size: tuple[int, int] | None = None) -> Decode:
    """Return the function from a pipeline's latents to images.

    Args:
        pipe: a pipeline of a family whose decoding is known.
        network: its autoencoder, or a small one made for the same latents.
        size: height and width of the images in pixels, which packed latents do not tell; a square
            when left out.
    """
    family = family_of(pipe)
    if family.decoding == "unknown":
        raise ModelError(
            f"How {family.class_name} decodes its latents is not known here, so kernel=features "
            "and best-of-m cannot be used. Use kernel=latent."
        )

    def decode(latents: Tensor) -> Tensor:
        dtype = next(network.parameters()).dtype
        grid = _unpacked(pipe, latents, size) if family.packed else latents
        ready = _in_units(grid, pipe, family, network.config).to(dtype)
        images: Tensor = network.decode(ready, return_dict=False)[0]  # type: ignore[operator]
        return (images[:, :, 0] if images.ndim == 5 else images).float()

    return decode


def _unpacked(pipe: Any, latents: Tensor, size: tuple[int, int] | None) -> Tensor:
    """Return tokens as a grid: (rows, c, h, w), or (rows, c, 1, h, w) where frames are expected."""
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


def _in_units(latents: Tensor, pipe: Any, family: Family, config: Any) -> Tensor:
    if family.decoding == "batch norm":  # of patches (rows, 4 c, h, w)
        norm, eps = pipe.vae.bn, pipe.vae.config.batch_norm_eps
        spread = (norm.running_var + eps).sqrt().view(1, -1, 1, 1).to(latents)
        centre = norm.running_mean.view(1, -1, 1, 1).to(latents)
        return torch.nn.functional.pixel_shuffle(latents * spread + centre, 2)
    scale = getattr(config, "scaling_factor", None) or 1.0
    mean, std = (getattr(config, name, None) for name in ("latents_mean", "latents_std"))
    if family.decoding == "by channel" and mean is not None and std is not None:
        channels = (1, -1, *([1] * (latents.ndim - 2)))
        centre, spread = (
            by_channel(tuple(values), latents.device, latents.dtype, channels)
            for values in (mean, std)
        )
        return latents * spread / scale + centre
    shift = getattr(config, "shift_factor", None) if family.decoding == "shifted" else None
    ready: Tensor = latents / scale + (shift or 0.0)
    return ready


def guide_decoder(pipe: Any, apart: bool) -> torch.nn.Module:
    """Return the pipeline's autoencoder for guidance, in float32.

    Second differences through a decoder of half precision are rounding errors. It is a copy where
    the pipeline's own is of half precision, or would be moved between devices (`apart`).
    """
    vae: torch.nn.Module = pipe.vae
    if not apart and next(vae.parameters()).dtype == torch.float32:
        return vae
    return copy.deepcopy(vae).requires_grad_(False).float()


def load_decoder(source: str) -> torch.nn.Module:
    """Load an `AutoencoderTiny` from a folder or hub id, in float32."""
    from diffusers import AutoencoderTiny

    try:
        network: torch.nn.Module = AutoencoderTiny.from_pretrained(
            source, torch_dtype=torch.float32, use_safetensors=True
        )
    except Exception as error:
        raise ModelError(
            f"The decoder {source!r} cannot be loaded as an AutoencoderTiny: {brief(error, 160)} "
            "Give a folder saved by diffusers or a hub id."
        ) from None
    return network.eval().requires_grad_(False)
