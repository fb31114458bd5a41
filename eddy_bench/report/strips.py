"""The images of a report: one strip per prompt and method, within a budget of bytes."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from eddy_bench.errors import StoreError
from eddy_bench.storage.group import FinishedGroup
from eddy_bench.storage.run_folder import RunFolder

BUDGET = 3_400_000  # characters of all pictures together: the page stays under 5 MB
OVERHEAD = 600  # characters around a picture
SHOWN = 16  # pictures of a group at most
SIDE = 160  # pixels of a picture at most
GAP = 2
SMALL = 64  # pictures up to this size are shown with hard pixels


@dataclass(frozen=True)
class Strip:
    """The images of one group in a row.

    data: an address of the kind `data:`.
    value: of the metric shown beside it.
    """

    name: str
    data: str
    width: int
    height: int
    count: int
    value: str = ""


def groups_of(
    folders: Sequence[Path], broken: list[str], seed: int = 0
) -> dict[tuple[str, str], FinishedGroup]:
    """Return the finished groups of one seed by (method, prompt id).

    `broken` is told what is wrong with others, of any seed.
    """
    groups = {}
    for path in folders:
        for group in RunFolder(path).finished(broken):
            if group.group.seed == seed:
                groups[group.group.name, group.group.prompt_id] = group
    return groups


def make_strip(group: FinishedGroup, name: str, value: str = "") -> Strip | None:
    """Return a row of the group's images; None where they cannot be read."""
    try:
        images = group.images()[:SHOWN]
    except StoreError:
        return None
    scale = min(1.0, SIDE / max(max(image.size) for image in images))
    resized = [
        image.resize(
            (max(1, round(image.width * scale)), max(1, round(image.height * scale))),
            Image.Resampling.LANCZOS,
        )
        if scale < 1
        else image
        for image in images
    ]
    width, height = (
        sum(image.width for image in resized) + GAP * (len(resized) - 1),
        max(image.height for image in resized),
    )
    mode = "L" if all(image.mode == "L" for image in resized) else "RGB"
    canvas, left = Image.new(mode, (width, height), 128 if mode == "L" else (128, 128, 128)), 0
    for image in resized:
        canvas.paste(image, (left, 0))
        left += image.width + GAP
    buffer = io.BytesIO()
    small = height <= SMALL
    canvas.save(
        buffer, "PNG" if small else "WEBP", **({"optimize": True} if small else {"quality": 82})
    )
    kind = "png" if small else "webp"
    return Strip(
        name,
        f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}",
        width,
        height,
        len(images),
        value,
    )
