"""Schedulers by name, swapped in from the pipeline's own configuration."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from eddy_bench.errors import ParameterError, SchedulerError, UnknownName, brief, unknown
from eddy_bench.sampling.parameterization import FLOW, check_scheduler

SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    "ddim": ("DDIMScheduler", {}),
    "ddpm": ("DDPMScheduler", {}),
    "deis": ("DEISMultistepScheduler", {}),
    "dpm": (
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"},
    ),
    "dpmpp-2m": (
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "dpmsolver++", "solver_order": 2},
    ),
    "dpmpp-2m-sde": (
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "sde-dpmsolver++", "solver_order": 2},
    ),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler-ancestral": ("EulerAncestralDiscreteScheduler", {}),
    "flow-euler": ("FlowMatchEulerDiscreteScheduler", {}),
    "flow-heun": ("FlowMatchHeunDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "kdpm2": ("KDPM2DiscreteScheduler", {}),
    "lms": ("LMSDiscreteScheduler", {}),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True}),
    "sa-solver": ("SASolverScheduler", {"algorithm_type": "data_prediction"}),
    "unipc": ("UniPCMultistepScheduler", {}),
}
FLOW_ONLY = frozenset({"flow-euler", "flow-heun"})
SPACINGS = {
    "karras": "use_karras_sigmas",
    "exponential": "use_exponential_sigmas",
    "beta": "use_beta_sigmas",
}
FLOW_CAPABLE = frozenset({"dpmpp-2m", "dpmpp-2m-sde", "unipc", "flow-euler", "flow-heun"})
CALL_ARGUMENTS = {"ddim": {"eta": float}}


def is_flow(scheduler: Any) -> bool:
    """Whether the model behind a scheduler is a flow model."""
    return (
        type(scheduler).__name__ in FLOW
        or getattr(scheduler.config, "prediction_type", "") == "flow_prediction"
    )


def set_scheduler(
    pipe: Any, name: str, parameters: dict[str, Any], spacing: str = "default", steps: int = 0
) -> dict[str, Any]:
    """Put a scheduler into a pipeline.

    Args:
        pipe: any pipeline. name: a key of `SCHEDULERS`, or `default` for the pipeline's own.
        parameters: `eta` for DDIM, and any configuration key of the scheduler's class.
        spacing: of the timesteps: `default`, `karras`, `exponential`, `beta`, or `ays` (Align Your Steps, arXiv 2404.14507). steps: how many.

    Returns:
        Arguments for the pipeline's call.

    Raises:
        UnknownName: no such scheduler. ParameterError: no such parameter. SchedulerError: this pipeline cannot take it.

    """
    import diffusers

    stays = name == "default"
    if stays:
        check_scheduler(pipe.scheduler)
        name = next(
            (key for key, (cls, _) in SCHEDULERS.items() if cls == type(pipe.scheduler).__name__),
            name,
        )
        settings: dict[str, Any] = {}
        cls = type(pipe.scheduler)
    else:
        if name not in SCHEDULERS:
            raise UnknownName(unknown("scheduler", name, [*SCHEDULERS, "default"]))
        cls, settings = getattr(diffusers, SCHEDULERS[name][0]), dict(SCHEDULERS[name][1])
    call, config = _split(name, cls, parameters)
    if spacing in SPACINGS:
        config |= _sigma_spacing(name, cls, spacing)
    flow, before = is_flow(pipe.scheduler), dict(pipe.scheduler.config)
    own = stays or getattr(pipe, "any_prediction", False)
    if not own and ((flow and name not in FLOW_CAPABLE) or (not flow and cls.__name__ in FLOW)):
        kind = "a flow model" if flow else "a noise-predicting model"
        able = sorted(FLOW_CAPABLE if flow else set(SCHEDULERS) - FLOW_ONLY)
        raise SchedulerError(
            f"{type(pipe).__name__} is {kind} and cannot take scheduler {name!r}. Use one of: {', '.join(able)}."
        )
    if flow and cls.__name__ not in FLOW and not own:
        settings |= {
            "prediction_type": "flow_prediction",
            "use_flow_sigmas": True,
            "flow_shift": before.get("shift", before.get("flow_shift", 1.0)),
        }
    if flow and spacing in SPACINGS and cls.__name__ not in FLOW:
        raise SchedulerError(
            f"Scheduler {name!r} cannot space the timesteps of a flow model by {spacing!r}. Leave --timesteps out, or use flow-euler."
        )
    if "clip_sample" not in before and name in ("ddim", "ddpm"):
        settings["clip_sample"] = False  # diffusers' default clips latents to [-1, 1]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of deprecated settings that a user asked for by name
            pipe.scheduler = cls.from_config(pipe.scheduler.config, **{**settings, **config})
    except Exception as error:
        raise SchedulerError(
            f"Scheduler {name!r} cannot be made from this pipeline's configuration: {brief(error)}"
        ) from None
    check_scheduler(pipe.scheduler)
    return call | ({"timesteps": aligned_timesteps(pipe, name, steps)} if spacing == "ays" else {})


def _sigma_spacing(name: str, cls: Any, spacing: str) -> dict[str, bool]:
    """The configuration key that spaces a solver's noise levels."""
    import diffusers

    key = SPACINGS[spacing]
    if key not in inspect.signature(cls.__init__).parameters:
        able = [
            one
            for one, (other, _) in SCHEDULERS.items()
            if key in inspect.signature(getattr(diffusers, other).__init__).parameters
        ]
        raise SchedulerError(
            f"Scheduler {name!r} cannot space its timesteps by {spacing!r}. These can: {', '.join(able)}."
        )
    return {key: True}


