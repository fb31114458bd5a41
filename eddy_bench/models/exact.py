"""Tasks whose score is known: Gaussian mixtures behind a diffusers pipeline, driven by any scheduler."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DiffusionPipeline
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from eddy_bench.sampling.parameterization import read_coordinates


@dataclass(frozen=True)
class Mixture:
    """A Gaussian mixture with isotropic components.

    means: (K, d), float64. variances: (K,). weights: (K,), summing to 1.
    """

    means: Tensor
    variances: Tensor
    weights: Tensor

    def denoise(self, x: Tensor, alpha: float, sigma: float) -> Tensor:
        """E[x0 | x] for x = alpha x0 + sigma eps. (..., d) to (..., d), exact at alpha = 0 too."""
        total = alpha**2 * self.variances + sigma**2  # (K,)
        offset = x[..., None, :] - alpha * self.means  # (..., K, d)
        logits = self.weights.log() - 0.5 * (offset.square().sum(-1) / total + x.shape[-1] * total.log())
        posterior = self.means + (alpha * self.variances / total)[:, None] * offset
        return (torch.softmax(logits, -1)[..., None] * posterior).sum(-2)

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """(count, d) exact samples."""
        component = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        noise = torch.randn(count, self.means.shape[1], dtype=self.means.dtype, generator=generator)
        return self.means[component] + self.variances[component, None].sqrt() * noise


class ExactDenoiser(torch.nn.Module):
    """The network's place: the exact prediction in the scheduler's own parameterisation."""

    def __init__(self, mixture: Mixture) -> None:
        super().__init__()
        self.mixture = mixture

    def forward(self, sample: Tensor, alpha: float, sigma: float, prediction: str) -> Tensor:
        """The prediction at a sample of x (not xb), same shape."""
        x = sample.double()
        denoised = self.mixture.denoise(x, alpha, sigma)
        eps = (x - alpha * denoised) / sigma
        output = {
            "epsilon": eps, "sample": denoised, "v_prediction": alpha * eps - sigma * denoised, "flow_prediction": eps - denoised,
        }[prediction]  # fmt: skip
        return output.to(sample.dtype)


@dataclass
class ExactOutput(BaseOutput):  # type: ignore[misc]
    """images: (rows, d) samples."""

    images: Tensor


class ExactPipeline(DiffusionPipeline):  # type: ignore[misc]
    """Draws points of a mixture with a diffusers scheduler; the calling convention of text-to-image pipelines."""

    def __init__(self, denoiser: ExactDenoiser, scheduler: Any) -> None:
        super().__init__()
        self.register_modules(denoiser=denoiser, scheduler=scheduler)

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str] = "",
        num_images_per_prompt: int = 1,
        num_inference_steps: int = 50,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: Tensor | None = None,
        eta: float = 0.0,
        dtype: torch.dtype = torch.float32,
        **_: Any,
    ) -> ExactOutput:
        """Samples, (prompts x num_images_per_prompt, d)."""
        rows = (1 if isinstance(prompt, str) else len(prompt)) * num_images_per_prompt
        if latents is None:
            latents = randn_tensor((rows, self.denoiser.mixture.means.shape[1]), generator=generator, dtype=dtype)
        self.scheduler.set_timesteps(num_inference_steps)
        sample = latents * self.scheduler.init_noise_sigma if hasattr(self.scheduler, "init_noise_sigma") else latents
        extra = {"eta": eta} if type(self.scheduler).__name__ == "DDIMScheduler" else {}
        for timestep in self.scheduler.timesteps:
            at = read_coordinates(self.scheduler, timestep, eta)
            alpha = 0.0 if at.pure_noise else at.alpha
            x = self.scheduler.scale_model_input(sample, timestep) if at.scaled else sample
            output = self.denoiser(x, alpha, at.sigma, at.prediction)
            sample = self.scheduler.step(output, timestep, sample, **extra, return_dict=False)[0]
        return ExactOutput(images=sample)
