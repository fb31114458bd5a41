"""Timesteps of Align Your Steps (arXiv 2404.14507), from the tables in diffusers."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np

from eddy_bench.errors import SchedulerError
from eddy_bench.sampling.scheduler_table import SCHEDULERS

TABLES = {
    "StableDiffusionPipeline": "StableDiffusionTimesteps",
    "StableDiffusionXLPipeline": "StableDiffusionXLTimesteps",
}
LAST_SIGMA = 0.029  # the level at which the tables end


def aligned_timesteps(pipe: Any, name: str, steps: int) -> list[int]:
    """Return the timesteps of Align Your Steps for Stable Diffusion 1.5 and SDXL.

    The tables hold 10 steps; other counts are interpolated linearly in log sigma over its 11
    levels, the last of them 0.029.

    Args:
        pipe: a pipeline with its scheduler put in.
        name: of the scheduler, for messages.
        steps: how many.

    Raises:
        SchedulerError: this solver or pipeline takes no timesteps, or the model has no table.

    """
    from diffusers.schedulers import AysSchedules

    _check_table(pipe)
    _check_takes_timesteps(pipe.scheduler, name)
    table: list[int] = AysSchedules[TABLES[type(pipe).__name__]]
    return list(table) if steps == len(table) else _interpolated(pipe.scheduler, table, steps)


def _check_table(pipe: Any) -> None:
    if type(pipe).__name__ not in TABLES:
        raise SchedulerError(
            "Align Your Steps has tables for Stable Diffusion 1.5 and SDXL, "
            f"not for {type(pipe).__name__}. Leave --timesteps out."
        )
    if getattr(pipe.scheduler.config, "prediction_type", "epsilon") != "epsilon":
        raise SchedulerError(
            "Align Your Steps has no table for this model, which predicts v. Leave --timesteps out."
        )


def _check_takes_timesteps(scheduler: Any, name: str) -> None:
    import diffusers

    if "timesteps" in inspect.signature(scheduler.set_timesteps).parameters:
        return
    classes = {
        key: getattr(diffusers, row.class_name)
        for key, row in SCHEDULERS.items()
        if row.takes("noise") and not row.few_steps
    }
    able = [
        key
        for key, cls in classes.items()
        if "timesteps" in inspect.signature(cls.set_timesteps).parameters
    ]
    raise SchedulerError(
        f"Scheduler {name!r} takes no list of timesteps. These do: {', '.join(able)}."
    )


def _interpolated(scheduler: Any, table: list[int], steps: int) -> list[int]:
    product = np.asarray(scheduler.alphas_cumprod, np.float64)
    levels = 0.5 * np.log((1 - product) / product)  # log sigma of each timestep, rising
    table_levels = np.append(levels[table], np.log(LAST_SIGMA))
    wanted = np.interp(
        np.linspace(0, 1, steps + 1)[:-1], np.linspace(0, 1, len(table) + 1), table_levels
    )
    timesteps = np.rint(np.interp(wanted, levels, np.arange(len(levels)))).astype(int)
    if len(set(timesteps.tolist())) < steps:
        raise SchedulerError(
            f"{steps} steps of Align Your Steps fall together. Take fewer --steps."
        )
    return [int(timestep) for timestep in timesteps]
