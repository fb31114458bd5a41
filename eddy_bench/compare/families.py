"""Methods as families over the parameter that trades fidelity and time for diversity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from eddy_bench.errors import EddyError
from eddy_bench.methods.base import Method
from eddy_bench.methods.registry import load_method
from eddy_bench.suites.method_spec import MethodSpec


def families_of(labels: Sequence[str], baseline: str) -> dict[str, list[str]]:
    """Return the labels of each method without its strength, by rising strength.

    The baseline comes first in each; negative strengths are a family of their own.
    """
    families: dict[str, list[str]] = {}
    for label in labels:
        if label != baseline:
            spec = MethodSpec.of_label(label)
            dial = _dial(spec.name)
            others = {key: value for key, value in spec.parameters.items() if key != dial}
            name = str(MethodSpec(name=spec.name, parameters=others))
            name = f"{name} (negative)" if strength_of(label) < 0 else name
            families.setdefault(name, []).append(label)
    return {
        name: [baseline, *sorted(members, key=lambda label: abs(strength_of(label)))]
        for name, members in families.items()
    }


def strength_of(label: str) -> float:
    """Return the strength of a method, its default where none is named.

    It is infinite for methods without one.

    >>> strength_of("pg"), strength_of("pg:strength=0.5"), strength_of("iid")
    (3.0, 0.5, inf)
    """
    spec = MethodSpec.of_label(label)
    dial = _dial(spec.name)
    try:
        if dial in spec.parameters:
            return float(spec.parameters[dial])
        cls = load_method(spec.name)
    except (ValueError, EddyError):  # of another version, or a plug-in that is not installed
        return float("inf")
    defaults: dict[str, Any] = {field.name: field.default for field in fields(cls)}
    default = defaults.get(dial, float("inf"))
    if isinstance(default, str):  # a range, as interval's
        return float("inf")
    if default is not None:
        return float(default)
    kernel = spec.parameters.get("kernel", getattr(cls, "preferred_kernel", ""))
    relative = spec.parameters.get("scale", "relative") == "relative"
    tuned = {**getattr(cls, "strengths", {}), **(getattr(cls, "shares", {}) if relative else {})}
    return float(tuned.get(kernel, float("inf")))


def strength_text(label: str) -> str:
    """Return the strength as the label names it; empty for the default."""
    spec = MethodSpec.of_label(label)
    return str(spec.parameters.get(_dial(spec.name), ""))


def _dial(method: str) -> str:
    """Return the parameter that is turned up; of methods that are not known, the usual one."""
    try:
        return str(load_method(method).dial)
    except EddyError:
        return Method.dial
