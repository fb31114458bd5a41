"""One process at a time in a run folder."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from eddy_bench.errors import StoreError

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run folder; the system lets go of it when the process ends, however it ends.

    Raises:
        StoreError: another process holds it (says which, and where), or the folder cannot be written.

    """
    path = folder / ".lock"
    try:
        file = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise StoreError(f"{folder} cannot be written: {error.strerror}. Give another --out.") from None
    with file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.seek(0)
                owner = file.read(200).strip() or "another process"
                raise StoreError(f"{folder} is in use by {owner}. Wait until it ends, or give another --out.") from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield
