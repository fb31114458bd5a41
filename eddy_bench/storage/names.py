"""Names of files and folders that every system can hold."""

from __future__ import annotations

import re

_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d|conin\$|conout\$)(\..*)?", re.IGNORECASE)


def is_reserved(name: str) -> bool:
    """Return whether some system takes a name for a device, or drops its last character.

    >>> [name for name in ("CON", "nul.txt", "a.", "a", "console") if is_reserved(name)]
    ['CON', 'nul.txt', 'a.']
    """
    return name.endswith((".", " ")) or _RESERVED.fullmatch(name) is not None


def safe_name(text: str, otherwise: str = "name") -> str:
    """Return a text as the name of a file or folder; `otherwise` where nothing is left of it.

    >>> safe_name("pg (mine)/..", "method"), safe_name("nul", "method"), safe_name("..", "method")
    ('pg--mine--', 'name-nul', 'method')
    """
    letters = (letter if letter.isalnum() or letter in "._-" else "-" for letter in text)
    name = "".join(letters).strip(".") or otherwise
    return f"name-{name}" if is_reserved(name) else name
