"""Let one process at a time into a run folder."""

from __future__ import annotations

import errno
import os
import re
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from eddy_bench.errors import StoreError, why
from eddy_bench.storage.lease import is_alive, leased, refuse_held
from eddy_bench.storage.links import refuse_link, refuse_links
from eddy_bench.storage.paths import is_remote

NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS})


@contextmanager
def locked(folder: Path) -> Iterator[Callable[[], None]]:
    """Hold a run folder until the block, or the process, ends; a remote folder is leased.

    Yields a function that raises StoreError once another process holds the folder.

    Raises:
        StoreError: another process holds it (the message says which, and where), or the folder
            cannot be written.

    """
    if is_remote(folder):
        with leased(folder) as check_ownership:
            yield check_ownership
        return
    refuse_links(folder)
    lock = _acquire(folder)
    try:
        note = f"process {os.getpid()} on {socket.gethostname()}\n"
        (folder / ".lock").write_text(note, encoding="utf-8")
        yield lambda: None
    finally:
        lock.release()


@contextmanager
def unused(folder: Path) -> Iterator[None]:
    """Keep processes that would draw out of a folder that is read; a remote one is only looked at.

    Raises:
        StoreError: another process holds it.

    """
    if is_remote(folder):
        refuse_held(folder / ".lease")
    if is_remote(folder) or not os.access(folder / ".lock", os.W_OK):
        yield  # nobody drew here yet, or this account cannot write to it and hold it
        return
    lock = _acquire(folder)
    try:
        yield
    finally:
        lock.release()


def _acquire(folder: Path) -> FileLock:
    """Lock a folder's `.lock`; where the file system knows no locks, say so and go on without."""
    refuse_link(folder, folder / ".lock")
    lock = FileLock(folder / ".lock", thread_local=False, is_singleton=False)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise StoreError(
            f"{folder} is in use by {_owner(folder)}. Wait until it ends, or take another folder."
        ) from None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise StoreError(
                f"{folder} cannot be written: {why(error)}. Take another folder."
            ) from None
        print(
            f"Note: the file system of {folder} has no locks ({why(error)}). "
            "Let one process at a time work there.",
            file=sys.stderr,
        )
    return lock


def _owner(folder: Path) -> str:
    """Return who holds a folder, as its note says; a reader such as a merge leaves none."""
    note = ""
    with suppress(OSError, UnicodeError):
        note = (folder / ".lock").read_text(encoding="utf-8")[:200].strip()
    process = re.fullmatch(rf"process (\d+) on {re.escape(socket.gethostname())}", note)
    if not note or (process and not is_alive(int(process[1]))):
        return "another process, such as a merge"
    return note
