"""Read a solver's state in variance-exploding coordinates and write guidance into its model output.

A noisy sample is x = alpha_t x0 + sigma_t eps. Guidance is defined for xb = x / alpha_t at the
noise level sigma = sigma_t / alpha_t, where the score is s = -eps / sigma. Adding g to the score is
editing the model output with Delta = sigma g:
eps' = eps - Delta,  x0' = x0 + sigma Delta,  v' = v - Delta / alpha_t.
Then one deterministic first-order step moves xb by (sigma - sigma_next) sigma g, whatever the
network predicts.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from eddy_bench.errors import SchedulerError
from eddy_bench.sampling.scheduler_table import CLASS_NAMES, SchedulerRow, row_of

Prediction = Literal["epsilon", "sample", "v_prediction", "flow_prediction"]
ALPHA_FLOOR = 1e-4  # stands in for alpha_t = 0 at the first step of flow and zero-SNR schedules


@dataclass(frozen=True)
class Coordinates:
    """A solver's coordinates before one step.

    Attributes:
        alpha_t: signal level of the process of `sample`, never below `ALPHA_FLOOR`.
        sigma_t: noise level of the process of `sample`.
        prediction: what the network predicts.
        scaled: `sample` is xb already.
        pure_noise: the process has alpha_t = 0 here.
        stretch: how many times as far as a deterministic step this solver moves per unit of g.

    """

    alpha_t: float
    sigma_t: float
    prediction: Prediction
    scaled: bool = False
    pure_noise: bool = False
    stretch: float = 1.0

    @property
    def sigma(self) -> float:
        """The noise level sigma_t / alpha_t of xb."""
        return self.sigma_t / self.alpha_t

    def read(self, sample: Tensor, output: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return (xb, eps, denoised) of a sample and the network's output, float32 or better."""
        dtype = torch.promote_types(sample.dtype, torch.float32)
        sample, output = sample.to(dtype), output.to(dtype)
        x = sample * self.alpha_t if self.scaled else sample
        if self.prediction == "epsilon":
            eps = output
            denoised = (x - self.sigma_t * eps) / self.alpha_t
        elif self.prediction == "sample":
            denoised = output
            eps = (x - self.alpha_t * denoised) / self.sigma_t
        elif self.prediction == "v_prediction":
            denoised = self.alpha_t * x - self.sigma_t * output
            eps = self.alpha_t * output + self.sigma_t * x
        else:
            denoised = x - self.sigma_t * output
            eps = x + (1 - self.sigma_t) * output
        return x / self.alpha_t, eps, denoised

    def edit(self, output: Tensor, delta: Tensor) -> Tensor:
        """Return the model output with Delta = sigma g put in, in the dtype of `output`."""
        dtype = torch.promote_types(output.dtype, torch.float32)
        factor = {
            "epsilon": -1.0,
            "sample": self.sigma,
            "v_prediction": -1 / self.alpha_t,
            "flow_prediction": -1 / self.alpha_t,
        }
        return (output.to(dtype) + factor[self.prediction] * delta.to(dtype)).to(output.dtype)


def check_scheduler(scheduler: Any) -> None:
    """Raise SchedulerError for a scheduler whose state cannot be read."""
    row = row_of(scheduler)
    if row.reading == "unknown":
        raise SchedulerError(
            f"Expected a scheduler that guidance can be put into, got {row.class_name}. "
            f"Use one of: {', '.join(sorted(CLASS_NAMES))}."
        )
    kind = getattr(scheduler.config, "prediction_type", "epsilon")
    known = ("epsilon", "sample", "v_prediction", "flow_prediction")
    if row.reading != "flow" and kind not in known:
        raise SchedulerError(
            "Expected prediction_type epsilon, sample, v_prediction or flow_prediction, "
            f"got {kind!r}."
        )


def check_stochastic(scheduler: Any, eta: float) -> None:
    """Raise SchedulerError for a solver that draws no noise at its steps."""
    row = row_of(scheduler)
    by_class = row.noise not in ("none", "eta") or (row.noise == "eta" and eta > 0)
    if by_class or _algorithm(scheduler).startswith("sde"):
        return
    raise SchedulerError(
        "Step noise can be coupled under a stochastic solver only, "
        f"got {row.class_name}{' with eta = 0' if row.noise == 'eta' else ''}."
        " Use ddim:eta=1, ddpm, dpmpp-2m-sde, euler-ancestral or sa-solver, "
        "or a coupling of the start: antithetic, lhs, sobol."
    )


