"""Let one process at a time into a run folder: by a lock, remotely by a note that is renewed."""

from __future__ import annotations

import errno
import json
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from eddy_bench.errors import StoreError, why
from eddy_bench.storage.files import parse_json, write_text
from eddy_bench.storage.paths import is_remote, read_many, refuse_link, refuse_links, remove_file

NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS})
BEAT = 15.0  # seconds between renewals
EXPIRY = 60.0  # seconds without a renewal after which an owner counts as dead
SETTLE = 2.0  # seconds in which two that came at once see each other
Tell = Callable[[str], None]  # takes a line for the user


def _silent(text: str) -> None:
    pass


@contextmanager
def locked(folder: Path, tell: Tell = _silent) -> Iterator[Callable[[], None]]:
    """Hold a run folder until the block, or the process, ends; a remote folder is leased.

    Yields a function that raises StoreError once another process holds the folder.

    Raises:
        StoreError: another process holds it (the message says which, and where), or the folder
            cannot be written.
    """
    if is_remote(folder):
        with leased(folder, tell) as check_ownership:
            yield check_ownership
        return
    refuse_links(folder)
    lock = _acquire(folder, tell)
    try:
        note = f"process {os.getpid()} on {socket.gethostname()}\n"
        (folder / ".lock").write_text(note, encoding="utf-8")
        yield lambda: None
    finally:
        lock.release()


@contextmanager
def unused(folder: Path, tell: Tell = _silent) -> Iterator[None]:
    """Keep processes that would draw out of a folder that is read; a remote one is only looked at.

    Raises:
        StoreError: another process holds it.
    """
    if is_remote(folder):
        lease = Lease(folder / ".lease")
        owner = lease.read()
        if owner and not _is_gone(owner):
            raise lease.in_use(owner)
    if is_remote(folder) or not os.access(folder / ".lock", os.W_OK):
        yield  # nobody drew here yet, or this account cannot write to it and hold it
        return
    lock = _acquire(folder, tell)
    try:
        yield
    finally:
        lock.release()


def _acquire(folder: Path, tell: Tell) -> FileLock:
    """Lock a folder's `.lock`; where the file system knows no locks, say so and go on without."""
    refuse_link(folder, folder / ".lock")
    lock = FileLock(folder / ".lock", thread_local=False, is_singleton=False)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise StoreError(
            f"{folder} is in use by {_noted_owner(folder)}. "
            "Wait until it ends, or take another folder."
        ) from None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise StoreError(
                f"{folder} cannot be written: {why(error)}. Take another folder."
            ) from None
        tell(
            f"The file system of {folder} has no locks ({why(error)}). "
            "Let one process at a time work there."
        )
    return lock


def _noted_owner(folder: Path) -> str:
    """Return who holds a folder, as its note says; a reader such as a merge leaves none."""
    note = ""
    with suppress(OSError, UnicodeError):
        note = (folder / ".lock").read_text(encoding="utf-8")[:200].strip()
    process = re.fullmatch(rf"process (\d+) on {re.escape(socket.gethostname())}", note)
    if not note or (process and not _is_alive(int(process[1]))):
        return "another process, such as a merge"
    return note


