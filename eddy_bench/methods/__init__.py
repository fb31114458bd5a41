"""Sampling methods: building one from a name and parameters."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields
from typing import Any

from eddy_bench.errors import ParameterError, unknown
from eddy_bench.methods.base import Method
from eddy_bench.registry import is_file_plugin, load_method
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
    method: Method = cls(**{key: None if value == "none" else value for key, value in spec.parameters.items()})
    return method


def method_name(spec: Named, method: Method) -> str:
    """The name in tables and folders."""
    name = spec.name.rpartition(":")[2] if is_file_plugin(spec.name) else spec.name
    return "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in name).lstrip(".") or "method"


def changed_parameters(method: Method) -> dict[str, Any]:
    """The parameters that differ from the defaults."""
    return {item.name: getattr(method, item.name) for item in fields(method) if getattr(method, item.name) != item.default}


def parameter_text(method: Method) -> str:
    """`key=value,...` of the parameters that differ from the defaults."""
    return ",".join(f"{key}={value}" for key, value in changed_parameters(method).items())


def method_label(spec: Named, method: Method) -> str:
    """The folder of a method's samples: its name, and a short hash of its parameters where they are not the defaults."""
    changed = changed_parameters(method)
    name = method_name(spec, method)
    if not changed:
        return name
    return f"{name}-{hashlib.sha256(json.dumps(changed, sort_keys=True).encode()).hexdigest()[:8]}"
