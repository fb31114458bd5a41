"""What the commands do, with progress and tables."""

from __future__ import annotations

import shlex
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from eddy_bench.cli.console import console
from eddy_bench.cli.progress import growing_bar, progress_bar
from eddy_bench.cli.summary_table import print_summary
from eddy_bench.errors import MetricError, ParameterError, UnknownName, unknown
from eddy_bench.runs.options import RunOptions, open_executor, out_of_shard
from eddy_bench.storage.lock import locked
from eddy_bench.suites.suite import Suite, load_suite

if TYPE_CHECKING:
    from eddy_bench.models.base import Model
    from eddy_bench.runs.draw import DrawSummary
    from eddy_bench.runs.plan import Plan
    from eddy_bench.storage.run_folder import RunFolder


def run_suite(
    source: str | None,
    flags: dict[str, Any],
    out: Path | None,
    allow_code: bool,
    dry_run: bool,
    options: RunOptions,
) -> int:
    """`eddy-bench run`. Returns the exit code: 2 when a group could not be drawn."""
    if options.executor not in ("local", "ray"):
        raise ParameterError(f"Expected --executor local or ray, got {options.executor!r}.")
    if options.executor == "local" and (
        options.address or options.workers or options.cpus_per_worker != 1
    ):
        raise ParameterError(
            "--address, --workers and --cpus-per-worker are of a cluster. Add --executor ray."
        )
    if "model" in flags and "scheduler" not in flags and source is None:
        flags = {**flags, "scheduler": "default"}  # another model keeps its own solver
    if str(flags.get("model", "")).startswith("exact:") and source is None:
        flags = {"guidance_scale": 1.0, **flags}  # an exact score has no guidance
    suite = load_suite(source, flags, allow_code)
    path = out or Path("results") / suite.name
    if options.shard:
        path = path.resolve() if path.name in ("", "..") else path
        if not path.name:
            raise ParameterError(
                f"A share goes beside its run folder, and there is nothing beside {path}. Give another --out."
            )
        path = path.with_name(
            f"{path.name}-shard-{options.shard.first + 1}-of-{options.shard.count}"
        )
    _check_early(suite, path)
    warnings.filterwarnings("ignore")  # of libraries; ours are printed
    from eddy_bench.runs.cost_matching import open_best_of, settle_best_of
    from eddy_bench.runs.draw import open_folder, read_measured
    from eddy_bench.runs.plan import make_plan, open_model, run_settings

    say = console(stderr=True)
    if (options.executor == "ray" or options.shard) and open_best_of(suite):
        raise ParameterError(
            "best-of-m measures its M on the machine that draws. With --executor ray or --shard give it: best-of-m:m=16."
        )
    on_driver = (
        {"device": "cpu", "offload": False} if options.executor == "ray" else {}
    )  # GPUs are the workers'
    model = open_model(suite.model_copy(update=on_driver))
    if "methods" not in flags and not model.has_features:
        suite = _without_features(suite, say)
    settings = run_settings(suite, model)
    if (path / "run.yaml").is_file():
        open_folder(settings, path)  # refused before anything is measured
    measured = read_measured(path)
    if dry_run:
        waiting = open_best_of(suite)
        methods = [spec for spec in suite.methods if spec not in waiting]
        return _print_plan(
            make_plan(suite.model_copy(update={"methods": methods}), model),
            path,
            [str(spec) for spec in waiting],
        )
    suite, measured = settle_best_of(suite, model, measured)
    plan = make_plan(suite, model)
    folder = open_folder(settings, path)
    with locked(folder.path) as check_ownership:
        done = _draw(plan, model, folder, measured, options, check_ownership)
        if (done.drawn or done.kept) and options.shard is None:
            _score_if_needed(folder, suite.metrics, suite.reference, suite.weights, check_ownership)
    if options.shard is not None:
        whole = shlex.quote(str(out_of_shard(path)))
        say.print(
            escape(
                f"Drawn into {path}. When every share is: eddy-bench merge {whole} {whole}-shard-*"
            )
        )
    return 2 if done.failures else 0


