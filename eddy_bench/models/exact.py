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
from eddy_bench.models.mixture import Classes, Mixture
from eddy_bench.sampling.solver_view import Coordinates, view_of

TIMESTEPS = 8000


def exact_scheduler() -> Any:
    """Return DDIM on the linear schedule of DDPM (Ho et al. 2020), cut into 8,000 timesteps.

    An analytic denoiser has no trained timesteps, so a list of step counts may go that far. The
    noise level sigma runs from 157 to 0.0035.
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
    """The exact prediction in the scheduler's own parameterisation, instead of a network's.

    Args:
        mixture: of every prompt, or a function from a prompt to its mixture (the same object for
            the same mixture).
        classes: what a condition means; None where there is none.
    """

    def __init__(
        self, mixture: Mixture | Callable[[str], Mixture], classes: Classes | None = None
    ) -> None:
        super().__init__()
        self.classes = classes
        self.of_prompt = (lambda prompt: mixture) if isinstance(mixture, Mixture) else mixture

    def forward(
        self,
        sample: Tensor,
        alpha_t: float,
        sigma_t: float,
        prediction: str,
        prompts: Sequence[str] = ("",),
        encoder_hidden_states: Tensor | None = None,
    ) -> tuple[Tensor]:
        """Return the prediction at a sample of x (not xb), same shape.

        Rows belong to the prompts in equal shares; where there are classes, the embeddings
        (rows, 1, K) say what a row's condition is.
        """
        x = sample.double()
        if self.classes is not None and encoder_hidden_states is not None:
            denoised = self.classes.denoise(x, alpha_t, sigma_t, encoder_hidden_states[:, 0])
        else:
            denoised = self._denoise(x, alpha_t, sigma_t, prompts)
        if prediction == "sample":
            return (denoised.to(sample.dtype),)
        eps = (x - alpha_t * denoised) / sigma_t
        predicted = {
            "epsilon": eps,
            "v_prediction": alpha_t * eps - sigma_t * denoised,
            "flow_prediction": eps - denoised,
        }
        return (predicted[prediction].to(sample.dtype),)

    def _denoise(self, x: Tensor, alpha_t: float, sigma_t: float, prompts: Sequence[str]) -> Tensor:
        mixtures = [self.of_prompt(prompt) for prompt in prompts]
        if all(mixture is mixtures[0] for mixture in mixtures):
            return mixtures[0].denoise(x, alpha_t, sigma_t)
        parts = zip(mixtures, x.chunk(len(prompts)), strict=True)
        return torch.cat([mixture.denoise(part, alpha_t, sigma_t) for mixture, part in parts])


@dataclass
class ExactOutput(BaseOutput):  # type: ignore[misc]
    """images: (rows, d) samples, or pictures of them."""

    images: Any


class ExactPipeline(DiffusionPipeline):  # type: ignore[misc]
    """Draw samples of a known distribution, by the calling convention of text-to-image pipelines.

    Args:
        denoiser: the exact one.
        scheduler: any that `steer` knows, noise-predicting or flow.
        picture: from samples (rows, d) to a list of pictures, for `output_type="pil"`.
    """

    # The denoiser predicts whatever a scheduler asks for, so every solver fits.
    any_prediction = True

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
        """Draw samples, (prompts x num_images_per_prompt, d); pictures with output_type `pil`."""
        classes = self.denoiser.classes
        if unused:
            raise ModelError(
                f"Exact tasks cannot use {', '.join(unused)}. Leave such settings out."
            )
        if guidance_scale != 1 and classes is None:
            raise ModelError(
                "Exact tasks have no classifier-free guidance: expected guidance_scale 1, "
                f"got {guidance_scale:g}."
            )
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        if latents is None:
            rows = len(prompts) * num_images_per_prompt
            shape = (rows, self.denoiser.of_prompt(prompts[0]).dimension)
            latents = randn_tensor(shape, generator=generator, dtype=dtype)
        taken = inspect.signature(self.scheduler.set_timesteps).parameters
        plain = num_inference_steps == 2 or "intermediate_timesteps" not in taken
        self.scheduler.set_timesteps(  # SCM's own setting is one for 2 steps
            num_inference_steps, **({} if plain else {"intermediate_timesteps": None})
        )
        view = view_of(self.scheduler)
        timesteps, unit = view.timesteps, view.unit
        sample = latents * getattr(self.scheduler, "init_noise_sigma", 1.0) * unit
        accepted = inspect.signature(self.scheduler.step).parameters
        extra = {"eta": eta, "generator": generator}
        extra = {key: value for key, value in extra.items() if key in accepted}
        embeds = None
        if classes is not None:
            each = [classes.embedding(prompt)[None] for prompt in prompts]
            embeds = torch.stack(each).repeat_interleave(num_images_per_prompt, 0)
            if guidance_scale != 1:
                embeds = torch.cat([classes.null.expand_as(embeds), embeds])
        if hasattr(self.scheduler, "set_begin_index"):
            self.scheduler.set_begin_index(0)
        for timestep in timesteps:
            at = view.at(view.index(timestep), eta)
            output = self._output(at, sample, timestep, prompts, embeds, guidance_scale)
            step = self.scheduler.step(output, timestep, sample, **extra, return_dict=False)
            sample = step[0]
            if on_step is not None:
                on_step()
        sample = sample / unit
        if output_type == "pil" and self.picture is not None:
            return ExactOutput(images=self.picture(sample))
        return ExactOutput(images=sample)

    def _output(
        self,
        at: Coordinates,
        sample: Tensor,
        timestep: Any,
        prompts: Sequence[str],
        embeds: Tensor | None,
        guidance_scale: float,
    ) -> Tensor:
        x = self.scheduler.scale_model_input(sample, timestep) if at.scaled else sample
        x = (x if at.skip is None else sample) / at.unit
        guided = embeds is not None and len(embeds) == 2 * len(x)
        rows, alpha_t = torch.cat([x, x]) if guided else x, 0.0 if at.pure_noise else at.alpha_t
        prediction = at.prediction if at.skip is None else "sample"
        output: Tensor = self.denoiser(
            rows, alpha_t, at.sigma_t, prediction, prompts, encoder_hidden_states=embeds
        )[0]
        if guided:
            null, conditional = output.chunk(2)
            output = null + guidance_scale * (conditional - null)
        if at.skip is not None:  # of EDM's preconditioned network
            output = (output - at.skip[0] * x) / at.skip[1]
        return output * at.unit
