"""A log of finished groups that only grows, so that a run need not read every group again."""

from __future__ import annotations

import itertools
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from eddy_bench.errors import StoreError, why
from eddy_bench.storage.files import parse_json, write_text
from eddy_bench.storage.links import open_own
from eddy_bench.storage.paths import Files, is_remote, remove_file

WRITTEN_TOGETHER = 10_000  # lines


@dataclass(frozen=True, slots=True)
class Entry:
    """Hold one finished group.

    path: its folder below the samples.
    key: the group's.
    sizes: bytes of each of its files.
    """

    path: str
    key: str
    sizes: Mapping[str, int]

    def is_whole(self, files: Files, particles: int) -> bool:
        """Return whether the group's files are there in their sizes.

        Args:
            files: those below the samples.
            particles: of the group.

        """
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

        Raises:
            StoreError: the folder cannot be written.

        """
        lines = (
            json.dumps({"place": entry.path, "key": entry.key, "sizes": dict(entry.sizes)})
            for entry in entries
        )
        while part := list(itertools.islice(lines, WRITTEN_TOGETHER)):
            if is_remote(self.path):
                self._keep(part, at_once)
            else:
                self._append(part)

    def _keep(self, lines: list[str], at_once: bool) -> None:
        """Add lines to a log that cannot grow, and write it when enough of them wait."""
        self.lines = list(self._lines()) if self.lines is None else self.lines
        self.lines += lines
        self.waiting += len(lines)
        if at_once or self.waiting >= max(100, len(self.lines) // 10):
            self.flush()

    def _append(self, lines: list[str]) -> None:
        try:
            with open(self.path, "ab", opener=open_own) as file:
                if file.tell() and not self._ends_a_line():
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

    def _ends_a_line(self) -> bool:
        with self.path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"

    def forget(self) -> None:
        """Remove the log: the next run reads every group itself."""
        self.lines, self.waiting = None, 0
        with suppress(OSError):  # of a folder that cannot be written
            remove_file(self.path)
