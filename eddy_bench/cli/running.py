"""`eddy-bench run`: check, load, draw what is missing, score."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from eddy_bench.cli.console import console, say, say_all, verbose
from eddy_bench.cli.progress import progress_bar
from eddy_bench.cli.tracking import check_trackers, log_summary
from eddy_bench.errors import ParameterError, UnknownName, counted, unknown
from eddy_bench.runs.options import RunOptions, open_executor, out_of_shard
from eddy_bench.storage.lock import locked
from eddy_bench.suites.plugins import Permission
from eddy_bench.suites.suite import Suite, load_suite

if TYPE_CHECKING:
    from eddy_bench.models.base import Model
    from eddy_bench.runs.draw import DrawSummary
    from eddy_bench.runs.plan import Plan
    from eddy_bench.runs.setup import Setup
    from eddy_bench.storage.records import CostMatch, Group
    from eddy_bench.storage.run_folder import RunFolder

SHOWN_WARNINGS, SHOWN_FAILURES = 5, 20


def run_suite(
    source: str | None,
    flags: dict[str, Any],
    out: Path | None,
    allow_code: bool,
    dry_run: bool,
    options: RunOptions,
    log: Sequence[str] = (),
) -> int:
    """Run a suite; returns the exit code: 2 when a group could not be drawn.

    log: trackers that the summary is sent to.
    """
    from eddy_bench.cli.judging import check_metrics
    from eddy_bench.storage.run_folder import RunFolder

    options.check()
    if log and options.shard is not None:
        raise ParameterError(
            "--log sends scores, and a share is not scored. "
            "Merge the shares, then: eddy-bench score RUN --log NAME."
        )
    check_trackers(log)
    suite = load_suite(
        source,
        _with_implied(flags, source),
        typed=Permission(),
        allow_code=Permission() if allow_code else None,
    )
    path = options.folder(out or Path("results") / suite.name)
    check_early(suite, path, options)
    if not (dry_run or options.shard or RunFolder(path).has_run):
        check_metrics(suite)
    return run_setup(_open(suite, flags, options), path, options, dry_run, log)


def run_setup(
    setup: Setup, path: Path, options: RunOptions, dry_run: bool = False, log: Sequence[str] = ()
) -> int:
    """Draw what is missing of a suite whose model is loaded, and score; returns the exit code."""
    from eddy_bench.experiment.score import ScoringRequest
    from eddy_bench.runs.cost_matching import match_costs
    from eddy_bench.runs.plan import make_plan
    from eddy_bench.storage.run_folder import RunFolder

    suite = setup.suite
    earlier: list[CostMatch] = []
    if RunFolder(path).has_run:  # refused before anything is measured
        earlier = RunFolder.prepare(path, setup.settings).read_run().matched
    if dry_run:
        return _print_plan(setup, path)
    setup, matched = match_costs(setup, earlier)
    plan = make_plan(setup)
    folder = RunFolder.prepare(path, plan.settings)
    with locked(folder.path) as check_ownership:
        summary = _draw(plan, folder, matched, options, check_ownership)
        if (summary.drawn or summary.kept) and options.shard is None:
            from eddy_bench.cli.scoring import score_if_needed
            from eddy_bench.models.devices import release_memory

            del setup, plan  # the model makes room for the networks that score
            release_memory()
            device = "auto" if options.executor == "ray" else suite.device  # or the workers'
            request = ScoringRequest(
                suite.metrics,
                suite.reference,
                suite.weights,
                device,
                check_ownership,
                suite.permission("metrics"),
            )
            score_if_needed(folder, request)
    if summary.drawn or summary.kept:
        log_summary(folder, log)
    if options.shard is not None:
        from eddy_bench.cli.scoring import say_bad

        say_bad(folder)
        whole = shlex.quote(str(out_of_shard(path)))
        say(f"Drawn into {path}. When every share is: eddy-bench merge {whole} {whole}-shard-*")
    return 2 if summary.failures else 0


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


def check_early(suite: Suite, path: Path, options: RunOptions) -> None:
    """Refuse what can be refused before a model is loaded."""
    from eddy_bench.cli.judging import check_folder, check_judge
    from eddy_bench.methods.registry import build_method
    from eddy_bench.runs.cost_matching import unmatched
    from eddy_bench.runs.plan import check_size
    from eddy_bench.sampling.scheduler_table import SCHEDULERS
    from eddy_bench.scoring.extractors import check_extractor
    from eddy_bench.scoring.metrics import parse_all
    from eddy_bench.scoring.reference import read_statistics
    from eddy_bench.storage.run_folder import refuse_file
    from eddy_bench.suites.prompts import load_prompts

    check_size(suite, load_prompts(suite.prompts))
    specs = parse_all(suite.metrics or [], suite.permission("metrics"))
    for metric in specs:
        check_extractor(metric.extractor)
    if suite.reference and Path(suite.reference).is_file():
        read_statistics(Path(suite.reference))
    else:
        check_folder(suite.reference, "a folder with images at --reference")
    check_folder(suite.weights, "a folder at --weights")
    refuse_file(path)
    scheduler = suite.scheduler.name
    if scheduler != "default" and scheduler not in SCHEDULERS:
        raise UnknownName(unknown("scheduler", scheduler, [*SCHEDULERS, "default"]))
    for spec in suite.methods:
        check_judge(spec, suite, specs)
    if (options.executor == "ray" or options.shard) and (open_specs := unmatched(suite)):
        name = open_specs[0].name
        dial = build_method(open_specs[0], suite.permission("methods")).dial
        raise ParameterError(
            f"{name} measures its {dial} on the machine that draws. "
            f"With --executor ray or --shard give it: {name}:{dial}=16."
        )


def _open(suite: Suite, flags: dict[str, Any], options: RunOptions) -> Setup:
    """Load the model; of a suite's own methods, leave out those that need a guide it lacks."""
    from eddy_bench.runs.setup import Setup

    on_driver = suite
    if options.executor == "ray":  # GPUs are the workers'
        on_driver = suite.model_copy(update={"device": "cpu", "offload": False})
    setup = Setup(suite, _loaded(on_driver))
    if "methods" in flags or setup.model.has_features:
        return setup  # what a user asks for stays an error
    methods = [spec for spec in suite.methods if spec.parameters.get("kernel") != "features"]
    for spec in suite.methods:
        if spec not in methods:
            say(f"{spec} left out: this model has no guide network.", "Note")
    return replace(setup, suite=suite.model_copy(update={"methods": methods}))


