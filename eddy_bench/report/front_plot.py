"""The first picture of a page: diversity against fidelity, the methods named at their points."""

from __future__ import annotations

import io
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from eddy_bench.compare.fronts import Fronts, Point
from eddy_bench.shown import shown

# Colours that the page's own take the place of, so that a plot follows light and dark.
INK, SOFT, LINE, GRID, PAPER = "#010101", "#020202", "#030303", "#040404", "#080808"
VARIABLES = {INK: "--ink", SOFT: "--soft", LINE: "--line", GRID: "--grid", PAPER: "--paper"}
ANSWERED = ("#050505", "#060606", "#070707")  # of the three answers, in order
VARIABLES |= {colour: f"--answer-{k}" for k, colour in enumerate(ANSWERED, 1)}
STYLE = {"svg.hashsalt": "eddy-bench", "svg.fonttype": "none", "font.size": 9}


@dataclass(frozen=True)
class Shape:
    """A size of the picture: for wide screens, and for narrow ones.

    prefix: of the identifiers of its points.
    inches: width and height.
    named: methods that are named beside those of the answers, at most.
    """

    prefix: str
    inches: tuple[float, float]
    named: int


SHAPES = (Shape("wide", (7.2, 4.7), 40), Shape("narrow", (3.7, 2.9), 10))


def front_plots(
    fronts: Fronts, answered: Sequence[str], hollow: Collection[str]
) -> list[tuple[str, str]]:
    """Return (prefix, SVG) for every shape.

    Every point is a group of the class `point` with the method's name in `data-method`, which can
    be focused and says its figures.

    Args:
        fronts: of the run.
        answered: the methods of the three answers, empty where there is none.
        hollow: the methods whose points are circles.

    """
    return [(shape.prefix, _plot(fronts, answered, hollow, shape)) for shape in SHAPES]


def _plot(fronts: Fronts, answered: Sequence[str], hollow: Collection[str], shape: Shape) -> str:
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    points = _points(fronts)
    with rc_context(STYLE):
        figure = Figure(figsize=shape.inches, layout="constrained")
        FigureCanvasAgg(figure)
        axis = figure.subplots()
        _dress(axis, fronts)
        for family in fronts.families:
            path = [(point.fidelity.value, point.diversity.value) for point in family.points]
            axis.plot(*zip(*path, strict=True), color=LINE, linewidth=0.8, zorder=1)
        for number, point in enumerate(points):
            colour = _colour(str(point.method), str(fronts.baseline), answered)
            strong = colour != SOFT
            axis.plot(
                [point.fidelity.value],
                [point.diversity.value],
                "o",
                color=colour,
                markerfacecolor=PAPER if str(point.method) in hollow else colour,
                markersize=8 if strong else 5,
                zorder=4 if strong else 2,
                gid=f"{shape.prefix}-{number}",
            )
        _name_points(figure, axis, fronts, answered, shape)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return _for_the_page(buffer.getvalue(), fronts, points, shape)


def _points(fronts: Fronts) -> list[Point]:
    """Return all points, the baseline first and once."""
    start = fronts.families[0].points[0]
    return [start, *(point for family in fronts.families for point in family.points[1:])]


def _colour(name: str, baseline: str, answered: Sequence[str]) -> str:
    if name == baseline:
        return INK
    return ANSWERED[list(answered).index(name)] if name in answered else SOFT


def _dress(axis: Any, fronts: Fronts) -> None:
    """Draw axes, grid and the line of 1% less fidelity."""
    start = fronts.families[0].points[0]
    axis.axvline(
        start.fidelity.value - 0.01 * abs(start.fidelity.value),
        color=SOFT,
        linestyle=":",
        linewidth=1,
        zorder=0,
    )
    axis.set_xlabel(f"{plain(str(fronts.fidelity))}", color=SOFT)
    axis.set_ylabel(f"{plain(str(fronts.diversity))}", color=SOFT)
    axis.grid(color=GRID, linewidth=0.6)
    axis.set_axisbelow(True)
    axis.tick_params(colors=SOFT, length=0)
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color(LINE)
    axis.margins(0.08)


