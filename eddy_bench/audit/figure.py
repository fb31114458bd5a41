"""The figure of an audit: the gain and the marginal of every method against the number of steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from eddy_bench.audit.measure import Row
from eddy_bench.audit.plan import AuditPlan
from eddy_bench.audit.run import Audited
from eddy_bench.audit.tables import measure_name, value_of
from eddy_bench.audit.verdict import REAL_KEPT, SHIFT_MARGIN, SPREAD_MARGIN

# Okabe and Ito's colours, told apart by colour-blind readers too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8A8A00")
MARKERS = "osD^vPX*"
LEGEND_WIDTH = 210  # characters across the figure
FLOOR = 0.01  # of the axis of distances: what lies below is not told from noise


def write_figure(plan: AuditPlan, audited: Sequence[Audited], path: Path) -> None:
    """Draw a row of panels per task and scheduler as PNG.

    They show gains, the distance to iid's distribution, and the spread around the modes.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    styles = _styles(audited)
    columns = _legend_columns(list(styles))
    height = 3.1 * len(audited) + 0.5 + 0.2 * (len(styles) // columns + 1)
    figure = Figure(figsize=(14, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(audited), 3, squeeze=False)
    for (left, middle, right), block_result in zip(axes, audited, strict=True):
        _draw_gains(left, plan, block_result, styles)
        _draw_shifts(middle, plan, block_result, styles)
        _draw_spreads(right, plan, block_result, styles)
    axes[0][0].annotate(
        "Filled: real gain, marginal kept. Grey: within the margin.",
        (0, 1.12),
        xycoords="axes fraction",
        fontsize=9,
        annotation_clip=False,
    )
    _draw_legend(figure, axes, columns)
    figure.savefig(path, dpi=120, metadata={"Software": None})


def _draw_shifts(
    axis: Any, plan: AuditPlan, block_result: Audited, styles: dict[str, dict[str, Any]]
) -> None:
    _draw_ladder(
        axis,
        plan,
        block_result,
        styles,
        "distance to iid's distribution, in std",
        lambda rows: max(value_of(rows, "shift_to_iid"), FLOOR),
    )
    axis.axhspan(FLOOR, SHIFT_MARGIN, color="#000000", alpha=0.08, linewidth=0)
    axis.plot(
        plan.ladder,
        [max(value_of(rung.iid, "shift_to_truth"), FLOOR) for rung in block_result.rungs],
        color="#888888",
        linestyle="--",
        label="iid to the truth",
    )
    axis.set_ylim(bottom=FLOOR, top=max(axis.get_ylim()[1], 4 * SHIFT_MARGIN))


def _draw_spreads(
    axis: Any, plan: AuditPlan, block_result: Audited, styles: dict[str, dict[str, Any]]
) -> None:
    _draw_ladder(
        axis,
        plan,
        block_result,
        styles,
        "spread around the modes, of iid's",
        lambda rows: 1 + value_of(rows, "spread_change"),
    )
    axis.axhspan(1 - SPREAD_MARGIN, 1 + SPREAD_MARGIN, color="#000000", alpha=0.08, linewidth=0)
    axis.set_ylim(bottom=min(axis.get_ylim()[0], 0.8), top=max(axis.get_ylim()[1], 1.25))


def _legend_columns(labels: Sequence[str]) -> int:
    """Return how many labels fit beside each other, at most 5."""
    longest = max(map(len, labels), default=0)
    return max(1, min(5, len(labels) + 1, LEGEND_WIDTH // (longest + 10)))


def _draw_legend(figure: Any, axes: Any, columns: int) -> None:
    handles = {
        label: handle
        for row in axes
        for panel in row[:2]
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        handles.values(),
        handles.keys(),
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        fontsize=9,
    )


def _styles(audited: Sequence[Audited]) -> dict[str, dict[str, Any]]:
    candidates = [item for result in audited for item in result.block.candidates]
    labels = list(dict.fromkeys(candidate.label for candidate in candidates))
    return {
        label: {
            "color": COLOURS[k % len(COLOURS)],
            "marker": MARKERS[k % len(MARKERS)],
            "linestyle": ("-", "--", ":")[k // len(COLOURS) % 3],
        }
        for k, label in enumerate(labels)
    }


def _prepare(axis: Any, plan: AuditPlan, title: str) -> None:
    axis.set_xscale("log")
    axis.set_xticks(plan.ladder, [str(steps) for steps in plan.ladder])
    axis.minorticks_off()
    axis.set_xlabel("solver steps")
    axis.set_title(title, fontsize=10, loc="left")
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)


def _draw_gains(
    axis: Any, plan: AuditPlan, block_result: Audited, styles: dict[str, dict[str, Any]]
) -> None:
    _prepare(axis, plan, f"{block_result.block.title}: gain in {measure_name(block_result)}")
    axis.axhspan(-plan.margin, plan.margin, color="#000000", alpha=0.08, linewidth=0)
    axis.axhline(0, color="#000000", linewidth=0.8)
    for label, verdict in block_result.verdicts.items():
        if verdict.gains:
            values = [gain.value for gain in verdict.gains]
            reach = [(gain.high - gain.low) / 2 for gain in verdict.gains]
            full = {
                "markerfacecolor": styles[label]["color"] if verdict.text == REAL_KEPT else "white"
            }
            axis.errorbar(
                plan.ladder,
                values,
                yerr=reach,
                label=label,
                markersize=5,
                linewidth=1.2,
                capsize=2,
                **styles[label],
                **full,
            )


def _draw_ladder(
    axis: Any,
    plan: AuditPlan,
    block_result: Audited,
    styles: dict[str, dict[str, Any]],
    title: str,
    value: Callable[[Sequence[Row]], float],
) -> None:
    _prepare(axis, plan, title)
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_formatter("")
    for label, verdict in block_result.verdicts.items():
        if verdict.gains:
            values = [value(rung.methods[label].rows) for rung in block_result.rungs]
            axis.plot(
                plan.ladder,
                values,
                markersize=5,
                linewidth=1.2,
                markerfacecolor="white",
                **styles[label],
            )
