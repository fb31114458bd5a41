"""A log of finished groups that only grows, so that a run need not read every group again."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import sys
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from PIL import Image
from pydantic import ValidationError

from eddy_bench.errors import StoreError, brief, why
from eddy_bench.storage.files import open_picture, parse_json, write_text
from eddy_bench.storage.packs import PackedGroup
from eddy_bench.storage.paths import Files, is_remote, open_own, read_many, remove_file
from eddy_bench.storage.records import Fault, FileInfo, Group, GroupRecord

WRITTEN_TOGETHER = 10_000  # lines


@dataclass(frozen=True, slots=True)
class Entry:
    """A finished group's line: its folder below the samples, its key, bytes of each file."""

    path: str
    key: str
    sizes: Mapping[str, int]

    def is_whole(self, files: Files, particles: int) -> bool:
        """Return whether the files of a group of so many particles are there in their sizes."""
        names = {"group.json", *(f"{k}.png" for k in range(particles))}
        return self.sizes.keys() == names and all(
            files.size(f"{self.path}/{name}") == size for name, size in self.sizes.items()
        )


@dataclass
class GroupIndex:
    """Read and grow `samples.jsonl`: a line per finished group, later lines replacing earlier ones.

    The index is a convenience: what it lacks is read from the groups themselves, a line that was
    cut off is passed over, and removing the file loses nothing. Remote files cannot grow: there
    the log is written anew whenever it is a tenth longer, and at `flush`.
    """

    path: Path
    waiting: int = 0
    lines: list[str] | None = None

    def read(self) -> dict[str, Entry]:
        """Return entries by path."""
        entries: dict[str, Entry] = {}
        for line in self._lines():
            try:
                data = parse_json(line)
                entry = Entry(
                    str(data["place"]),
                    str(data["key"]),
                    {sys.intern(name): int(size) for name, size in data["sizes"].items()},
                )
            except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
                continue
            entries[entry.path] = entry
        return entries

    def add(self, entries: Iterable[Entry], at_once: bool = False) -> None:
        """Append entries, each whole line at once.

        Args:
            entries: of finished groups.
            at_once: write at once where files cannot grow, too.
        """
        lines = (
            json.dumps({"place": entry.path, "key": entry.key, "sizes": dict(entry.sizes)})
            for entry in entries
        )
        while part := list(itertools.islice(lines, WRITTEN_TOGETHER)):
            if not is_remote(self.path):
                self._append(part)
                continue
            self.lines = list(self._lines()) if self.lines is None else self.lines
            self.lines += part
            self.waiting += len(part)
            if at_once or self.waiting >= max(100, len(self.lines) // 10):
                self.flush()

    def _append(self, lines: list[str]) -> None:
        try:
            with open(self.path, "ab", opener=open_own) as file:
                if file.tell():
                    with self.path.open("rb") as written:
                        written.seek(-1, os.SEEK_END)
                        whole = written.read(1) == b"\n"
                    if not whole:
                        file.write(b"\n")  # what was cut off stays a line of its own
                file.write("".join(f"{line}\n" for line in lines).encode())
        except OSError as error:
            raise StoreError(
                f"{self.path} cannot be written: {why(error)}. "
                "Finished groups are kept; run again to go on."
            ) from None

    def flush(self) -> None:
        """Write what a remote log still lacks."""
        if self.waiting and self.lines is not None:
            write_text(self.path, "".join(f"{line}\n" for line in self.lines))
            self.waiting = 0

    def _lines(self) -> Iterator[str]:
        """Yield the lines one by one: a large run's index is not held as text."""
        if not self.path.is_file():  # a pipe or a device has no end
            return
        with suppress(OSError), self.path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                yield line.rstrip("\n")

    def drop(self, paths: Container[str]) -> None:
        """Remove the lines of groups that stand in packs now, which are their own index."""
        self.flush()
        kept = [entry for path, entry in self.read().items() if path not in paths]
        self.forget()
        self.add(kept, at_once=True)

    def forget(self) -> None:
        """Remove the log: the next run reads every group itself."""
        self.lines, self.waiting = None, 0
        with suppress(OSError):  # of a folder that cannot be written
            remove_file(self.path)


PNG_LEVEL = 1  # a quarter of the usual level's time, for a fifth more bytes
NONE_BAD: Mapping[int, Fault] = MappingProxyType({})  # one for all groups without any
FORMAT = 1  # of what a group's key covers; changes when the same inputs give other images


@dataclass(frozen=True)
class GroupGrid:
    """The groups that a command set out to draw: `labels` x `prompts` (ids) x range(`seeds`)."""

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
    """A group on disk, with what its GroupRecord holds.

    folder: that of its files; of a packed group the pack, and its place there.
    """

    group: Group
    folder: Path
    cost: Mapping[str, float] = field(default_factory=dict)
    files: Mapping[str, FileInfo] = field(default_factory=dict)
    bad: Mapping[int, Fault] = field(default_factory=lambda: NONE_BAD)
    judge: str = ""
    packed: PackedGroup | None = None

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
        """Return the image files in order; raises StoreError where one is missing or changed."""
        try:
            if self.packed is None:
                contents = read_many([self.folder / name for name in self.files])
            elif len(contents := self.packed.images()) != len(self.files):
                raise OSError(f"{len(contents)} images of {len(self.files)}")
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

    def text(self) -> bytes:
        """Return the bytes of group.json; raises OSError where they cannot be read."""
        if self.packed is not None:
            return self.packed.record()
        return read_many([self.folder / "group.json"])[0]

    def _doubt(self) -> None:
        """Let the next run look at these files, which the index takes for whole."""
        samples = self.folder.parents[2] if self.packed is None else self.packed.pack.path.parent
        with suppress(StoreError):  # of a folder that cannot be written
            index = GroupIndex(samples.with_suffix(".jsonl"))
            index.add([doubt(self.group.path)], at_once=True)

    def images(self) -> list[Image.Image]:
        """Return the particles in order; raises StoreError as `contents`, or for no image."""
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
        ValueError: it is none of this path.
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


def finished_of(
    record: GroupRecord, folder: Path, packed: PackedGroup | None = None
) -> FinishedGroup:
    """Return the group of a group.json that stands in a folder, or in a pack."""
    bad = record.bad or NONE_BAD
    return FinishedGroup(record.group, folder, record.cost, record.files, bad, record.judge, packed)


def group_key(**parts: Any) -> str:
    """Return a sha256 of everything that determines a group's images."""
    text = json.dumps({"format": FORMAT, **parts}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def png_bytes(image: Image.Image | bytes) -> bytes:
    """Return an image as PNG; bytes are PNG already."""
    if isinstance(image, bytes):
        return image
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=PNG_LEVEL)
    return buffer.getvalue()


def doubt(path: Path) -> Entry:
    """Return the line of a group, by its path below the samples, that the next run looks at."""
    return Entry(path.as_posix(), "", {})


def entry_of(finished: FinishedGroup, size: int) -> Entry:
    """Return a finished group's line in the index. size: bytes of its group.json."""
    sizes = {name: info.size for name, info in finished.files.items()}
    return Entry(finished.group.path.as_posix(), finished.group.key, {**sizes, "group.json": size})
