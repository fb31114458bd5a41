"""The command line: parse, call, print. Nothing heavy is imported until a command needs it."""

from __future__ import annotations

import io
import sys
from typing import Annotated, Any, NoReturn

import typer

from eddy_bench import __version__
from eddy_bench.cli.audit import audit
from eddy_bench.cli.check_method import check_method
from eddy_bench.cli.check_metric import check_metric
from eddy_bench.cli.compare import compare
from eddy_bench.cli.console import VERBOSITY, hush_libraries
from eddy_bench.cli.doctor import doctor
from eddy_bench.cli.interrupt import Interruption, interruptible
from eddy_bench.cli.list import list_
from eddy_bench.cli.merge import merge
from eddy_bench.cli.power import power
from eddy_bench.cli.reference import reference
from eddy_bench.cli.report import report
from eddy_bench.cli.run import run
from eddy_bench.cli.score import score
from eddy_bench.errors import ParameterError, line_of
from eddy_bench.shown import shown

app = typer.Typer(
    name="eddy-bench",
    help="Benchmark ways of drawing different images from diffusion and flow models.",
    no_args_is_help=True,
    add_completion=True,
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
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Leave progress and notes out.")
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose", "-v", help="Say what is loaded and written, and what libraries warn of."
        ),
    ] = False,
) -> None:
    if quiet and verbose:
        raise ParameterError("Expected -q or -v, got both. Leave one out.")
    VERBOSITY.set(-1 if quiet else int(verbose))
    hush_libraries()


app.command()(run)
app.command()(merge)
app.command()(score)
app.command()(reference)
app.command()(audit)
app.command()(compare)
app.command()(power)
app.command()(report)
app.command(name="check-method")(check_method)
app.command(name="check-metric")(check_metric)
app.command()(doctor)
app.command(name="list")(list_)


def fail(message: str) -> NoReturn:
    """Print one line on stderr, exit code 2."""
    print(f"Error: {' '.join(shown(message).split())}", file=sys.stderr)
    sys.exit(2)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line; every expected problem is one line and exit code 2."""
    given = sys.argv[1:] if arguments is None else arguments
    for stream in (sys.stdout, sys.stderr):  # a terminal may lack characters that a table has
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    with interruptible(given) as interruption:
        _main(given, interruption)


def _main(arguments: list[str], interruption: Interruption) -> NoReturn:
    try:
        code: Any = app(args=arguments or ["--help"], prog_name="eddy-bench", standalone_mode=False)
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
