"""Methods as families over the parameter that trades fidelity and time for diversity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from eddy_bench.errors import EddyError
from eddy_bench.methods.base import Method
from eddy_bench.methods.registry import load_method


def families_of(labels: Sequence[str], baseline: str) -> dict[str, list[str]]:
    """Return the labels of each method without its strength, by rising strength.

    The baseline comes first in each; negative strengths are a family of their own.
    """
    families: dict[str, list[str]] = {}
    for label in labels:
        if label != baseline:
            method, parameters = _parsed(label)
            dial = _dial(method)
            rest = ",".join(f"{key}={text}" for key, text in parameters.items() if key != dial)
            name = f"{method}:{rest}" if rest else method
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
    method, parameters = _parsed(label)
    dial = _dial(method)
    try:
        if dial in parameters:
            return float(parameters[dial])
        cls = load_method(method)
    except (ValueError, EddyError):  # of another version, or a plug-in that is not installed
        return float("inf")
    defaults: dict[str, Any] = {field.name: field.default for field in fields(cls)}
    default = defaults.get(dial, float("inf"))
    kernel = parameters.get("kernel", getattr(cls, "preferred_kernel", ""))
    return float(cls.strengths.get(kernel, float("inf")) if default is None else default)


def strength_text(label: str) -> str:
    """Return the strength as the label names it; empty for the default."""
    method, parameters = _parsed(label)
    return parameters.get(_dial(method), "")


def _parsed(label: str) -> tuple[str, dict[str, str]]:
    """Return the method and the parameters of a label, as score files write them."""
    method, _, text = label.partition(":")
    parts = (part.partition("=") for part in text.split(",") if part)
    return method, {key: value for key, _, value in parts}


def _dial(method: str) -> str:
    """Return the parameter that is turned up; of methods that are not known, the usual one."""
    try:
        return str(load_method(method).dial)
    except EddyError:
        return Method.dial