def _name_points(
    figure: Any, axis: Any, fronts: Fronts, answered: Sequence[str], shape: Shape
) -> None:
    """Write the names of the answers and the baseline, and those of others where there is room."""
    points = {str(point.method): point for point in _points(fronts)}
    chosen = dict.fromkeys([str(fronts.baseline), *answered])
    others = [_named(family.points[1:]) for family in fronts.families]
    others = sorted(
        (point for point in others if str(point.method) not in chosen),
        key=lambda point: (not point.front, -point.diversity.value),
    )[: shape.named]
    taken = [(point.fidelity.value, point.diversity.value) for point in points.values()]
    colours = [_colour(name, str(fronts.baseline), answered) for name in chosen if name in points]
    figure.canvas.draw()
    first = [points[name] for name in chosen if name in points]
    texts = _write(axis, first, colours, taken, draw_all=True, max_distance=0.3)
    taken += [place for text in texts for place in _covered(figure, axis, text)]
    _write(axis, others, [SOFT] * len(others), taken, draw_all=False, max_distance=0.07)


def _write(
    axis: Any,
    points: Sequence[Point],
    colours: Sequence[str],
    taken: Sequence[tuple[float, float]],
    **limits: Any,
) -> list[Any]:
    """Write names near points and off what is taken, in data coordinates; returns the texts."""
    import textalloc

    if not points:
        return []
    *_, texts, _ = textalloc.allocate(
        axis,
        [point.fidelity.value for point in points],
        [point.diversity.value for point in points],
        [plain(str(point.method)) for point in points],
        x_scatter=[x for x, _ in taken],
        y_scatter=[y for _, y in taken],
        textsize=8.5,
        textcolor=list(colours),
        linecolor=SOFT,
        linewidth=0.6,
        avoid_label_lines_overlap=True,
        min_distance=0.012,
        margin=0.004,
        **limits,
    )
    return [text for text in texts if text is not None]


def _covered(figure: Any, axis: Any, text: Any) -> list[tuple[float, float]]:
    """Return points that a text covers, close enough that no other text fits between them."""
    box = text.get_window_extent(figure.canvas.get_renderer())
    places = [
        (box.x0 + box.width * across / 12, box.y0 + box.height * up / 2)
        for across in range(13)
        for up in range(3)
    ]
    return [tuple(place) for place in axis.transData.inverted().transform(places)]


def _named(points: Sequence[Point]) -> Point:
    """Return the point at which a family is named: on the front if one is, else the last."""
    return next((point for point in reversed(points) if point.front), points[-1])


def plain(text: str) -> str:
    """Return text that a plot shows as it is, without mathematics."""
    return shown(text).replace("$", r"\$")


def _for_the_page(text: str, fronts: Fronts, points: Sequence[Point], shape: Shape) -> str:
    """Make a plot part of a page: the page's colours and font, points that can be focused."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", text)
    for colour, name in VARIABLES.items():
        text = text.replace(colour, f"var({name})")
    title = escape(f"{fronts.diversity} against {fronts.fidelity}, a point per method")
    text = text.replace(
        "<svg ", f'<svg class="{shape.prefix}" role="group" aria-label="{title}" ', 1
    )
    for number, point in enumerate(points):
        text = text.replace(
            f'<g id="{shape.prefix}-{number}">',
            f'<g class="point" tabindex="0" role="img" data-method="{escape(str(point.method))}" '
            f'aria-label="{escape(_figures(point, fronts))}">',
        )
    return re.sub(
        r' id="(?!image)([^"]*)"', rf' id="{shape.prefix}-\1"', shown(_linked(text, shape))
    )


def _linked(text: str, shape: Shape) -> str:
    """Keep references inside a plot right when its identifiers get a prefix."""
    text = re.sub(r'href="#([^"]*)"', rf'href="#{shape.prefix}-\1"', text)
    return re.sub(r"url\(#([^)]*)\)", rf"url(#{shape.prefix}-\1)", text)


def _figures(point: Point, fronts: Fronts) -> str:
    return (
        f"{point.method!s}: {fronts.diversity} {point.diversity.value:.3g}, "
        f"{fronts.fidelity} {point.fidelity.value:.4g}"
    )


def colours_of(answered: Sequence[str]) -> Mapping[str, str]:
    """Return the page's colour of each answered method, that of the first question it answers."""
    return {name: f"--answer-{answered.index(name) + 1}" for name in answered if name}
