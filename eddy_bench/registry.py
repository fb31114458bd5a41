"""Names to objects: built-in methods, models and metrics, entry points, and `./file.py:Name` plug-ins. Nothing is imported until asked for."""

from __future__ import annotations

import importlib
import importlib.util
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from eddy_bench.errors import EddyError, ParameterError, UnknownName, brief, unknown

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
}
METHOD_GROUP = "eddy_bench.methods"


def load_object(target: str) -> Any:
    """The object that `module:name` stands for."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


def is_file_plugin(name: str) -> bool:
    """Whether a method's name is `path.py:Name`."""
    return ".py:" in name


def method_names() -> list[str]:
    """Every registered method, built-in ones first."""
    return [*METHODS, *sorted({point.name for point in entry_points(group=METHOD_GROUP)} - METHODS.keys())]


def load_method(name: str) -> type[Any]:
    """The class of a method.

    Args:
        name: a registered name, or `path/to/file.py:Class`.

    Raises:
        UnknownName: no such method. ParameterError: a plug-in that cannot be imported or is not a method.

    """
    if is_file_plugin(name):
        return _checked(_load_file(name), name)
    if name in METHODS:
        cls: type[Any] = load_object(METHODS[name])
        return cls
    for point in entry_points(group=METHOD_GROUP):
        if point.name == name:
            try:
                return _checked(point.load(), name)
            except EddyError:
                raise
            except Exception as error:
                raise ParameterError(f"The entry point {name!r} cannot be loaded: {type(error).__name__}: {brief(error)}") from None
    raise UnknownName(unknown("method", name, method_names()))


def _load_file(name: str) -> Any:
    path, _, attribute = name.rpartition(":")
    file = Path(path)
    if not file.is_file():
        raise ParameterError(f"Expected a Python file in --method {name}, but {path} is not there.")
    spec = importlib.util.spec_from_file_location(f"eddy_bench_plugin_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise ParameterError(f"Expected a Python file in --method {name}, but {path} cannot be imported.")
    module = importlib.util.module_from_spec(spec)
    try:
        importlib.import_module("sys").modules[spec.name] = module  # dataclasses look their module up
        spec.loader.exec_module(module)
    except Exception as error:
        raise ParameterError(f"{path} cannot be imported: {type(error).__name__}: {brief(error)}") from None
    if not hasattr(module, attribute):
        raise UnknownName(unknown(f"name in {path}", attribute, [n for n in vars(module) if not n.startswith("_")]))
    return getattr(module, attribute)


def _checked(found: Any, name: str) -> type[Any]:
    base = load_object("eddy_bench.methods.base:Method")
    if not (isinstance(found, type) and issubclass(found, base)):
        raise ParameterError(f"Expected {name} to be a subclass of eddy_bench.Method, got {found!r}.")
    return found
