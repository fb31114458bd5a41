"""`eddy-bench run`: its options are the fields of a suite, and how the suite is carried out."""

from __future__ import annotations

import hashlib
import inspect
import typing
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from eddy_bench.cli.arguments import LOG, PATH, names_of, one_of
from eddy_bench.cli.console import console
from eddy_bench.cli.terminal import Terminal
from eddy_bench.errors import ParameterError, counted
from eddy_bench.experiment.options import RunOptions, parse_shard
from eddy_bench.storage.paths import safe_name
from eddy_bench.suites.plugins import Permission
from eddy_bench.suites.suite import EXECUTION, SCORING, Flag, Suite, load_suite

if TYPE_CHECKING:
    from eddy_bench.experiment.setup import Setup

WHERE = "Where"


def run(
    suite: Annotated[
        str | None,
        typer.Argument(
            help="A suite's name or a YAML file. [default: fashion]",
            show_default=False,
            autocompletion=names_of("suites"),
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            **PATH,
            help="The run folder itself, or an address such as s3://bucket/run. "
            "[default: results/SUITE, with the model and settings that were given]",
            show_default=False,
            rich_help_panel=WHERE,
        ),
    ] = None,
    log: Annotated[list[str] | None, typer.Option(help=LOG, rich_help_panel=SCORING)] = None,
    shard: Annotated[
        str | None,
        typer.Option(
            help="Draw shard i/n only, into OUT-shard-i-of-n; "
            "eddy-bench merge puts shards together.",
            rich_help_panel=WHERE,
        ),
    ] = None,
    executor: Annotated[
        str,
        typer.Option(
            help="local, or ray (extra: ray).",
            autocompletion=one_of("local", "ray"),
            rich_help_panel=EXECUTION,
        ),
    ] = "local",
    address: Annotated[
        str | None,
        typer.Option(
            help="A Ray cluster to join, HOST:PORT or auto. [default: start one here]",
            show_default=False,
            rich_help_panel=EXECUTION,
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Ray workers. [default: one per GPU, or per --cpus-per-worker]",
            show_default=False,
            rich_help_panel=EXECUTION,
        ),
    ] = None,
    cpus_per_worker: Annotated[
        int, typer.Option(min=1, help="CPUs of a Ray worker.", rich_help_panel=EXECUTION)
    ] = 1,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Hash every finished image before drawing what is missing.",
            rich_help_panel=EXECUTION,
        ),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Load the model, say what would be drawn, and stop.",
            rich_help_panel=EXECUTION,
        ),
    ] = False,
    pack: Annotated[
        bool,
        typer.Option(
            "--pack",
            help="For large runs: move finished groups from folders into Parquet files of up to "
            "1,000, those of earlier runs too. Every command reads both; without --pack new "
            "groups are folders again.",
            rich_help_panel=WHERE,
        ),
    ] = False,
    allow_code: Annotated[
        bool,
        typer.Option(
            "--allow-code",
            help="Let a suite file name methods in Python files.",
            rich_help_panel=EXECUTION,
        ),
    ] = False,
    **given: Any,
) -> None:
    """Draw the images of a suite, score them, print a table.

    What is finished already is kept: the same command goes on where it stopped.
    """
    part = None if shard is None else parse_shard(shard)
    options = RunOptions(executor, address, workers, cpus_per_worker, part, verify, dry_run, pack)
    options.check()
    # an absent option is None, or False where it is a switch
    flags = {key: value for key, value in given.items() if value is not None and value is not False}
    raise typer.Exit(_run(suite, flags, out, allow_code, options, log or []))


def _suite_options() -> Iterator[inspect.Parameter]:
    """Yield the fields of a suite as options of the command."""
    for name, field in Suite.model_fields.items():
        for flag in (item for item in field.metadata if isinstance(item, Flag)):
            types = set(_types(field.annotation)) - {NoneType}
            choices = [value for value in _types(field.annotation) if isinstance(value, str)]
            words = f" One of {', '.join(choices)}." if len(choices) > 1 else ""
            simple = next((kind for kind in (bool, int, float) if types == {kind}), str)
            taken: Any = list[str] if list in types else simple
            option = typer.Option(
                f"--{(flag.option or name).replace('_', '-')}",
                help=flag.help + words,
                autocompletion=names_of(flag.listed) if flag.listed else one_of(*choices),
                show_default=False,
                rich_help_panel=flag.group,
            )
            yield inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=False if taken is bool else None,
                annotation=Annotated[taken if taken is bool else taken | None, option],
            )


def _types(annotation: Any) -> Iterator[Any]:
    """Yield the types that an annotation is made of, and the values of a literal."""
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is list:
        yield list
    elif origin is Literal:
        yield from parts
    elif parts:
        for part in parts[:1] if origin is Annotated else parts:
            yield from _types(part)
    else:
        yield annotation


