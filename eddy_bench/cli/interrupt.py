"""Ctrl-C and SIGTERM: the first ends in good order, a second one at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

KEEPING = ("run", "audit", "score", "merge")  # the commands that go on where they were stopped
KEPT = "Interrupted. What is finished is kept; the same command goes on from there.\n"
STARTS_AGAIN = "Interrupted. The same command starts again.\n"
CAUGHT = (signal.SIGINT, signal.SIGTERM)  # the terminal's, and that of Slurm and of containers


@dataclass
class Interruption:
    """Hold the signal that ended a process, or None, and what to say then."""

    note: str = KEPT
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
        os.write(2, self.note.encode())
        os._exit(self.code)

    def announce(self) -> None:
        """Write the last words of an interrupted process; later signals are passed over."""
        os.write(2, self.note.encode())
        for number in CAUGHT:
            signal.signal(number, signal.SIG_IGN)


@contextmanager
def interruptible(arguments: Sequence[str]) -> Iterator[Interruption]:
    """Let Ctrl-C and SIGTERM inside the block raise KeyboardInterrupt; arguments: the command's."""
    command = next((text for text in arguments if not text.startswith("-")), "")
    interruption = Interruption(KEPT if command in KEEPING else STARTS_AGAIN)
    before = {number: signal.getsignal(number) for number in CAUGHT}
    for number in CAUGHT:
        signal.signal(number, interruption.catch)
    try:
        yield interruption
    finally:
        if interruption.signal is None:  # an interrupted process ends as it is
            for number, handler in before.items():
                signal.signal(number, handler)
