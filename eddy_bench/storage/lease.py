"""Let one process at a time into a folder that no system can lock, by a note that it renews."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eddy_bench.errors import StoreError, why
from eddy_bench.storage.files import parse_json, write_text
from eddy_bench.storage.paths import read_many, remove_file

BEAT = 15.0  # seconds between renewals
EXPIRY = 60.0  # seconds without a renewal after which an owner counts as dead
SETTLE = 2.0  # seconds in which two that came at once see each other


@dataclass
class Lease:
    """Hold a remote folder by a note: who holds it, and a count that rises while it does.

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

    def take(self, wait: Callable[[float], Any] = time.sleep) -> None:
        """Become the owner, after a dead one has been silent for `EXPIRY` seconds.

        Raises:
            StoreError: another process is at work there.

        """
        seen, silent = self.read(), 0.0
        if seen and not _is_gone(seen):
            print(
                f"{self.path.parent} is held by {_owner(seen)}; "
                f"looking for up to {EXPIRY:.0f} s whether it is alive.",
                file=sys.stderr,
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
        """Let others in, once nothing renews any more."""
        try:
            if self.read().get("token") == self.token:
                remove_file(self.path)
        except (OSError, StoreError):
            return  # it ends by itself

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
        write_text(
            self.path,
            json.dumps(
                {
                    "token": self.token,
                    "count": self.count,
                    "pid": os.getpid(),
                    "host": socket.gethostname(),
                    "space": _space(),
                }
            ),
        )

    def in_use(self, owner: dict[str, Any]) -> StoreError:
        """Return the error that names the owner."""
        return StoreError(
            f"{self.path.parent} is in use by {_owner(owner)}. "
            "Wait until it ends, or take another folder."
        )


def _now() -> float:
    """Return seconds of a clock that is never set, and that goes on during sleep where it can."""
    return (
        time.clock_gettime(time.CLOCK_BOOTTIME)
        if hasattr(time, "CLOCK_BOOTTIME")
        else time.monotonic()
    )


def _owner(data: dict[str, Any]) -> str:
    return (
        f"process {data['pid']} on {data['host']}"
        if "pid" in data and "host" in data
        else "another process"
    )


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
    if (
        not owner.get("space")
        or owner.get("space") != _space()
        or not isinstance(owner.get("pid"), int)
    ):
        return False
    return not is_alive(owner["pid"])


def is_alive(process: int) -> bool:
    """Return whether a process of this machine is at work, as far as that can be told."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def refuse_held(path: Path) -> None:
    """Raise StoreError where a living process holds the lease of a folder that is only read."""
    lease = Lease(path)
    owner = lease.read()
    if owner and not _is_gone(owner):
        raise lease.in_use(owner)


@contextmanager
def leased(folder: Path) -> Iterator[Callable[[], None]]:
    """Hold a remote run folder.

    Yields a function that raises StoreError once the folder is another process's.

    Raises:
        StoreError: another process holds it (the message says which, and where), or the folder
            cannot be written.

    """
    lease = Lease(folder / ".lease")
    lease.take()
    lease.renewed = _now()
    thread = threading.Thread(target=lease.keep, daemon=True)
    thread.start()
    try:
        yield lease.check
    finally:
        lease.ended.set()
        thread.join()
        lease.give_back()
