"""One process at a time in a run folder."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from eddy_bench.errors import StoreError, why
from eddy_bench.lease import leased
from eddy_bench.places import is_remote

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]


@contextmanager
def locked(folder: Path) -> Iterator[Callable[[], None]]:
    """Hold a run folder; on this machine the system lets go of it when the process ends, however it ends; a remote one is leased.

    Yields a function that raises StoreError once another process holds the folder.

    Raises:
        StoreError: another process holds it (says which, and where), or the folder cannot be written.

    """
    if is_remote(folder):
        with leased(folder) as check:
            yield check
        return
    path = folder / ".lock"
    try:
        file = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise StoreError(f"{folder} cannot be written: {why(error)}. Give another --out.") from None
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
        yield lambda: None
