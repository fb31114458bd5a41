"""Pictures from files that anyone may have made: few formats, and no more pixels than are drawn."""

from __future__ import annotations

import re
from pathlib import Path
from typing import IO

from PIL import Image

from eddy_bench.errors import brief

MAX_PIXELS = 2**26  # 8192 x 8192, the largest size that is drawn


def open_picture(source: Path | IO[bytes], formats: tuple[str, ...]) -> Image.Image:
    """Read a picture whole; its header is looked at before room is made for its pixels.

    Args:
        source: a path or an open file.
        formats: of Pillow's that are taken; those that call other programs never are.

    Raises:
        ValueError: it is no such picture, is damaged, or is larger than any that is drawn.

    """
    try:
        image = Image.open(source, formats=formats)
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"{image.width} x {image.height} pixels; at most {MAX_PIXELS:,}")
        image.load()
    except Exception as error:  # each format has its own, and memory may end
        text = re.sub(r" <\S+ object at 0x\w+>", "", brief(error, 160))
        raise ValueError(f"{type(error).__name__}: {text}") from None
    return image