def _draw(
    plan: Plan,
    model: Model,
    folder: RunFolder,
    measured: list[dict[str, Any]],
    options: RunOptions,
    check_ownership: Callable[[], None],
) -> DrawSummary:
    """Draw what is missing, and say what happened."""
    from eddy_bench.runs.draw import (
        batches_of,
        draw_missing,
        draw_reference,
        missing_of,
        record_plan,
    )
    from eddy_bench.runs.plan import batch_size

    say, shard = console(stderr=True), options.shard
    mine = (
        shard.of(batches_of(plan.groups, batch_size(plan.suite, model)))
        if shard
        else list(plan.groups)
    )
    missing, notes = missing_of(mine, folder, options.verify)
    record_plan(plan, folder, measured)
    notes += [
        f"best-of-m takes m = {spec.parameters['m']}, all that it draws: no other method takes longer than iid"
        for spec in plan.suite.methods
        if spec.name == "best-of-m" and str(spec.parameters.get("m")) == str(plan.suite.particles)
    ]
    for note in notes:
        say.print(f"[yellow]Note:[/] {escape(note)}")
    start = time.perf_counter()
    with open_executor(plan, options) as executor:
        with progress_bar(
            f"Drawing on {executor.title}" if executor else "Drawing", len(missing), rate=True
        ) as advance:
            done = draw_missing(
                plan,
                model,
                folder,
                missing,
                advance,
                executor=executor,
                check_ownership=check_ownership,
            )
        done.kept = len(mine) - len(missing)
        failed = sum(group.label == "iid" for group, _ in done.failures)
        hopeless = 0 < failed == sum(group.label == "iid" for group in mine)
        if not hopeless and any(planned.label == "iid" for planned in plan.methods):
            reference = draw_reference(
                plan, model, folder, executor, shard, options.verify, check_ownership
            )
            done.warnings += reference.warnings
            done.failures += reference.failures
    for note in done.warnings[:5]:
        say.print(f"[yellow]Warning:[/] {escape(note)}")
    if len(done.warnings) > 5:
        say.print(f"[yellow]Warning:[/] {len(done.warnings) - 5} more of this kind.")
    _say_drawn(done, len(mine), time.perf_counter() - start)
    for group, reason in done.failures[:20]:
        say.print(f"[red]Failed:[/] {escape(str(group.place))}: {escape(reason)}")
    if len(done.failures) > 20:
        say.print(
            f"[red]Failed:[/] {len(done.failures) - 20} more; all are in {escape(str(folder.path / 'failed'))}."
        )
    return done


def _without_features(suite: Suite, say: Console) -> Suite:
    """A suite's own methods, less those that ask for a guide network where the model has none; what a user asks for stays an error."""
    dropped = [spec for spec in suite.methods if spec.parameters.get("kernel") == "features"]
    for spec in dropped:
        say.print(
            f"[yellow]Note:[/] {escape(str(spec))} left out: this model has no guide network."
        )
    return suite.model_copy(
        update={"methods": [spec for spec in suite.methods if spec not in dropped]}
    )


def _check_early(suite: Suite, path: Path) -> None:
    """What can be refused before a model is loaded."""
    from eddy_bench.runs.plan import selected_prompts
    from eddy_bench.scoring.extractors import check_extractor
    from eddy_bench.scoring.metrics import parse_metric
    from eddy_bench.storage.run_folder import RunFolder

    selected_prompts(suite)
    for text in suite.metrics or []:
        check_extractor(parse_metric(text).extractor)
    if suite.reference and not Path(suite.reference).is_dir():
        raise MetricError(
            f"Expected a folder with images at --reference {suite.reference}, found {'a file' if Path(suite.reference).exists() else 'nothing'}."
        )
    if suite.weights and not Path(suite.weights).is_dir():
        raise MetricError(
            f"Expected a folder at --weights {suite.weights}, found {'a file' if Path(suite.weights).exists() else 'nothing'}."
        )
    if path.exists() and not path.is_dir():
        RunFolder.prepare(path, {})
    if suite.scheduler.name != "default":
        from eddy_bench.sampling.scheduler_table import SCHEDULERS

        if suite.scheduler.name not in SCHEDULERS:
            raise UnknownName(unknown("scheduler", suite.scheduler.name, [*SCHEDULERS, "default"]))
    from eddy_bench.methods.registry import build_method

    for spec in suite.methods:
        build_method(spec)


def _say_drawn(done: DrawSummary, total: int, seconds: float) -> None:
    say = console(stderr=True)
    if done.drawn == 0 and not done.failures:
        say.print(f"Nothing to draw: all {total} groups are finished.")
    else:
        say.print(
            f"Drew {done.drawn} groups in {seconds:.0f} s, kept {done.kept}, failed {len(done.failures)}."
        )


def _print_plan(plan: Plan, path: Path, waiting: Sequence[str]) -> int:
    out = console()
    suite = plan.suite
    out.print(
        f"{len(plan.groups)} groups of {suite.particles} into {escape(str(path))}: {len(plan.methods)} methods, {len(plan.prompts.prompts)} prompts, {suite.seeds} seeds."
    )
    for planned in plan.methods:
        out.print(
            escape(f"  {planned.label:28} kernel {planned.kernel or '-':9} {planned.parameters}")
        )
    for text in waiting:
        out.print(escape(f"  {text}: m is measured when the run starts, and kept in run.yaml"))
    return 0


