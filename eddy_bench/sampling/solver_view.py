"""A solver's noise levels, and how its samples and the network's outputs are read and edited.

A noisy sample is x = alpha_t x0 + sigma_t eps. Guidance is defined for xb = x / alpha_t at the
noise level sigma = sigma_t / alpha_t, where the score is s = -eps / sigma. Adding g to the score is
editing the model output with Delta = sigma g:
eps' = eps - Delta,  x0' = x0 + sigma Delta,  v' = v - Delta / alpha_t.
Then one deterministic first-order step moves xb by (sigma - sigma_next) sigma g, whatever the
network predicts. A solver that draws noise moves it `gain` times as far, and Delta is divided by
that.
"""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from eddy_bench.errors import SchedulerError
from eddy_bench.sampling.scheduler_table import CLASS_NAMES, Noise, SchedulerRow, row_of

ALPHA_FLOOR = 1e-4  # stands in for alpha_t = 0 at the first step of flow and zero-SNR schedules
Prediction = Literal["epsilon", "sample", "v_prediction", "flow_prediction"]
PREDICTIONS = ("epsilon", "sample", "v_prediction", "flow_prediction")


@dataclass(frozen=True)
class Coordinates:
    """A solver's coordinates before one step."""

    alpha_t: float  # signal level of the process of `sample`, never below `ALPHA_FLOOR`
    sigma_t: float  # noise level of the process of `sample`
    prediction: Prediction  # what the network predicts
    scaled: bool = False  # `sample` is xb already
    pure_noise: bool = False  # the process has alpha_t = 0 here
    # how many times as far as a deterministic step this solver moves per unit of g
    gain: float = 1.0
    unit: float = 1.0  # what `sample` and the model output are multiplied by (SCM's sigma_data)
    # the denoised estimate is skip xb + scale times the output, of EDM's preconditioning (Karras et
    # al. 2022, arXiv 2206.00364, Eq. 7); None where a prediction is read as it is
    skip: tuple[float, float] | None = None

    @property
    def sigma(self) -> float:
        """The noise level sigma_t / alpha_t of xb."""
        return self.sigma_t / self.alpha_t

    def read(self, sample: Tensor, output: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return (xb, eps, denoised) of a sample and the network's output, float32 or better."""
        dtype = torch.promote_types(sample.dtype, torch.float32)
        sample, output = sample.to(dtype) / self.unit, output.to(dtype) / self.unit
        if self.skip is not None:
            denoised = self.skip[0] * sample + self.skip[1] * output
            return sample, (sample - denoised) / self.sigma, denoised
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

    def estimate(self, seen: Tensor, output: Tensor) -> Tensor:
        """Return the denoised estimate of what the network sees, x whatever the solver holds."""
        if self.skip is None:
            return replace(self, scaled=False, unit=1.0).read(seen, output)[2]
        scale = self.sigma / (1 - self.skip[0]) ** 0.5  # the network sees xb over this
        return self.read(seen * scale, output)[2]

    @property
    def slope(self) -> float:
        """How far the denoised estimate moves by a unit of the output."""
        if self.skip is not None:
            return self.skip[1]
        if self.prediction == "sample":
            return 1.0
        return -self.sigma if self.prediction == "epsilon" else -self.sigma_t

    def edit(self, output: Tensor, delta: Tensor) -> Tensor:
        """Return the model output with Delta = sigma g put in, in the dtype of `output`."""
        dtype = torch.promote_types(output.dtype, torch.float32)
        change = self.unit * self._factor * delta.to(dtype)
        return (output.to(dtype) + change).to(output.dtype)

    @property
    def _factor(self) -> float:
        """The change of the output per unit of Delta."""
        if self.skip is not None:
            return self.sigma / self.skip[1]
        factors = {"epsilon": -1.0, "sample": self.sigma}
        return factors.get(self.prediction, -1 / self.alpha_t)


class SolverView:
    """A scheduler whose steps are told by their index in its `timesteps`.

    A subclass is one convention of schedulers.
    """

    scaled: ClassVar[bool] = False

    def __init__(self, scheduler: Any, row: SchedulerRow) -> None:
        self.scheduler, self.row = scheduler, row
        self._tables: dict[str, tuple[Any, Tensor]] = {}

    def table(self, name: str) -> Tensor:
        """Return a list of the scheduler on the CPU, copied once: reading a device's waits for it.

        Args:
            name: of the scheduler's attribute, (steps,).
        """
        own, kept = getattr(self.scheduler, name), self._tables.get(name)
        if kept is None or kept[0] is not own:
            kept = self._tables[name] = own, torch.as_tensor(own).cpu()
        return kept[1]

    @property
    def unit(self) -> float:
        """What `sample` and the model output are multiplied by."""
        return 1.0

    @property
    def timesteps(self) -> Tensor:
        """The timesteps at which the network is evaluated, on the CPU."""
        return self.table("timesteps")

    @property
    def fewest_steps(self) -> int:
        """The fewest steps that the solver can be set to: PNDM may begin with Runge-Kutta."""
        return 1 if getattr(self.scheduler.config, "skip_prk_steps", True) else 4

    @property
    def own_index(self) -> int | None:
        """The index of the coming step where the solver itself keeps one."""
        for name in ("step_index", "begin_index"):
            index = getattr(self.scheduler, name, None)
            if index is not None:
                return int(index)
        return None

    def indices(self, timestep: Any) -> list[int]:
        """Return the indices of the steps at a timestep."""
        found = (self.timesteps == torch.as_tensor(timestep).to(self.timesteps)).nonzero()
        return [int(index) for index in found]

    def place(self, timestep: Any) -> int | None:
        """Return the index of a timestep that is an element of the scheduler's own list.

        Its address tells, so that nothing waits for the device. None: a number, or a copy.
        """
        own = self.scheduler.timesteps
        if not isinstance(timestep, Tensor) or not isinstance(own, Tensor):
            return None
        beyond = timestep.data_ptr() - own.data_ptr()
        inside = timestep.dtype == own.dtype and 0 <= beyond < own.nbytes
        return beyond // own.itemsize if inside else None

    def index(self, timestep: Any) -> int:
        """Return the index of the coming step, at a timestep."""
        own = self.own_index
        if own is None and hasattr(self.scheduler, "index_for_timestep"):
            return int(self.scheduler.index_for_timestep(timestep))
        return (self.indices(timestep) or [0])[0] if own is None else own

    def levels(self, index: int) -> tuple[float, float]:
        """Return (alpha_t, sigma_t) of the process before a step."""
        raise NotImplementedError

    def levels_after(self, index: int) -> tuple[float, float]:
        """Return (alpha_t, sigma_t) of the process after a step."""
        return self.levels(index + 1)

    def sigma(self, index: int) -> float:
        """Return the noise level sigma_t / alpha_t before a step."""
        return _ratio(*self.levels(index))

    def sigma_next(self, index: int) -> float:
        """Return the noise level sigma_t / alpha_t after a step."""
        return _ratio(*self.levels_after(index))

    def time(self, index: int) -> float:
        """Return the time of a step in [0, 1], 1 is pure noise; of flows it is sigma_t."""
        return float(self.timesteps[index]) / int(self.scheduler.config.num_train_timesteps)

    @property
    def prediction(self) -> Prediction:
        """What the network predicts."""
        kind: Prediction = self.scheduler.config.prediction_type
        return kind

    def at(self, index: int, eta: float = 0.0, churn: float = 0.0) -> Coordinates:
        """Return the coordinates before a step. eta, churn: as in `gain`."""
        alpha_t, sigma_t = self.levels(index)
        return Coordinates(
            max(alpha_t, ALPHA_FLOOR),
            sigma_t,
            self.prediction,
            scaled=self.scaled,
            pure_noise=alpha_t < ALPHA_FLOOR,
            gain=self.gain(index, eta, churn),
            unit=self.unit,
        )

    @cached_property
    def noise(self) -> Noise:
        """What the solver draws at its steps, by its class and configuration."""
        config = self.scheduler.config
        if "stochastic_sampling" in config and config.stochastic_sampling:
            return "anew"
        algorithm = self.algorithm
        if algorithm in ("sde-dpmsolver", "sde-dpmsolver++"):
            return "twice" if algorithm == "sde-dpmsolver" else "ancestral"
        return self.row.noise

    @cached_property
    def algorithm(self) -> str:
        """The algorithm of a class that has several.

        A scheduler made from another one's configuration carries an `algorithm_type` along that
        its own class knows nothing of.
        """
        if "algorithm_type" not in inspect.signature(type(self.scheduler).__init__).parameters:
            return ""
        return str(getattr(self.scheduler.config, "algorithm_type", ""))

    def gain(self, index: int, eta: float = 0.0, churn: float = 0.0) -> float:
        """Return how many times as far as a deterministic step a first step moves per unit of g.

        A solver that goes down to sigma_s, and by noise from there to sigma_next, moves
        (sigma - sigma_s) / (sigma - sigma_next) times as far. sigma_s is sigma_next^2 / sigma of
        ancestral solvers and of DDPM, and 0 of consistency solvers.

        Args:
            index: of the step.
            eta: of DDIM and TCD.
            churn: relative rise of sigma before the step (s_churn of Karras et al. 2022).
        """
        if churn and self.scaled:
            return self._churned(index, churn)
        if self.noise == "none" or (self.noise in ("eta", "gamma") and eta == 0):
            return 1.0
        sigma, after = self.sigma(index), self.sigma_next(index)
        if self.noise == "twice":
            return 2.0
        if self.noise == "ancestral":
            return 1 + after / sigma
        lowest = self._lowest(index, sigma, after, eta)
        return (sigma - lowest) / (sigma - after) if sigma > after else 1.0

    def _lowest(self, index: int, sigma: float, after: float, eta: float) -> float:
        """Return the level sigma_s that a noisy step from sigma goes down to."""
        if self.noise == "gamma":
            return self._gamma_level(index, eta)
        if self.noise == "eta":
            return float(after * max(1 - eta**2 * (1 - (after / sigma) ** 2), 0.0) ** 0.5)
        if self.noise == "tau":
            tau = float(self.scheduler.tau_func(self.timesteps[index]))
            return float(sigma * (after / sigma) ** (1 + tau**2))
        return 0.0  # LCM's c_out is left out: it is within 0.2% of 1 from timestep 1 on

    def _gamma_level(self, index: int, eta: float) -> float:
        """Return the noise level sigma_s that TCD goes down to (arXiv 2402.19159)."""
        last = index + 1 >= len(self.timesteps)
        # in float32, as the scheduler does
        share = 0.0 if last else (1 - eta) * self.timesteps[index + 1]
        timestep = int(torch.floor(torch.as_tensor(share)))
        return _ratio(*_of_product(float(self.table("alphas_cumprod")[timestep])))

    def _churned(self, index: int, churn: float) -> float:
        """Return the gain of a step of `sample` = xb that begins at (1 + churn) sigma."""
        sigma, after = self.sigma(index), self.sigma_next(index)
        high = (1 + churn) * sigma
        moved = (high - after) * self._reach(sigma, high) / high
        return moved / (sigma - after) if sigma > after else 1.0

    def _reach(self, sigma: float, high: float) -> float:
        """Return how far a denoised estimate at a raised level moves per unit of Delta."""
        return high if self.prediction == "epsilon" else sigma


class Tabled(SolverView):
    """`sample` is x, and the schedule is a table over timesteps."""

    @property
    def own_index(self) -> int | None:
        """The index of the coming step; most of these solvers keep none."""
        return super().own_index if self.row.few_steps else None

    def levels(self, index: int) -> tuple[float, float]:
        """Return (alpha_t, sigma_t) before a step."""
        product = self.table("alphas_cumprod")[int(self.timesteps[index])]
        return _of_product(float(product.double()))

    def levels_after(self, index: int) -> tuple[float, float]:
        """Return (alpha_t, sigma_t) after a step."""
        return _of_product(self._product_after(index))

    def _product_after(self, index: int) -> float:
        """Return alpha_t^2 after a step."""
        products = self.table("alphas_cumprod")
        if index + 1 < len(self.timesteps):
            return float(products[int(self.timesteps[index + 1])])
        if self.noise == "anew":  # LCM ends at the denoised estimate
            return 1.0
        if self.noise == "gamma":  # TCD at timestep 0
            return float(products[0])
        return float(getattr(self.scheduler, "final_alpha_cumprod", 1.0))


class Scaled(SolverView):
    """`sample` is xb = x / alpha_t, and `sigmas` holds sigma."""

    scaled = True

    def levels(self, index: int) -> tuple[float, float]:
        """Return (alpha_t, sigma_t) before a step."""
        between = self.row.half_steps and not self.scheduler.state_in_first_order
        table = self.table("sigmas_interpol" if between else "sigmas")
        sigma = float(table[index])
        root = (1 + sigma**2) ** 0.5
        return 1 / root, sigma / root

    def sigma_next(self, index: int) -> float:
        """Return the noise level after a step; a half step of KDPM2 ends between `sigmas`."""
        between = self.row.half_steps and self.scheduler.state_in_first_order
        table = self.table("sigmas_interpol" if between else "sigmas")
        return float(table[index + 1])

    def time(self, index: int) -> float:
        """Return the time of a step; a continuous timestep is log(sigma) / 4."""
        if getattr(self.scheduler.config, "timestep_type", "discrete") == "continuous":
            return _flow_time(self.sigma(index))
        return super().time(index)


class Multistep(SolverView):
    """`sample` is x, and `sigmas` holds sigma, or sigma_t under flow sigmas."""

    def levels(self, index: int) -> tuple[float, float]:
        """Return (alpha_t, sigma_t) before a step."""
        sigma = self.table("sigmas")[index].double()
        alpha_t, sigma_t = self.scheduler._sigma_to_alpha_sigma_t(sigma)
        return float(alpha_t), float(sigma_t)


class Flow(SolverView):
    """`sample` is x = (1 - sigma_t) x0 + sigma_t eps; the network predicts eps - x0."""

    prediction: Prediction = "flow_prediction"

    def levels(self, index: int) -> tuple[float, float]:
        """Return (alpha_t, sigma_t) before a step."""
        level = float(self.table("sigmas")[index])
        return 1 - level, level


class Trigflow(SolverView):
    """`sample` is sigma_data x, x = cos(s) x0 + sin(s) eps at the timestep s.

    The solver is given sigma_data v, v = cos(s) eps - sin(s) x0 (sCM, arXiv 2410.11081).
    """

    prediction: Prediction = "v_prediction"

    @property
    def unit(self) -> float:
        """SCM's sigma_data."""
        return float(self.scheduler.config.sigma_data)

    @property
    def timesteps(self) -> Tensor:
        """The timesteps at which the network is evaluated; the scheduler's list has the end too."""
        return self.table("timesteps")[:-1]

    def levels(self, index: int) -> tuple[float, float]:
        """Return (alpha_t, sigma_t) before a step."""
        angle = float(self.table("timesteps")[index])
        return math.cos(angle), math.sin(angle)

    def time(self, index: int) -> float:
        """Return the time of a step."""
        alpha_t, sigma_t = self.levels(index)
        return sigma_t / (alpha_t + sigma_t)


class Edm(SolverView):
    """`sample` is xb, `sigmas` holds sigma, and the network is preconditioned (arXiv 2206.00364).

    The timestep is log(sigma) / 4.
    """

    scaled = True

    def levels(self, index: int) -> tuple[float, float]:
        """Return (1, sigma) before a step."""
        return 1.0, float(self.table("sigmas")[index])

    def time(self, index: int) -> float:
        """Return the time of a step."""
        return _flow_time(self.sigma(index))

    def _reach(self, sigma: float, high: float) -> float:
        data = float(self.scheduler.config.sigma_data)
        return float(high * ((sigma**2 + data**2) / (high**2 + data**2)) ** 0.5)

    def at(self, index: int, eta: float = 0.0, churn: float = 0.0) -> Coordinates:
        """Return the coordinates before a step."""
        sigma, data = self.sigma(index), float(self.scheduler.config.sigma_data)
        square = sigma**2 + data**2
        sign = 1 if self.prediction == "epsilon" else -1
        return Coordinates(
            1.0,
            sigma,
            self.prediction,
            scaled=True,
            gain=self.gain(index, eta, churn),
            skip=(data**2 / square, sign * sigma * data / square**0.5),
        )


CONVENTIONS: dict[str, type[SolverView]] = {
    "tabled": Tabled,
    "scaled": Scaled,
    "multistep": Multistep,
    "flow": Flow,
    "trigflow": Trigflow,
    "edm": Edm,
}


def view_of(scheduler: Any) -> SolverView:
    """Return the view of a scheduler; of an unknown class one that reads no levels."""
    row = row_of(scheduler)
    return CONVENTIONS.get(row.convention, SolverView)(scheduler, row)


def check_scheduler(scheduler: Any) -> None:
    """Raise SchedulerError for a scheduler whose state cannot be read."""
    row = row_of(scheduler)
    if row.convention == "unknown":
        raise SchedulerError(
            "Expected a scheduler that guidance can be put into, and whose noise can be coupled, "
            f"got {row.class_name}, under which only iid, couplings of the start and selection "
            f"run. Use one of: {', '.join(sorted(CLASS_NAMES))}."
        )
    kind = getattr(scheduler.config, "prediction_type", "epsilon")
    if row.convention not in ("flow", "trigflow") and kind not in PREDICTIONS:
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
    view = view_of(scheduler)
    by_eta = view.noise in ("eta", "gamma")
    if view.noise == "none" or (by_eta and not eta > 0):
        raise SchedulerError(
            "Step noise can be coupled under a stochastic solver only, "
            f"got {view.row.class_name}{' with eta = 0' if by_eta else ''}."
            " Use ddim:eta=1, ddpm, dpmpp-2m-sde, euler-ancestral or sa-solver, "
            "or a coupling of the start: antithetic, lhs, sobol."
        )
    if view.noise in ("anew", "gamma") and steps == 1:
        raise SchedulerError(
            f"{view.row.class_name} ends its last step without noise, and 1 step leaves none to "
            "couple. Take --steps 2 or more, or a coupling of the start: antithetic, lhs, sobol."
        )


def _of_product(product: float) -> tuple[float, float]:
    """Return (alpha_t, sigma_t) of alpha_t^2."""
    return product**0.5, max(1 - product, 0.0) ** 0.5


def _ratio(alpha_t: float, sigma_t: float) -> float:
    return float(sigma_t / max(alpha_t, ALPHA_FLOOR))


def _flow_time(sigma: float) -> float:
    return sigma / (1 + sigma)
