"""Tables of an audit: audit.csv, Markdown, the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from eddy_bench.audit.estimates import Estimate
from eddy_bench.audit.measure import Row, row_of
from eddy_bench.audit.plan import BASELINE, AuditPlan
from eddy_bench.audit.run import NOT_MEASURED, Audited
from eddy_bench.audit.verdict import REAL_KEPT, SHIFT_MARGIN, SPREAD_MARGIN, Verdict
from eddy_bench.render.table import Cell, Column, Table

BLOCK = ["task", "method", "scheduler", "steps", "particles", "groups"]
COLUMNS = [*BLOCK, "metric", "value", "low", "high", "floor", "verdict"]  # of audit.csv


def audit_frame(plan: AuditPlan, audited: Sequence[Audited]) -> pd.DataFrame:
    """Return every measurement, a line each: the columns of audit.csv.

    The verdict of a method stands on all its lines.
    """
    return pd.DataFrame(list(_records(plan, audited)), columns=COLUMNS)


def _records(plan: AuditPlan, audited: Sequence[Audited]) -> Iterator[dict[str, Any]]:
    for result in audited:
        block = result.block
        shared = {
            "task": block.task.name,
            "scheduler": str(block.scheduler),
            "particles": block.particles,
            "groups": block.groups,
        }
        for steps, rows in zip(plan.step_counts, result.iid, strict=True):
            for row in rows:
                yield {**shared, "method": BASELINE, "verdict": "", "steps": steps, **vars(row)}
        for label, by_steps in result.methods.items():
            verdict = result.verdicts[label]
            mine = {**shared, "method": label, "verdict": verdict.text}
            if verdict.tests is None:
                yield {**mine, "steps": plan.step_counts[-1], **vars(Row("problem", float("nan")))}
            for number, (steps, measured) in enumerate(
                zip(plan.step_counts, by_steps, strict=True)
            ):
                for row in (*measured.rows, *_test_rows(verdict, number)):
                    yield {**mine, "steps": steps, **vars(row)}


def _test_rows(verdict: Verdict, number: int) -> Iterator[Row]:
    tests = verdict.tests
    if tests is None:
        return
    yield Row("gain_p", tests.gain[number])
    if number == len(tests.gain) - 1:
        if verdict.limit is not None:
            yield Row("gain_limit", verdict.limit.value, verdict.limit.low, verdict.limit.high)
        yield Row("gain_limit_p", tests.limit)
        yield Row("gain_within_margin_p", tests.none)
        yield Row("marginal_shifted_p", tests.shifted)
        yield Row("marginal_kept_p", tests.kept)
        yield Row("headroom_above_1_p", tests.beyond)


def audit_table(plan: AuditPlan, audited: Audited) -> Table:
    """Return the table of a block: iid, then a line per method with its verdict."""
    labels = list(audited.methods)
    rows = [_iid_cells(audited), *(_cells(audited, label) for label in labels)]
    steps = len(plan.step_counts)
    titles = [f"gain at {count}" for count in plan.step_counts]
    titles += ["shifted by", "from target", "spread", "headroom"]
    ranks = [*(steps + 3 - k for k in range(steps - 1)), 0, 1, 4, 2, 3]
    verdicts = ["", *(audited.verdicts[label].text for label in labels)]
    return Table(
        audited.block.title,
        [BASELINE, *labels],
        [
            Column(title, cells, rank)
            for title, cells, rank in zip(titles, zip(*rows, strict=True), ranks, strict=True)
        ],
        verdicts,
        list(map(_tone, verdicts)),
        remarked="verdict",
        caption=_caption(plan, audited),
    )


def audit_markdown(plan: AuditPlan, audited: Sequence[Audited]) -> str:
    """Return the same tables in Markdown."""
    tables = [audit_table(plan, result) for result in audited]
    return "\n".join(
        f"### {table.title}\n\n{table.markdown()}\n\n{table.caption}\n" for table in tables
    )


def _shift_cells(rows: Sequence[Row]) -> list[Cell]:
    return [Cell(f"{row_of(rows, f'shift_to_{name}').value:+.3f}") for name in ("iid", "truth")]


def _iid_cells(audited: Audited) -> list[Cell]:
    rows = audited.iid[-1]
    spread = row_of(rows, "spread")
    ends = [Cell(f"x{spread.value / spread.floor:.3g}"), Cell("")]
    return [*[Cell("")] * len(audited.iid), *_shift_cells(rows), *ends]


def _cells(audited: Audited, label: str) -> list[Cell]:
    verdict, rows = audited.verdicts[label], audited.methods[label][-1].rows
    if verdict.tests is None:
        return [Cell("-")] * (len(audited.iid) + 4)
    share = row_of(rows, "headroom")
    digits = 2 if abs(share.value) < 100 else 0
    return [
        *(Cell(f"{gain.value:+.2f}", f"±{_reach(gain):.2f}") for gain in verdict.gains),
        *_shift_cells(rows),
        Cell(f"x{1 + row_of(rows, 'spread_change').value:.3g}"),
        Cell("-")  # of single particles
        if share.value != share.value
        else Cell(f"{share.value:.{digits}f}", f"±{_reach(share):.{digits}f}"),
    ]


def _reach(interval: Estimate | Row) -> float:
    return (interval.high - interval.low) / 2


def _tone(verdict: str) -> str:
    if verdict == REAL_KEPT:
        return "better"
    return "worse" if verdict.startswith((NOT_MEASURED, "loss")) else ""


def measure_name(audited: Audited) -> str:
    """Return what a gain is in."""
    return "modes" if audited.block.task.counts_modes else "Vendi"


def _caption(plan: AuditPlan, audited: Audited) -> str:
    rows = audited.iid[-1]
    baseline = row_of(rows, "modes_covered" if audited.block.task.counts_modes else "vendi").value
    floor = row_of(rows, "shift_to_iid")
    return (
        f"{audited.block.groups:,} groups a cell, seed {plan.seed}. "
        f"Gain in {measure_name(audited)} over iid's {baseline:.2f}, on the same noise, with "
        f"half its 95% interval; below {plan.margin:g} is none. At {plan.step_counts[-1]} steps: "
        "shifted by, in standard deviations of a shifted normal, from iid's distribution "
        f"(disjoint seeds; iid's own, the floor: {floor.value:+.3f} "
        f"[{floor.low:+.3f}, {floor.high:+.3f}]; margin {SHIFT_MARGIN}), and the same from the "
        f"target; spread around the modes, of iid's (margin {SPREAD_MARGIN:.0%}), in iid's own "
        "line of the target's; headroom: how much of the squared distance that marginal-preserving "
        "methods can gain is used, at most 1 for them."
    )
