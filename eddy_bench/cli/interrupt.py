"""Ctrl-C and SIGTERM: the first ends in good order, a second one at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

NOTE = "Interrupted. What is finished is kept; the same command goes on from there."
CAUGHT = (signal.SIGINT, signal.SIGTERM)  # the terminal's, and that of Slurm and of containers


@dataclass
class Interruption:
    """Hold the signal that ended a process, or None."""

    signal: int | None = None

    @property
    def code(self) -> int:
        """The exit code: 130 after Ctrl-C, 143 after SIGTERM."""
        return 128 + (self.signal or signal.SIGINT)

    def catch(self, signum: int, frame: Any) -> NoReturn:
        """Raise KeyboardInterrupt; the next signal of any kind ends the process at once."""
        self.signal = signum
        for number in CAUGHT:
            signal.signal(number, self.leave)
        raise KeyboardInterrupt

    def leave(self, signum: int, frame: Any) -> NoReturn:
        """End the process."""
        os.write(2, f"{NOTE}\n".encode())
        os._exit(self.code)

    def announce(self) -> None:
        """Write the last words of an interrupted process; later signals are passed over."""
        os.write(2, f"{NOTE}\n".encode())
        for number in CAUGHT:
            signal.signal(number, signal.SIG_IGN)


@contextmanager
def interruptible() -> Iterator[Interruption]:
    """Let Ctrl-C and SIGTERM inside the block raise KeyboardInterrupt."""
    interruption = Interruption()
    before = {number: signal.getsignal(number) for number in CAUGHT}
    for number in CAUGHT:
        signal.signal(number, interruption.catch)
    try:
        yield interruption
    finally:
        if interruption.signal is None:  # an interrupted process ends as it is
            for number, handler in before.items():
                signal.signal(number, handler)
