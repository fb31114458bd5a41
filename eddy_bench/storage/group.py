"""Groups: the unit of work, of retry and of statistics; and groups that are finished."""

from __future__ import annotations

import hashlib
import io
import json
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from PIL import Image

from eddy_bench.errors import StoreError, why
from eddy_bench.storage.files import parse_json
from eddy_bench.storage.group_index import Entry, Index
from eddy_bench.storage.paths import read_many

FORMAT = 1  # of what a group's key covers; changes when the same inputs give other images


@dataclass(frozen=True)
class Group:
    """One (method, prompt, seed) with its N particles: the unit of work, of retry and of statistics.

    label: the method's folder. parameters: `key=value,...` that differ from the defaults. kernel: as resolved. key: a hash of everything that determines the images.
    """

    method: str
    label: str
    parameters: str
    kernel: str
    prompt_id: str
    prompt: str
    seed: int
    particles: int
    key: str

    @property
    def place(self) -> Path:
        """Its folder below `samples/`."""
        return Path(self.label, self.prompt_id, str(self.seed))


@dataclass(frozen=True)
class GroupGrid:
    """Groups that a command set out to draw: each of `labels` with each of `prompts` (ids) and each seed below `seeds`."""

    labels: list[str]
    prompts: list[str]
    seeds: int

    def places(self) -> set[str]:
        """Their places below the samples."""
        return {
            f"{label}/{prompt}/{seed}"
            for label in self.labels
            for prompt in self.prompts
            for seed in range(self.seeds)
        }


@dataclass(frozen=True)
class FinishedGroup:
    """A group on disk: the group, its cost per image, and the names, sizes and hashes of its files."""

    group: Group
    folder: Path
    cost: dict[str, float] = field(default_factory=dict)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """A hash of its images, under which features of them are kept."""
        return hashlib.sha256(
            "".join(str(info["sha256"]) for info in self.files.values()).encode()
        ).hexdigest()

    def contents(self) -> list[bytes]:
        """The image files in order, checked against their hashes.

        Raises:
            StoreError: a file is missing or was changed.

        """
        try:
            found = read_many([self.folder / name for name in self.files])
        except OSError as error:
            self._doubt()
            raise StoreError(
                f"{error.filename or self.folder} cannot be read: {why(error)}. Run again to redraw it."
            ) from None
        for data, (name, expected) in zip(found, self.files.items(), strict=True):
            if hashlib.sha256(data).hexdigest() != expected["sha256"]:
                self._doubt()
                raise StoreError(
                    f"{self.folder / name} was changed after it was drawn. Run again to redraw it."
                )
        return found

    def _doubt(self) -> None:
        """Let the next run look at these files, which the index takes for whole."""
        with suppress(StoreError):  # of a folder that cannot be written
            Index(self.folder.parents[2].with_suffix(".jsonl")).add(
                [Entry(self.group.place.as_posix(), "", {})], at_once=True
            )

    def images(self) -> list[Image.Image]:
        """The particles in order; raises as `contents` does."""
        found = self.contents()
        try:
            pictures: list[Image.Image] = [Image.open(io.BytesIO(data)) for data in found]
            for picture in pictures:
                picture.load()
            if len({picture.size for picture in pictures}) > 1:
                raise ValueError("of several sizes")
        except (OSError, ValueError, SyntaxError) as error:
            self._doubt()
            raise StoreError(
                f"{self.folder} holds no pictures: {type(error).__name__}. Remove it, and run again to redraw it."
            ) from None
        return pictures


def parse_group(
    text: bytes, place: Path
) -> tuple[Group, dict[str, dict[str, Any]], dict[str, float]]:
    """What a group.json holds: the group, its files by name, and its cost.

    Args:
        place: its folder below the samples, which the group must name itself.

    Raises:
        ValueError: it is no group.json, or one of another place.

    """
    data = parse_json(text)
    if not isinstance(data, dict) or not all(
        isinstance(data.get(name), dict) for name in ("group", "files", "cost")
    ):
        raise ValueError("group.json is not a group's")
    own, files, cost = data["group"], data["files"], data["cost"]
    numbers = ("seed", "particles")
    if own.keys() != {one.name for one in fields(Group)} or any(
        type(value) is not (int if name in numbers else str) for name, value in own.items()
    ):
        raise ValueError("group.json is not a group's")
    json.dumps(own, ensure_ascii=False).encode()  # halves of surrogate pairs are no text
    group = Group(**own)
    if (group.label, group.prompt_id, str(group.seed)) != place.parts:
        raise ValueError("group.json is another group's")
    if (
        not 1 <= group.particles == len(files)
        or list(files) != [f"{k}.png" for k in range(len(files))]
        or not all(map(_is_file, files.values()))
    ):
        raise ValueError("files differ from group.json")
    if not all(type(value) in (int, float) and not abs(value) > 1e300 for value in cost.values()):
        raise ValueError("cost in group.json is not numbers")
    return group, files, cost


def _is_file(info: Any) -> bool:
    return (
        isinstance(info, dict)
        and type(info.get("size")) is int
        and isinstance(info.get("sha256"), str)
    )


def group_key(**parts: Any) -> str:
    """sha256 of everything that determines a group's images."""
    return hashlib.sha256(
        json.dumps({"format": FORMAT, **parts}, sort_keys=True, default=str).encode()
    ).hexdigest()


def png_bytes(image: Image.Image | bytes) -> bytes:
    """An image as PNG; bytes are PNG already."""
    if isinstance(image, bytes):
        return image
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def entry_of(found: FinishedGroup, size: int) -> Entry:
    """A finished group's line in the index. size: bytes of its group.json."""
    sizes = {name: int(info["size"]) for name, info in found.files.items()}
    return Entry(found.group.place.as_posix(), found.group.key, {**sizes, "group.json": size})
