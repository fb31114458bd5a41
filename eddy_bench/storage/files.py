"""Read files that users write within bounds and without surprises, and write files in one step."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import yaml

from eddy_bench.errors import EddyError, StoreError, brief, why
from eddy_bench.storage.paths import is_remote, replacing

MAX_VALUES = 1_000_000  # of a YAML file


class _Loader(yaml.SafeLoader):
    """YAML's safe subset, in which a key may stand once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [
            key.value
            for key, _ in node.value
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge"
        ]
        twice = next((key for k, key in enumerate(keys) if key in keys[:k]), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {twice!r} stands twice", node.start_mark
            )
        return super().construct_mapping(node, deep)


def read_text(path: Path, error: type[EddyError], what: str, limit: int) -> str:
    """Read a file as text.

    Args:
        path: of the file.
        error: is raised with one line where that cannot be done.
        what: the file is, as "a suite".
        limit: bytes at most.

    """
    try:
        size = path.stat().st_size
        if size > limit:
            raise error(f"{path} has {size} bytes; {what} may have {limit}.")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as problem:
        raise error(f"{path} is not UTF-8 text (byte {problem.start}).") from None
    except OSError as problem:
        raise error(f"{path} cannot be read: {why(problem)}.") from None


def parse_yaml(path: Path, text: str, error: type[EddyError]) -> Any:
    """Parse text as YAML: no tags that make objects, no key twice in a mapping.

    Args:
        path: where it is from, for messages. error: raised where it is no YAML.

    """
    try:
        data = yaml.load(text, Loader=_Loader)
        if _size(data, {}) > MAX_VALUES:
            raise ValueError(f"more than {MAX_VALUES} values, aliases written out")
        return data
    except (
        yaml.YAMLError,
        ValueError,
        TypeError,
        RecursionError,
    ) as problem:  # of values that YAML promises and Python refuses
        line = getattr(getattr(problem, "problem_mark", None), "line", None)
        where = "" if line is None else f", line {line + 1}"
        raise error(
            f"{path}{where}: not valid YAML: "
            f"{getattr(problem, 'problem', None) or brief(problem, 120)}."
        ) from None


def _size(data: Any, known: dict[int, int], above: tuple[int, ...] = ()) -> int:
    """Return how many values a structure has when its aliases are written out.

    Raises:
        ValueError: it holds itself.

    """
    if not isinstance(data, (dict, list)):
        return 1
    if id(data) in above:
        raise ValueError("a value that holds itself")
    if id(data) not in known:
        parts = [*data, *data.values()] if isinstance(data, dict) else data
        known[id(data)] = 1 + sum(_size(part, known, (*above, id(data))) for part in parts)
    return known[id(data)]


def parse_json(text: str | bytes) -> Any:
    """Parse text as JSON.

    Raises:
        ValueError: it is none, or nested too deeply.

    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_yaml(path: Path, error: type[EddyError], what: str, limit: int) -> Any:
    """Read a file as YAML: `read_text`, then `parse_yaml`."""
    return parse_yaml(path, read_text(path, error, what, limit), error)


def check_writable(path: Path) -> None:
    """Make the folder of a file that is written later, and see that it can be.

    Raises:
        StoreError: the folder cannot be made or written.

    """
    if is_remote(path):
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {why(error)}.") from None


def write_text(path: Path, text: str) -> None:
    """Replace a file in one step.

    Raises:
        StoreError: the folder cannot be written.

    """
    try:
        with replacing(path) as file:
            file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {why(error)}.") from None


def listing(folder: Path) -> list[list[Any]]:
    """Return names, sizes and times of the files of a folder, or of a file."""
    paths = sorted(folder.rglob("*")) if folder.is_dir() else [folder]
    files = [(path, path.stat()) for path in paths if path.is_file()]
    return [[str(path), status.st_size, status.st_mtime_ns] for path, status in files]
