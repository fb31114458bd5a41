"""Methods and metrics from elsewhere: `path/to/file.py:Name`, and entry points of packages."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

from eddy_bench.errors import EddyError, ParameterError, UnknownName, brief, unknown


@dataclass(frozen=True)
class Permission:
    """The permission to run the Python files that one source names.

    A person's words make one: `--method`, `--metric`, `--allow-code`, the argument of a check, a
    call from Python. No file that is read can hold one, so that no file can make another one run.
    """


def load_from_file(name: str, flag: str, permission: Permission | None) -> Any:
    """Run a Python file and return what it calls by a name.

    Args:
        name: `path/to/file.py:Name`.
        flag: of the command line, for messages.
        permission: of the source that names the file; None where a file names it.

    Raises:
        ParameterError: there is no permission, or the file is not there or cannot be imported.
        UnknownName: it has no such name.
    """
    path, _, attribute = name.rpartition(":")
    if permission is None:
        raise ParameterError(
            f"{name!r} is a Python file that another file names, so it is not run. "
            f"Name it with {flag}, or add --allow-code to `run` if you trust it."
        )
    file = Path(path)
    if not file.is_file():
        raise ParameterError(f"Expected a Python file in {flag} {name}, but {path} is not there.")
    spec = importlib.util.spec_from_file_location(f"eddy_bench_plugin_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise ParameterError(
            f"Expected a Python file in {flag} {name}, but {path} cannot be imported."
        )
    module = importlib.util.module_from_spec(spec)
    try:
        sys.modules[spec.name] = module  # dataclasses look their module up
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise ParameterError(
            f"{path} cannot be imported: {type(error).__name__}: {brief(error)}"
        ) from None
    if not hasattr(module, attribute):
        names = [name for name in vars(module) if not name.startswith("_")]
        raise UnknownName(unknown(f"name in {path}", attribute, names))
    return getattr(module, attribute)


def load_from_entry_point(point: EntryPoint) -> Any:
    """Return what an installed package registered.

    Raises:
        ParameterError: it cannot be imported.
    """
    try:
        return point.load()
    except EddyError:
        raise
    except (Exception, SystemExit) as error:
        raise ParameterError(
            f"The entry point {point.name!r} cannot be loaded: "
            f"{type(error).__name__}: {brief(error)}"
        ) from None


def file_digest(name: str) -> str:
    """Return the sha256 of the file of `path/to/file.py:Name`."""
    return hashlib.sha256(Path(name.rpartition(":")[0]).read_bytes()).hexdigest()
