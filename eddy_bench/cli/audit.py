"""`eddy-bench audit`: tell a real gain from an artefact of finite steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eddy_bench.cli.arguments import names_of
from eddy_bench.errors import ParameterError

if TYPE_CHECKING:
    from eddy_bench.audit.divergence import Divergence
    from eddy_bench.audit.plan import AuditPlan
    from eddy_bench.render.table import Table


def audit(
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="name:key=value,... [default: every method that couples particles]. Repeatable.",
            show_default=False,
            autocompletion=names_of("methods"),
        ),
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(
            help="A task's name (see list tasks) or a YAML file. "
            "[default: every closed-form task]. Repeatable.",
            show_default=False,
            autocompletion=names_of("tasks"),
        ),
    ] = None,
    scheduler: Annotated[
        list[str] | None,
        typer.Option(
            help="name:key=value,... [default: ddim and ddim:eta=1]. Repeatable.",
            show_default=False,
            autocompletion=names_of("schedulers"),
        ),
    ] = None,
    particles: Annotated[
        int | None,
        typer.Option(help="Particles per group, N. [default: the task's own]", show_default=False),
    ] = None,
    groups: Annotated[
        int | None,
        typer.Option(
            help="Groups per method and step count. "
            "[default: 1500, in many dimensions fewer; quick 1000]",
            show_default=False,
        ),
    ] = None,
    steps: Annotated[
        str | None,
        typer.Option(
            help="The list of step counts. [default: 25,50,100,200,400, quick 25,50,200]",
            show_default=False,
        ),
    ] = None,
    margin: Annotated[
        float, typer.Option(help="A gain below this counts as none, in modes.")
    ] = 0.1,
    seed: Annotated[int, typer.Option(help="Of the noise.")] = 0,
    out: Annotated[
        Path, typer.Option(help="The folder for audit.csv, audit.md and audit.png.")
    ] = Path("results/audit"),
    quick: Annotated[
        bool, typer.Option("--quick", help="ring8 only, three step counts: under a minute.")
    ] = False,
    divergence: Annotated[
        bool,
        typer.Option(
            "--divergence", help="Measure div(p g) / p by automatic differentiation instead."
        ),
    ] = False,
) -> None:
    """Tell a real gain from an artefact of finite steps.

    It says too whether each sample keeps its distribution. Methods are compared with iid where the
    score is known exactly, over a list of step counts.
    """
    methods, tasks = method or [], task or []
    if divergence:
        drawing = {
            "--scheduler": scheduler,
            "--particles": particles,
            "--groups": groups,
            "--steps": steps,
            "--quick": quick,
        }
        if given := [name for name, value in drawing.items() if value]:
            raise ParameterError(
                f"--divergence draws nothing, so {given[0]} means nothing there. Leave it out."
            )
        _audit_divergence(tasks, methods, seed, out)
        return
    from eddy_bench.audit.plan import make_plan
    from eddy_bench.suites.plugins import Permission

    plan = make_plan(
        tasks,
        methods,
        scheduler or [],
        particles=particles,
        groups=groups,
        steps=steps,
        seed=seed,
        margin=margin,
        quick=quick,
        permission=Permission(),
    )
    raise typer.Exit(_audit_methods(plan, out))


def _audit_methods(plan: AuditPlan, out: Path) -> int:
    """Audit methods; returns the exit code: 2 when one of them could not be measured."""
    from eddy_bench.audit.figure import write_figure
    from eddy_bench.audit.run import NOT_MEASURED, prepare_folder, run_audit
    from eddy_bench.audit.tables import audit_frame, audit_markdown, audit_table
    from eddy_bench.cli.console import print_table, write_line
    from eddy_bench.cli.terminal import Terminal
    from eddy_bench.storage.files import write_text

    prepare_folder(out, plan)
    terminal = Terminal()
    terminal.tell_all(plan.left_out, "Note")
    audited = run_audit(plan, out, terminal)
    _write_csv(audit_frame(plan, audited), out / "audit.csv", "%.6g")
    write_text(out / "audit.md", audit_markdown(plan, audited))
    write_figure(plan, audited, out / "audit.png")
    for result in audited:
        print_table(audit_table(plan, result), "audit.csv")
        write_line("")
    _print_paths(out, ("audit.csv", "audit.md", "audit.png"))
    verdicts = [verdict.text for result in audited for verdict in result.verdicts.values()]
    return 2 if any(text.startswith(NOT_MEASURED) for text in verdicts) else 0


def _audit_divergence(tasks: Sequence[str], methods: Sequence[str], seed: int, out: Path) -> None:
    """Check the divergence of guiding methods, by default every form of EDDY."""
    import pandas as pd

    from eddy_bench.audit.divergence import check_guides, default_methods, measure_all
    from eddy_bench.audit.run import prepare_folder
    from eddy_bench.cli.console import print_table
    from eddy_bench.cli.terminal import Terminal
    from eddy_bench.methods.registry import build_method
    from eddy_bench.models.tasks import DEFAULT_TASKS, load_task
    from eddy_bench.suites.method_spec import MethodSpec
    from eddy_bench.suites.plugins import Permission

    loaded = [load_task(name) for name in (tasks or DEFAULT_TASKS)]
    built = [build_method(MethodSpec.parse(text), Permission()) for text in methods]
    guides = check_guides(built) if methods else default_methods()
    prepare_folder(out)
    measured = measure_all(loaded, guides, seed, Terminal())
    frame = pd.DataFrame([{**asdict(item), "verdict": item.verdict} for item in measured])
    _write_csv(frame, out / "divergence.csv", "%.3g")
    print_table(_divergence_table(measured))
    _print_paths(out, ("divergence.csv",))


def _divergence_table(measured: Sequence[Divergence]) -> Table:
    """Return the noise level with the largest mean residual of each task and method."""
    from eddy_bench.render.table import Cell, Column, Table

    worst: dict[tuple[str, ...], Divergence] = {}
    for item in measured:
        key = (item.task, item.method, item.params)
        if key not in worst or item.mean_residual > worst[key].mean_residual:
            worst[key] = item
    cells = {
        "method": [item.method for item in worst.values()],
        "options": [item.params or "-" for item in worst.values()],
        "residual": [f"{item.residual:.1e}" for item in worst.values()],
        "mean over probes": [
            f"{item.mean_residual:.1e} ± {item.mean_error:.0e}" if item.mean_error else "-"
            for item in worst.values()
        ],
        "halved step": [
            "-" if item.halved_step != item.halved_step else f"{item.halved_step:.1e}"
            for item in worst.values()
        ],
        "verdict": [item.verdict for item in worst.values()],
    }
    return Table(
        "div(p g) / p of one particle, relative to the size of its terms",
        [item.task for item in worst.values()],
        [Column(title, list(map(Cell, texts))) for title, texts in cells.items()],
        tones=["worse" if text.startswith("not") else "better" for text in cells["verdict"]],
        heading="task",
        caption="Root mean square over points, at the noise level where it is largest. "
        "Mean: of the mean over probe draws, ± the part that their spread explains. "
        "Halved: the mean with half the difference step.",
    )


def _write_csv(frame: Any, path: Path, digits: str) -> None:
    from eddy_bench.results.io import escaped
    from eddy_bench.storage.files import write_text

    text = escaped(frame).to_csv(index=False, lineterminator="\n", float_format=digits)
    write_text(path, text)


def _print_paths(out: Path, names: Sequence[str]) -> None:
    from eddy_bench.cli.console import write_line

    for name in names:
        kind = Path(name).stem if name.endswith(".csv") else Path(name).suffix[1:]
        write_line(f"{kind:12}{out / name}")
