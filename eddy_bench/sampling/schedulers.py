"""Put a scheduler into a pipeline by name, from the pipeline's own configuration."""

from __future__ import annotations

import inspect
import warnings
from dataclasses import replace
from typing import Any

from pydantic import TypeAdapter, ValidationError

from eddy_bench.errors import ParameterError, SchedulerError, UnknownName, brief, unknown
from eddy_bench.sampling.align_your_steps import aligned_timesteps
from eddy_bench.sampling.parameterization import check_scheduler
from eddy_bench.sampling.scheduler_table import DEFAULT, SCHEDULERS, SchedulerRow, row_of

SPACINGS = {
    "karras": "use_karras_sigmas",
    "exponential": "use_exponential_sigmas",
    "beta": "use_beta_sigmas",
}


def is_flow(scheduler: Any) -> bool:
    """Return whether the model behind a scheduler is a flow model."""
    return (
        row_of(scheduler).reading == "flow"
        or getattr(scheduler.config, "prediction_type", "") == "flow_prediction"
    )


def set_scheduler(
    pipe: Any, name: str, parameters: dict[str, Any], spacing: str = "default", steps: int = 0
) -> dict[str, Any]:
    """Put a scheduler into a pipeline.

    Args:
        pipe: any pipeline.
        name: a key of `SCHEDULERS`, or `default` for the pipeline's own.
        parameters: `eta` for DDIM, and any configuration key of the scheduler's class.
        spacing: of the timesteps: `default`, `karras`, `exponential`, `beta`, or `ays` (Align Your
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
    if spacing in SPACINGS:
        config |= _sigma_spacing(row, cls, spacing)
    free = name == DEFAULT or getattr(pipe, "any_prediction", False)
    _check_model(pipe, row, spacing, free)
    pipe.scheduler = _made(pipe, row, cls, _settings(pipe, row, free) | config)
    check_scheduler(pipe.scheduler)
    if spacing == "ays":
        call["timesteps"] = aligned_timesteps(pipe, row.name, steps)
    return call


def _chosen(pipe: Any, name: str) -> tuple[SchedulerRow, Any]:
    """Return the row and the class of a name; the pipeline's own scheduler keeps its settings."""
    import diffusers

    if name == DEFAULT:
        check_scheduler(pipe.scheduler)
        return replace(row_of(pipe.scheduler), settings={}), type(pipe.scheduler)
    if name not in SCHEDULERS:
        raise UnknownName(unknown("scheduler", name, [*SCHEDULERS, DEFAULT]))
    return SCHEDULERS[name], getattr(diffusers, SCHEDULERS[name].class_name)


def _check_model(pipe: Any, row: SchedulerRow, spacing: str, free: bool) -> None:
    """Raise SchedulerError where the pipeline's model cannot be solved so.

    Args:
        free: the scheduler fits in any case: the pipeline's own, or one for any prediction.

    """
    flow = is_flow(pipe.scheduler)
    if not free and not row.takes(flow):
        kind = "a flow model" if flow else "a noise-predicting model"
        able = sorted(name for name, entry in SCHEDULERS.items() if entry.takes(flow))
        raise SchedulerError(
            f"{type(pipe).__name__} is {kind} and cannot take scheduler {row.name!r}. "
            f"Use one of: {', '.join(able)}."
        )
    if flow and spacing in SPACINGS and row.reading != "flow":
        raise SchedulerError(
            f"Scheduler {row.name!r} cannot space the timesteps of a flow model by {spacing!r}. "
            "Leave --timesteps out, or use flow-euler."
        )


def _settings(pipe: Any, row: SchedulerRow, free: bool) -> dict[str, Any]:
    """Return the configuration that makes a scheduler fit the pipeline's model."""
    before, settings = dict(pipe.scheduler.config), dict(row.settings)
    if is_flow(pipe.scheduler) and row.reading != "flow" and not free:
        settings |= {
            "prediction_type": "flow_prediction",
            "use_flow_sigmas": True,
            "flow_shift": before.get("shift", before.get("flow_shift", 1.0)),
        }
    if row.clips and "clip_sample" not in before:
        settings["clip_sample"] = False
    return settings


def _made(pipe: Any, row: SchedulerRow, cls: Any, config: dict[str, Any]) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of deprecated settings that a user asked for by name
            return cls.from_config(pipe.scheduler.config, **config)
    except Exception as error:
        raise SchedulerError(
            f"Scheduler {row.name!r} cannot be made from this pipeline's configuration: "
            f"{brief(error)}"
        ) from None


def _sigma_spacing(row: SchedulerRow, cls: Any, spacing: str) -> dict[str, bool]:
    """Return the configuration key that spaces a solver's noise levels."""
    import diffusers

    key = SPACINGS[spacing]
    if key in inspect.signature(cls.__init__).parameters:
        return {key: True}
    able = [
        name
        for name, entry in SCHEDULERS.items()
        if key in inspect.signature(getattr(diffusers, entry.class_name).__init__).parameters
    ]
    raise SchedulerError(
        f"Scheduler {row.name!r} cannot space its timesteps by {spacing!r}. "
        f"These can: {', '.join(able)}."
    )


def _split(
    row: SchedulerRow, cls: Any, parameters: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the call arguments and the configuration keys among parameters."""
    known = inspect.signature(cls.__init__).parameters
    call: dict[str, Any] = {}
    config: dict[str, Any] = {}
    for key, value in parameters.items():
        if key in row.call_arguments:
            call[key] = _share(row, key, value)
        elif key in known and key != "self":
            default = known[key].default
            kind = str if default in (None, inspect.Parameter.empty) else type(default)
            config[key] = _typed(row, key, value, kind)
        else:
            keys = [key for key in known if key not in ("self", "args", "kwargs")]
            names = [*row.call_arguments, *keys]
            raise ParameterError(unknown(f"parameter of scheduler {row.name!r}", key, names))
    return call, config


def _share(row: SchedulerRow, key: str, value: Any) -> Any:
    """Return a call argument, which lies between 0 and 1."""
    share = _typed(row, key, value, row.call_arguments[key])
    if not 0 <= share <= 1:
        raise ParameterError(
            f"Expected {key} of scheduler {row.name!r} between 0 and 1, got {value}."
        )
    return share


def _typed(row: SchedulerRow, key: str, value: Any, kind: type) -> Any:
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        raise ParameterError(
            f"Parameter {key!r} of scheduler {row.name!r}: {error.errors()[0]['msg']}, "
            f"got {value!r}."
        ) from None
