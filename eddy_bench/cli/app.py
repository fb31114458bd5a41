"""The command line: parse, call, print. A command's file is imported when that command is given."""

from __future__ import annotations

import importlib
import io
import os
import sys
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command_from_info
from typer.models import CommandInfo

from eddy_bench import __version__
from eddy_bench.cli.console import VERBOSITY, hush_libraries
from eddy_bench.cli.interrupt import Interruption, interruptible
from eddy_bench.errors import ParameterError, line_of
from eddy_bench.shown import shown

# a command: what it does, and MODULE:FUNCTION below eddy_bench.cli
COMMANDS = {
    "run": ("Draw the images of a suite, score them, print a table.", "run:run"),
    "merge": ("Put the shards of a run together and score them.", "merge:merge"),
    "import": (
        "Make a run folder of images that something else drew.",
        "import_images:import_images",
    ),
    "score": ("Score a run folder again without drawing.", "score:score"),
    "reference": (
        "Save what fd and fid need of real images.",
        "reference:reference",
    ),
    "audit": ("Tell a real gain from an artefact of finite steps.", "audit:audit"),
    "compare": ("Say which method is better, by how much and how surely.", "compare:compare"),
    "power": ("Say how many prompts show a difference of a given size.", "power:power"),
    "report": ("Write one HTML page that shows a run.", "report:report"),
    "check-method": ("Check what every method promises, on small models.", "check:check_method"),
    "check-metric": ("Check what every metric promises, on small images.", "check:check_metric"),
    "doctor": ("Say what works here: versions, devices, hub, weights.", "doctor:doctor"),
    "list": ("List methods, models, metrics and others by name.", "list:list_"),
}


class Command(TyperCommand):
    """A command whose help shows options under the headings of their groups."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write one section for each group, in the order of their first options."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            if (record := param.get_help_record(ctx)) is not None:
                own = "Arguments" if param.param_type_name == "argument" else "Options"
                panel = getattr(param, "rich_help_panel", None) or own
                sections.setdefault(panel, []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


class Commands(TyperGroup):
    """The commands, each imported when it is asked for."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands: Any = dict.fromkeys(COMMANDS)  # their names are suggested for others

    def list_commands(self, ctx: Any) -> list[str]:
        """Return their names in the order of a user's work."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command; None where there is none of this name, as typer wants it."""
        if cmd_name not in COMMANDS:
            return None
        summary, place = COMMANDS[cmd_name]
        module, function = place.split(":")
        callback = getattr(importlib.import_module(f"eddy_bench.cli.{module}"), function)
        info = CommandInfo(name=cmd_name, cls=Command, callback=callback, short_help=summary)
        info.context_settings = {"help_option_names": ["-h", "--help"]}
        return get_command_from_info(info, pretty_exceptions_short=False, rich_markup_mode=None)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands whole; what is too long for a line goes on in the next."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (summary, _) in COMMANDS.items()])


app = typer.Typer(
    name="eddy-bench",
    cls=Commands,
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


def fail(message: str) -> NoReturn:
    """Print one line on stderr, exit code 2."""
    print(f"Error: {' '.join(shown(message).split())}", file=sys.stderr)
    sys.exit(2)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line; every expected problem is one line and exit code 2."""
    given = sys.argv[1:] if arguments is None else arguments
    # before torch is imported: threads that spin while they wait stall beside other processes
    # (benchmarks/busy.py)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
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
