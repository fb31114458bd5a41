"""The command line: parse, call, print. Nothing heavy is imported until a command needs it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from eddy_bench import __version__
from eddy_bench.cli.interrupt import CODE as INTERRUPTED
from eddy_bench.cli.interrupt import interruptible, say_interrupted
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

_PLACE: Any = {"parser": reachable, "metavar": "PATH"}  # a folder or file, here or remote


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


@app.command()
def run(
    suite: Annotated[
        str | None,
        typer.Argument(
            help="A suite's name or a YAML file. [default: fashion]", show_default=False
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="'fashion' (embedded), a folder saved by diffusers, or a hub id."),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Revision of a hub id.")] = None,
    variant: Annotated[
        str | None, typer.Option(help="Weight variant of a hub id, e.g. fp16.")
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="name:key=value,... or FILE.py:Name:key=value,...; replaces the suite's. Repeatable."
        ),
    ] = None,
    prompts: Annotated[
        str | None,
        typer.Option(
            help="A set's name; a YAML, text, JSON, CSV or TSV file (FILE:COLUMN); or a hub data set owner/name[:split[:column]]."
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first prompts.")] = None,
    particles: Annotated[int | None, typer.Option(help="Images per prompt and seed, N.")] = None,
    seeds: Annotated[int | None, typer.Option(help="How many seeds per prompt.")] = None,
    steps: Annotated[int | None, typer.Option(help="Solver steps.")] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="name:key=value,... such as ddim, ddim:eta=1, dpmpp-2m.")
    ] = None,
    guidance_scale: Annotated[
        float | None, typer.Option(help="Classifier-free guidance as in diffusers; 1 is none.")
    ] = None,
    negative_prompt: Annotated[str | None, typer.Option(help="For every prompt.")] = None,
    size: Annotated[int | None, typer.Option(help="Image side in pixels.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, float16 or bfloat16.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = None,
    batch_prompts: Annotated[
        str | None,
        typer.Option(
            help="Prompts that share a forward pass; auto halves them when memory runs out."
        ),
    ] = None,
    timesteps: Annotated[
        str | None, typer.Option(help="Their spacing: default, karras, exponential, beta or ays.")
    ] = None,
    guide: Annotated[
        str | None,
        typer.Option(
            help="Backbone of feature kernels: auto (DINOv2), dino, timm:MODEL[@SIZE], open_clip:MODEL/WEIGHTS."
        ),
    ] = None,
    decoder: Annotated[
        str | None,
        typer.Option(help="An AutoencoderTiny that decodes for the guide: a folder or hub id."),
    ] = None,
    feature_batch: Annotated[
        int | None, typer.Option(help="Images that go through decoder and guide at once.")
    ] = None,
    offload: Annotated[
        bool,
        typer.Option("--offload", help="Keep only the part at work on the GPU, decode in slices."),
    ] = False,
    metric: Annotated[
        list[str] | None,
        typer.Option(help="name[extractor]:key=value; replaces the model's own. Repeatable."),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(help="A folder of real images for fd, fid, kid, precision, recall."),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="A folder with weights, of metrics or the guide, that cannot be downloaded."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            **_PLACE,
            help="The run folder itself, or an address such as s3://bucket/run. [default: results/SUITE]",
            show_default=False,
        ),
    ] = None,
    allow_code: Annotated[
        bool, typer.Option("--allow-code", help="Let a suite file name methods in Python files.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be drawn, and stop.")
    ] = False,
    executor: Annotated[str, typer.Option(help="local, or ray (extra: ray).")] = "local",
    address: Annotated[
        str | None,
        typer.Option(
            help="A Ray cluster to join, HOST:PORT or auto. [default: start one here]",
            show_default=False,
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Ray workers. [default: one per GPU, or per --cpus-per-worker]",
            show_default=False,
        ),
    ] = None,
    cpus_per_worker: Annotated[int, typer.Option(min=1, help="CPUs of a Ray worker.")] = 1,
    shard: Annotated[
        str | None,
        typer.Option(
            help="Draw share i/n only, into OUT-shard-i-of-n; eddy-bench merge puts shares together."
        ),
    ] = None,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Hash every finished image before drawing what is missing."),
    ] = False,
) -> None:
    """Draw the images of a suite, score them, print a table.

    What is finished already is kept: the same command goes on where it stopped.
    """
    flags = {
        "model": model,
        "revision": revision,
        "variant": variant,
        "methods": method,
        "prompts": prompts,
        "limit": limit,
        "particles": particles,
        "seeds": seeds,
        "steps": steps,
        "scheduler": scheduler,
        "guidance_scale": guidance_scale,
        "negative_prompt": negative_prompt,
        "size": size,
        "dtype": dtype,
        "device": device,
        "batch_prompts": batch_prompts,
        "metrics": metric,
        "reference": reference,
        "weights": weights,
        "timesteps": timesteps,
        "guide": guide,
        "decoder": decoder,
        "feature_batch": feature_batch,
        "offload": offload or None,
    }
    from eddy_bench.cli.run import run_suite
    from eddy_bench.runs.options import RunOptions
    from eddy_bench.runs.sharding import parse_shard

    options = RunOptions(
        executor,
        address,
        workers,
        cpus_per_worker,
        None if shard is None else parse_shard(shard),
        verify,
    )
    raise typer.Exit(
        run_suite(
            suite,
            {key: value for key, value in flags.items() if value is not None},
            out,
            allow_code,
            dry_run,
            options,
        )
    )


@app.command()
def merge(
    target: Annotated[
        Path, typer.Argument(parser=reachable, metavar="OUT", help="The run folder to be.")
    ],
    sources: Annotated[
        list[Path],
        typer.Argument(parser=reachable, metavar="SHARE...", help="Run folders of run --shard."),
    ],
) -> None:
    """Put the shares of a run together and score them."""
    from eddy_bench.cli.run import merge_shards

    raise typer.Exit(merge_shards(target, sources))


@app.command()
def score(
    folder: Annotated[Path, typer.Argument(parser=reachable, metavar="RUN", help="A run folder.")],
    metric: Annotated[
        list[str] | None,
        typer.Option(help="name[extractor]:key=value; replaces the model's own. Repeatable."),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(help="A folder of real images for fd, fid, kid, precision, recall."),
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="A folder with weights of metrics that cannot be downloaded.")
    ] = None,
) -> None:
    """Score a run folder again without drawing."""
    from eddy_bench.cli.run import score_run

    score_run(folder, metric, reference, weights)


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
            **_PLACE, help="Another run or a scores.csv: compare each method with itself there."
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
        typer.Option(**_PLACE, help="The page. [default: RUN/report.html]", show_default=False),
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


@app.command(name="check-method")
def check_method(
    method: Annotated[str, typer.Argument(help="name:key=value,... or FILE.py:Name:key=value,...")],
) -> None:
    """Check what every method promises, on small models: zero strength, N = 1, permutation, batches, finite, deterministic.

    Exit code 1 when a promise is broken.
    """
    from eddy_bench.cli.run import check_promises

    raise typer.Exit(check_promises(method))


@app.command(name="list")
def list_(
    kind: Annotated[
        str, typer.Argument(help="methods, models, tasks, metrics, prompts, schedulers or suites.")
    ],
) -> None:
    """List what can be asked for by name."""
    from eddy_bench.cli.listing import print_list

    print_list(kind)


def fail(message: str) -> NoReturn:
    """One line on stderr, exit code 2."""
    print(f"Error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line; every expected problem is one line and exit code 2."""
    with interruptible():
        _main(arguments)


def _main(arguments: list[str] | None) -> NoReturn:
    try:
        code: Any = app(args=arguments, prog_name="eddy-bench", standalone_mode=False)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except Exception as error:
        line = line_of(error)
        if line is None:
            raise
        if line:
            fail(line)
        code = 0
    if code == INTERRUPTED:
        say_interrupted()
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
