"""Pictures that come from outside: one reader for references, scoring and import."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from eddy_bench.errors import EddyError, brief, counted
from eddy_bench.storage.files import open_picture

# Those of Pillow's that decode by themselves: whatever calls another program is left out.
FORMATS = (
    *("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "AVIF", "JPEG2000", "TGA"),
    *("DDS", "ICO", "PCX", "SGI", "QOI"),
)
# so that a folder's other files are left out, and a broken picture is not
ENDINGS = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".webp", ".tif", ".tiff", ".bmp", ".gif"),
    *(".ppm", ".pgm", ".pbm", ".avif", ".jp2", ".j2k", ".tga", ".dds", ".ico", ".pcx", ".sgi"),
    ".qoi",
)
IGNORED = ("__MACOSX", "Thumbs.db", "desktop.ini")
WHITE = (255, 255, 255, 255)


def read_picture(path: Path) -> Image.Image:
    """Read a picture as RGB, upright.

    EXIF's orientation is applied. 16 bits a channel are scaled to 8. Transparent parts are laid on
    white. Of several frames the first is taken.

    Raises:
        ValueError: it is no picture, is damaged, is larger than any that is drawn, or holds
            numbers that are no shades.
    """
    image = ImageOps.exif_transpose(open_picture(path, FORMATS))
    if image.mode.startswith("I") or image.mode == "F":
        image = _of_numbers(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, WHITE), image)
    return image.convert("RGB")


def picture_at(path: Path, error: type[EddyError]) -> Image.Image:
    """Read a picture as `read_picture`; raises `error`, with the path, where it cannot be read."""
    try:
        return read_picture(path)
    except ValueError as problem:
        raise error(
            f"{path} cannot be read as an image: {brief(problem, 120)}. Remove or replace it."
        ) from None


def _of_numbers(image: Image.Image) -> Image.Image:
    """Return a picture of 16 bits as one of 8; raises ValueError for other numbers."""
    values = np.asarray(image).astype(np.float64)
    if image.mode == "F" or values.min() < 0 or values.max() > 2**16 - 1:
        raise ValueError("its numbers are no shades from 0 to 65535: save it with 8 or 16 bits")
    return Image.fromarray((values / 257).round().astype(np.uint8))


@dataclass(frozen=True)
class Pictures:
    """The pictures below a folder, in order. left_out: other files there, by their endings."""

    paths: list[Path]
    left_out: Counter[str]

    @property
    def notes(self) -> list[str]:
        """What is left out, in words; hidden files and those of a system are not told."""
        if not self.left_out:
            return []
        kinds = ", ".join(name or "no ending" for name in self.left_out)
        return [f"left out {counted(self.left_out.total(), 'file')} that are no pictures ({kinds})"]


def pictures_below(folder: Path, skipped: Sequence[str] = ()) -> Pictures:
    """Return the pictures below a folder.

    Hidden files and folders are passed over, as those that systems put there. skipped: names of
    files that are told nothing of, such as a manifest.
    """
    paths: list[Path] = []
    others: Counter[str] = Counter()
    for path in sorted(_files(folder)):
        parts = path.relative_to(folder).parts
        if any(part.startswith(".") or part in IGNORED for part in parts):
            continue
        if not path.is_file():
            others["broken link" if path.is_symlink() else "no file"] += 1
        elif path.suffix.lower() in ENDINGS:
            paths.append(path)
        elif path.name not in skipped:
            others[path.suffix.lower()] += 1
    return Pictures(paths, others)


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder and the folders that are linked there, none in a circle."""
    for place, folders, files in os.walk(folder, followlinks=True):
        paths = {name: os.path.join(place, name) for name in folders}
        if linked := [name for name in folders if os.path.islink(paths[name])]:
            above = {os.path.realpath(own) for own in (Path(place), *Path(place).parents)}
            circles = [name for name in linked if os.path.realpath(paths[name]) in above]
            folders[:] = [name for name in folders if name not in circles]
        yield from (Path(place, name) for name in files)
