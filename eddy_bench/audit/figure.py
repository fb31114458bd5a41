"""The figure of an audit: the gain and the marginal of every method against the number of steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eddy_bench.audit.measure import Row, row_of
from eddy_bench.audit.plan import AuditPlan
from eddy_bench.audit.run import Audited
from eddy_bench.audit.tables import measure_name
from eddy_bench.audit.verdict import REAL_KEPT, SHIFT_MARGIN, SPREAD_MARGIN

# Okabe and Ito's colours, told apart by colour-blind readers too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8A8A00")
MARKERS = "osD^vPX*"
LEGEND_WIDTH = 210  # characters across the figure
FLOOR = 0.01  # of the axis of distances: what lies below is not told from noise
MARGIN = {"color": "#000000", "alpha": 0.08, "linewidth": 0}


def write_figure(plan: AuditPlan, audited: Sequence[Audited], path: Path) -> None:
    """Draw a row of panels per task and scheduler as PNG.

    They show gains, the distance to iid's distribution, and the spread around the modes.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    styles = _styles(audited)
    longest = max(map(len, styles), default=0)
    columns = max(1, min(5, len(styles) + 1, LEGEND_WIDTH // (longest + 10)))
    height = 3.1 * len(audited) + 0.5 + 0.2 * (len(styles) // columns + 1)
    figure = Figure(figsize=(14, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(audited), 3, squeeze=False)
    for (left, middle, right), result in zip(axes, audited, strict=True):
        panels = _Panels(plan, result, styles)
        panels.draw_gains(left)
        panels.draw_shifts(middle)
        panels.draw_spreads(right)
    axes[0][0].annotate(
        "Filled: real gain, marginal kept. Grey: within the margin.",
        (0, 1.12),
        xycoords="axes fraction",
        fontsize=9,
        annotation_clip=False,
    )
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
    figure.savefig(path, dpi=120, metadata={"Software": None})


def _styles(audited: Sequence[Audited]) -> dict[str, dict[str, Any]]:
    labels = dict.fromkeys(label for result in audited for label in result.methods)
    return {
        label: {
            "color": COLOURS[k % len(COLOURS)],
            "marker": MARKERS[k % len(MARKERS)],
            "linestyle": ("-", "--", ":")[k // len(COLOURS) % 3],
            "markersize": 5,
            "linewidth": 1.2,
        }
        for k, label in enumerate(labels)
    }


@dataclass(frozen=True)
class _Panels:
    plan: AuditPlan
    audited: Audited
    styles: dict[str, dict[str, Any]]

    def draw_gains(self, axis: Any) -> None:
        self._prepare(axis, f"{self.audited.block.title}: gain in {measure_name(self.audited)}")
        axis.axhspan(-self.plan.margin, self.plan.margin, **MARGIN)
        axis.axhline(0, color="#000000", linewidth=0.8)
        for label, verdict in self.audited.verdicts.items():
            if verdict.gains:
                style = self.styles[label]
                axis.errorbar(
                    self.plan.step_counts,
                    [gain.value for gain in verdict.gains],
                    yerr=[(gain.high - gain.low) / 2 for gain in verdict.gains],
                    label=label,
                    capsize=2,
                    **style,
                    markerfacecolor=style["color"] if verdict.text == REAL_KEPT else "white",
                )

    def draw_shifts(self, axis: Any) -> None:
        def shift(rows: Sequence[Row], other: str) -> float:
            return max(row_of(rows, f"shift_to_{other}").value, FLOOR)

        title = "distance to iid's distribution, in std"
        self._draw_lines(axis, title, lambda rows: shift(rows, "iid"))
        axis.axhspan(FLOOR, SHIFT_MARGIN, **MARGIN)
        axis.plot(
            self.plan.step_counts,
            [shift(rows, "truth") for rows in self.audited.iid],
            color="#888888",
            linestyle="--",
            label="iid to the truth",
        )
        axis.set_ylim(bottom=FLOOR, top=max(axis.get_ylim()[1], 4 * SHIFT_MARGIN))

    def draw_spreads(self, axis: Any) -> None:
        title = "spread around the modes, of iid's"
        self._draw_lines(axis, title, lambda rows: 1 + row_of(rows, "spread_change").value)
        axis.axhspan(1 - SPREAD_MARGIN, 1 + SPREAD_MARGIN, **MARGIN)
        axis.set_ylim(bottom=min(axis.get_ylim()[0], 0.8), top=max(axis.get_ylim()[1], 1.25))

    def _draw_lines(self, axis: Any, title: str, value: Callable[[Sequence[Row]], float]) -> None:
        self._prepare(axis, title)
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter("")
        for label, verdict in self.audited.verdicts.items():
            if verdict.gains:
                values = [value(measured.rows) for measured in self.audited.methods[label]]
                style = {**self.styles[label], "markerfacecolor": "white"}
                axis.plot(self.plan.step_counts, values, **style)

    def _prepare(self, axis: Any, title: str) -> None:
        axis.set_xscale("log")
        axis.set_xticks(self.plan.step_counts, [str(steps) for steps in self.plan.step_counts])
        axis.minorticks_off()
        axis.set_xlabel("solver steps")
        axis.set_title(title, fontsize=10, loc="left")
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