def aligned_timesteps(pipe: Any, name: str, steps: int) -> list[int]:
    """Timesteps of Align Your Steps (arXiv 2404.14507), from diffusers' tables for Stable Diffusion 1.5 and SDXL.

    The tables hold 10 steps; other counts are interpolated linearly in log sb over its 11 levels, the last of them 0.029.

    Raises:
        SchedulerError: this solver or pipeline takes no timesteps, or the model has no table.

    """
    import diffusers
    from diffusers.schedulers import AysSchedules

    known = {
        "StableDiffusionPipeline": "StableDiffusion",
        "StableDiffusionXLPipeline": "StableDiffusionXL",
    }
    table = known.get(type(pipe).__name__)
    if table is None:
        raise SchedulerError(
            f"Align Your Steps has tables for Stable Diffusion 1.5 and SDXL, not for {type(pipe).__name__}. Leave --timesteps out."
        )
    if getattr(pipe.scheduler.config, "prediction_type", "epsilon") != "epsilon":
        raise SchedulerError(
            "Align Your Steps has no table for this model, which predicts v. Leave --timesteps out."
        )
    if "timesteps" not in inspect.signature(pipe.scheduler.set_timesteps).parameters:
        able = [
            one
            for one, (cls, _) in SCHEDULERS.items()
            if one not in FLOW_ONLY
            and "timesteps" in inspect.signature(getattr(diffusers, cls).set_timesteps).parameters
        ]
        raise SchedulerError(
            f"Scheduler {name!r} takes no list of timesteps. These do: {', '.join(able)}."
        )
    own: list[int] = AysSchedules[f"{table}Timesteps"]
    if steps == len(own):
        return list(own)
    product = np.asarray(pipe.scheduler.alphas_cumprod, np.float64)
    levels = 0.5 * np.log((1 - product) / product)  # log sb of each timestep, rising
    known_levels = np.append(levels[own], np.log(0.029))
    places = np.interp(
        np.linspace(0, 1, steps + 1)[:-1], np.linspace(0, 1, len(own) + 1), known_levels
    )
    found = np.rint(np.interp(places, levels, np.arange(len(levels)))).astype(int)
    if len(set(found.tolist())) < steps:
        raise SchedulerError(
            f"{steps} steps of Align Your Steps fall together. Take fewer --steps."
        )
    return [int(t) for t in found]


def _split(
    name: str, cls: Any, parameters: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Call arguments and configuration keys."""
    call_types, known = CALL_ARGUMENTS.get(name, {}), inspect.signature(cls.__init__).parameters
    call: dict[str, Any] = {}
    config: dict[str, Any] = {}
    for key, value in parameters.items():
        if key in call_types:
            call[key] = _typed(name, key, value, call_types[key])
            if not 0 <= call[key] <= 1:
                raise ParameterError(
                    f"Expected {key} of scheduler {name!r} between 0 and 1, got {value}."
                )
        elif key in known and key != "self":
            default = known[key].default
            config[key] = _typed(
                name,
                key,
                value,
                type(default) if default not in (None, inspect.Parameter.empty) else str,
            )
        else:
            names = [*call_types, *(n for n in known if n not in ("self", "args", "kwargs"))]
            raise ParameterError(unknown(f"parameter of scheduler {name!r}", key, names))
    return call, config


def _typed(name: str, key: str, value: Any, kind: type) -> Any:
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        raise ParameterError(
            f"Parameter {key!r} of scheduler {name!r}: {error.errors()[0]['msg']}, got {value!r}."
        ) from None
