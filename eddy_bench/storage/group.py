"""Groups on disk: planned grids, finished groups with their images, and what identifies them."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from PIL import Image
from pydantic import ValidationError

from eddy_bench.errors import StoreError, brief, why
from eddy_bench.storage.files import parse_json
from eddy_bench.storage.group_index import Entry, GroupIndex
from eddy_bench.storage.paths import read_many
from eddy_bench.storage.pictures import open_picture
from eddy_bench.storage.records import Fault, FileInfo, Group, GroupRecord

PNG_LEVEL = 1
NONE_BAD: Mapping[int, Fault] = MappingProxyType({})  # one for all groups without any
FORMAT = 1  # of what a group's key covers; changes when the same inputs give other images


@dataclass(frozen=True)
class GroupGrid:
    """Hold the groups that a command set out to draw.

    They are those of each of `labels` with each of `prompts` (ids) and each seed below `seeds`.
    """

    labels: list[str]
    prompts: list[str]
    seeds: int

    @property
    def count(self) -> int:
        """How many groups there are."""
        return len(self.labels) * len(self.prompts) * max(0, self.seeds)

    def paths(self) -> set[str]:
        """Return the groups' folders below the samples."""
        return {
            f"{label}/{prompt}/{seed}"
            for label in self.labels
            for prompt in self.prompts
            for seed in range(self.seeds)
        }


@dataclass(frozen=True, slots=True)
class FinishedGroup:
    """Hold a group on disk: the group, its cost per image, its files by name, and as GroupRecord.

    bad: images that are none. judge: of images by their prompt, while drawing.
    """

    group: Group
    folder: Path
    cost: Mapping[str, float] = field(default_factory=dict)
    files: Mapping[str, FileInfo] = field(default_factory=dict)
    bad: Mapping[int, Fault] = field(default_factory=lambda: NONE_BAD)
    judge: str = ""

    @property
    def place(self) -> tuple[str, int]:
        """Return the prompt's id and the seed."""
        return self.group.prompt_id, self.group.seed

    @property
    def fingerprint(self) -> str:
        """Return a hash of the images, under which features of them are kept."""
        hashes = "".join(info.sha256 for info in self.files.values())
        return hashlib.sha256(hashes.encode()).hexdigest()

    def contents(self) -> list[bytes]:
        """Return the image files in order, checked against their hashes.

        Raises:
            StoreError: a file is missing or was changed.

        """
        try:
            contents = read_many([self.folder / name for name in self.files])
        except OSError as error:
            self._doubt()
            raise StoreError(
                f"{error.filename or self.folder} cannot be read: {why(error)}. "
                "Run again to redraw it."
            ) from None
        for content, (name, expected) in zip(contents, self.files.items(), strict=True):
            if hashlib.sha256(content).hexdigest() != expected.sha256:
                self._doubt()
                raise StoreError(
                    f"{self.folder / name} was changed after it was drawn. Run again to redraw it."
                )
        return contents

    def _doubt(self) -> None:
        """Let the next run look at these files, which the index takes for whole."""
        index = GroupIndex(self.folder.parents[2].with_suffix(".jsonl"))
        with suppress(StoreError):  # of a folder that cannot be written
            index.add([Entry(self.group.path.as_posix(), "", {})], at_once=True)

    def images(self) -> list[Image.Image]:
        """Return the particles in order.

        Raises:
            StoreError: as of `contents`, or a file is no image.

        """
        contents = self.contents()
        try:
            images = [open_picture(io.BytesIO(content), ("PNG",)) for content in contents]
            if len({image.size for image in images}) > 1:
                raise ValueError("of several sizes")
        except ValueError as error:
            self._doubt()
            raise StoreError(
                f"{self.folder} holds no pictures: {brief(error).rstrip('.')}. "
                "Remove it, and run again to redraw it."
            ) from None
        return images


def parse_group(text: bytes, path: Path) -> GroupRecord:
    """Parse a group.json.

    Args:
        text: of the file.
        path: the group's folder below the samples, which the group must name itself.

    Raises:
        ValueError: it is no group.json, or one of another path.

    """
    data = parse_json(text)
    try:
        record = GroupRecord.model_validate(data)
    except ValidationError as error:
        field_name = (error.errors()[0]["loc"] or ("",))[0]
        problem = {
            "files": "files differ from group.json",
            "cost": "cost in group.json is not numbers",
        }
        if not isinstance(data, dict) or not isinstance(data.get(str(field_name)), dict):
            problem = {}
        raise ValueError(problem.get(str(field_name), "group.json is not a group's")) from None
    group = record.group
    if (group.label, group.prompt_id, str(group.seed)) != path.parts:
        raise ValueError(f"group.json is that of {group.path.as_posix()}")
    names = [f"{particle}.png" for particle in range(len(record.files))]
    if not 1 <= group.particles == len(record.files) or list(record.files) != names:
        raise ValueError("files differ from group.json")
    if any(place >= group.particles for place in record.bad):
        raise ValueError("group.json calls images bad that there are not")
    return record


def finished_of(record: GroupRecord, folder: Path) -> FinishedGroup:
    """Return the group of a group.json that stands in a folder."""
    bad = record.bad or NONE_BAD
    return FinishedGroup(record.group, folder, record.cost, record.files, bad, record.judge)


def group_key(**parts: Any) -> str:
    """Return a sha256 of everything that determines a group's images."""
    text = json.dumps({"format": FORMAT, **parts}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def png_bytes(image: Image.Image | bytes) -> bytes:
    """Return an image as PNG; bytes are PNG already.

    The first level of compression takes about a quarter of the usual level's time, for a fifth
    more bytes.
    """
    if isinstance(image, bytes):
        return image
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=PNG_LEVEL)
    return buffer.getvalue()


def entry_of(finished: FinishedGroup, size: int) -> Entry:
    """Return a finished group's line in the index. size: bytes of its group.json."""
    sizes = {name: info.size for name, info in finished.files.items()}
    return Entry(finished.group.path.as_posix(), finished.group.key, {**sizes, "group.json": size})
