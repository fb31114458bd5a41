"""Noise levels of a solver before and after its steps, and how far a step moves."""

from __future__ import annotations

import inspect
import math
from typing import Any

import torch

from eddy_bench.sampling.scheduler_table import SchedulerRow, row_of

ALPHA_FLOOR = 1e-4  # stands in for alpha_t = 0 at the first step of flow and zero-SNR schedules


def network_timesteps(scheduler: Any) -> Any:
    """Return the timesteps at which the network is evaluated; SCM's own list has the end too."""
    timesteps = scheduler.timesteps
    return timesteps[:-1] if row_of(scheduler).reading == "trigflow" else timesteps


def process_time(scheduler: Any, timestep: Any) -> float:
    """Return the time of a timestep in [0, 1], 1 is pure noise; of flows it is sigma_t."""
    if row_of(scheduler).reading == "trigflow":
        alpha_t, sigma_t = _angle_levels(timestep)
        return sigma_t / (alpha_t + sigma_t)
    return float(timestep) / int(scheduler.config.num_train_timesteps)


def step_position(scheduler: Any, timestep: Any) -> int:
    """Return the index of the coming step in `scheduler.sigmas`.

    `step_index` is unset before the first step.
    """
    if scheduler.step_index is not None:
        return int(scheduler.step_index)
    if getattr(scheduler, "begin_index", None) is not None:
        return int(scheduler.begin_index)
    return int(scheduler.index_for_timestep(timestep))


def next_sigma(scheduler: Any, position: int) -> float:
    """Return the noise level sigma_t / alpha_t after the step at a position of the timesteps."""
    row, timesteps = row_of(scheduler), scheduler.timesteps
    if row.reading == "tabled":
        alpha_t, sigma_t = _tabled_levels(_product_after(scheduler, row, position))
    elif row.reading == "trigflow":
        alpha_t, sigma_t = _angle_levels(timesteps[position + 1])
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


def levels_before(
    scheduler: Any, row: SchedulerRow, timestep: Any, index: int
) -> tuple[float, float]:
    """Return (alpha_t, sigma_t) of the process before a step."""
    if row.reading == "tabled":
        return _tabled_levels(float(scheduler.alphas_cumprod[int(timestep)].double()))
    if row.reading == "trigflow":
        return _angle_levels(scheduler.timesteps[index])
    if row.reading == "flow":
        level = float(scheduler.sigmas[index])
        return 1 - level, level
    if row.reading == "scaled":
        between = row.half_steps and not scheduler.state_in_first_order
        sigma = float((scheduler.sigmas_interpol if between else scheduler.sigmas)[index])
        root = (1 + sigma**2) ** 0.5
        return 1 / root, sigma / root
    return _multistep_levels(scheduler, index)


def _tabled_levels(product: float) -> tuple[float, float]:
    return product**0.5, max(1 - product, 0.0) ** 0.5


def _angle_levels(angle: Any) -> tuple[float, float]:
    return math.cos(float(angle)), math.sin(float(angle))


def _product_after(scheduler: Any, row: SchedulerRow, position: int) -> float:
    """Return alpha_t^2 after the step at a position, of a solver with a table."""
    if position + 1 < len(scheduler.timesteps):
        return float(scheduler.alphas_cumprod[int(scheduler.timesteps[position + 1])])
    if row.noise == "anew":  # LCM ends at the denoised estimate
        return 1.0
    if row.noise == "gamma":  # TCD at timestep 0
        return float(scheduler.alphas_cumprod[0])
    return float(getattr(scheduler, "final_alpha_cumprod", 1.0))


def _few_step_stretch(
    scheduler: Any, row: SchedulerRow, sigma: float, index: int, eta: float
) -> float:
    """Return (sigma - sigma_s) / (sigma - sigma_next), sigma_s being where noise is added from.

    LCM's c_out is left out: it is within 0.2% of 1 from timestep 1 on.
    """
    following, lower = next_sigma(scheduler, index), 0.0
    if row.noise == "gamma":
        last = index + 1 >= len(scheduler.timesteps)
        # in float32, as the scheduler does
        share = 0.0 if last else (1 - eta) * scheduler.timesteps[index + 1]
        timestep = int(torch.floor(torch.as_tensor(share)))
        alpha_t, sigma_t = _tabled_levels(float(scheduler.alphas_cumprod[timestep]))
        lower = sigma_t / max(alpha_t, ALPHA_FLOOR)
    return (sigma - lower) / (sigma - following) if sigma > following else 1.0


def _multistep_levels(scheduler: Any, index: int) -> tuple[float, float]:
    alpha_t, sigma_t = scheduler._sigma_to_alpha_sigma_t(scheduler.sigmas[index].double())
    return float(alpha_t), float(sigma_t)


def stretch_of(scheduler: Any, row: SchedulerRow, timestep: Any, index: int, eta: float) -> float:
    """Return how many times as far as a deterministic step a solver moves per unit of g."""
    if row.few_steps:
        alpha_t, sigma_t = levels_before(scheduler, row, timestep, index)
        return _few_step_stretch(scheduler, row, sigma_t / max(alpha_t, ALPHA_FLOOR), index, eta)
    if row.noise == "eta":
        return 1 + eta**2
    if row.noise == "full":
        return 2.0
    if row.noise == "ancestral":
        return 1 + float(scheduler.sigmas[index + 1]) / float(scheduler.sigmas[index])
    if row.noise == "tau":
        return 1 + float(scheduler.tau_func(timestep)) ** 2
    if row.reading == "multistep" and algorithm_of(scheduler) == "sde-dpmsolver":
        return 2.0
    if row.reading == "multistep" and algorithm_of(scheduler) == "sde-dpmsolver++":
        return 1 + _next_ratio(scheduler, index)
    return 1.0


def _next_ratio(scheduler: Any, index: int) -> float:
    """Return sigma_next / sigma of a multistep solver, whose noise makes it move that much more."""
    (alpha_t, sigma_t), (next_alpha_t, next_sigma_t) = (
        _multistep_levels(scheduler, step) for step in (index, index + 1)
    )
    return (next_sigma_t / max(next_alpha_t, ALPHA_FLOOR)) / (sigma_t / max(alpha_t, ALPHA_FLOOR))


def algorithm_of(scheduler: Any) -> str:
    """Return the algorithm of a class that has several.

    A scheduler made from another one's configuration carries an `algorithm_type` along that its
    own class knows nothing of.
    """
    if "algorithm_type" not in inspect.signature(type(scheduler).__init__).parameters:
        return ""
    return str(getattr(scheduler.config, "algorithm_type", ""))