def _loaded(suite: Suite) -> Model:
    """Load the model of a suite, and say so where that may take long."""
    from eddy_bench.runs.setup import Setup

    hub = "/" in suite.model and suite.model[0] not in "./~" and not Path(suite.model).exists()
    if hub or verbose():
        missing = "; what is not here yet is downloaded" if hub else ""
        say(f"Loading {suite.model}{missing}.")
    start = time.perf_counter()
    model = Setup.open(suite).model
    if verbose():
        say(f"Loaded {suite.model} in {time.perf_counter() - start:.1f} s.")
    return model


def _draw(
    plan: Plan,
    folder: RunFolder,
    matched: Sequence[CostMatch],
    options: RunOptions,
    check_ownership: Callable[[], None],
) -> DrawSummary:
    """Draw what is missing, and say what happened."""
    from eddy_bench.runs.manifest import record_plan
    from eddy_bench.runs.missing import find_missing
    from eddy_bench.runs.plan import idle_methods

    wanted = options.share(plan, plan.groups)
    missing, notes = find_missing(wanted, folder, options.verify)
    if unlike := record_plan(plan, folder, matched, draws=bool(missing)):
        say(f"{unlike}: figures may differ by more than the method.", "Warning")
    say_all([*notes, *idle_methods(plan)], "Note")
    start = time.perf_counter()
    summary = _draw_missing(plan, folder, missing, wanted, options, check_ownership)
    _print_drawn(summary, folder, len(wanted), time.perf_counter() - start)
    return summary


