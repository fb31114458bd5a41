"""What a command shows in a terminal of some width."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from collections.abc import Sequence


def shown_in_terminal(width: int, command: Sequence[str]) -> str:
    """Run a command in a terminal and return what it shows, colours aside."""
    return plain(written_to_terminal(width, command))


def written_to_terminal(width: int, command: Sequence[str], **variables: str) -> str:
    """Run a command in a terminal and return what it writes, with its control codes."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
    environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "CI")}
    environment.update(TERM="xterm", **variables)
    process = subprocess.Popen(command, stdout=slave, stderr=slave, env=environment)
    os.close(slave)
    shown = b""
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:
            break
        if not part:
            break
        shown += part
    os.close(master)
    assert process.wait() == 0, shown.decode()
    return shown.decode()


def plain(shown: str) -> str:
    """Return what stays on a screen, colours aside: bars are drawn over and over."""
    text = re.sub(r"\x1b\[\?25[lh]", "", shown.replace("\r\n", "\n"))  # the cursor
    text = re.sub(r"[^\n]*\n\r?\x1b\[1A\x1b\[2K", "", text)  # up, and erased: a bar that has passed
    text = re.sub(r"[^\n]*\x1b\[2K", "", text)  # erased, and drawn again
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", text)
