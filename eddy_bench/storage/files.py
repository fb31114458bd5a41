"""Files that anyone may have made, read within bounds; files that are replaced in one step."""

from __future__ import annotations

import codecs
import itertools
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any
from zipfile import is_zipfile

import numpy as np
import yaml
from numpy.typing import NDArray
from PIL import Image

from eddy_bench.errors import EddyError, StoreError, brief, why
from eddy_bench.storage.paths import is_remote, open_file, replacing

# The most of each thing that is made: counted before it is made, so that a slip costs one line.
MAX_VALUES = 1_000_000  # of a YAML file, with its aliases and merged keys written out
MAX_DIGITS = 300  # of a number in YAML
MAX_COLUMNS = 10_000  # of a table
MAX_PROMPTS = 1_000_000
MAX_METHODS = 1_000  # of a suite, its grids written out
MAX_CHECKS = 1_000  # of a gate
MAX_CANDIDATES = 10_000  # images that a method draws of one prompt
MAX_GROUPS = 1_000_000  # methods x prompts x seeds
MAX_PAIRS = 1_000_000  # of images to vote on, over all shuffles
MAX_NAME = 1_000  # characters of a metric with its parameters
MAX_PIXELS = 2**26  # 8192 x 8192, the largest size that is drawn
Pairs = list[tuple[str, Any]]
_HALVES = re.compile(r"\\u[dD][89a-fA-F]")


def refuse_more(
    factors: Iterable[int], most: int, what: str, cure: str, error: type[EddyError]
) -> None:
    """Raise `error` where a product is larger than what may be made of it.

    Args:
        factors: of the product.
        most: that may be made.
        what: is made, with where it is from, as "groups".
        cure: what to do.
    """
    count = 1
    for factor in factors:
        count *= factor
        if count > most:  # before the product itself grows beyond all bounds
            many = f"{count:,}" if count < 10**18 else "more than a trillion"
            raise error(f"Expected at most {most:,} {what}, got {many}. {cure}")


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
        events = yaml.parse(text, Loader=loader)  # counted before one of them is made
        values = (event for event in events if isinstance(event, yaml.NodeEvent))
        if next(itertools.islice(values, MAX_VALUES, None), None) is not None:
            raise ValueError(f"more than {MAX_VALUES} values")
    node: yaml.Node | None = yaml.compose(text, Loader=loader)
    return node


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
    """Read a file as UTF-8, or UTF-16 with its mark; raises `error` where that cannot be done.

    Args:
        path: of the file.
        error: its class.
        what: the file is, as "a suite".
        limit: bytes at most.
    """
    content = read_bytes(path, error, what, limit)
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as problem:
        raise error(
            f"{path} is not UTF-{16 if wide else 8} text (byte {problem.start}). Save it as UTF-8."
        ) from None


def read_bytes(path: Path, error: type[EddyError], what: str, limit: int) -> bytes:
    """Read a file as `read_text`, never more of it than its limit: a pipe has no size to ask."""
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
    """Parse text as YAML: no tags that make objects, no key twice in a mapping."""
    return parse_yaml_lines(path, text, error)[0]


def parse_yaml_lines(path: Path, text: str, error: type[EddyError]) -> tuple[Any, yaml.Node | None]:
    """Parse text as `parse_yaml`, and return its nodes too, which know their lines."""
    try:
        node = _nodes(text)
        data = None if node is None else _Loader("").construct_document(node)
        if _size(data, {}) > MAX_VALUES:
            raise ValueError(f"more than {MAX_VALUES} values, aliases written out")
        return data, node
    # the last three are of values that YAML promises and Python refuses
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as problem:
        line = getattr(getattr(problem, "problem_mark", None), "line", None)
        where = "" if line is None else f", line {line + 1}"
        raise error(
            f"{path}{where}: not valid YAML: "
            f"{getattr(problem, 'problem', None) or brief(problem, 120)}."
        ) from None


def _size(data: Any, known: dict[int, int], above: tuple[int, ...] = ()) -> int:
    """Return how many values a structure has when its aliases are written out."""
    if not isinstance(data, (dict, list)):
        return 1
    if id(data) in above:
        raise ValueError("a value that holds itself")
    if id(data) not in known:
        parts = [*data, *data.values()] if isinstance(data, dict) else data
        known[id(data)] = 1 + sum(_size(part, known, (*above, id(data))) for part in parts)
    return known[id(data)]


def parse_json(text: str | bytes, pairs: Callable[[Pairs], Any] | None = None) -> Any:
    """Parse text as JSON; raises ValueError where it is none, or nested too deeply.

    pairs: makes a mapping of its pairs; without it, of a key that stands twice the last is taken.
    """
    try:
        return json.loads(text, object_pairs_hook=pairs)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_yaml(path: Path, error: type[EddyError], what: str, limit: int) -> Any:
    """Read a file as YAML: `read_text`, then `parse_yaml`."""
    return parse_yaml(path, read_text(path, error, what, limit), error)


def check_writable(path: Path) -> None:
    """Make the folder of a file that is written later; raises StoreError where it cannot be."""
    if is_remote(path):
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {why(error)}.") from None


def write_text(path: Path, text: str) -> None:
    """Replace a file in one step; raises StoreError where the folder cannot be written."""
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


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Read the arrays of a file, by name; ours are not compressed, so they take its bytes at most.

    What is no such file raises one of numpy's many exceptions. Nothing in it is run.
    """
    with open_file(path) as file:
        size = file.seek(0, os.SEEK_END)
        if not is_zipfile(file):
            raise ValueError("it is no file of arrays")
        file.seek(0)
        with np.load(file, allow_pickle=False) as data:
            if sum(part.file_size for part in data.zip.infolist()) > size:
                raise ValueError("it unpacks to more than its own size")
            return {name: data[name] for name in data.files}


def open_picture(source: Path | IO[bytes], formats: tuple[str, ...]) -> Image.Image:
    """Read a picture whole; its header is looked at before room is made for its pixels.

    Args:
        source: a path or an open file.
        formats: of Pillow's that are taken; those that call other programs never are.

    Raises:
        ValueError: it is no such picture, is damaged, or is larger than any that is drawn.
    """
    Image.init()
    try:
        with Image.open(source, formats=[name for name in formats if name in Image.OPEN]) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels; at most {MAX_PIXELS:,}")
            image.load()
    except Exception as error:  # each format has its own, and memory may end
        text = re.sub(r" <\S+ object at 0x\w+>", "", brief(error, 160))
        raise ValueError(f"{type(error).__name__}: {text}") from None
    return image
