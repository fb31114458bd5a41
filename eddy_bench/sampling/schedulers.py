"""Schedulers by name, swapped in from the pipeline's own configuration."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

from pydantic import TypeAdapter, ValidationError

from eddy_bench.errors import ParameterError, SchedulerError, UnknownName, brief, unknown
from eddy_bench.sampling.parameterization import FLOW, check_scheduler

SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    "ddim": ("DDIMScheduler", {}),
    "ddpm": ("DDPMScheduler", {}),
    "deis": ("DEISMultistepScheduler", {}),
    "dpm": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}),
    "dpmpp-2m": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++", "solver_order": 2}),
    "dpmpp-2m-sde": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++", "solver_order": 2}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler-ancestral": ("EulerAncestralDiscreteScheduler", {}),
    "flow-euler": ("FlowMatchEulerDiscreteScheduler", {}),
    "flow-heun": ("FlowMatchHeunDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "kdpm2": ("KDPM2DiscreteScheduler", {}),
    "lms": ("LMSDiscreteScheduler", {}),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True}),
    "sa-solver": ("SASolverScheduler", {}),
    "unipc": ("UniPCMultistepScheduler", {}),
}
FLOW_CAPABLE = frozenset({"dpmpp-2m", "dpmpp-2m-sde", "unipc", "flow-euler", "flow-heun"})
CALL_ARGUMENTS = {"ddim": {"eta": float}}


def is_flow(scheduler: Any) -> bool:
    """Whether the model behind a scheduler is a flow model."""
    return type(scheduler).__name__ in FLOW or getattr(scheduler.config, "prediction_type", "") == "flow_prediction"


def set_scheduler(pipe: Any, name: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """Put a scheduler into a pipeline.

    Args:
        pipe: any pipeline. name: a key of `SCHEDULERS`, or `default` for the pipeline's own.
        parameters: `eta` for DDIM, and any configuration key of the scheduler's class.

    Returns:
        Arguments for the pipeline's call.

    Raises:
        UnknownName: no such scheduler. ParameterError: no such parameter. SchedulerError: this pipeline cannot take it.

    """
    import diffusers

    if name == "default":
        check_scheduler(pipe.scheduler)
        name = next((key for key, (cls, _) in SCHEDULERS.items() if cls == type(pipe.scheduler).__name__), name)
        settings: dict[str, Any] = {}
        cls = type(pipe.scheduler)
    else:
        if name not in SCHEDULERS:
            raise UnknownName(unknown("scheduler", name, [*SCHEDULERS, "default"]))
        cls, settings = getattr(diffusers, SCHEDULERS[name][0]), dict(SCHEDULERS[name][1])
    call, config = _split(name, cls, parameters)
    flow, before = is_flow(pipe.scheduler), dict(pipe.scheduler.config)
    own = cls is type(pipe.scheduler) or getattr(pipe, "any_prediction", False)
    if not own and ((flow and name not in FLOW_CAPABLE) or (not flow and cls.__name__ in FLOW)):
        kind = "a flow model" if flow else "a noise-predicting model"
        able = sorted(FLOW_CAPABLE if flow else set(SCHEDULERS) - {"flow-euler", "flow-heun"})
        raise SchedulerError(f"{type(pipe).__name__} is {kind} and cannot take scheduler {name!r}. Use one of: {', '.join(able)}.")
    if flow and cls.__name__ not in FLOW and not own:
        settings |= {
            "prediction_type": "flow_prediction",
            "use_flow_sigmas": True,
            "flow_shift": before.get("shift", before.get("flow_shift", 1.0)),
        }
    if "clip_sample" not in before and name in ("ddim", "ddpm"):
        settings["clip_sample"] = False  # diffusers' default clips latents to [-1, 1]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of deprecated settings that a user asked for by name
            pipe.scheduler = cls.from_config(pipe.scheduler.config, **{**settings, **config})
    except Exception as error:
        raise SchedulerError(f"Scheduler {name!r} cannot be made from this pipeline's configuration: {brief(error)}") from None
    check_scheduler(pipe.scheduler)
    return call


def _split(name: str, cls: Any, parameters: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Call arguments and configuration keys."""
    call_types, known = CALL_ARGUMENTS.get(name, {}), inspect.signature(cls.__init__).parameters
    call: dict[str, Any] = {}
    config: dict[str, Any] = {}
    for key, value in parameters.items():
        if key in call_types:
            call[key] = _typed(name, key, value, call_types[key])
            if not 0 <= call[key] <= 1:
                raise ParameterError(f"Expected {key} of scheduler {name!r} between 0 and 1, got {value}.")
        elif key in known and key != "self":
            default = known[key].default
            config[key] = _typed(name, key, value, type(default) if default not in (None, inspect.Parameter.empty) else str)
        else:
            names = [*call_types, *(n for n in known if n not in ("self", "args", "kwargs"))]
            raise ParameterError(unknown(f"parameter of scheduler {name!r}", key, names))
    return call, config


def _typed(name: str, key: str, value: Any, kind: type) -> Any:
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        raise ParameterError(f"Parameter {key!r} of scheduler {name!r}: {error.errors()[0]['msg']}, got {value!r}.") from None
