"""Options of `eddy-bench run`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eddy_bench.cli.arguments import PATH, Log
from eddy_bench.cli.completion import names_of, one_of


def run(
    suite: Annotated[
        str | None,
        typer.Argument(
            help="A suite's name or a YAML file. [default: fashion]",
            show_default=False,
            autocompletion=names_of("suites"),
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="'fashion' (embedded), a folder saved by diffusers, or a hub id.",
            autocompletion=names_of("models"),
        ),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Revision of a hub id.")] = None,
    variant: Annotated[
        str | None, typer.Option(help="Weight variant of a hub id, e.g. fp16; '' for none.")
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="name:key=value,... or FILE.py:Name:key=value,...; replaces the suite's. "
            "Repeatable.",
            autocompletion=names_of("methods"),
        ),
    ] = None,
    prompts: Annotated[
        str | None,
        typer.Option(
            help="A set's name; a YAML, text, JSON, CSV or TSV file (FILE:COLUMN); "
            "or a hub data set owner/name[:split[:column]].",
            autocompletion=names_of("prompts"),
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first prompts.")] = None,
    particles: Annotated[int | None, typer.Option(help="Images per prompt and seed, N.")] = None,
    seeds: Annotated[int | None, typer.Option(help="How many seeds per prompt.")] = None,
    steps: Annotated[int | None, typer.Option(help="Solver steps.")] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            help="name:key=value,... such as ddim, ddim:eta=1, dpmpp-2m.",
            autocompletion=names_of("schedulers"),
        ),
    ] = None,
    guidance_scale: Annotated[
        float | None, typer.Option(help="Classifier-free guidance as in diffusers; 1 is none.")
    ] = None,
    negative_prompt: Annotated[str | None, typer.Option(help="For every prompt.")] = None,
    size: Annotated[int | None, typer.Option(help="Image side in pixels.")] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="float32, float16 or bfloat16.",
            autocompletion=one_of("float32", "float16", "bfloat16"),
        ),
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = None,
    batch_prompts: Annotated[
        str | None,
        typer.Option(
            help="Prompts that share a forward pass; auto halves them when memory runs out."
        ),
    ] = None,
    timesteps: Annotated[
        str | None,
        typer.Option(
            help="Their spacing: default, karras, exponential, beta, trailing or ays.",
            autocompletion=one_of("default", "karras", "exponential", "beta", "trailing", "ays"),
        ),
    ] = None,
    guide: Annotated[
        str | None,
        typer.Option(
            help="Backbone of feature kernels: auto (DINOv2), dino, timm:MODEL[@SIZE], "
            "open_clip:MODEL/WEIGHTS."
        ),
    ] = None,
    decoder: Annotated[
        str | None,
        typer.Option(help="An AutoencoderTiny that decodes for the guide: a folder or hub id."),
    ] = None,
    feature_batch: Annotated[
        str | None,
        typer.Option(
            help="Images that go through decoder and guide at once; auto is as many as fit."
        ),
    ] = None,
    offload: Annotated[
        bool,
        typer.Option("--offload", help="Keep only the part at work on the GPU, decode in slices."),
    ] = False,
    compile_denoiser: Annotated[
        bool,
        typer.Option(
            "--compile", help="Compile the denoiser; the first batch takes longer, others less."
        ),
    ] = False,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            help="name[extractor]:key=value or FILE.py:name; replaces the model's own. Repeatable.",
            autocompletion=names_of("metrics"),
        ),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            help="A folder of real images for fd, fid, kid, precision, recall; or a file of "
            "eddy-bench reference."
        ),
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
            **PATH,
            help="The run folder itself, or an address such as s3://bucket/run. "
            "[default: results/SUITE]",
            show_default=False,
        ),
    ] = None,
    log: Log = None,
    allow_code: Annotated[
        bool, typer.Option("--allow-code", help="Let a suite file name methods in Python files.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Load the model, say what would be drawn, and stop.")
    ] = False,
    executor: Annotated[
        str,
        typer.Option(help="local, or ray (extra: ray).", autocompletion=one_of("local", "ray")),
    ] = "local",
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
            help="Draw share i/n only, into OUT-shard-i-of-n; "
            "eddy-bench merge puts shares together."
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
        "compile": compile_denoiser or None,
    }
    from eddy_bench.cli.running import run_suite
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
            log or [],
        )
    )