def step_position(scheduler: Any, timestep: Any) -> int:
    """Return the index of the coming step in `scheduler.sigmas`.

    `step_index` is unset before the first step.
    """
    if scheduler.step_index is not None:
        return int(scheduler.step_index)
    if getattr(scheduler, "begin_index", None) is not None:
        return int(scheduler.begin_index)
    return int(scheduler.index_for_timestep(timestep))


def read_coordinates(scheduler: Any, timestep: Any, eta: float = 0.0) -> Coordinates:
    """Return the coordinates of `scheduler` before its step at `timestep`; `eta` is DDIM's."""
    row = row_of(scheduler)
    index = 0 if row.reading == "tabled" else step_position(scheduler, timestep)
    alpha_t, sigma_t = _levels(scheduler, row, timestep, index)
    return Coordinates(
        max(alpha_t, ALPHA_FLOOR),
        sigma_t,
        "flow_prediction" if row.reading == "flow" else scheduler.config.prediction_type,
        scaled=row.reading == "scaled",
        pure_noise=alpha_t < ALPHA_FLOOR,
        stretch=_stretch(scheduler, row, timestep, index, eta),
    )


def next_sigma(scheduler: Any, position: int) -> float:
    """Return the noise level sigma_t / alpha_t after the step at a position of the timesteps."""
    row, timesteps = row_of(scheduler), scheduler.timesteps
    if row.reading == "tabled":
        last = position + 1 >= len(timesteps)
        product = (
            getattr(scheduler, "final_alpha_cumprod", 1.0)
            if last
            else scheduler.alphas_cumprod[int(timesteps[position + 1])]
        )
        alpha_t, sigma_t = float(product) ** 0.5, max(1 - float(product), 0.0) ** 0.5
    else:
        index = step_position(scheduler, timesteps[position]) + 1
        level = float(scheduler.sigmas[index])
        if row.reading == "flow":
            alpha_t, sigma_t = 1 - level, level
        elif row.reading == "scaled":
            return level
        else:
            alpha_t, sigma_t = _multistep_levels(scheduler, index)
    return float(sigma_t / max(alpha_t, ALPHA_FLOOR))


def _levels(scheduler: Any, row: SchedulerRow, timestep: Any, index: int) -> tuple[float, float]:
    """Return (alpha_t, sigma_t) of the process before a step."""
    if row.reading == "tabled":
        product = float(scheduler.alphas_cumprod[int(timestep)].double())
        return product**0.5, (1 - product) ** 0.5
    if row.reading == "flow":
        level = float(scheduler.sigmas[index])
        return 1 - level, level
    if row.reading == "scaled":
        between = row.half_steps and not scheduler.state_in_first_order
        sigma = float((scheduler.sigmas_interpol if between else scheduler.sigmas)[index])
        root = (1 + sigma**2) ** 0.5
        return 1 / root, sigma / root
    return _multistep_levels(scheduler, index)


def _multistep_levels(scheduler: Any, index: int) -> tuple[float, float]:
    alpha_t, sigma_t = scheduler._sigma_to_alpha_sigma_t(scheduler.sigmas[index].double())
    return float(alpha_t), float(sigma_t)


def _stretch(scheduler: Any, row: SchedulerRow, timestep: Any, index: int, eta: float) -> float:
    if row.noise == "eta":
        return 1 + eta**2
    if row.noise == "full":
        return 2.0
    if row.noise == "ancestral":
        return 1 + float(scheduler.sigmas[index + 1]) / float(scheduler.sigmas[index])
    if row.noise == "tau":
        return 1 + float(scheduler.tau_func(timestep)) ** 2
    if row.reading == "multistep" and _algorithm(scheduler) == "sde-dpmsolver":
        return 2.0
    if row.reading == "multistep" and _algorithm(scheduler) == "sde-dpmsolver++":
        return 1 + _next_ratio(scheduler, index)
    return 1.0


def _next_ratio(scheduler: Any, index: int) -> float:
    """Return sigma_next / sigma of a multistep solver, whose noise makes it move that much more."""
    (alpha_t, sigma_t), (next_alpha_t, next_sigma_t) = (
        _multistep_levels(scheduler, step) for step in (index, index + 1)
    )
    return (next_sigma_t / max(next_alpha_t, ALPHA_FLOOR)) / (sigma_t / max(alpha_t, ALPHA_FLOOR))


def _algorithm(scheduler: Any) -> str:
    """Return the algorithm of a class that has several.

    A scheduler made from another one's configuration carries an `algorithm_type` along that its
    own class knows nothing of.
    """
    if "algorithm_type" not in inspect.signature(type(scheduler).__init__).parameters:
        return ""
    return str(getattr(scheduler.config, "algorithm_type", ""))
