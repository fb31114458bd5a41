"""Run, write and print an audit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
from rich.markup import escape
from rich.table import Table

from eddy_bench.audit.divergence import (
    LEVELS,
    Divergence,
    check_guides,
    default_methods,
    measure_divergence,
)
from eddy_bench.audit.plan import AuditPlan, make_plan
from eddy_bench.audit.run import (
    NOT_MEASURED,
    Audited,
    missing_work,
    one_thread,
    prepare_folder,
    run_audit,
    time_methods,
)
from eddy_bench.audit.tables import audit_frame, audit_markdown, caption, header, lines
from eddy_bench.audit.verdict import REAL_KEPT
from eddy_bench.cli.console import console, print_whole, say, write_line
from eddy_bench.cli.figure_table import (
    Cell,
    Column,
    FigureTable,
    left_out_note,
    print_figures,
)
from eddy_bench.cli.progress import about, progress_bar
from eddy_bench.methods.registry import build_method, changed_parameters
from eddy_bench.models.tasks import DEFAULT_TASKS, load_task
from eddy_bench.scoring.score_table import escaped
from eddy_bench.storage.files import write_text
from eddy_bench.suites.method_spec import MethodSpec
from eddy_bench.suites.plugins import Permission

DIVERGENCE_HEADER = (
    "task",
    "method",
    "options",
    "residual",
    "mean over probes",
    "halved step",
    "verdict",
)


def audit_methods(options: dict[str, Any], out: Path) -> int:
    """Audit methods. Returns the exit code: 2 when one of them could not be measured.

    Args:
        options: arguments of `make_plan`. out: the folder.

    """
    plan = make_plan(**options, permission=Permission())
    prepare_folder(out, plan)
    for left_out in plan.left_out:
        say(str(left_out), "Note")
    with one_thread():
        audited = _audited(plan, out)
    _write(plan, audited, out)
    for block_result in audited:
        _print_block(plan, block_result)
    _print_paths(out, ("audit.csv", "audit.md", "audit.png"))
    return (
        2
        if any(
            verdict.text.startswith(NOT_MEASURED)
            for block_result in audited
            for verdict in block_result.verdicts.values()
        )
        else 0
    )


def _audited(plan: AuditPlan, out: Path) -> list[Audited]:
    """Say how long it takes, and run what is missing."""
    costs = time_methods(plan, out)
    seconds = missing_work(plan, out, costs)
    if costs:
        say(f"Auditing takes {about(seconds)}, by a short trial of each method.")
    with progress_bar("Auditing", seconds, percent=True) as advance:
        return run_audit(plan, out, advance, costs)


def _print_block(plan: AuditPlan, audited: Audited) -> None:
    """Print the table of a block, and how to read it."""
    names = header(plan)[1:-1]
    rows = list(lines(audited))
    columns = [
        Column(name, rank, [_cell(row[1 + k]) for row in rows])
        for k, (name, rank) in enumerate(zip(names, _ranks(len(plan.ladder)), strict=True))
    ]
    styles = [_style(row[-1]) for row in rows]
    table = FigureTable(
        audited.block.title, [row[0] for row in rows], columns, [row[-1] for row in rows], styles
    )
    print_figures(table)
    write_line(caption(plan, audited))
    if left_out := left_out_note([table], console().width, "audit.csv"):
        write_line(left_out)
    write_line("")


def _ranks(steps: int) -> list[int]:
    """Return which columns stay longest: the finest gain, moved by, spread, free share, others."""
    return [*(steps + 3 - k for k in range(steps - 1)), 0, 1, 4, 2, 3]


def _cell(text: str) -> Cell:
    figure, sign, reach = text.partition("±")
    return Cell(figure, sign + reach)


def _style(verdict: str) -> str:
    if verdict == REAL_KEPT:
        return "green"
    return "red" if verdict.startswith((NOT_MEASURED, "loss")) else ""


def _write(plan: AuditPlan, audited: Sequence[Audited], out: Path) -> None:
    from eddy_bench.audit.figure import write_figure

    write_text(
        out / "audit.csv",
        escaped(audit_frame(plan, audited)).to_csv(
            index=False, lineterminator="\n", float_format="%.6g"
        ),
    )
    write_text(out / "audit.md", audit_markdown(plan, audited))
    write_figure(plan, audited, out / "audit.png")


def audit_divergence(tasks: Sequence[str], methods: Sequence[str], seed: int, out: Path) -> int:
    """Check the divergence of guiding methods, by default every form of EDDY.

    Returns the exit code.
    """
    loaded = [load_task(name) for name in (tasks or DEFAULT_TASKS)]
    guides = (
        check_guides([build_method(MethodSpec.parse(text), Permission()) for text in methods])
        if methods
        else default_methods()
    )
    named = [
        (
            method,
            ",".join(
                f"{key}={value}"
                for key, value in changed_parameters(method).items()
                if key not in ("kernel", "window")
            ),
        )
        for method in guides
    ]
    prepare_folder(out)
    measured = []
    with progress_bar("Differentiating", len(loaded) * len(named) * len(LEVELS)) as advance:
        for task in loaded:
            for method, params in named:
                for level in LEVELS:
                    measured.append(measure_divergence(task, method, params, level, seed))
                    advance(1, f"{task.name}: {method.title()}")
    frame = pd.DataFrame([{**asdict(item), "verdict": item.verdict} for item in measured])
    write_text(
        out / "divergence.csv",
        escaped(frame).to_csv(index=False, lineterminator="\n", float_format="%.3g"),
    )
    print_whole(_divergence_table(measured))
    _print_paths(out, ("divergence.csv",))
    return 0


def _divergence_table(measured: Sequence[Divergence]) -> Table:
    table = Table(
        title="div(p g) / p of one particle, relative to the size of its terms",
        caption="Root mean square over points, at the noise level where it is largest. "
        "Mean: of the mean over probe draws, ± the part that their spread explains. "
        "Halved: the mean with half the difference step.",
        caption_justify="left",
    )
    for name in DIVERGENCE_HEADER:
        table.add_column(name)
    for divergence in _worst(measured):
        kept = divergence.verdict.startswith("divergence-free")
        table.add_row(*map(escape, _divergence_cells(divergence)), style="green" if kept else "red")
    return table


def _worst(measured: Sequence[Divergence]) -> list[Divergence]:
    """Return the noise level with the largest mean residual of each task and method."""
    worst: dict[tuple[str, str, str], Divergence] = {}
    for divergence in measured:
        key = (divergence.task, divergence.method, divergence.params)
        if key not in worst or divergence.mean_residual > worst[key].mean_residual:
            worst[key] = divergence
    return list(worst.values())


def _divergence_cells(divergence: Divergence) -> tuple[str, ...]:
    mean = f"{divergence.mean_residual:.1e} ± {divergence.mean_error:.0e}"
    halved = f"{divergence.halved_step:.1e}"
    return (
        divergence.task,
        divergence.method,
        divergence.params or "-",
        f"{divergence.residual:.1e}",
        mean if divergence.mean_error else "-",
        "-" if math.isnan(divergence.halved_step) else halved,
        divergence.verdict,
    )


def _print_paths(out: Path, names: Sequence[str]) -> None:
    for name in names:
        kind = Path(name).stem if name.endswith(".csv") else Path(name).suffix[1:]
        console().print(escape(f"{kind:12}{out / name}"), soft_wrap=True)
