"""Sampling methods: building one from a name and parameters."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from eddy_bench.errors import EddyError, ParameterError, brief, unknown
from eddy_bench.methods.base import Method
from eddy_bench.registry import METHODS, is_file_plugin, load_method
from eddy_bench.suite import Named


def build_method(spec: Named) -> Method:
    """The method that `name:key=value,...` stands for.

    Raises:
        UnknownName: no such method. ParameterError: no such parameter, a wrong type, or a value out of range.

    """
    cls = load_method(spec.name)
    known = [item.name for item in fields(cls)]
    for key in spec.parameters:
        if key not in known:
            if not known:
                raise ParameterError(f"Method {spec.name!r} takes no parameters, got {key!r}.")
            raise ParameterError(unknown(f"parameter of method {spec.name!r}", key, known))
    try:
        method: Method = cls(**{key: None if value == "none" else value for key, value in spec.parameters.items()})
    except EddyError:
        raise
    except Exception as error:
        raise ParameterError(f"Method {spec.name!r} cannot be made: {type(error).__name__}: {brief(error)}") from None
    return method


def method_name(spec: Named) -> str:
    """The name in tables and folders; a plug-in never takes a registered one."""
    if not is_file_plugin(spec.name):
        return _safe(spec.name)
    path, _, name = spec.name.rpartition(":")
    return _safe(f"{Path(path).stem}.{name}" if name.lower() in METHODS else name)


def _safe(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in name).lstrip(".") or "method"


def source_digest(spec: Named) -> str:
    """sha256 of a plug-in's file; empty for registered methods, whose version is the package's."""
    return hashlib.sha256(Path(spec.name.rpartition(":")[0]).read_bytes()).hexdigest() if is_file_plugin(spec.name) else ""


def changed_parameters(method: Method) -> dict[str, Any]:
    """The parameters that differ from the defaults."""
    return {item.name: getattr(method, item.name) for item in fields(method) if getattr(method, item.name) != item.default}


def parameter_text(method: Method) -> str:
    """`key=value,...` of the parameters that differ from the defaults."""
    return ",".join(f"{key}={value}" for key, value in changed_parameters(method).items())


def method_label(spec: Named, method: Method) -> str:
    """The folder of a method's samples: its name, and a short hash of its parameters where they are not the defaults."""
    changed, source = changed_parameters(method), source_digest(spec)
    name = method_name(spec)
    if not changed and not source:
        return name
    return f"{name}-{hashlib.sha256(json.dumps([changed, source], sort_keys=True, default=str).encode()).hexdigest()[:8]}"
