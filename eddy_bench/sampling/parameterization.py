"""Reading a solver's state in variance-exploding coordinates, and writing guidance into its model output.

A noisy sample is x = alpha x0 + sigma eps. Guidance is defined for xb = x / alpha at the noise level
sb = sigma / alpha, where the score is s = -eps / sb. Adding g to the score is editing the model output
with Delta = sb g:  eps' = eps - Delta,  x0' = x0 + sb Delta,  v' = v - Delta / alpha.
Then one deterministic first-order step moves xb by (sb - sb_next) sb g, whatever the network predicts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from eddy_bench.errors import SchedulerError

Prediction = Literal["epsilon", "sample", "v_prediction", "flow_prediction"]
ALPHA_FLOOR = 1e-4  # stands in for alpha = 0 at the first step of flow and zero-SNR schedules

# `sample` is xb itself and `sigmas` holds sb.
SCALED = frozenset(
    {
        "EulerDiscreteScheduler",
        "EulerAncestralDiscreteScheduler",
        "HeunDiscreteScheduler",
        "LMSDiscreteScheduler",
        "KDPM2DiscreteScheduler",
    }
)
# `sample` is x and the schedule is a table over timesteps.
TABLED = frozenset({"DDIMScheduler", "DDPMScheduler", "PNDMScheduler"})
# `sample` is x, `sigmas` holds sb (or sigma, under flow sigmas).
MULTISTEP = frozenset(
    {
        "DPMSolverMultistepScheduler",
        "DPMSolverSinglestepScheduler",
        "UniPCMultistepScheduler",
        "DEISMultistepScheduler",
        "SASolverScheduler",
    }
)
# `sample` is x = (1 - sigma) x0 + sigma eps and the network predicts eps - x0.
FLOW = frozenset({"FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler"})
KNOWN = SCALED | TABLED | MULTISTEP | FLOW


@dataclass(frozen=True)
class Coordinates:
    """Where a solver stands before one step.

    alpha, sigma: signal and noise levels of `sample`'s own process; alpha is never below `ALPHA_FLOOR`.
    scaled: `sample` is xb already. prediction: what the network predicts.
    pure_noise: alpha is 0 here. stretch: how many times as far as a deterministic step this solver moves per unit of g.
    """

    alpha: float
    sigma: float
    prediction: Prediction
    scaled: bool = False
    pure_noise: bool = False
    stretch: float = 1.0

    @property
    def sb(self) -> float:
        """Noise level in variance-exploding coordinates."""
        return self.sigma / self.alpha

    def read(self, sample: Tensor, output: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(xb, eps, denoised) of a solver's sample and the network's output, in float32 or better."""
        dtype = torch.promote_types(sample.dtype, torch.float32)
        sample, output = sample.to(dtype), output.to(dtype)
        x = sample * self.alpha if self.scaled else sample
        if self.prediction == "epsilon":
            eps = output
            denoised = (x - self.sigma * eps) / self.alpha
        elif self.prediction == "sample":
            denoised = output
            eps = (x - self.alpha * denoised) / self.sigma
        elif self.prediction == "v_prediction":
            denoised = self.alpha * x - self.sigma * output
            eps = self.alpha * output + self.sigma * x
        else:
            denoised = x - self.sigma * output
            eps = x + (1 - self.sigma) * output
        return x / self.alpha, eps, denoised

    def edit(self, output: Tensor, delta: Tensor) -> Tensor:
        """The model output after Delta = sb g is put in; the dtype of `output` is kept."""
        dtype = torch.promote_types(output.dtype, torch.float32)
        factor = {
            "epsilon": -1.0,
            "sample": self.sb,
            "v_prediction": -1 / self.alpha,
            "flow_prediction": -1 / self.alpha,
        }
        return (output.to(dtype) + factor[self.prediction] * delta.to(dtype)).to(output.dtype)


def check_scheduler(scheduler: Any) -> None:
    """Raise SchedulerError for a scheduler whose state cannot be read."""
    name = type(scheduler).__name__
    if name not in KNOWN:
        raise SchedulerError(
            f"Expected a scheduler that guidance can be put into, got {name}. Use one of: {', '.join(sorted(KNOWN))}."
        )
    kind = getattr(scheduler.config, "prediction_type", "epsilon")
    if name not in FLOW and kind not in ("epsilon", "sample", "v_prediction", "flow_prediction"):
        raise SchedulerError(
            f"Expected prediction_type epsilon, sample, v_prediction or flow_prediction, got {kind!r}."
        )


