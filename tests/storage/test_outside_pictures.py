"""Pictures from outside are read as they are looked at, or refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eddy_bench.storage.pictures import pictures_below, read_picture

SHADES = np.arange(256, dtype=np.uint8).reshape(8, 32)
COLOURS = np.stack([SHADES, SHADES[::-1], 255 - SHADES], -1)


def rotated(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    Image.fromarray(COLOURS).transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)


def translucent(path: Path) -> None:
    alpha = np.where(SHADES[..., None] < 128, 0, 255).astype(np.uint8)
    Image.fromarray(np.concatenate([COLOURS, alpha], -1)).save(path)


def animated(path: Path) -> None:
    first, second = Image.fromarray(SHADES), Image.fromarray(SHADES[::-1])
    first.save(path, save_all=True, append_images=[second])


ON_WHITE = np.where(SHADES[..., None] < 128, 255, COLOURS)
GREY = np.repeat(SHADES[..., None], 3, -1)
CASES: dict[str, tuple[Callable[[Path], None], np.ndarray]] = {
    "a.png": (lambda path: Image.fromarray(SHADES.astype(np.uint16) * 257).save(path), GREY),
    "b.tiff": (lambda path: Image.fromarray(SHADES.astype(np.uint16) * 257).save(path), GREY),
    "c.png": (rotated, COLOURS),
    "d.TIF": (rotated, COLOURS),
    "e.png": (translucent, ON_WHITE),
    "f.gif": (animated, GREY),
    "g.bmp": (lambda path: Image.fromarray(COLOURS).save(path), COLOURS),
    "h.png": (lambda path: Image.fromarray(SHADES).convert("P").save(path), GREY),
    "i.jpg": (
        lambda path: Image.new("CMYK", (4, 4), (0, 255, 255, 0)).save(path, quality=100),
        np.full((4, 4, 3), (254, 0, 0)),
    ),
    "j.png": (
        lambda path: Image.fromarray(SHADES).convert("1").save(path),
        np.asarray(Image.fromarray(SHADES).convert("1").convert("RGB")),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_picture_is_read_as_it_is_looked_at(tmp_path: Path, name: str) -> None:
    write, expected = CASES[name]
    write(tmp_path / name)
    image = read_picture(tmp_path / name)
    assert image.mode == "RGB"
    assert np.abs(np.asarray(image).astype(int) - expected).max() <= 1


def test_pictures_of_a_folder_are_found_and_other_files_counted(tmp_path: Path) -> None:
    for name in ("b/1.PNG", "a.tif", "c.jpeg", "x.txt", "y.pdf", "z.pdf"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for name in (".ipynb_checkpoints/0.png", "__MACOSX/._0.png", ".hidden.png", "Thumbs.db"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = pictures_below(tmp_path)
    assert [path.name for path in found.paths] == ["a.tif", "1.PNG", "c.jpeg"]
    assert found.notes == ["left out 3 files that are no pictures (.txt, .pdf)"]


@pytest.mark.parametrize(
    ("content", "message"),
    [("", "cannot identify"), ("cut", "truncated|not enough|broken"), ("float", "no shades")],
)
def test_what_is_no_picture_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / ("a.tif" if content == "float" else "a.png")
    if content == "float":
        Image.fromarray(np.ones((4, 4), np.float32)).save(path)
    elif content:
        noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
        path.write_bytes(path.read_bytes()[:2000])
    else:
        path.touch()
    with pytest.raises(ValueError, match=message):
        read_picture(path)
