"""Initial noise with more weight at low frequencies (arXiv 2601.00090, CVPR 2026)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from eddy_bench.kernels import exact
from eddy_bench.methods.base import Method


@dataclass(frozen=True)
class PinkNoise(Method):
    """Noise whose power falls as f^-alpha, of variance 1 at every pixel.

    FFT(z) f^(-alpha / 2) over height and width (over the coordinates of a point); the constant
    takes the lowest frequency's weight. Rows stay independent; a pixel is standard normal, the
    field is no longer white, so samples have another law. The paper also optimises the noise; this
    is the part that costs nothing.

    Args:
        alpha: 0 is white noise; quality falls beyond the paper's 0.2.
    """

    alpha: Annotated[float, Field(allow_inf_nan=False)] = 0.2

    name = "pink-noise"
    summary = "initial noise with more low frequencies; shifts the marginal"
    citation = "arXiv 2601.00090"
    interacts = False
    sweep = "alpha"

    def initial_field(self, noise: Tensor, generator: torch.Generator) -> Tensor:
        """Return the coloured noise, of the shape of `noise`."""
        if self.alpha == 0:
            return noise
        shape = noise.shape[-2:] if noise.ndim > 3 else noise.shape[-1:]
        white = exact(noise)
        weight = spectrum(shape, self.alpha, white.device)
        axes = tuple(range(-len(shape), 0))
        coloured = torch.fft.ifftn(torch.fft.fftn(white, dim=axes) * weight, dim=axes)
        real: Tensor = coloured.real.to(noise)
        return real


def spectrum(shape: torch.Size, alpha: float, device: torch.device) -> Tensor:
    """Return f^(-alpha / 2) at every frequency, with a mean square of 1, float64."""
    axes = [torch.fft.fftfreq(size, dtype=torch.float64, device=device) for size in shape]
    square = sum(axis.square() for axis in torch.meshgrid(*axes, indexing="ij"))
    assert isinstance(square, Tensor)
    lowest = min(1 / size for size in shape)
    weight = square.sqrt().clamp_min(lowest) ** (-alpha / 2)
    unit: Tensor = weight / weight.square().mean().sqrt()
    return unit
