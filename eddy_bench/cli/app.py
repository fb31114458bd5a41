"""The command line: parse, call, print. Nothing heavy is imported until a command needs it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from eddy_bench import __version__
from eddy_bench.cli.arguments import PATH
from eddy_bench.cli.check_method import check_method
from eddy_bench.cli.interrupt import Interruption, interruptible
from eddy_bench.cli.list import list_
from eddy_bench.cli.merge import merge
from eddy_bench.cli.run import run
from eddy_bench.cli.score import score
from eddy_bench.errors import ParameterError, line_of
from eddy_bench.storage.paths import reachable

app = typer.Typer(
    name="eddy-bench",
    help="Benchmark ways of drawing different images from diffusion and flow models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"eddy-bench {__version__}")
        raise typer.Exit()


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    pass


app.command()(run)
app.command()(merge)
app.command()(score)


@app.command()
def audit(
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="name:key=value,... [default: every registered method]. Repeatable.",
            show_default=False,
        ),
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(
            help="A task's name (see list tasks) or a YAML file. [default: every closed-form task]. Repeatable.",
            show_default=False,
        ),
    ] = None,
    scheduler: Annotated[
        list[str] | None,
        typer.Option(
            help="name:key=value,... [default: ddim and ddim:eta=1]. Repeatable.",
            show_default=False,
        ),
    ] = None,
    particles: Annotated[
        int | None,
        typer.Option(help="Particles per group, N. [default: the task's own]", show_default=False),
    ] = None,
    groups: Annotated[
        int | None,
        typer.Option(
            help="Groups per method and step count. [default: 1500, in many dimensions fewer; quick 1000]",
            show_default=False,
        ),
    ] = None,
    steps: Annotated[
        str | None,
        typer.Option(
            help="The ladder of step counts. [default: 25,50,100,200,400, quick 25,50,200]",
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
    """Tell a real gain from an artefact of finite steps, and whether each sample keeps its distribution.

    Methods are compared with iid where the score is known exactly, over a ladder of step counts.
    """
    from eddy_bench.cli.audit import audit_divergence, audit_methods

    if divergence:
        unused = {
            "--scheduler": scheduler,
            "--particles": particles,
            "--groups": groups,
            "--steps": steps,
            "--quick": quick,
        }
        if given := [name for name, value in unused.items() if value]:
            raise ParameterError(
                f"--divergence draws nothing, so {given[0]} means nothing there. Leave it out."
            )
        raise typer.Exit(audit_divergence(task or [], method or [], seed, out))
    options = {
        "tasks": task or [],
        "methods": method or [],
        "schedulers": scheduler or [],
        "particles": particles,
        "groups": groups,
        "steps": steps,
        "seed": seed,
        "margin": margin,
        "quick": quick,
    }
    raise typer.Exit(audit_methods(options, out))


@app.command()
def compare(
    sources: Annotated[
        list[Path] | None,
        typer.Argument(
            parser=reachable,
            metavar="RUN",
            help="Run folders or scores.csv files. [default: the last run]",
            show_default=False,
        ),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            help="The method that the others are compared with, with its parameters if any. [default: iid]",
            show_default=False,
        ),
    ] = None,
    form: Annotated[
        str | None,
        typer.Option(
            "--format", help="table, markdown, csv or json. [default: table]", show_default=False
        ),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            **PATH, help="Another run or a scores.csv: compare each method with itself there."
        ),
    ] = None,
    gate: Annotated[
        Path | None,
        typer.Option(
            help="A gate's YAML file; needs --against. Exit codes: 0 passes, 1 regression, 2 could not be measured, 3 not enough data."
        ),
    ] = None,
    junit: Annotated[
        Path | None, typer.Option(help="Write the gate's outcome as JUnit XML.")
    ] = None,
    summary: Annotated[
        Path | None, typer.Option(help="Write the gate's outcome as Markdown, for a pull request.")
    ] = None,
    partly: Annotated[
        bool, typer.Option("--partly", help="Compare what both sides have where they differ.")
    ] = False,
) -> None:
    """Say which method is better, by how much and how surely: paired over prompts. Or gate a run against a recorded one."""
    from eddy_bench.cli.compare import compare_runs, run_gate_files

    if gate is None:
        if junit or summary:
            raise ParameterError("--junit and --summary are of a gate. Add --gate FILE.")
        if against and baseline:
            raise ParameterError(
                "With --against each method is compared with itself, so --baseline means nothing there. Leave one out."
            )
        raise typer.Exit(
            compare_runs(sources or [], baseline or "iid", form or "table", against, partly)
        )
    if given := [
        name
        for name, value in {"--baseline": baseline, "--format": form, "--partly": partly}.items()
        if value
    ]:
        raise ParameterError(f"{given[0]} means nothing to a gate. Leave it out.")
    if against is None:
        raise ParameterError(
            "--gate needs a baseline to compare with. Add --against RUN or --against FILE.csv."
        )
    raise typer.Exit(run_gate_files(sources or [], against, gate, junit, summary))


@app.command()
def report(
    folders: Annotated[
        list[Path], typer.Argument(parser=reachable, metavar="RUN", help="Run folders.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(**PATH, help="The page. [default: RUN/report.html]", show_default=False),
    ] = None,
    baseline: Annotated[
        str,
        typer.Option(
            help="The method that the others are compared with, with its parameters if any."
        ),
    ] = "iid",
    partly: Annotated[
        bool, typer.Option("--partly", help="Compare what all runs have where they differ.")
    ] = False,
) -> None:
    """Write one self-contained HTML page about a run: verdicts, plots, images, cost."""
    from eddy_bench.cli.report import report_runs

    report_runs(folders, out, baseline, partly)


app.command(name="check-method")(check_method)
app.command(name="list")(list_)


def fail(message: str) -> NoReturn:
    """One line on stderr, exit code 2."""
    print(f"Error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line; every expected problem is one line and exit code 2."""
    with interruptible() as interruption:
        _main(arguments, interruption)


def _main(arguments: list[str] | None, interruption: Interruption) -> NoReturn:
    try:
        code: Any = app(args=arguments, prog_name="eddy-bench", standalone_mode=False)
    except KeyboardInterrupt:
        code = interruption.code
    except Exception as error:
        line = line_of(error)
        if line is None:
            raise
        if line:
            fail(line)
        code = 0
    if interruption.signal is not None:
        interruption.announce()
        code = interruption.code
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
