"""Ctrl-C: once ends in good order, twice at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

CODE = 130
NOTE = "Interrupted. What is finished is kept; the same command goes on from there."


def _leave(signum: int, frame: Any) -> NoReturn:
    os.write(2, f"{NOTE}\n".encode())
    os._exit(CODE)


def _interrupt(signum: int, frame: Any) -> NoReturn:
    signal.signal(signal.SIGINT, _leave)
    raise KeyboardInterrupt


@contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C inside the block raises KeyboardInterrupt; a second one ends the process at once. Finished groups are whole either way."""
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is _interrupt:  # an interrupted process ends as it is
            signal.signal(signal.SIGINT, before)


def say_interrupted() -> None:
    """The last words of an interrupted process; from here on Ctrl-C is passed over."""
    os.write(2, f"{NOTE}\n".encode())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