@dataclass
class Lease:
    """A note in a remote folder: who holds it, and a count that rises while it does.

    Whether an owner lives is told from the rising count alone, so clocks that differ or go back do
    not matter. It is no lock: between reading and writing the note another process may come; both
    look again after `SETTLE` seconds, and the one whose note was replaced gives way.
    """

    path: Path
    token: str = field(default_factory=lambda: uuid.uuid4().hex)
    count: int = 0
    lost: str = ""
    renewed: float = field(default_factory=lambda: _now())
    ended: threading.Event = field(default_factory=threading.Event)

    def take(self, wait: Callable[[float], Any] = time.sleep, tell: Tell = _silent) -> None:
        """Become the owner, after a dead one has been silent for `EXPIRY` seconds.

        Raises:
            StoreError: another process is at work there.
        """
        seen, silent = self.read(), 0.0
        if seen and not _is_gone(seen):
            tell(
                f"{self.path.parent} is held by {_owner(seen)}; "
                f"looking for up to {EXPIRY:.0f} s whether it is alive."
            )
        while seen and not _is_gone(seen) and silent < EXPIRY:
            step = min(BEAT / 3, EXPIRY / 4)
            wait(step)
            now, silent = self.read(), silent + step
            if now and now != seen:
                raise self.in_use(now)
            seen = now
        self._write()
        wait(SETTLE)
        now = self.read()
        if not now:
            raise StoreError(
                f"{self.path.parent} cannot be used: what was written there is not there. "
                "Give another --out."
            )
        if now.get("token") != self.token:
            raise self.in_use(now)
        self.renewed = _now()

    def renew(self) -> None:
        """Raise the count, or notice that the folder was taken by another process."""
        now = self.read()
        if now.get("token") != self.token:
            self.lost = (
                f"{self.path.parent} was taken over by {_owner(now)}: "
                "this process was silent for too long. Finished groups are kept."
            )
            self.ended.set()
        else:
            self.count += 1
            self._write()
            self.renewed = _now()

    def keep(self) -> None:
        """Renew until the end; a renewal that fails is tried again at the next beat."""
        while not self.ended.wait(BEAT):
            with suppress(Exception):  # whatever a file system raises
                self.renew()

    def check(self) -> None:
        """Raise StoreError when another process has taken the folder, or may have by now."""
        if not self.lost and _now() - self.renewed > EXPIRY:
            self.lost = (
                f"{self.path.parent} cannot be held: its lease was not renewed for "
                f"{EXPIRY:.0f} s. Run again to go on."
            )
        if self.lost:
            raise StoreError(self.lost)

    def give_back(self) -> None:
        """Let others in, once nothing renews any more; a lease that stays ends by itself."""
        with suppress(OSError, StoreError):
            if self.read().get("token") == self.token:
                remove_file(self.path)

    def read(self) -> dict[str, Any]:
        """Read the note; empty where there is none."""
        try:
            data = parse_json(read_many([self.path])[0])
        except FileNotFoundError:
            return {}
        except ValueError:
            return {"token": "unreadable"}  # half written, on file systems that show that
        except OSError as error:
            raise StoreError(
                f"{self.path.parent} cannot be read: {why(error)}. Give another --out."
            ) from None
        return data if isinstance(data, dict) else {}

    def _write(self) -> None:
        owner = {"pid": os.getpid(), "host": socket.gethostname(), "space": _space()}
        write_text(self.path, json.dumps({"token": self.token, "count": self.count, **owner}))

    def in_use(self, owner: dict[str, Any]) -> StoreError:
        """Return the error that names the owner."""
        return StoreError(
            f"{self.path.parent} is in use by {_owner(owner)}. "
            "Wait until it ends, or take another folder."
        )


def _now() -> float:
    """Return seconds of a clock that is never set, and that goes on during sleep where it can."""
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boot is None else time.clock_gettime(boot)


def _owner(data: dict[str, Any]) -> str:
    known = "pid" in data and "host" in data
    return f"process {data['pid']} on {data['host']}" if known else "another process"


def _space() -> str:
    """Return what process numbers refer to: the machine since it started, and the container.

    It is empty where the system does not say.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _is_gone(owner: dict[str, Any]) -> bool:
    """Return whether an owner was a process of this machine that has ended."""
    here = owner.get("space") and owner.get("space") == _space()
    return bool(here and isinstance(owner.get("pid"), int) and not _is_alive(owner["pid"]))


def _is_alive(process: int) -> bool:
    """Return whether a process of this machine is at work, as far as that can be told."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


@contextmanager
def leased(folder: Path, tell: Tell = _silent) -> Iterator[Callable[[], None]]:
    """Hold a remote run folder as `locked` does."""
    lease = Lease(folder / ".lease")
    lease.take(tell=tell)
    thread = threading.Thread(target=lease.keep, daemon=True)
    thread.start()
    try:
        yield lease.check
    finally:
        lease.ended.set()
        thread.join()
        lease.give_back()