def check_stochastic(scheduler: Any, eta: float) -> None:
    """Raise SchedulerError for a solver that draws no noise at its steps."""
    name = type(scheduler).__name__
    stochastic = name in (
        "DDPMScheduler",
        "EulerAncestralDiscreteScheduler",
        "SASolverScheduler",
    ) or (name == "DDIMScheduler" and eta > 0)
    if not stochastic and not str(getattr(scheduler.config, "algorithm_type", "")).startswith(
        "sde"
    ):
        raise SchedulerError(
            f"Step noise can be coupled under a stochastic solver only, got {name}{' with eta = 0' if name == 'DDIMScheduler' else ''}."
            " Use ddim:eta=1, ddpm, dpmpp-2m-sde, euler-ancestral or sa-solver, or a coupling of the start: antithetic, lhs, sobol."
        )


def step_position(scheduler: Any, timestep: Any) -> int:
    """Index into `scheduler.sigmas` of the coming step; `step_index` is unset before the first one."""
    if scheduler.step_index is not None:
        return int(scheduler.step_index)
    if getattr(scheduler, "begin_index", None) is not None:
        return int(scheduler.begin_index)
    return int(scheduler.index_for_timestep(timestep))


def read_coordinates(scheduler: Any, timestep: Any, eta: float = 0.0) -> Coordinates:
    """Where `scheduler` stands before its step at `timestep`; `eta` is DDIM's."""
    name = type(scheduler).__name__
    if name in TABLED:
        product = float(scheduler.alphas_cumprod[int(timestep)].double())
        alpha, sigma = product**0.5, (1 - product) ** 0.5
        stretch = 2.0 if name == "DDPMScheduler" else 1 + eta**2
        return _floored(alpha, sigma, scheduler.config.prediction_type, stretch=stretch)
    index = step_position(scheduler, timestep)
    level = float(scheduler.sigmas[index])
    if name in FLOW:
        return _floored(1 - level, level, "flow_prediction")
    if name in SCALED:
        if name == "KDPM2DiscreteScheduler" and not scheduler.state_in_first_order:
            level = float(scheduler.sigmas_interpol[index])
        root = (1 + level**2) ** 0.5
        stretch = (
            1 + _next_ratio(scheduler, index) if name == "EulerAncestralDiscreteScheduler" else 1.0
        )
        return _floored(
            1 / root, level / root, scheduler.config.prediction_type, scaled=True, stretch=stretch
        )
    alpha, sigma = (
        float(value)
        for value in scheduler._sigma_to_alpha_sigma_t(scheduler.sigmas[index].double())
    )
    return _floored(
        alpha,
        sigma,
        scheduler.config.prediction_type,
        stretch=_multistep_stretch(scheduler, timestep, index),
    )


def _floored(
    alpha: float, sigma: float, prediction: Prediction, scaled: bool = False, stretch: float = 1.0
) -> Coordinates:
    pure_noise = alpha < ALPHA_FLOOR
    return Coordinates(max(alpha, ALPHA_FLOOR), sigma, prediction, scaled, pure_noise, stretch)


def _next_ratio(scheduler: Any, index: int) -> float:
    """sb_next / sb, for solvers whose noise makes them move 1 + sb_next / sb times as far."""
    levels = []
    for sigma in (scheduler.sigmas[index], scheduler.sigmas[index + 1]):
        if hasattr(scheduler, "_sigma_to_alpha_sigma_t"):
            alpha, noise = (
                float(value) for value in scheduler._sigma_to_alpha_sigma_t(sigma.double())
            )
            levels.append(noise / max(alpha, ALPHA_FLOOR))
        else:
            levels.append(float(sigma))
    return levels[1] / levels[0]


def _multistep_stretch(scheduler: Any, timestep: Any, index: int) -> float:
    if type(scheduler).__name__ == "SASolverScheduler":
        return 1 + float(scheduler.tau_func(timestep)) ** 2
    kind = str(getattr(scheduler.config, "algorithm_type", ""))
    if kind == "sde-dpmsolver":
        return 2.0
    if kind == "sde-dpmsolver++":
        return 1 + _next_ratio(scheduler, index)
    return 1.0
