"""Local paths and addresses of remote file systems (fsspec's, as `s3://bucket/run`) alike.

An address is a `UPath`, which reads as a `pathlib.Path`. What a remote file system lacks is here:
one rename, appending, cheap questions about single files.
"""

from __future__ import annotations

import errno
import glob
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal, Protocol

from eddy_bench.errors import ParameterError, StoreError, brief, why

# without folders of their own
OBJECT_STORES = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "hf", "memory")


def as_path(text: str) -> Path:
    """Read a path, or an address as an object that is used like a path."""
    if text.startswith("file://"):
        return Path(text.removeprefix("file://"))
    if "://" not in text:
        return Path(text)
    try:
        from upath import UPath
    except ImportError:
        raise ParameterError(
            f"{text} needs the package universal_pathlib. Install eddy-bench[remote]."
        ) from None
    try:
        address: Any = UPath(text, use_listings_cache=False)
        if not address.fs.protocol or not address.path.strip("/"):
            raise ValueError("a folder is missing")
    except Exception as error:  # each file system raises its own
        raise ParameterError(
            f"{text} cannot be used: {brief(error, 200)}. "
            "Expected an address such as s3://bucket/folder."
        ) from None
    return address  # type: ignore[no-any-return]


def reachable(text: str) -> Path:
    """Read a path as `as_path` does, and check that a remote file system answers."""
    path: Any = as_path(text)
    if is_remote(path):
        try:
            with _as_os_error(path):
                path.fs.ls(path.path, detail=False)
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as error:
            raise ParameterError(f"{text} cannot be reached: {why(error)}.") from None
    return path  # type: ignore[no-any-return]


def is_remote(path: Path) -> bool:
    """Return whether a path is an address."""
    return not isinstance(path, Path)


def expanded(path: Path) -> list[Path]:
    """Return the paths that an address with `*` in its last part stands for; any other is itself.

    No shell expands addresses.
    """
    if not is_remote(path) or "*" not in path.name:
        return [path]
    with _as_os_error(path):
        return sorted(path.parent.glob(path.name), key=str)


@contextmanager
def _as_os_error(path: Path) -> Iterator[None]:
    """Raise whatever a remote file system raises as OSError."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        if not is_remote(path):
            raise
        raise OSError(
            errno.EIO, f"{type(error).__name__}: {brief(error, 200)}", str(path)
        ) from error


class Files(Protocol):
    """Ask for the files below a folder."""

    def size(self, name: str) -> int | None:
        """Return the size of a file in bytes, by its name from the folder on; None without it."""

    def names(self, pattern: str) -> list[str]:
        """Return the names that match, by their parts in order."""


@dataclass(frozen=True)
class LocalFiles:
    """The files below a folder of this machine, looked at when they are asked for."""

    folder: str

    def size(self, name: str) -> int | None:
        """See `Files`."""
        try:
            return os.stat(f"{self.folder}/{name}").st_size
        except (OSError, ValueError):  # no name that a file can have
            return None

    def names(self, pattern: str) -> list[str]:
        """See `Files`."""
        return in_order(glob.glob(pattern, root_dir=self.folder, include_hidden=True))


@dataclass(frozen=True)
class RemoteFiles:
    """The files below a remote folder, as they were listed once."""

    sizes: Mapping[str, int]

    def size(self, name: str) -> int | None:
        """See `Files`."""
        return self.sizes.get(name)

    def names(self, pattern: str) -> list[str]:
        """See `Files`."""
        depth = pattern.count("/")
        names = [name for name in self.sizes if name.count("/") == depth]
        return in_order([name for name in names if PurePosixPath(name).match(pattern)])


def in_order(names: Iterable[str]) -> list[str]:
    """Return names sorted part by part."""
    return sorted(names, key=lambda name: name.replace("/", "\0"))


def files_below(folder: Path) -> Files:
    """Return the files below a folder; a remote one is listed now."""
    if not is_remote(folder):
        return LocalFiles(str(folder))
    remote: Any = folder
    with _as_os_error(folder):
        try:
            listing = remote.fs.find(remote.path, detail=True)
        except FileNotFoundError:
            listing = {}
    start = len(remote.path.rstrip("/")) + 1
    return RemoteFiles({name[start:]: int(info["size"] or 0) for name, info in listing.items()})


def read_many(paths: Sequence[Path]) -> list[bytes]:
    """Read files in order; those of a remote folder are fetched together."""
    if not paths or not is_remote(paths[0]):
        return [_read_file(path) for path in paths]
    remotes: Sequence[Any] = paths
    with _as_os_error(paths[0]):
        return _read_remote(remotes[0].fs, [remote.path for remote in remotes])


def open_file(path: Path, mode: Literal["r", "rb"] = "rb", **options: Any) -> IO[Any]:
    """Open a file that others may have made; a pipe or a device, which may have no end, is none."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "Not a file", str(path))
    return path.open(mode, **options)


def _read_file(path: Path) -> bytes:
    with open_file(path) as file:
        content: bytes = file.read()
    return content


def _read_remote(fs: Any, names: list[str]) -> list[bytes]:
    """Read files together, by names that are no patterns."""
    contents = fs.cat_ranges(names, None, None, on_error="return")
    for content in contents:
        if isinstance(content, BaseException):
            raise content
    return list(contents)


def write_many(contents: Mapping[Path, bytes]) -> None:
    """Write files of one remote folder together; on object stores each is whole or absent."""
    remotes: Mapping[Any, bytes] = contents
    first = next(iter(remotes))
    with _as_os_error(first):
        if first.protocol not in OBJECT_STORES:
            first.fs.makedirs(first.parent.path, exist_ok=True)
        first.fs.pipe({path.path: data for path, data in remotes.items()})


def move_remote(source: Path, target: Path) -> None:
    """Move a folder within one remote file system."""
    remote: Any = source
    with _as_os_error(source):
        names = list(remote.fs.find(remote.path))
        start = len(remote.path.rstrip("/")) + 1
        for name, content in zip(names, _read_remote(remote.fs, names), strict=True):
            write_many({target / name[start:]: content})
        # group.json first: without it the rest does not count
        for name in sorted(names, key=lambda name: not name.endswith("/group.json")):
            remote.fs.rm_file(name)


def remove_file(path: Path) -> None:
    """Remove a file where there is one; an address that looks like a pattern is taken literally."""
    if not is_remote(path):
        path.unlink(missing_ok=True)
        return
    remote: Any = path
    with suppress(FileNotFoundError), _as_os_error(path):
        remote.fs.rm_file(remote.path)  # `unlink` would look for names that match


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a local file to write, which replaces `path` in one step once the block has ended well.

    Where the path cannot be written (OSError), what was there is kept.
    """
    if not is_remote(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(
        dir=None if is_remote(path) else path.parent, prefix=f".{path.name}-", suffix=".tmp"
    )
    os.close(handle)
    written = Path(name)
    try:
        yield written
        if is_remote(path):
            write_many({path: written.read_bytes()})
        else:
            written.chmod(0o644)
            os.replace(written, path)
    finally:
        written.unlink(missing_ok=True)


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
