"""Which groups of a run folder are finished: a log that only grows, so that a run need not read every group again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from eddy_bench.errors import StoreError


@dataclass(frozen=True)
class Entry:
    """A finished group. place: its folder below the samples. key: the group's. sizes: bytes of each of its files."""

    place: str
    key: str
    sizes: Mapping[str, int]

    def is_whole(self, samples: str) -> bool:
        """Whether its files are there in their sizes."""
        folder = f"{samples}/{self.place}/"
        try:
            return all(os.stat(folder + name).st_size == size for name, size in self.sizes.items())
        except OSError:
            return False


@dataclass(frozen=True)
class Index:
    """`samples.jsonl` of a run folder: one line per finished group; a later line of the same place replaces an earlier one.

    It is a convenience: what it lacks is read from the groups themselves, a line that was cut off is passed over, and removing the file loses nothing.
    """

    path: Path

    def read(self) -> dict[str, Entry]:
        """Entries by place."""
        found: dict[str, Entry] = {}
        try:
            lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return found
        for line in lines:
            try:
                data = json.loads(line)
                entry = Entry(str(data["place"]), str(data["key"]), {str(name): int(size) for name, size in data["sizes"].items()})
            except (ValueError, TypeError, KeyError, AttributeError):
                continue
            found[entry.place] = entry
        return found

    def add(self, entries: Iterable[Entry]) -> None:
        """Append entries, each whole line at once.

        Raises:
            StoreError: the folder cannot be written.

        """
        text = "".join(json.dumps({"place": one.place, "key": one.key, "sizes": dict(one.sizes)}) + "\n" for one in entries)
        if not text:
            return
        try:
            with self.path.open("ab") as file:
                if file.tell() and not self._ends_a_line():
                    file.write(b"\n")  # what was cut off stays a line of its own
                file.write(text.encode())
        except OSError as error:
            raise StoreError(f"{self.path} cannot be written: {error.strerror}. Finished groups are kept; run again to go on.") from None

    def _ends_a_line(self) -> bool:
        with self.path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"

    def forget(self) -> None:
        """Remove the log: the next run reads every group itself."""
        self.path.unlink(missing_ok=True)
