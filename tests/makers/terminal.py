"""What is shown in a terminal of some width."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from unittest.mock import patch

import pytest


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def shown_in_terminal(width: int, call: Callable[[], object]) -> str:
    """Call something with a terminal and return what it shows, colours aside."""
    return plain(written_to_terminal(width, call))


def command_line(*arguments: str) -> Callable[[], None]:
    """The command line as a call that fails unless the command succeeds."""
    from eddy_bench.cli.app import main

    def call() -> None:
        with pytest.raises(SystemExit) as stop:
            main(list(arguments))
        assert not stop.value.code

    return call


def written_to_terminal(width: int, call: Callable[[], object], **variables: str) -> str:
    """Call something with a terminal and return what it writes, with its control codes."""
    environment = {key: value for key, value in os.environ.items() if key != "CI"}
    environment |= {"TERM": "xterm", "COLUMNS": str(width), "LINES": "50", **variables}
    screen = Terminal()
    with (
        patch.dict(os.environ, environment, clear=True),
        redirect_stdout(screen),
        redirect_stderr(screen),
    ):
        call()
    return screen.getvalue()


def plain(shown: str) -> str:
    """Return what stays on a screen, colours aside: bars are drawn over and over."""
    text = re.sub(r"\x1b\[\?25[lh]", "", shown)  # the cursor
    text = re.sub(r"[^\n]*\n\r?\x1b\[1A\x1b\[2K", "", text)  # up, and erased: a bar that has passed
    text = re.sub(r"[^\n]*\x1b\[2K", "", text)  # erased, and drawn again
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", text)
