"""Put a scheduler into a pipeline by name, from the pipeline's own configuration."""

from __future__ import annotations

import copy
import inspect
import warnings
from dataclasses import replace
from typing import Any, Literal, get_args, get_origin

import numpy as np
from pydantic import TypeAdapter, ValidationError

from eddy_bench.errors import ParameterError, SchedulerError, UnknownName, brief, unknown
from eddy_bench.sampling.scheduler_table import DEFAULT, SCHEDULERS, Kind, SchedulerRow, row_of
from eddy_bench.sampling.solver_view import check_scheduler

# The configuration key of a spacing and its value
SPACINGS: dict[str, tuple[str, Any]] = {
    "karras": ("use_karras_sigmas", True),
    "exponential": ("use_exponential_sigmas", True),
    "beta": ("use_beta_sigmas", True),
    "trailing": ("timestep_spacing", "trailing"),
}
KINDS: dict[Kind, str] = {
    "noise": "a noise-predicting model",
    "flow": "a flow model",
    "trigflow": "a trigflow model",
    "edm": "an EDM-preconditioned model",
    "unknown": "a model whose scheduler is not known here",
}


def model_kind(scheduler: Any) -> Kind:
    """Return the kind of model behind a scheduler."""
    convention = row_of(scheduler).convention
    if convention in ("trigflow", "edm", "unknown"):
        return convention
    flow = getattr(scheduler.config, "prediction_type", "") == "flow_prediction"
    return "flow" if flow or convention == "flow" else "noise"


def scheduler_text(scheduler: Any, asked: str) -> str:
    """Return a scheduler's class, how it was asked for, and the shift of a flow's levels."""
    config = scheduler.config
    of_flow = model_kind(scheduler) == "flow"
    key = "flow_shift" if "flow_shift" in config else "shift"
    shift = getattr(scheduler, "shift", config.get(key)) if of_flow else None
    if of_flow and config.get("use_dynamic_shifting"):
        shift = f"{config.get('base_shift')}..{config.get('max_shift')} by size"
    end = "" if shift is None else f", shift {shift if isinstance(shift, str) else f'{shift:g}'}"
    return f"{type(scheduler).__name__}({asked}{end})"


def set_scheduler(
    pipe: Any, name: str, parameters: dict[str, Any], spacing: str = "default", steps: int = 0
) -> dict[str, Any]:
    """Put a scheduler into a pipeline.

    Args:
        pipe: any pipeline.
        name: a key of `SCHEDULERS`, or `default` for the pipeline's own, of which a copy is taken
            as it is, with all that was set on the object.
        parameters: `eta` for DDIM, and any configuration key of the scheduler's class.
        spacing: of the timesteps: `default`, `karras`, `exponential`, `beta`, `trailing` (from
            pure noise down, as Turbo and Lightning models are trained), or `ays` (Align Your
            Steps, arXiv 2404.14507).
        steps: how many.

    Returns:
        Arguments for the pipeline's call.

    Raises:
        UnknownName: no such scheduler.
        ParameterError: no such parameter.
        SchedulerError: this pipeline cannot take it.
    """
    row, cls = _chosen(pipe, name)
    call, config = _split(row, cls, parameters)
    if spacing != "default" and row.few_steps:
        raise SchedulerError(
            f"Scheduler {row.name!r} has the timesteps of its model's distillation and cannot "
            f"space them by {spacing!r}. Leave --timesteps out."
        )
    if spacing in SPACINGS:
        config |= _spaced(row, cls, spacing)
    free = name == DEFAULT or getattr(pipe, "any_prediction", False)
    _check_model(pipe, row, spacing, free)
    if name == DEFAULT and not config:
        pipe.scheduler = copy.deepcopy(pipe.scheduler)
    else:
        pipe.scheduler = _made(pipe, row, cls, _settings(pipe, row, free) | config)
    if name != DEFAULT:
        check_scheduler(pipe.scheduler)
    _check_steps(pipe.scheduler, row, steps)
    if spacing == "ays":
        call["timesteps"] = aligned_timesteps(pipe, row.name, steps)
    return call


def _chosen(pipe: Any, name: str) -> tuple[SchedulerRow, Any]:
    """Return the row and the class of a name; the pipeline's own scheduler keeps its settings."""
    import diffusers

    if name == DEFAULT:
        row = replace(row_of(pipe.scheduler), settings={}, call_defaults={})
        return row, type(pipe.scheduler)
    if name not in SCHEDULERS:
        raise UnknownName(unknown("scheduler", name, [*SCHEDULERS, DEFAULT]))
    return SCHEDULERS[name], getattr(diffusers, SCHEDULERS[name].class_name)


def _check_model(pipe: Any, row: SchedulerRow, spacing: str, free: bool) -> None:
    """Raise SchedulerError where the pipeline's model cannot be solved so."""
    kind = model_kind(pipe.scheduler)
    if not free and not row.takes(kind):
        able = sorted(name for name, entry in SCHEDULERS.items() if entry.takes(kind))
        raise SchedulerError(
            f"{type(pipe).__name__} is {KINDS[kind]} and cannot take scheduler {row.name!r}. "
            f"Use one of: {', '.join([*able, DEFAULT])}."
        )
    if kind == "flow" and spacing in SPACINGS and row.convention != "flow":
        raise SchedulerError(
            f"Scheduler {row.name!r} cannot space the timesteps of a flow model by {spacing!r}. "
            "Leave --timesteps out, or use flow-euler."
        )


