"""A run folder may be anyone's: nothing that is written in it leaves it by a symbolic link."""

from __future__ import annotations

import os
from pathlib import Path

from eddy_bench.errors import StoreError
from eddy_bench.storage.paths import is_remote


def refuse_links(folder: Path) -> None:
    """Raise StoreError where an entry of a run folder is a symbolic link; the folder may be one."""
    if is_remote(folder) or not folder.is_dir():
        return
    with os.scandir(folder) as entries:
        linked = sorted(entry.name for entry in entries if entry.is_symlink())
    if linked:
        raise _refused(folder / linked[0])


def refuse_link(root: Path, *paths: Path) -> None:
    """Raise StoreError where a path, or a folder between it and its root, is a symbolic link."""
    if is_remote(root):
        return
    for path in paths:
        steps = path.relative_to(root).parts
        for count in range(len(steps)):
            if (part := root.joinpath(*steps[: count + 1])).is_symlink():
                raise _refused(part)


def _refused(path: Path) -> StoreError:
    return StoreError(
        f"{path} is a symbolic link, and what is written in a run folder stays in it. "
        "Put what it stands for in its place, or give another --out. The run folder itself may be "
        "a link, to another disk say."
    )


def open_own(name: str, flags: int) -> int:
    """Open a file for `open(opener=)`: never through a symbolic link, and no pipe that waits.

    Systems that cannot tell them apart follow links.
    """
    careful = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    return os.open(name, flags | careful, 0o644)
