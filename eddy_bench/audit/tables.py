"""What an audit writes and prints: audit.csv, a Markdown table, the table in the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd
from rich.markup import escape
from rich.table import Table

from eddy_bench.audit.estimates import Estimate
from eddy_bench.audit.measure import Row
from eddy_bench.audit.plan import AuditPlan
from eddy_bench.audit.run import Audited
from eddy_bench.audit.verdict import REAL_KEPT, SHIFT_MARGIN, SPREAD_MARGIN, Verdict

COLUMNS = [
    "task",
    "method",
    "params",
    "scheduler",
    "steps",
    "particles",
    "groups",
    "metric",
    "value",
    "low",
    "high",
    "floor",
    "verdict",
]


def audit_frame(plan: AuditPlan, audited: Sequence[Audited]) -> pd.DataFrame:
    """Every measurement, one line each: the columns of audit.csv. The verdict of a method stands on all its lines."""
    return pd.DataFrame(
        [[record[column] for column in COLUMNS] for record in _records(plan, audited)],
        columns=COLUMNS,
    )


def _records(plan: AuditPlan, audited: Sequence[Audited]) -> Iterator[dict[str, Any]]:
    for found in audited:
        block = found.block
        shared = {
            "task": block.task.name,
            "scheduler": str(block.scheduler),
            "particles": block.particles,
            "groups": block.groups,
        }
        for rung in found.rungs:
            for row in rung.iid:
                yield {
                    **shared,
                    "method": "iid",
                    "params": "",
                    "steps": rung.steps,
                    **vars(row),
                    "verdict": "",
                }
        for one in block.candidates:
            verdict = found.verdicts[one.label]
            mine = {**shared, "method": one.name, "params": one.parameters, "verdict": verdict.text}
            if verdict.tests is None:
                yield {**mine, "steps": plan.ladder[-1], **vars(Row("problem", float("nan")))}
            for place, rung in enumerate(found.rungs):
                for row in [
                    *rung.methods[one.label].rows,
                    *_test_rows(verdict, place, len(found.rungs)),
                ]:
                    yield {**mine, "steps": rung.steps, **vars(row)}


def _test_rows(verdict: Verdict, place: int, count: int) -> Iterator[Row]:
    if verdict.tests is None:
        return
    yield Row("gain_p", verdict.tests.gain[place])
    if place == count - 1:
        if verdict.limit is not None:
            yield Row("gain_limit", verdict.limit.value, verdict.limit.low, verdict.limit.high)
        yield Row("gain_limit_p", verdict.tests.limit)
        yield Row("gain_within_margin_p", verdict.tests.none)
        yield Row("marginal_moved_p", verdict.tests.moved)
        yield Row("marginal_kept_p", verdict.tests.kept)


def measure_name(found: Audited) -> str:
    """What a gain is in."""
    return "modes" if found.block.task.counts_modes else "Vendi"


def caption(plan: AuditPlan, found: Audited) -> str:
    """How to read a table: units, baseline, margins."""
    baseline = value_of(
        found.rungs[-1].iid, "modes_covered" if found.block.task.counts_modes else "vendi"
    )
    floor = next(row for row in found.rungs[-1].iid if row.metric == "shift_to_iid")
    return (
        f"{found.block.groups:,} groups a cell, seed {plan.seed}. Gain in {measure_name(found)} over iid's {baseline:.2f}, on the same noise, with half its 95% interval; "
        f"below {plan.margin:g} is none. At {plan.ladder[-1]} steps: moved by, in standard deviations of a shifted normal, from iid's distribution "
        f"(disjoint seeds; iid's own, the floor: {floor.value:+.3f} [{floor.low:+.3f}, {floor.high:+.3f}]; margin {SHIFT_MARGIN}), and the same from the "
        f"truth; spread around the modes, of iid's (margin {SPREAD_MARGIN:.0%}), in iid's own line of the truth's."
    )


def value_of(rows: Sequence[Row], metric: str) -> float:
    """The value of a metric; NaN where it is not."""
    return next((row.value for row in rows if row.metric == metric), float("nan"))


def header(plan: AuditPlan) -> list[str]:
    """Column titles."""
    return [
        "method",
        *(f"gain at {steps}" for steps in plan.ladder),
        "moved by",
        "from truth",
        "spread",
        "verdict",
    ]


def lines(found: Audited) -> Iterator[list[str]]:
    """The cells of a table: iid, then a line per method."""
    plain = found.rungs[-1].iid
    ratio = value_of(plain, "spread") / next(row.floor for row in plain if row.metric == "spread")
    yield [
        "iid",
        *[""] * len(found.rungs),
        f"{value_of(plain, 'shift_to_iid'):+.3f}",
        f"{value_of(plain, 'shift_to_truth'):+.3f}",
        f"x{ratio:.3g}",
        "",
    ]
    for one in found.block.candidates:
        verdict, rows = found.verdicts[one.label], found.rungs[-1].methods[one.label].rows
        if verdict.tests is None:
            yield [one.label, *["-"] * (len(found.rungs) + 3), verdict.text]
            continue
        moved, spread = value_of(rows, "shift_to_iid"), 1 + value_of(rows, "spread_change")
        yield [
            one.label,
            *map(gain_text, verdict.gains),
            f"{moved:+.3f}",
            f"{value_of(rows, 'shift_to_truth'):+.3f}",
            f"x{spread:.3g}",
            verdict.text,
        ]


def gain_text(gain: Estimate) -> str:
    """A value with half the width of its interval."""
    return f"{gain.value:+.2f}±{(gain.high - gain.low) / 2:.2f}"


def audit_table(plan: AuditPlan, found: Audited) -> Table:
    """The table of a block for the terminal."""
    table = Table(
        title=escape(found.block.title), caption=caption(plan, found), caption_justify="left"
    )
    for name in header(plan):
        table.add_column(
            name,
            justify="left" if name in ("method", "verdict") else "right",
            no_wrap=name == "method",
        )
    for cells in lines(found):
        style = (
            "green"
            if cells[-1] == REAL_KEPT
            else "red"
            if cells[-1].startswith(("not measured", "loss"))
            else None
        )
        table.add_row(*map(escape, cells), style=style)
    return table


def audit_markdown(plan: AuditPlan, audited: Sequence[Audited]) -> str:
    """The same tables in Markdown."""
    parts = []
    for found in audited:
        body = "\n".join("| " + " | ".join(cells) + " |" for cells in lines(found))
        names = header(plan)
        rule = (
            "|"
            + "|".join("---" if name in ("method", "verdict") else "--:" for name in names)
            + "|"
        )
        parts.append(
            f"### {found.block.title}\n\n| {' | '.join(names)} |\n{rule}\n{body}\n\n{caption(plan, found)}\n"
        )
    return "\n".join(parts)
