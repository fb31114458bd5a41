"""Reading files that users write, text within a size and YAML without surprises; and writing files in one step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from eddy_bench.errors import EddyError, StoreError, brief, why
from eddy_bench.places import replacing


class _Loader(yaml.SafeLoader):
    """YAML's safe subset, in which a key may stand once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge"]
        twice = next((key for place, key in enumerate(keys) if key in keys[:place]), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(None, None, f"the key {twice!r} stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


def read_text(path: Path, error: type[EddyError], what: str, limit: int) -> str:
    """A file as text.

    Args:
        error: raised with one line where that cannot be done. what: the file is, as "a suite". limit: bytes at most.

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
    """Text as YAML: no tags that make objects, no key twice in a mapping.

    Args:
        path: where it is from, for messages. error: raised where it is no YAML.

    """
    try:
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as problem:  # of values that YAML promises and Python refuses
        line = getattr(getattr(problem, "problem_mark", None), "line", None)
        where = "" if line is None else f", line {line + 1}"
        raise error(f"{path}{where}: not valid YAML: {getattr(problem, 'problem', None) or brief(problem, 120)}.") from None


def read_yaml(path: Path, error: type[EddyError], what: str, limit: int) -> Any:
    """A file as YAML: `read_text`, then `parse_yaml`."""
    return parse_yaml(path, read_text(path, error, what, limit), error)


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
