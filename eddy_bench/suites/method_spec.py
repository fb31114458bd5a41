"""A method or a scheduler with its parameters, as users write it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from eddy_bench.errors import ParameterError
from eddy_bench.storage.files import MAX_METHODS, refuse_more

INDENT = "  "  # of the lines on which a long name goes on


def is_file_plugin(name: str) -> bool:
    """Return whether a method's name is `path.py:Name`."""
    return ".py:" in name


class MethodSpec(BaseModel):
    """A name with parameters: a method or a scheduler, `name:key=value,...` on the command line."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    parameters: dict[str, Any] = Field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `name`, `name:key=value,...` or `file.py:Name[:key=value,...]`.

        >>> MethodSpec.parse("pg:strength=2,kernel=features").parameters
        {'strength': '2', 'kernel': 'features'}

        Raises:
            ParameterError: the text between two commas is not `key=value`, or a key comes twice.
        """
        name, rest = _split_name(text)
        parameters: dict[str, Any] = {}
        for part in filter(None, rest.split(",")):
            key, equals, value = (piece.strip() for piece in part.partition("="))
            if not equals or not key or not value:
                raise ParameterError(f"Expected key=value after {name!r}, got {part!r}.")
            if key in parameters:
                raise ParameterError(f"Parameter {key!r} of {name!r} is given twice.")
            parameters[key] = value
        return cls(name=name.strip(), parameters=parameters)

    @classmethod
    def of_label(cls, label: str) -> Self:
        """Read a method's label of a score file, whatever it holds.

        >>> MethodSpec.of_label("pg (mine):strength=2,odd").parameters
        {'strength': '2'}
        """
        name, rest = _split_name(label)
        pairs = (part.partition("=") for part in rest.split(","))
        return cls(name=name, parameters={key: value for key, equals, value in pairs if equals})

    def __str__(self) -> str:
        """Return the text as on the command line.

        >>> str(MethodSpec(name="pg", parameters={"strength": 2, "window": None}))
        'pg:strength=2,window=none'
        """
        if not self.parameters:
            return self.name
        pairs = (
            f"{key}={'none' if value is None else value}" for key, value in self.parameters.items()
        )
        return f"{self.name}:{','.join(pairs)}"


def _split_name(text: str) -> tuple[str, str]:
    """Return the name and the text of the parameters; a plug-in's name has a colon of its own."""
    if is_file_plugin(text):
        path, _, tail = text.partition(".py:")
        name, _, rest = tail.partition(":")
        return f"{path}.py:{name}", rest
    name, _, rest = text.partition(":")
    return name, rest


def name_parts(name: str) -> list[str]:
    """Return the parts of a method's name that are not torn where there is room for them.

    >>> name_parts("pg:strength=2,kernel=features")
    ['pg:', 'strength=2,', 'kernel=features']
    """
    return re.findall(r"[^:,]*[:,]|[^:,]+", name)


def folded(name: str, width: float, measure: Callable[[str], float] = len) -> list[str]:
    """Return a method's name in lines that end behind a colon or a comma, the first the leftmost.

    Nothing is left out: a part that is wider than a line by itself goes on in the next one.

    Args:
        name: as `method_text` gives it.
        width: of a line.
        measure: the width of a text.

    >>> folded("pg:strength=2,kernel=features", 20)
    ['pg:strength=2,', '  kernel=features']
    """
    lines = [""]
    for part in name_parts(name):
        if lines[-1].strip() and measure(lines[-1] + part) > width:
            lines.append(INDENT)
        for letter in part:
            if lines[-1].strip() and measure(lines[-1] + letter) > width:
                lines.append(INDENT)
            lines[-1] += letter
    return lines


def expand(spec: MethodSpec) -> list[MethodSpec]:
    """Return a method for each combination of a grid's values: `a|b|c`, or a list in YAML.

    >>> [str(method) for method in expand(MethodSpec.parse("pg:strength=1|2"))]
    ['pg:strength=1', 'pg:strength=2']

    Raises:
        ParameterError: a grid has an empty value, or too many combinations.
    """
    grids = {key: _grid(value) for key, value in spec.parameters.items()}
    if any(part == "" for values in grids.values() for part in values) or not all(grids.values()):
        raise ParameterError(
            f"Expected values with | between them in {str(spec)[:80]!r}, got an empty one."
        )
    cure = "Give fewer values, or several suites."
    sizes = [len(values) for values in grids.values()]
    refuse_more(sizes, MAX_METHODS, f"methods of {spec.name}'s grid", cure, ParameterError)
    return [
        MethodSpec(name=spec.name, parameters=dict(zip(grids, values, strict=True)))
        for values in itertools.product(*grids.values())
    ]


def _grid(value: Any) -> list[Any]:
    if isinstance(value, list):
        return value
    if isinstance(value, str) and "|" in value:
        return [part.strip() for part in value.split("|")]
    return [value]
