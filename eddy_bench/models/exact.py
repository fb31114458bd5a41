"""Tasks whose score is known, behind a diffusers pipeline and driven by any scheduler."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import diffusers
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from eddy_bench.errors import ModelError
from eddy_bench.models.mixture import Mixture
from eddy_bench.sampling.parameterization import read_coordinates

TIMESTEPS = 8000


def exact_scheduler() -> Any:
    """DDIM on the linear schedule of DDPM (Ho et al. 2020), cut into 8,000 timesteps instead of 1,000.

    An analytic denoiser has no trained timesteps, so a ladder of step counts may go that far. sb runs from 157 to 0.0035.
    """
    ratio = 1000 / TIMESTEPS
    return diffusers.DDIMScheduler(
        num_train_timesteps=TIMESTEPS,
        beta_start=1e-4 * ratio,
        beta_end=0.02 * ratio,
        beta_schedule="linear",
        clip_sample=False,
        set_alpha_to_one=True,
        timestep_spacing="trailing",
    )


class ExactDenoiser(torch.nn.Module):
    """The network's place: the exact prediction in the scheduler's own parameterisation.

    Args:
        mixture: of every prompt, or a function from a prompt to its mixture (the same object for the same mixture).

    """

    def __init__(self, mixture: Mixture | Callable[[str], Mixture]) -> None:
        super().__init__()
        self.of_prompt = (lambda prompt: mixture) if isinstance(mixture, Mixture) else mixture

    def forward(
        self,
        sample: Tensor,
        alpha: float,
        sigma: float,
        prediction: str,
        prompts: Sequence[str] = ("",),
    ) -> Tensor:
        """The prediction at a sample of x (not xb), same shape; rows belong to the prompts in equal shares."""
        x = sample.double()
        denoised = self._denoise(x, alpha, sigma, prompts)
        if prediction == "sample":
            return denoised.to(sample.dtype)
        eps = (x - alpha * denoised) / sigma
        output = (
            eps
            if prediction == "epsilon"
            else alpha * eps - sigma * denoised
            if prediction == "v_prediction"
            else eps - denoised
        )
        return output.to(sample.dtype)

    def _denoise(self, x: Tensor, alpha: float, sigma: float, prompts: Sequence[str]) -> Tensor:
        mixtures = [self.of_prompt(prompt) for prompt in prompts]
        if all(mixture is mixtures[0] for mixture in mixtures):
            return mixtures[0].denoise(x, alpha, sigma)
        parts = x.chunk(len(prompts))
        return torch.cat(
            [
                mixture.denoise(part, alpha, sigma)
                for mixture, part in zip(mixtures, parts, strict=True)
            ]
        )


@dataclass
class ExactOutput(BaseOutput):  # type: ignore[misc]
    """images: (rows, d) samples, or pictures of them."""

    images: Any


class ExactPipeline(DiffusionPipeline):  # type: ignore[misc]
    """Draws samples of a known distribution with a diffusers scheduler; the calling convention of text-to-image pipelines.

    Args:
        denoiser: the exact one. scheduler: any that `steer` knows, noise-predicting or flow.
        picture: from samples (rows, d) to a list of pictures, for `output_type="pil"`.

    """

    any_prediction = True  # the denoiser predicts whatever a scheduler asks for: noise-predicting and flow solvers both fit

    def __init__(
        self,
        denoiser: ExactDenoiser,
        scheduler: Any,
        picture: Callable[[Tensor], list[Any]] | None = None,
    ) -> None:
        super().__init__()
        self.register_modules(denoiser=denoiser, scheduler=scheduler)
        self.picture = picture

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
        guidance_scale: float = 1.0,
        output_type: str = "pt",
        on_step: Callable[[], None] | None = None,
        **unused: Any,
    ) -> ExactOutput:
        """Samples, (prompts x num_images_per_prompt, d), or with output_type `pil` a list of pictures.

        Raises:
            ModelError: a guidance scale other than 1, which would make the score inexact, or an argument that means nothing here.

        """
        if unused:
            raise ModelError(
                f"Exact tasks cannot use {', '.join(unused)}. Leave such settings out."
            )
        if guidance_scale != 1:
            raise ModelError(
                f"Exact tasks have no classifier-free guidance: expected guidance_scale 1, got {guidance_scale:g}."
            )
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        rows = len(prompts) * num_images_per_prompt
        if latents is None:
            latents = randn_tensor(
                (rows, self.denoiser.of_prompt(prompts[0]).dimension),
                generator=generator,
                dtype=dtype,
            )
        self.scheduler.set_timesteps(num_inference_steps)
        sample = latents * getattr(self.scheduler, "init_noise_sigma", 1.0)
        accepted = inspect.signature(self.scheduler.step).parameters
        extra = {
            key: value
            for key, value in {"eta": eta, "generator": generator}.items()
            if key in accepted
        }
        for timestep in self.scheduler.timesteps:
            at = read_coordinates(self.scheduler, timestep, eta)
            alpha = 0.0 if at.pure_noise else at.alpha
            x = self.scheduler.scale_model_input(sample, timestep) if at.scaled else sample
            output = self.denoiser(x, alpha, at.sigma, at.prediction, prompts)
            sample = self.scheduler.step(output, timestep, sample, **extra, return_dict=False)[0]
            if on_step is not None:
                on_step()
        return ExactOutput(
            images=self.picture(sample)
            if output_type == "pil" and self.picture is not None
            else sample
        )
