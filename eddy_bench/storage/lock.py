"""One process at a time in a run folder."""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from eddy_bench.errors import StoreError, why
from eddy_bench.storage.lease import is_alive, leased, refuse_held
from eddy_bench.storage.paths import is_remote

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]


@contextmanager
def unused(folder: Path) -> Iterator[None]:
    """Keep processes that would draw out of a folder that is read; one at an address is looked at once.

    Raises:
        StoreError: another process holds it.

    """
    path = folder / ".lock"
    if is_remote(folder):
        refuse_held(folder / ".lease")
    if is_remote(folder) or fcntl is None or not path.is_file():
        yield
        return
    with path.open(encoding="utf-8") as file:
        _flock(file, fcntl.LOCK_SH, folder)
        yield


def _flock(file: IO[str], kind: int, folder: Path) -> None:
    """Lock a file, where the file system can, or say who has."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES):
            return
        file.seek(0)
        owner = file.read(200).strip()
        ended = re.fullmatch(rf"process (\d+) on {re.escape(socket.gethostname())}", owner)
        if not owner or (ended and not is_alive(int(ended[1]))):
            owner = "another process, such as a merge"  # which reads and leaves no note
        raise StoreError(
            f"{folder} is in use by {owner}. Wait until it ends, or take another folder."
        ) from None


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
        raise StoreError(
            f"{folder} cannot be written: {why(error)}. Take another folder."
        ) from None
    with file:
        if fcntl is not None:
            _flock(file, fcntl.LOCK_EX, folder)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield lambda: None
