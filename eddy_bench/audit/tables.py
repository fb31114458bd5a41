"""Tables of an audit: audit.csv, Markdown, the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from eddy_bench.audit.estimates import Estimate
from eddy_bench.audit.measure import Row
from eddy_bench.audit.plan import AuditPlan
from eddy_bench.audit.run import Audited
from eddy_bench.audit.verdict import SHIFT_MARGIN, SPREAD_MARGIN, Verdict
from eddy_bench.shown import markdown_text

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
    """Return every measurement, a line each: the columns of audit.csv.

    The verdict of a method stands on all its lines.
    """
    return pd.DataFrame(
        [[record[column] for column in COLUMNS] for record in _records(plan, audited)],
        columns=COLUMNS,
    )


def _records(plan: AuditPlan, audited: Sequence[Audited]) -> Iterator[dict[str, Any]]:
    for block_result in audited:
        block = block_result.block
        shared = {
            "task": block.task.name,
            "scheduler": str(block.scheduler),
            "particles": block.particles,
            "groups": block.groups,
        }
        for rung in block_result.rungs:
            for row in rung.iid:
                yield {
                    **shared,
                    "method": "iid",
                    "params": "",
                    "steps": rung.steps,
                    **vars(row),
                    "verdict": "",
                }
        for candidate in block.candidates:
            verdict = block_result.verdicts[candidate.label]
            mine = {
                **shared,
                "method": candidate.name,
                "params": candidate.parameters,
                "verdict": verdict.text,
            }
            if verdict.tests is None:
                yield {**mine, "steps": plan.ladder[-1], **vars(Row("problem", float("nan")))}
            for rung_number, rung in enumerate(block_result.rungs):
                for row in [
                    *rung.methods[candidate.label].rows,
                    *_test_rows(verdict, rung_number, len(block_result.rungs)),
                ]:
                    yield {**mine, "steps": rung.steps, **vars(row)}


def _test_rows(verdict: Verdict, rung_number: int, count: int) -> Iterator[Row]:
    if verdict.tests is None:
        return
    yield Row("gain_p", verdict.tests.gain[rung_number])
    if rung_number == count - 1:
        if verdict.limit is not None:
            yield Row("gain_limit", verdict.limit.value, verdict.limit.low, verdict.limit.high)
        yield Row("gain_limit_p", verdict.tests.limit)
        yield Row("gain_within_margin_p", verdict.tests.none)
        yield Row("marginal_moved_p", verdict.tests.moved)
        yield Row("marginal_kept_p", verdict.tests.kept)
        yield Row("free_share_above_1_p", verdict.tests.beyond)


def measure_name(audited: Audited) -> str:
    """Return what a gain is in."""
    return "modes" if audited.block.task.counts_modes else "Vendi"


def caption(plan: AuditPlan, audited: Audited) -> str:
    """Say how to read a table: units, baseline, margins."""
    baseline = value_of(
        audited.rungs[-1].iid, "modes_covered" if audited.block.task.counts_modes else "vendi"
    )
    floor = next(row for row in audited.rungs[-1].iid if row.metric == "shift_to_iid")
    finest = plan.ladder[-1]
    interval = f"[{floor.low:+.3f}, {floor.high:+.3f}]"
    return (
        f"{audited.block.groups:,} groups a cell, seed {plan.seed}. "
        f"Gain in {measure_name(audited)} over iid's {baseline:.2f}, on the same noise, with half "
        f"its 95% interval; below {plan.margin:g} is none. At {finest} steps: moved by, in "
        "standard deviations of a shifted normal, from iid's distribution (disjoint seeds; iid's "
        f"own, the floor: {floor.value:+.3f} {interval}; margin {SHIFT_MARGIN}), and the same from "
        "the truth; "
        f"spread around the modes, of iid's (margin {SPREAD_MARGIN:.0%}), in iid's own line of the "
        "truth's; free share: of what samples that keep their distribution can gain in squared "
        "distance, at most 1 for them."
    )


def value_of(rows: Sequence[Row], metric: str) -> float:
    """Return the value of a metric; NaN where it is not."""
    return next((row.value for row in rows if row.metric == metric), float("nan"))


def header(plan: AuditPlan) -> list[str]:
    """Return the column titles."""
    return [
        "method",
        *(f"gain at {steps}" for steps in plan.ladder),
        "moved by",
        "from truth",
        "spread",
        "free share",
        "verdict",
    ]


def lines(audited: Audited) -> Iterator[list[str]]:
    """Yield the cells of a table: iid, then a line per method."""
    plain = audited.rungs[-1].iid
    ratio = value_of(plain, "spread") / next(row.floor for row in plain if row.metric == "spread")
    yield [
        "iid",
        *[""] * len(audited.rungs),
        f"{value_of(plain, 'shift_to_iid'):+.3f}",
        f"{value_of(plain, 'shift_to_truth'):+.3f}",
        f"x{ratio:.3g}",
        "",
        "",
    ]
    for candidate in audited.block.candidates:
        verdict = audited.verdicts[candidate.label]
        rows = audited.rungs[-1].methods[candidate.label].rows
        if verdict.tests is None:
            yield [candidate.label, *["-"] * (len(audited.rungs) + 4), verdict.text]
            continue
        moved, spread = value_of(rows, "shift_to_iid"), 1 + value_of(rows, "spread_change")
        yield [
            candidate.label,
            *map(gain_text, verdict.gains),
            f"{moved:+.3f}",
            f"{value_of(rows, 'shift_to_truth'):+.3f}",
            f"x{spread:.3g}",
            share_text(rows),
            verdict.text,
        ]


def gain_text(gain: Estimate) -> str:
    """Return a value with half the width of its interval."""
    return f"{gain.value:+.2f}±{(gain.high - gain.low) / 2:.2f}"


def share_text(rows: Sequence[Row]) -> str:
    """Return the free share with half the width of its interval; a dash for single particles."""
    share = next(row for row in rows if row.metric == "free_share")
    if share.value != share.value:
        return "-"
    digits = 2 if abs(share.value) < 100 else 0
    return f"{share.value:.{digits}f}±{(share.high - share.low) / 2:.{digits}f}"


def audit_markdown(plan: AuditPlan, audited: Sequence[Audited]) -> str:
    """Return the same tables in Markdown."""
    parts = []
    for block_result in audited:
        body = "\n".join(
            "| " + " | ".join(map(markdown_text, cells)) + " |" for cells in lines(block_result)
        )
        names = header(plan)
        rule = (
            "|"
            + "|".join("---" if name in ("method", "verdict") else "--:" for name in names)
            + "|"
        )
        parts.append(
            f"### {block_result.block.title}\n\n| {' | '.join(names)} |\n{rule}\n{body}\n\n"
            f"{caption(plan, block_result)}\n"
        )
    return "\n".join(parts)
