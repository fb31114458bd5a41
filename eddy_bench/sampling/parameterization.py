"""Read a solver's state in variance-exploding coordinates and write guidance into its model output.

A noisy sample is x = alpha_t x0 + sigma_t eps. Guidance is defined for xb = x / alpha_t at the
noise level sigma = sigma_t / alpha_t, where the score is s = -eps / sigma. Adding g to the score is
editing the model output with Delta = sigma g:
eps' = eps - Delta,  x0' = x0 + sigma Delta,  v' = v - Delta / alpha_t.
Then one deterministic first-order step moves xb by (sigma - sigma_next) sigma g, whatever the
network predicts. A solver that draws noise moves it `stretch` times as far, and Delta is divided by
that: to a lower level sigma_s first, and by noise from there to sigma_next, it is
(sigma - sigma_s) / (sigma - sigma_next). Consistency solvers go down to sigma_s = 0.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from eddy_bench.errors import SchedulerError
from eddy_bench.sampling.levels import (
    ALPHA_FLOOR,
    algorithm_of,
    levels_before,
    step_position,
    stretch_of,
)
from eddy_bench.sampling.scheduler_table import CLASS_NAMES, row_of

Prediction = Literal["epsilon", "sample", "v_prediction", "flow_prediction"]


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
        unit: what `sample` and the model output are multiplied by (SCM's sigma_data).

    """

    alpha_t: float
    sigma_t: float
    prediction: Prediction
    scaled: bool = False
    pure_noise: bool = False
    stretch: float = 1.0
    unit: float = 1.0

    @property
    def sigma(self) -> float:
        """The noise level sigma_t / alpha_t of xb."""
        return self.sigma_t / self.alpha_t

    @property
    def of_network(self) -> Coordinates:
        """Those of the network's own input, which is x whatever the solver holds."""
        return replace(self, scaled=False, unit=1.0)

    @property
    def slope(self) -> float:
        """How far the denoised estimate moves by a unit of the output."""
        if self.prediction == "sample":
            return 1.0
        return -self.sigma if self.prediction == "epsilon" else -self.sigma_t

    def read(self, sample: Tensor, output: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return (xb, eps, denoised) of a sample and the network's output, float32 or better."""
        dtype = torch.promote_types(sample.dtype, torch.float32)
        sample, output = sample.to(dtype) / self.unit, output.to(dtype) / self.unit
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
        change = self.unit * factor[self.prediction] * delta.to(dtype)
        return (output.to(dtype) + change).to(output.dtype)


def check_scheduler(scheduler: Any) -> None:
    """Raise SchedulerError for a scheduler whose state cannot be read."""
    row = row_of(scheduler)
    if row.reading == "unknown":
        raise SchedulerError(
            "Expected a scheduler that guidance can be put into, and whose noise can be coupled, "
            f"got {row.class_name}, under which only iid, couplings of the start and selection "
            f"run. Use one of: {', '.join(sorted(CLASS_NAMES))}."
        )
    kind = getattr(scheduler.config, "prediction_type", "epsilon")
    known = ("epsilon", "sample", "v_prediction", "flow_prediction")
    if row.reading not in ("flow", "trigflow") and kind not in known:
        raise SchedulerError(
            "Expected prediction_type epsilon, sample, v_prediction or flow_prediction, "
            f"got {kind!r}."
        )


def can_be_read(scheduler: Any) -> bool:
    """Return whether a scheduler's state can be read."""
    try:
        check_scheduler(scheduler)
    except SchedulerError:
        return False
    return True


def check_stochastic(scheduler: Any, eta: float, steps: int | None = None) -> None:
    """Raise SchedulerError for a solver that draws no noise at its steps.

    Args:
        scheduler: of the pipeline.
        eta: of its call.
        steps: of its call; None where they are not known yet.

    """
    row = row_of(scheduler)
    by_eta = row.noise in ("eta", "gamma")
    by_class = eta > 0 if by_eta else row.noise != "none"
    if not (by_class or algorithm_of(scheduler).startswith("sde")):
        raise SchedulerError(
            "Step noise can be coupled under a stochastic solver only, "
            f"got {row.class_name}{' with eta = 0' if by_eta else ''}."
            " Use ddim:eta=1, ddpm, dpmpp-2m-sde, euler-ancestral or sa-solver, "
            "or a coupling of the start: antithetic, lhs, sobol."
        )
    if row.few_steps and steps == 1:
        raise SchedulerError(
            f"{row.class_name} ends its last step without noise, and 1 step leaves none to couple. "
            "Take --steps 2 or more, or a coupling of the start: antithetic, lhs, sobol."
        )


def read_coordinates(scheduler: Any, timestep: Any, eta: float = 0.0) -> Coordinates:
    """Return the coordinates of `scheduler` before its step at `timestep`.

    `eta` is that of DDIM and TCD.
    """
    row = row_of(scheduler)
    searched = row.reading != "tabled" or row.few_steps
    index = step_position(scheduler, timestep) if searched else 0
    alpha_t, sigma_t = levels_before(scheduler, row, timestep, index)
    fixed: dict[str, Prediction] = {"flow": "flow_prediction", "trigflow": "v_prediction"}
    return Coordinates(
        max(alpha_t, ALPHA_FLOOR),
        sigma_t,
        fixed.get(row.reading) or scheduler.config.prediction_type,
        scaled=row.reading == "scaled",
        pure_noise=alpha_t < ALPHA_FLOOR,
        stretch=stretch_of(scheduler, row, timestep, index, eta),
        unit=float(scheduler.config.sigma_data) if row.reading == "trigflow" else 1.0,
    )
