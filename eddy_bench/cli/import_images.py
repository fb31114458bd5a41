"""`eddy-bench import`: a run folder of images that something else drew."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eddy_bench.cli.terminal import Terminal
from eddy_bench.storage.paths import reachable


def import_images(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="DIR",
            help="DIR/PROMPT-ID/*.png, DIR/PROMPT-ID_0.png, GenEval's folders, or a table (CSV, "
            "JSON Lines) with the columns file, prompt and, if need be, method, seed, seconds.",
        ),
    ],
    out: Annotated[
        Path, typer.Option(parser=reachable, metavar="RUN", help="The run folder to be.")
    ],
    method: Annotated[
        str, typer.Option(help="What the images' method is called; a table may say it.")
    ] = "",
    prompts: Annotated[
        str, typer.Option(help="The prompt set that they are of; a table or GenEval may say it.")
    ] = "",
    particles: Annotated[
        int | None,
        typer.Option(min=1, help="Take so many images of each prompt. [default: all]"),
    ] = None,
    model: Annotated[str, typer.Option(help="The name of what drew them.")] = "imported",
) -> None:
    """Make a run folder of images that something else drew: another sampler, an API, a paper.

    It can be scored, compared and voted on. Pairing is over prompts, never over noise.
    """
    from eddy_bench.experiment.imported import Import
    from eddy_bench.experiment.imported import import_images as import_into

    terminal = Terminal()
    request = Import(source, out, method, prompts, particles, model)
    folder = import_into(request, terminal)
    terminal.tell(f"Score it: eddy-bench score {folder.path}")
