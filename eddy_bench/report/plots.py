"""Plots of a report, as SVG and PNG."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from eddy_bench.compare.fronts import Attained, Family, Fronts
from eddy_bench.report.front_plot import plain
from eddy_bench.shown import shown
from eddy_bench.storage.files import write_text
from eddy_bench.storage.paths import replacing

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5195", "#8A8A00")
MARKERS = "osD^vPX*"
GREY = "#888888"
STYLE = {
    "svg.hashsalt": "eddy-bench",
    "svg.fonttype": "path",
    "text.color": GREY,
    "axes.labelcolor": GREY,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "axes.edgecolor": GREY,
}


def pareto_plot(fronts: Fronts, folder: Path | None = None) -> str:
    """Plot diversity against fidelity and against seconds; returns SVG text.

    It is also written as `pareto.svg` and `pareto.png` into a folder.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=(11, 4.6), layout="constrained")
        FigureCanvasAgg(figure)
        left, right = figure.subplots(1, 2)
        _draw(left, fronts, "fidelity")
        if fronts.front_seconds is None:
            right.set_axis_off()
            right.set_title("seconds are missing for some methods", fontsize=10, loc="left")
        else:
            _draw(right, fronts, "seconds")
        handles, labels = left.get_legend_handles_labels()
        figure.legend(
            handles,
            labels,
            loc="outside lower center",
            ncols=min(5, len(labels)),
            frameon=False,
            fontsize=9,
        )
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
        if folder is not None:
            write_text(folder / "pareto.svg", shown(buffer.getvalue()))
            with replacing(folder / "pareto.png") as written:
                figure.savefig(
                    written, format="png", dpi=140, facecolor="white", metadata={"Software": None}
                )
    text = shown(buffer.getvalue())
    return text[text.index("<svg") :]


def _draw(axis: Any, fronts: Fronts, across: str) -> None:
    start = fronts.families[0].points[0]
    _draw_front(axis, fronts, across)
    for k, family in enumerate(fronts.families):
        _draw_family(
            axis,
            family,
            across,
            COLOURS[k % len(COLOURS)],
            MARKERS[(k + k // len(COLOURS)) % len(MARKERS)],
        )
    x = start.fidelity.value if across == "fidelity" else start.seconds
    axis.plot(
        [x],
        [start.diversity.value],
        "o",
        color="#000000",
        markersize=8,
        label=_plain(str(fronts.baseline)),
        markeredgecolor="white",
        zorder=5,
    )
    axis.set_ylabel(_plain(str(fronts.diversity)))
    axis.set_xlabel(_plain(str(fronts.fidelity)) if across == "fidelity" else "seconds per image")
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    if across == "fidelity":
        least = start.fidelity.value - 0.01 * abs(start.fidelity.value)
        axis.axvline(least, color=GREY, linestyle=":", linewidth=1)
        axis.set_title("up and right is better; dotted: 1% loss", fontsize=10, loc="left")
    else:
        _set_seconds(axis, fronts)


def _set_seconds(axis: Any, fronts: Fronts) -> None:
    """Give an axis of seconds its logarithmic scale and its title."""
    from matplotlib.ticker import LogLocator

    seconds = [point.seconds for family in fronts.families for point in family.points]
    if 0 < max(seconds) < 1.05 * min(seconds):
        axis.set_xlim(min(seconds) / 2, max(seconds) * 2)  # before the scale, which would warn
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter("")
    axis.set_title("up and left is better", fontsize=10, loc="left")


def _draw_front(axis: Any, fronts: Fronts, across: str) -> None:
    """Draw what all methods together attain, with the band of its resamples."""
    front: Attained | None = fronts.front if across == "fidelity" else fronts.front_seconds
    if front is None:
        return
    order, where = (slice(None), "pre") if across == "fidelity" else (slice(None, None, -1), "post")
    levels = front.levels if across == "fidelity" else np.exp2(-front.levels)
    x, low, high = levels[order], front.low[order], front.high[order]
    axis.fill_between(
        x, low, high, step=where, color=GREY, alpha=0.15, linewidth=0, label="front of all, 95%"
    )
    axis.step(x, front.value[order], where=where, color=GREY, linewidth=1, alpha=0.8)


def _plain(text: str) -> str:
    """Return text that a plot shows as it is, without mathematics, and lists in the legend."""
    return f" {text}" if text.startswith("_") else plain(text)


def _draw_family(axis: Any, family: Family, across: str, colour: str, marker: str) -> None:
    points = family.points[1:]
    x = [point.fidelity.value if across == "fidelity" else point.seconds for point in points]
    y = [point.diversity.value for point in points]
    reach = [
        [point.diversity.value - point.diversity.low for point in points],
        [point.diversity.high - point.diversity.value for point in points],
    ]
    sideways = None
    if across == "fidelity":
        sideways = [
            [point.fidelity.value - point.fidelity.low for point in points],
            [point.fidelity.high - point.fidelity.value for point in points],
        ]
    axis.errorbar(
        x, y, yerr=reach, xerr=sideways, color=colour, alpha=0.3, linestyle="none", linewidth=1
    )
    axis.plot(
        x,
        y,
        color=colour,
        marker=marker,
        markersize=6,
        linewidth=1.3,
        label=_plain(family.name),
        markerfacecolor="none" if across == "seconds" else colour,
    )
    for point, number in zip(points, zip(x, y, strict=True), strict=True):
        if point.strength:
            axis.annotate(
                _plain(point.strength),
                number,
                xytext=(4, 4),
                textcoords="offset points",
                fontsize=7,
                color=colour,
            )
