"""Pictures of a run: a grid per method, and the methods side by side on the same noise."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from PIL import Image, ImageDraw, ImageFont

from eddy_bench.errors import StoreError, why
from eddy_bench.scoring.measure import Methods
from eddy_bench.storage.group import FinishedGroup
from eddy_bench.storage.paths import replacing
from eddy_bench.storage.run_folder import RunFolder
from eddy_bench.suites.method_spec import folded

TILE = 64  # pixels of one image in a grid; small images are enlarged by whole factors
GAP = 4
MARGIN = 10
MAX_ROWS = 16
LINE = 18  # pixels of a line of text
NARROWEST = 160  # pixels of a heading: images of N = 1 or 2 are narrower than a method's name
WIDEST = 1600  # pixels of methods side by side
SIDE_BY_SIDE = "side-by-side.png"
Item = TypeVar("Item")
INK, PAPER = (32, 32, 36), (250, 250, 252)


def write_grids(folder: RunFolder, methods: Methods) -> list[Path]:
    """Write `grids/METHOD.png` for each method and `grids/side-by-side.png`.

    Prompts are rows, particles of the first seed are columns; many methods stand in bands.

    Args:
        folder: of the run.
        methods: its groups by their method, in the table's order.

    Returns:
        The paths written.

    """
    first = {
        groups[0].group.label: {own.group.prompt_id: own for own in groups if own.group.seed == 0}
        for groups in methods.values()
    }
    paths = []
    for label, groups in first.items():
        if rows := spread(list(groups.values()), MAX_ROWS):
            paths.append(
                _save(
                    draw_table([[group] for group in rows]), folder.path / "grids" / f"{label}.png"
                )
            )
    filled = {label: groups for label, groups in first.items() if groups}
    shared = [
        prompt
        for prompt in next(iter(filled.values()), {})
        if all(prompt in groups for groups in filled.values())
    ]
    if len(filled) > 1 and shared:
        table = [[groups[prompt] for groups in filled.values()] for prompt in spread(shared, 8)]
        paths.append(_save(draw_bands(table), folder.path / "grids" / SIDE_BY_SIDE))
    return paths


def spread(items: list[Item], count: int) -> list[Item]:
    """Return at most `count` items, evenly spaced, in order."""
    if len(items) <= count:
        return items
    return [items[k * len(items) // count] for k in range(count)]


def draw_bands(table: list[list[FinishedGroup]]) -> Image.Image:
    """Draw tables one below the other where the methods do not fit beside each other.

    The first method stands at the left of each.
    """
    beside = max(2, (WIDEST - 2 * MARGIN) // (_block_width(table[0][0]) + MARGIN))
    if len(table[0]) <= beside:
        return draw_table(table)
    bands = [
        draw_table([[row[0], *row[start : start + beside - 1]] for row in table])
        for start in range(1, len(table[0]), beside - 1)
    ]
    canvas = Image.new(
        "RGB", (max(band.width for band in bands), sum(band.height for band in bands)), PAPER
    )
    top = 0
    for band in bands:
        canvas.paste(band, (0, top))
        top += band.height
    return canvas


def draw_table(table: list[list[FinishedGroup]]) -> Image.Image:
    """Draw a row of images per list of groups, captioned with its prompt, below the methods."""
    tile, font = _tile_size(table[0][0]), ImageFont.load_default(13)
    block = _block_width(table[0][0])
    headings = [folded(group.group.name, block, font.getlength) for group in table[0]]
    first = MARGIN + LINE * max(map(len, headings)) + 4
    height = tile + 2 + 22
    width = max(2 * MARGIN + len(headings) * (block + MARGIN), 320)
    canvas = Image.new("RGB", (width, first + MARGIN + height * len(table)), PAPER)
    pen = ImageDraw.Draw(canvas)
    for column, lines in enumerate(headings):
        for number, text in enumerate(lines):
            place = (MARGIN + column * (block + MARGIN), MARGIN + number * LINE)
            pen.text(place, text, INK, font)
    for row, groups in enumerate(table):
        top = first + row * height
        pen.text(
            (MARGIN, top),
            _fitted(" ".join(groups[0].group.prompt.split()), font, width - 2 * MARGIN),
            INK,
            font,
        )
        for column, group in enumerate(groups):
            for k, image in enumerate(group.images()):
                left = MARGIN + column * (block + MARGIN) + k * (tile + 2)
                canvas.paste(_scaled(image, tile), (left, top + LINE))
    return canvas


def _block_width(group: FinishedGroup) -> int:
    """Return the pixels that one method's images take."""
    return max(group.group.particles * (_tile_size(group) + 2) + GAP, NARROWEST)


def _tile_size(group: FinishedGroup) -> int:
    return TILE if max(group.images()[0].size) <= TILE else 128


def _scaled(image: Image.Image, tile: int) -> Image.Image:
    image = image.convert("RGB")
    sharp = max(image.size) <= tile
    return image.resize(
        (tile, tile), Image.Resampling.NEAREST if sharp else Image.Resampling.LANCZOS
    )


def _fitted(text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, width: int) -> str:
    text = text[:200]
    while text and font.getlength(text) > width:
        text = text[:-2].rstrip("…") + "…" if len(text) > 2 else ""
    return text


def _save(image: Image.Image, path: Path) -> Path:
    try:
        with replacing(path) as written:
            image.save(written, "PNG")
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {why(error)}.") from None
    return path