def _check_steps(scheduler: Any, row: SchedulerRow, steps: int) -> None:
    """Raise SchedulerError for more steps than a model was distilled with."""
    most = getattr(scheduler.config, "original_inference_steps", steps)
    if row.few_steps and steps > most:
        raise SchedulerError(
            f"Scheduler {row.name!r} takes at most {most} steps, got {steps}. Lower --steps, "
            "or set original_inference_steps."
        )


def _settings(pipe: Any, row: SchedulerRow, free: bool) -> dict[str, Any]:
    """Return the configuration that makes a scheduler fit the pipeline's model."""
    before, settings = carried(pipe.scheduler), dict(row.settings)
    if model_kind(pipe.scheduler) == "flow" and row.convention != "flow" and not free:
        settings |= {
            "prediction_type": "flow_prediction",
            "use_flow_sigmas": True,
            "flow_shift": getattr(pipe.scheduler, "shift", before.get("flow_shift", 1.0)),
        }
    if row.clips and row.name != DEFAULT and "clip_sample" not in before:
        settings["clip_sample"] = False
    return settings


def carried(scheduler: Any) -> dict[str, Any]:
    """Return a scheduler's configuration as it is in force, for one made from it.

    Diffusers leaves out values that no file named, though a pipeline may have corrected them when
    it was loaded.
    """
    return {
        name: value for name, value in scheduler.config.items() if name != "_use_default_values"
    }


def _made(pipe: Any, row: SchedulerRow, cls: Any, config: dict[str, Any]) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of deprecated settings that a user asked for by name
            made = cls.from_config(carried(pipe.scheduler) | config)
    except Exception as error:
        raise SchedulerError(
            f"Scheduler {row.name!r} cannot be made from this pipeline's configuration: "
            f"{brief(error)}"
        ) from None
    if hasattr(made, "set_shift") and hasattr(pipe.scheduler, "shift") and "shift" not in config:
        made.set_shift(pipe.scheduler.shift)  # it may have been set on the object
    return made


def _spaced(row: SchedulerRow, cls: Any, spacing: str) -> dict[str, Any]:
    """Return the configuration that spaces a solver's timesteps."""
    key, value = SPACINGS[spacing]
    if key in inspect.signature(cls.__init__).parameters:
        return {key: value}
    raise SchedulerError(
        f"Scheduler {row.name!r} cannot space its timesteps by {spacing!r}. "
        f"These can: {', '.join(_taking(key, '__init__'))}."
    )


def _taking(parameter: str, function: str) -> list[str]:
    """Return the schedulers a function of whose class takes a parameter, few-step ones aside."""
    import diffusers

    return [
        name
        for name, row in SCHEDULERS.items()
        if not row.few_steps
        and parameter
        in inspect.signature(getattr(getattr(diffusers, row.class_name), function)).parameters
    ]


def _split(
    row: SchedulerRow, cls: Any, parameters: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the call arguments and the configuration keys among parameters."""
    known = inspect.signature(cls.__init__).parameters
    call: dict[str, Any] = dict(row.call_defaults)
    config: dict[str, Any] = {}
    for key, value in parameters.items():
        if key in row.call_arguments:
            call[key] = _typed(row, key, value, row.call_arguments[key])
            if not 0 <= call[key] <= 1:
                raise ParameterError(
                    f"Expected {key} of scheduler {row.name!r} between 0 and 1, got {value}."
                )
        elif key in known and key != "self":
            config[key] = _typed(row, key, value, _kind(known[key]))
        else:
            keys = [key for key in known if key not in ("self", "args", "kwargs")]
            names = [*row.call_arguments, *keys]
            raise ParameterError(unknown(f"parameter of scheduler {row.name!r}", key, names))
    return call, config


def _kind(parameter: inspect.Parameter) -> Any:
    """Return the type of a configuration key: its default's, or what is written beside None.

    A key that is None by default may be a number, text, or nothing; diffusers writes `bool` beside
    some of its numbers. What takes a list or a function takes no value here.
    """
    if parameter.default is not None:
        return type(parameter.default)
    kinds = get_args(parameter.annotation) or (parameter.annotation,)
    if any(kind in (int, float, bool) for kind in kinds):
        return float | None
    if any(kind is str or get_origin(kind) is Literal for kind in kinds):
        return parameter.annotation
    return None


def _typed(row: SchedulerRow, key: str, value: Any, kind: Any) -> Any:
    value = None if kind is not str and value == "none" else value
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        raise ParameterError(
            f"Parameter {key!r} of scheduler {row.name!r}: {error.errors()[0]['msg']}, "
            f"got {value!r}."
        ) from None


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
    """
    from diffusers.schedulers import AysSchedules

    if type(pipe).__name__ not in TABLES:
        raise SchedulerError(
            "Align Your Steps has tables for Stable Diffusion 1.5 and SDXL, "
            f"not for {type(pipe).__name__}. Leave --timesteps out."
        )
    if getattr(pipe.scheduler.config, "prediction_type", "epsilon") != "epsilon":
        raise SchedulerError(
            "Align Your Steps has no table for this model, which predicts v. Leave --timesteps out."
        )
    if "timesteps" not in inspect.signature(pipe.scheduler.set_timesteps).parameters:
        able = [
            each
            for each in _taking("timesteps", "set_timesteps")
            if SCHEDULERS[each].takes("noise")
        ]
        raise SchedulerError(
            f"Scheduler {name!r} takes no list of timesteps. These do: {', '.join(able)}."
        )
    table: list[int] = AysSchedules[TABLES[type(pipe).__name__]]
    return list(table) if steps == len(table) else _interpolated(pipe.scheduler, table, steps)


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
