"""Plots of a report, as SVG and PNG."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from eddy_bench.compare.pareto import Family, Fronts

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5195", "#8A8A00")
MARKERS = "osD^vPX*"
GREY = "#888888"


def pareto_plot(found: Fronts, folder: Path | None = None) -> str:
    """Diversity against fidelity and against seconds, as SVG text; also written as `pareto.svg` and `pareto.png` into a folder."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context(
        {
            "svg.hashsalt": "eddy-bench",
            "svg.fonttype": "path",
            "text.color": GREY,
            "axes.labelcolor": GREY,
            "xtick.color": GREY,
            "ytick.color": GREY,
            "axes.edgecolor": GREY,
        }
    ):
        figure = Figure(figsize=(11, 4.6), layout="constrained")
        FigureCanvasAgg(figure)
        left, right = figure.subplots(1, 2)
        _draw(left, found, "fidelity")
        _draw(right, found, "seconds")
        handles, labels = left.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(5, len(labels)), frameon=False, fontsize=9)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "pareto.svg").write_text(buffer.getvalue())
            figure.savefig(folder / "pareto.png", dpi=140, facecolor="white", metadata={"Software": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _draw(axis: Any, found: Fronts, across: str) -> None:
    from matplotlib.ticker import LogLocator

    start = found.families[0].points[0]
    for k, family in enumerate(found.families):
        _draw_family(axis, family, across, COLOURS[k % len(COLOURS)], MARKERS[k % len(MARKERS)])
    x = start.fidelity.value if across == "fidelity" else start.seconds
    axis.plot([x], [start.diversity.value], "o", color="#000000", markersize=8, label=found.baseline, markeredgecolor="white", zorder=5)
    axis.set_ylabel(found.diversity)
    axis.set_xlabel(found.fidelity if across == "fidelity" else "seconds per image")
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    if across == "fidelity":
        least = start.fidelity.value - 0.01 * abs(start.fidelity.value)
        axis.axvline(least, color=GREY, linestyle=":", linewidth=1)
        axis.set_title("up and right is better; dotted: 1% loss", fontsize=10, loc="left")
    else:
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_formatter("")
        axis.set_title("up and left is better", fontsize=10, loc="left")


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
    axis.errorbar(x, y, yerr=reach, xerr=sideways, color=colour, alpha=0.3, linestyle="none", linewidth=1)
    axis.plot(
        x,
        y,
        color=colour,
        marker=marker,
        markersize=6,
        linewidth=1.3,
        label=family.name.replace("$", r"\$"),
        markerfacecolor="none" if across == "seconds" else colour,
    )
    for point, place in zip(points, zip(x, y, strict=True), strict=True):
        if point.strength:
            axis.annotate(point.strength, place, xytext=(4, 4), textcoords="offset points", fontsize=7, color=colour)