def _draw_missing(
    plan: Plan,
    folder: RunFolder,
    missing: Sequence[Group],
    wanted: Sequence[Group],
    options: RunOptions,
    check_ownership: Callable[[], None],
) -> DrawSummary:
    """Draw groups, and the reference set for drift where iid could be drawn."""
    from eddy_bench.runs.draw import draw_groups
    from eddy_bench.runs.missing import find_missing

    with open_executor(plan, options) as executor:
        title = f"Drawing on {executor.title}" if executor else "Drawing"
        keywords: dict[str, Any] = {"executor": executor, "check_ownership": check_ownership}
        with progress_bar(title, len(missing)) as advance:
            summary = draw_groups(plan, folder, missing, advance, **keywords)
        summary.kept = len(wanted) - len(missing)
        iid = [group for group in wanted if group.label == "iid"]
        failed = [group for group, _ in summary.failures if group.label == "iid"]
        if iid and len(failed) < len(iid):
            store = folder.reference()
            groups = options.share(plan, plan.reference_groups())
            lacking, notes = find_missing(groups, store, options.verify)
            say_all(notes, "Note")
            with progress_bar("Drawing for drift", len(lacking)) as advance:
                keywords["warm_up"] = False
                summary.add(draw_groups(plan, store, lacking, advance, **keywords))
    return summary


def _print_drawn(summary: DrawSummary, folder: RunFolder, total: int, seconds: float) -> None:
    say_all([*summary.fallback_notes, *summary.warnings[:SHOWN_WARNINGS]], "Warning")
    if (more := len(summary.warnings) - SHOWN_WARNINGS) > 0:
        say(f"{more} more of this kind.", "Warning")
    if summary.drawn == 0 and not summary.failures:
        say(f"Nothing to draw: all {total} groups are finished.")
    else:
        say(
            f"Drew {counted(summary.drawn, 'group')} in {seconds:.0f} s, kept {summary.kept}, "
            f"failed {len(summary.failures)}."
        )
    for group, reason in summary.failures[:SHOWN_FAILURES]:
        say(f"{group.path}: {reason}", "Failed")
    if (more := len(summary.failures) - SHOWN_FAILURES) > 0:
        say(f"{more} more; all are in {folder.path / 'failed'}.", "Failed")


def _print_plan(setup: Setup, path: Path) -> int:
    """Print what would be drawn."""
    from eddy_bench.methods.registry import build_method
    from eddy_bench.runs.cost_matching import unmatched
    from eddy_bench.runs.plan import make_plan
    from eddy_bench.storage.records import method_text

    waiting, permission = unmatched(setup.suite), setup.suite.permission("methods")
    methods = [spec for spec in setup.suite.methods if spec not in waiting]
    plan = make_plan(replace(setup, suite=setup.suite.model_copy(update={"methods": methods})))
    lines = [
        f"{counted(len(plan.groups), 'group')} of {plan.suite.particles} into {path}: "
        f"{counted(len(plan.methods), 'method')}, "
        f"{counted(len(plan.prompts.prompts), 'prompt')}, {counted(plan.suite.seeds, 'seed')}.",
        f"{plan.settings.described()}.",
    ]
    lines += [
        f"  {method_text(planned.name, planned.parameters)}"
        f"{f' (kernel {planned.kernel})' if planned.kernel else ''}"
        for planned in plan.methods
    ]
    lines += [
        f"  {spec}: {build_method(spec, permission).dial} is measured when the run starts, "
        "and kept in run.yaml"
        for spec in waiting
    ]
    for line in lines:
        console().print(escape(line), soft_wrap=True)
    return 0