def _score_if_needed(
    folder: RunFolder,
    metrics: Sequence[str] | None,
    reference: str | None,
    weights: str | None,
    check_ownership: Callable[[], None],
) -> None:
    from eddy_bench.scoring.score import scoring_state
    from eddy_bench.scoring.score_table import digest_of_scores, read_table, unescaped

    state = scoring_state(folder, metrics, reference, weights)
    digest = digest_of_scores(folder.path)
    if digest and folder.read_manifest().get("scored") == {"from": state, "files": digest}:
        console(stderr=True).print("Nothing to score: scores.csv is up to date.")
        print_summary(
            unescaped(read_table(folder.path / "summary.csv")), folder, [], list(metrics or ())
        )
        return
    done = _score(folder, metrics, reference, weights, check_ownership)
    scored = {"from": state, "files": digest_of_scores(folder.path)} if done else None
    folder.write_manifest({**folder.read_manifest(), "scored": scored})


def score_run(
    path: Path, metrics: Sequence[str] | None, reference: str | None, weights: str | None
) -> None:
    """`eddy-bench score`."""
    warnings.filterwarnings("ignore")
    from eddy_bench.scoring.metrics import parse_metric
    from eddy_bench.storage.run_folder import RunFolder

    for text in metrics or []:
        parse_metric(text)
    folder = RunFolder.existing(path)
    with locked(folder.path) as check_ownership:
        _score(folder, metrics, reference, weights, check_ownership)
        folder.write_manifest(
            {key: value for key, value in folder.read_manifest().items() if key != "scored"}
        )


def merge_shards(target: Path, sources: Sequence[Path]) -> int:
    """`eddy-bench merge`: the groups of shares in one folder, scored. Returns the exit code: 2 when groups are missing."""
    warnings.filterwarnings("ignore")
    from eddy_bench.runs.merge import merge
    from eddy_bench.storage.run_folder import RunFolder

    say = console(stderr=True)
    with growing_bar("Merging") as progress:
        done = merge(target, sources, progress)
    say.print(escape(f"{target}: {done.copied} groups copied, {done.kept} were there."))
    for failure in done.failures[:20]:
        say.print(f"[red]Failed:[/] {escape(failure)}")
    if done.missing:
        say.print(
            f"[red]Missing:[/] {done.missing} of {done.planned} groups are in no share; the scores are of the others."
        )
    folder = RunFolder.existing(target)
    suite = folder.read_run()["suite"]
    with locked(target) as check_ownership:
        _score_if_needed(
            folder,
            suite.get("metrics"),
            suite.get("reference"),
            suite.get("weights"),
            check_ownership,
        )
    return 2 if done.missing else 0


def _score(
    folder: RunFolder,
    metrics: Sequence[str] | None,
    reference: str | None,
    weights: str | None,
    check_ownership: Callable[[], None],
) -> bool:
    """Score, draw the grids, print the table. Returns whether every metric could be computed."""
    from eddy_bench.report.grids import write_grids
    from eddy_bench.scoring.score import score_folder

    with growing_bar("Scoring") as progress:
        scores = score_folder(folder, metrics, reference, weights, progress, check_ownership)
    grids = write_grids(folder, scores.labels)
    for note in scores.warnings:
        console(stderr=True).print(f"[yellow]Warning:[/] {escape(note)}", soft_wrap=True)
    print_summary(scores.summary, folder, grids, scores.columns if metrics else ())
    return not scores.skipped


def check_promises(text: str) -> int:
    """`eddy-bench check-method`. Returns 1 when a promise is broken."""
    from rich.table import Table

    from eddy_bench.methods.registry import build_method
    from eddy_bench.suites.method_spec import MethodSpec

    method = build_method(MethodSpec.parse(text))
    method.drawn(max(4, method.min_particles))  # what a run would refuse is refused here
    warnings.filterwarnings("ignore")
    from eddy_bench.audit.conformance import CHECKS, check_contract

    with progress_bar("Checking", len(CHECKS)) as advance:
        found = check_contract(method, advance)
    table = Table("promise", "outcome", "detail")
    for one in found:
        outcome, style = {True: ("holds", "green"), False: ("broken", "red"), None: ("-", None)}[
            one.holds
        ]
        table.add_row(one.name, outcome, escape(one.detail), style=style)
    console().print(table)
    broken = [one.name for one in found if one.holds is False]
    console().print(
        escape(
            f"{text}: {', '.join(broken)} broken."
            if broken
            else f"{text} keeps every promise that applies to it."
        )
    )
    return 1 if broken else 0
