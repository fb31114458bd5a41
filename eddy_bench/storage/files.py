"""Read files that users write within bounds and without surprises, and write files in one step."""

from __future__ import annotations

import itertools
import json
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from eddy_bench.errors import EddyError, StoreError, brief, why
from eddy_bench.storage.limits import MAX_DIGITS, MAX_VALUES
from eddy_bench.storage.paths import is_remote, open_file, replacing

_HALVES = re.compile(r"\\u[dD][89a-fA-F]")


class _Loader(yaml.SafeLoader):
    """YAML's safe subset, in which a key may stand once and merged keys are counted."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.merged = 0
        self.checked: set[int] = set()

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Write out `<<` in a mapping, no more than `MAX_VALUES` pairs in all."""
        if id(node) not in self.checked:
            self.checked.add(id(node))
            _refuse_repeats(node)
        super().flatten_mapping(node)
        self.merged += len(node.value)
        if self.merged > MAX_VALUES:
            raise ValueError(f"more than {MAX_VALUES} values, merged keys written out")


def _nodes(text: str) -> yaml.Node | None:
    """Return the nodes of a text, by libyaml where it is there: it is ten times as fast.

    It refuses halves of surrogate pairs, which JSON writes.
    """
    fast = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    loader = yaml.SafeLoader if _HALVES.search(text) else fast
    if len(text) > 2 * MAX_VALUES:  # a value takes two characters at least
        _refuse_many(yaml.parse(text, Loader=loader))
    node: yaml.Node | None = yaml.compose(text, Loader=loader)
    return node


def _refuse_many(events: Iterable[yaml.Event]) -> None:
    """Raise ValueError for more values than any file may have, before one of them is made."""
    values = (event for event in events if isinstance(event, yaml.NodeEvent))
    if next(itertools.islice(values, MAX_VALUES, None), None) is not None:
        raise ValueError(f"more than {MAX_VALUES} values")


def _number(loader: _Loader, node: yaml.ScalarNode) -> Any:
    """Read a number; one of base 60 takes time that grows with the square of its digits."""
    if len(node.value) > MAX_DIGITS:
        raise yaml.constructor.ConstructorError(
            None, None, f"a number of more than {MAX_DIGITS} characters", node.start_mark
        )
    return yaml.SafeLoader.yaml_constructors[node.tag](loader, node)


for _tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float"):
    _Loader.add_constructor(_tag, _number)


def _refuse_repeats(node: yaml.MappingNode) -> None:
    """Raise ConstructorError where a key stands twice in a mapping."""
    seen: set[str] = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
            continue
        if key.value in seen:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {key.value!r} stands twice", key.start_mark
            )
        seen.add(key.value)


def read_text(path: Path, error: type[EddyError], what: str, limit: int) -> str:
    """Read a file as text.

    Args:
        path: of the file.
        error: is raised with one line where that cannot be done.
        what: the file is, as "a suite".
        limit: bytes at most.

    """
    try:
        return read_bytes(path, error, what, limit).decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        raise error(f"{path} is not UTF-8 text (byte {problem.start}).") from None


def read_bytes(path: Path, error: type[EddyError], what: str, limit: int) -> bytes:
    """Read a file, never more of it than its limit: what has no end has no size to look at first.

    Args and Raises: as of `read_text`.
    """
    try:
        if not path.is_file() and path.exists():
            there = "a folder" if path.is_dir() else "a device or a pipe"
            raise error(f"Expected {what} at {path}, found {there}.")
        with open_file(path) as file:
            content: bytes = file.read(limit + 1)
    except OSError as problem:
        raise error(f"{path} cannot be read: {why(problem)}.") from None
    if len(content) > limit:
        raise error(f"{path} has more than {limit} bytes, all that {what} may have.")
    return content


def parse_yaml(path: Path, text: str, error: type[EddyError]) -> Any:
    """Parse text as YAML: no tags that make objects, no key twice in a mapping.

    Args:
        path: where it is from, for messages. error: raised where it is no YAML.

    """
    return parse_yaml_lines(path, text, error)[0]


def parse_yaml_lines(path: Path, text: str, error: type[EddyError]) -> tuple[Any, yaml.Node | None]:
    """Parse text as `parse_yaml` does, and return its nodes too, which know their lines."""
    try:
        node = _nodes(text)
        data = None if node is None else _Loader("").construct_document(node)
        if _size(data, {}) > MAX_VALUES:
            raise ValueError(f"more than {MAX_VALUES} values, aliases written out")
        return data, node
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
