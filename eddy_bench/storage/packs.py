"""Packs: up to 1,000 finished groups in one Parquet file, which takes the place of their folders.

A row is a group: its place below the samples, its key, its group.json and its images, byte for
byte. Packs are never changed: of a group that stands in several, the last pack counts, and a
folder counts before any pack.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from eddy_bench.errors import StoreError, brief, counted, why
from eddy_bench.storage.paths import Files, in_order, is_remote, open_file, replacing

PACK_GROUPS = 1000
PACK_BYTES = 2**28  # of images; larger groups make packs of fewer
BLOCK_GROUPS, BLOCK_BYTES = 100, 2**20  # that are read together
BLOCKS_KEPT = 128  # in memory: packs are sorted, so that a pass in order reads each block once
PATTERN = "pack-*.parquet"
_NAME = re.compile(r"pack-(\d+)-of-(\d+)-groups?\.parquet")


class PackRow(NamedTuple):
    """A group as a pack holds it: `place` is its folder below the samples."""

    place: str
    key: str
    record: bytes
    images: list[bytes]

    @property
    def size(self) -> int:
        """Bytes of its images."""
        return sum(map(len, self.images))


@dataclass(frozen=True, eq=False)
class Pack:
    """A pack as it was listed once. counts: how many groups each block holds."""

    path: Path
    counts: list[int]


@dataclass(frozen=True, slots=True)
class PackedGroup:
    """Where a group stands: a row of a block of a pack."""

    pack: Pack
    block: int
    row: int
    key: str

    def record(self) -> bytes:
        """Return the bytes of group.json; raises OSError where they cannot be read."""
        content: bytes = self._value("record")
        return content

    def images(self) -> list[bytes]:
        """Return the image files in order; raises OSError where they cannot be read."""
        contents: list[bytes] = self._value("images")
        return contents

    def _value(self, name: str) -> Any:
        # images of a group that is alone in its block may be large, and come once
        kept = name != "images" or self.pack.counts[self.block] > 1
        values = (_column if kept else _column.__wrapped__)(self.pack, self.block, name)
        if self.row >= len(values) or values[self.row] is None:
            raise OSError(f"no {name}")
        return values[self.row]


@dataclass(frozen=True)
class GroupFiles:
    """Where the groups of a run stand: files of folders, and rows of packs by their places.

    broken: packs that cannot be read, and why.
    """

    folders: Files
    packed: Mapping[str, PackedGroup]
    broken: Mapping[Path, str]

    def size(self, name: str) -> int | None:
        """See `Files`: of a file in a group's folder."""
        return self.folders.size(name)

    def in_pack(self, place: str) -> PackedGroup | None:
        """Return where a group stands in a pack; None where a folder holds it, or nothing does."""
        packed = self.packed.get(place)
        return packed if packed and self.size(f"{place}/group.json") is None else None

    def places(self) -> dict[str, PackedGroup | None]:
        """Return all groups by their places, in order, with where those in packs stand."""
        names = self.folders.names("*/*/*/group.json")
        loose = dict.fromkeys(name.removesuffix("/group.json") for name in names)
        both: dict[str, PackedGroup | None] = {**self.packed, **loose}
        return {place: both[place] for place in in_order(both)} if self.packed else both


def read_packs(samples: Path, files: Files) -> GroupFiles:
    """List the packs below the samples; raises StoreError where the disk, or the net, fails."""
    packed: dict[str, PackedGroup] = {}
    broken: dict[Path, str] = {}
    for name in files.names(PATTERN):
        path = samples / name
        try:
            packed.update(_listed(path))
        except Exception as error:  # pyarrow has many
            if isinstance(error, OSError) and error.errno:
                raise StoreError(f"{path} cannot be read: {why(error)}.") from None
            count = counted(count_of(path), "group") if count_of(path) else "a pack"
            broken[path] = f"{path} ({count}) is broken: {brief(error, 160).rstrip('.')}"
    return GroupFiles(files, packed, broken)


