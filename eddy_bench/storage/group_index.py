"""Which groups of a run folder are finished: a log that only grows, so that a run need not read every group again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from eddy_bench.errors import StoreError, why
from eddy_bench.storage.files import parse_json, write_text
from eddy_bench.storage.paths import Files, is_remote


@dataclass(frozen=True)
class Entry:
    """A finished group. place: its folder below the samples. key: the group's. sizes: bytes of each of its files."""

    place: str
    key: str
    sizes: Mapping[str, int]

    def is_whole(self, files: Files, particles: int) -> bool:
        """Whether its files are there in their sizes. files: those below the samples. particles: of the group."""
        names = {"group.json", *(f"{k}.png" for k in range(particles))}
        return self.sizes.keys() == names and all(
            files.size(f"{self.place}/{name}") == size for name, size in self.sizes.items()
        )


@dataclass
class Index:
    """`samples.jsonl` of a run folder: one line per finished group; a later line of the same place replaces an earlier one.

    It is a convenience: what it lacks is read from the groups themselves, a line that was cut off is passed over, and removing the file loses nothing.
    Remote files cannot grow: there the log is written anew whenever it is a tenth longer, and at `flush`.
    """

    path: Path
    waiting: int = 0
    lines: list[str] | None = None

    def read(self) -> dict[str, Entry]:
        """Entries by place."""
        found: dict[str, Entry] = {}
        for line in self._read():
            try:
                data = parse_json(line)
                entry = Entry(
                    str(data["place"]),
                    str(data["key"]),
                    {str(name): int(size) for name, size in data["sizes"].items()},
                )
            except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
                continue
            found[entry.place] = entry
        return found

    def add(self, entries: Iterable[Entry], at_once: bool = False) -> None:
        """Append entries, each whole line at once; at_once: also where files cannot grow.

        Raises:
            StoreError: the folder cannot be written.

        """
        lines = [
            json.dumps({"place": one.place, "key": one.key, "sizes": dict(one.sizes)})
            for one in entries
        ]
        if not lines:
            return
        if is_remote(self.path):
            self.lines = self._read() if self.lines is None else self.lines
            self.lines += lines
            self.waiting += len(lines)
            if at_once or self.waiting >= max(100, len(self.lines) // 10):
                self.flush()
            return
        try:
            with self.path.open("ab") as file:
                if file.tell() and not self._ends_a_line():
                    file.write(b"\n")  # what was cut off stays a line of its own
                file.write("".join(f"{line}\n" for line in lines).encode())
        except OSError as error:
            raise StoreError(
                f"{self.path} cannot be written: {why(error)}. Finished groups are kept; run again to go on."
            ) from None

    def flush(self) -> None:
        """Write what a remote log still lacks."""
        if self.waiting and self.lines is not None:
            write_text(self.path, "".join(f"{line}\n" for line in self.lines))
            self.waiting = 0

    def _read(self) -> list[str]:
        try:
            return self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return []

    def _ends_a_line(self) -> bool:
        with self.path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"

    def forget(self) -> None:
        """Remove the log: the next run reads every group itself."""
        self.lines, self.waiting = None, 0
        with suppress(OSError):  # of a folder that cannot be written
            self.path.unlink(missing_ok=True)
