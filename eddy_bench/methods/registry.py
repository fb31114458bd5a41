"""Methods by name: built-in ones, entry points, plug-ins `./file.py:Name`; imported on demand."""

from __future__ import annotations

import hashlib
import importlib
import json
from dataclasses import fields
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from eddy_bench.errors import EddyError, ParameterError, UnknownName, brief, unknown
from eddy_bench.methods.base import Method
from eddy_bench.storage.paths import safe_name
from eddy_bench.suites.method_spec import MethodSpec, is_file_plugin
from eddy_bench.suites.plugins import (
    Permission,
    file_digest,
    load_from_entry_point,
    load_from_file,
)

METHODS = {
    "iid": "eddy_bench.methods.iid:Iid",
    "repulsion": "eddy_bench.methods.repulsion:Repulsion",
    "pg": "eddy_bench.methods.pg:ParticleGuidance",
    "eddy-exact": "eddy_bench.methods.eddy:EddyExact",
    "eddy-fd": "eddy_bench.methods.eddy:EddyFd",
    "eddy-hutch": "eddy_bench.methods.eddy:EddyHutch",
    "antithetic": "eddy_bench.methods.couplings:Antithetic",
    "lhs": "eddy_bench.methods.couplings:Lhs",
    "sobol": "eddy_bench.methods.couplings:Sobol",
    "coupled": "eddy_bench.methods.coupled:Coupled",
    "best-of-m": "eddy_bench.methods.best_of_m:BestOfM",
    "group-inference": "eddy_bench.methods.group_inference:GroupInference",
    "interval": "eddy_bench.methods.interval:Interval",
    "guidance-schedule": "eddy_bench.methods.guidance_schedule:GuidanceSchedule",
    "cads": "eddy_bench.methods.cads:Cads",
    "spell": "eddy_bench.methods.spell:Spell",
    "diverseflow": "eddy_bench.methods.diverseflow:DiverseFlow",
    "rke": "eddy_bench.methods.rke:Rke",
    "vendi-guidance": "eddy_bench.methods.vendi_guidance:VendiGuidance",
    "pink-noise": "eddy_bench.methods.pink_noise:PinkNoise",
    "tsr": "eddy_bench.methods.tsr:Tsr",
    "apg": "eddy_bench.methods.apg:Apg",
    "cno": "eddy_bench.methods.cno:Cno",
    "oscar": "eddy_bench.methods.oscar:Oscar",
    "restart": "eddy_bench.methods.restart:Restart",
    "dave": "eddy_bench.methods.dave:Dave",
}
METHOD_GROUP = "eddy_bench.methods"


def method_names() -> list[str]:
    """Return every registered method, built-in ones first."""
    return [
        *METHODS,
        *sorted({point.name for point in entry_points(group=METHOD_GROUP)} - METHODS.keys()),
    ]


def load_method(name: str, permission: Permission | None = None) -> type[Any]:
    """Return the class of a method.

    Args:
        name: a registered name, or `path/to/file.py:Class`.
        permission: to run a file; None where the name is from a file.

    Raises:
        UnknownName: no such method.
        ParameterError: a plug-in that may not be run, cannot be imported or is not a method.
    """
    if is_file_plugin(name):
        return _checked(load_from_file(name, "--method", permission), name)
    if name in METHODS:
        module, _, attribute = METHODS[name].partition(":")
        cls: type[Any] = getattr(importlib.import_module(module), attribute)
        return cls
    for point in entry_points(group=METHOD_GROUP):
        if point.name == name:
            return _checked(load_from_entry_point(point), name)
    raise UnknownName(unknown("method", name, method_names()))


def _checked(plugin: Any, name: str) -> type[Any]:
    if not (isinstance(plugin, type) and issubclass(plugin, Method)):
        raise ParameterError(
            f"Expected {name} to be a subclass of eddy_bench.Method, got {plugin!r}."
        )
    return plugin


def build_method(spec: MethodSpec, permission: Permission | None = None) -> Method:
    """Build the method that `name:key=value,...` stands for.

    Args:
        spec: of the method.
        permission: to run a file; None where the name is from a file.

    Raises:
        UnknownName: no such method.
        ParameterError: no such parameter, a wrong type, or a value out of range; or as
            `load_method`.
    """
    cls = load_method(spec.name, permission)
    known = [field.name for field in fields(cls)]
    for key in spec.parameters:
        if key not in known:
            if not known:
                raise ParameterError(f"Method {spec.name!r} takes no parameters, got {key!r}.")
            raise ParameterError(unknown(f"parameter of method {spec.name!r}", key, known))
    try:
        method: Method = cls(
            **{key: None if value == "none" else value for key, value in spec.parameters.items()}
        )
    except EddyError:
        raise
    except Exception as error:
        raise ParameterError(
            f"Method {spec.name!r} cannot be made: {type(error).__name__}: {brief(error)}"
        ) from None
    return method


def method_name(spec: MethodSpec) -> str:
    """Return the name in tables and folders; a plug-in never takes a registered one."""
    if not is_file_plugin(spec.name):
        return safe_name(spec.name, "method")
    path, _, name = spec.name.rpartition(":")
    return safe_name(f"{Path(path).stem}.{name}" if name.lower() in METHODS else name, "method")


def source_digest(spec: MethodSpec) -> str:
    """Return the sha256 of a plug-in's file.

    It is empty for registered methods, whose version is the package's.
    """
    return file_digest(spec.name) if is_file_plugin(spec.name) else ""


def changed_parameters(method: Method) -> dict[str, Any]:
    """Return the parameters that differ from the defaults."""
    return {
        field.name: getattr(method, field.name)
        for field in fields(method)
        if getattr(method, field.name) != field.default
    }


def parameter_text(method: Method) -> str:
    """Return `key=value,...` of the parameters that differ from the defaults."""
    return ",".join(f"{key}={value}" for key, value in changed_parameters(method).items())


def method_label(spec: MethodSpec, method: Method) -> str:
    """Return the folder of a method's samples.

    It is the method's name, and a short hash of its parameters where they are not the defaults.
    """
    changed, source = changed_parameters(method), source_digest(spec)
    name = method_name(spec)
    if not changed and not source:
        return name
    text = json.dumps([changed, source], sort_keys=True, default=str)
    return f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