def count_of(path: Path) -> int:
    """Return how many groups a pack holds, by its name; 0 where that does not say it."""
    match = _NAME.fullmatch(path.name)
    return int(match[2]) if match else 0


def _listed(path: Path) -> Iterator[tuple[str, PackedGroup]]:
    """Yield the rows of a pack by their places; whatever is wrong with it is raised first."""
    with _opened(path, checked=True) as file:
        rows, said = file.metadata.num_rows, count_of(path)
        if not 0 < rows <= PACK_GROUPS or (said and rows != said):
            raise ValueError(f"expected {said or f'1 to {PACK_GROUPS}'} groups, found {rows}")
        counts = [file.metadata.row_group(k).num_rows for k in range(file.num_row_groups)]
        table = file.read(columns=["place", "key"])
        places, keys = (table.column(name).to_pylist() for name in ("place", "key"))
    if None in places or None in keys or not len(set(places)) == sum(counts) == rows:
        raise ValueError("its rows are no groups")
    pack = Pack(path, counts)
    numbers = ((block, row) for block, count in enumerate(counts) for row in range(count))
    for place, key, (block, row) in zip(places, keys, numbers, strict=True):
        yield place, PackedGroup(pack, block, row, key)


@lru_cache(maxsize=BLOCKS_KEPT)
def _column(pack: Pack, block: int, name: str) -> list[Any]:
    """Return a block's values. Images have hashes of their own: one that is damaged is alone."""
    try:
        with _opened(pack.path, checked=name != "images") as file:
            values: list[Any] = file.read_row_group(block, columns=[name]).column(0).to_pylist()
    except OSError:
        raise
    except Exception as error:  # pyarrow has many
        raise OSError(f"{type(error).__name__}: {brief(error, 160)}") from None
    return values


@contextmanager
def _opened(path: Path, checked: bool) -> Iterator[Any]:
    """Open a pack. checked: compare what is read with its checksums."""
    import pyarrow.parquet as pq

    with open_file(path) as source:
        yield pq.ParquetFile(source, page_checksum_verification=checked)


def write_pack(samples: Path, files: Files, rows: Sequence[PackRow]) -> Path:
    """Write a pack whole or not at all, and have it on the disk; raises StoreError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [
            ("place", pa.string()),
            ("key", pa.string()),
            ("record", pa.binary()),
            ("images", pa.list_(pa.binary())),
        ]
    )
    numbers = [int(match[1]) for name in files.names(PATTERN) if (match := _NAME.match(name))]
    name = f"pack-{max(numbers, default=0) + 1:06d}-of-{counted(len(rows), 'group')}.parquet"
    path = samples / name.replace(" ", "-")
    try:
        with replacing(path) as written:
            with pq.ParquetWriter(
                written,
                schema,
                compression={"place": "zstd", "record": "zstd"},
                use_dictionary=False,
                write_statistics=False,
                write_page_checksum=True,
            ) as writer:
                for block in filled(rows, BLOCK_GROUPS, BLOCK_BYTES):
                    columns = dict(zip(PackRow._fields, zip(*block, strict=True), strict=True))
                    writer.write_table(pa.table(columns, schema=schema))
            _sync(written, os.O_RDWR)
        if not is_remote(path):
            with suppress(OSError):  # some systems, and file systems, open no folder
                _sync(samples, os.O_RDONLY)
    except OSError as error:
        raise StoreError(
            f"{path} cannot be written: {why(error)}. "
            "Its groups stay in their folders; run again to go on."
        ) from None
    return path


def filled(rows: Iterable[PackRow], most: int, size: int) -> Iterator[list[PackRow]]:
    """Cut rows into lists of at most so many groups and bytes of images; each has one at least."""
    part: list[PackRow] = []
    left = size
    for row in rows:
        if part and (len(part) == most or row.size > left):
            yield part
            part, left = [], size
        part.append(row)
        left -= row.size
    if part:
        yield part


def _sync(path: Path, flags: int) -> None:
    """Have a file, or a folder's names, on the disk."""
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
