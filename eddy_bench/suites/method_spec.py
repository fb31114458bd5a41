"""A method or a scheduler with its parameters, as users write it."""

from __future__ import annotations

import itertools
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from eddy_bench.errors import ParameterError


def is_file_plugin(name: str) -> bool:
    """Whether a method's name is `path.py:Name`."""
    return ".py:" in name


class MethodSpec(BaseModel):
    """A name with parameters: a method or a scheduler, `name:key=value,...` on the command line."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    parameters: dict[str, Any] = Field(default_factory=dict)

    def text(self) -> str:
        """As on the command line."""
        return self.name + (
            ":"
            + ",".join(
                f"{key}={'none' if value is None else value}"
                for key, value in self.parameters.items()
            )
            if self.parameters
            else ""
        )


def parse_named(text: str) -> MethodSpec:
    """`name`, `name:key=value,...` or `file.py:Name[:key=value,...]`.

    >>> parse_named("pg:strength=2,kernel=features").parameters
    {'strength': '2', 'kernel': 'features'}

    Raises:
        ParameterError: something between commas is not `key=value`.

    """
    head, rest = text, ""
    if is_file_plugin(text):
        path, _, tail = text.partition(".py:")
        name, _, rest = tail.partition(":")
        head = f"{path}.py:{name}"
    else:
        head, _, rest = text.partition(":")
    parameters: dict[str, Any] = {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if not equals or not key.strip() or not value.strip():
            raise ParameterError(f"Expected key=value after {head!r}, got {part!r}.")
        if key.strip() in parameters:
            raise ParameterError(f"Parameter {key.strip()!r} of {head!r} is given twice.")
        parameters[key.strip()] = value.strip()
    return MethodSpec(name=head.strip(), parameters=parameters)


def expand(spec: MethodSpec) -> list[MethodSpec]:
    """A method for each combination of the values that are given as a grid: `a|b|c`, or a list in YAML.

    >>> [one.text() for one in expand(parse_named("pg:strength=1|2"))]
    ['pg:strength=1', 'pg:strength=2']
    """
    grids = {
        key: value
        if isinstance(value, list)
        else [part.strip() for part in value.split("|")]
        if isinstance(value, str) and "|" in value
        else [value]
        for key, value in spec.parameters.items()
    }
    if any(part == "" for values in grids.values() for part in values) or not all(grids.values()):
        raise ParameterError(
            f"Expected values with | between them in {spec.text()!r}, got an empty one."
        )
    return [
        MethodSpec(name=spec.name, parameters=dict(zip(grids, values, strict=True)))
        for values in itertools.product(*grids.values())
    ]