_OWN = inspect.signature(run, eval_str=True)
_FIXED = [each for each in _OWN.parameters.values() if each.kind is not each.VAR_KEYWORD]
_FIXED = [each.replace(kind=each.KEYWORD_ONLY) for each in _FIXED]
# typer reads options from here: the suite first, its fields, then how it is carried out
run.__signature__ = _OWN.replace(  # type: ignore[attr-defined]
    parameters=[_FIXED[0], *_suite_options(), *_FIXED[1:]]
)


def _run(
    source: str | None,
    flags: dict[str, Any],
    out: Path | None,
    allow_code: bool,
    options: RunOptions,
    log: Sequence[str],
) -> int:
    """Run a suite; returns the exit code: 2 when a group, or diversity, is missing."""
    if log and options.shard is not None:
        raise ParameterError(
            "--log sends scores, and a shard is not scored. "
            "Merge the shards, then: eddy-bench score RUN --log NAME."
        )
    listener = Terminal(log)
    suite = load_suite(
        source,
        _with_implied(flags, source),
        typed=Permission(),
        allow_code=Permission() if allow_code else None,
    )
    from eddy_bench.experiment.experiment import open_suite
    from eddy_bench.experiment.experiment import run as run_experiment

    path = options.folder(out or Path("results") / own_name(suite.name, source, flags))
    # the model is not held here: it makes room for the networks that score
    if options.dry_run:
        setup = open_suite(suite, path, options, listener)
        for line in _described(setup, path):
            console().print(line, soft_wrap=True, markup=False)
        return 0
    drawn = run_experiment(open_suite(suite, path, options, listener), path, options, listener)
    return 2 if drawn.failures or listener.undiverse else 0


# what makes another run of a suite; more methods, seeds or prompts of a set are added to the same
NAMED = (
    *("prompts", "scheduler", "timesteps", "steps", "guidance_scale", "negative_prompt", "size"),
    *("particles", "revision", "variant", "lora", "dtype", "compile", "guide", "decoder"),
)
SHORT = 24  # letters of a value in a folder's name


def own_name(suite: str, source: str | None, flags: dict[str, Any]) -> str:
    """Return a run folder's name: the suite, the model, and each setting that was given.

    >>> own_name("fashion", None, {"model": "./z-image", "steps": 8, "limit": 4})
    'z-image-steps-8'
    """
    parts = [] if source is None and "model" in flags else [suite]
    if "model" in flags:
        parts.append(Path(flags["model"]).name or str(flags["model"]))
    for name in NAMED:
        if name in flags:
            given = flags[name]
            values = given if isinstance(given, list) else [given]
            text = "+".join(Path(str(value)).name for value in values)
            if len(text) > SHORT:
                digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
                text = f"{text[: SHORT - 7]}-{digest[:6]}"
            parts.append(name.replace("_", "-") if given is True else f"{name}-{text}")
    return safe_name("-".join(parts).replace("_", "-"), "run")


def _with_implied(flags: dict[str, Any], source: str | None) -> dict[str, Any]:
    """Return the flags with what another model than the suite's brings along."""
    if "model" not in flags:
        return flags
    from eddy_bench.models.defaults import draws_with_its_own, implied_settings

    model, suite = str(flags["model"]), load_suite(source, {"methods": ["iid"], "metrics": []})
    if not draws_with_its_own(model, suite.model):
        return flags
    own = implied_settings(model)
    return {**(own if source is None else {**own, "name": suite.name}), **flags}


def _described(setup: Setup, path: Path) -> list[str]:
    """Return what would be drawn, in lines."""
    from eddy_bench.experiment.cost_matching import unmatched
    from eddy_bench.experiment.experiment import earlier_matches
    from eddy_bench.experiment.plan import make_plan
    from eddy_bench.methods.registry import build_method
    from eddy_bench.storage.records import method_text

    earlier_matches(setup, path)  # refuses a folder with other settings
    waiting, permission = unmatched(setup.suite), setup.suite.permission("methods")
    methods = [spec for spec in setup.suite.methods if spec not in waiting]
    plan = make_plan(replace(setup, suite=setup.suite.model_copy(update={"methods": methods})))
    lines = [
        f"{counted(len(plan.groups), 'group')} of {plan.suite.particles} into {path}: "
        f"{counted(len(plan.methods), 'method')}, "
        f"{counted(len(plan.prompts.prompts), 'prompt')}, {counted(plan.suite.seeds, 'seed')}.",
        f"{plan.settings.described()}.",
    ]
    lines += [f"Note: {note}." for note in plan.prompts.notes]
    for planned in plan.methods:
        kernel = f" (kernel {planned.kernel})" if planned.kernel else ""
        lines.append(f"  {method_text(planned.name, planned.parameters)}{kernel}")
    for spec in waiting:
        sweep = build_method(spec, permission).sweep
        lines.append(f"  {spec}: {sweep} is measured when the run starts, and kept in run.yaml")
    return lines
