"""What `run` does: open a suite, plan its groups, draw those that are missing, score them all.

    setup = open_suite(suite, path, options, listener)   # checks, then the model
    run(setup, path, options, listener)                  # plan -> draw -> score

Everything finished is kept, so the same call goes on where it was stopped.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from eddy_bench.experiment.checks import check_early, check_metrics
from eddy_bench.experiment.cost_matching import match_costs
from eddy_bench.experiment.draw import draw_groups, find_missing, pack_groups
from eddy_bench.experiment.events import Drawn, Listener
from eddy_bench.experiment.manifest import record_plan
from eddy_bench.experiment.options import RunOptions, open_executor, out_of_shard
from eddy_bench.experiment.plan import Plan, idle_methods, make_plan, usable_methods
from eddy_bench.experiment.score import ScoringRequest, score_if_needed, tell_bad
from eddy_bench.experiment.setup import Setup, on_hub
from eddy_bench.models.devices import release_memory
from eddy_bench.storage.lock import locked
from eddy_bench.storage.records import CostMatch
from eddy_bench.storage.run_folder import RunFolder, read_manifest
from eddy_bench.suites.suite import Suite


def open_suite(suite: Suite, path: Path, options: RunOptions, listener: Listener) -> Setup:
    """Refuse what can be refused before a model is loaded, and load it.

    Args:
        suite: to run.
        path: of the run folder.
        options: how it is run.
        listener: is told, also which methods are left out as they cannot act on the model.

    Raises:
        EddyError: the suite cannot be run here, or none of its methods.
    """
    check_early(suite, path, options)
    unscored = options.shard is None and not RunFolder(path).has_run
    if unscored and suite.metrics:
        check_metrics(suite)
    missing = "; what is not here yet is downloaded" if on_hub(suite.model) else ""
    listener.tell(f"Loading {suite.model}{missing}.", "" if missing else "Detail")
    start = time.perf_counter()
    # with Ray, GPUs are the workers'
    here = {"device": "cpu", "offload": False} if options.executor == "ray" else {}
    setup = Setup(suite, Setup.open(suite.model_copy(update=here)).model)
    listener.tell(f"Loaded {suite.model} in {time.perf_counter() - start:.1f} s.", "Detail")
    methods, left_out = usable_methods(setup)
    if unscored and not suite.metrics:
        listener.tell_all(check_metrics(suite), "Warning")
    listener.tell_all([f"{spec} is left out. {why}" for spec, why in left_out], "Warning")
    return replace(setup, suite=suite.model_copy(update={"methods": methods}))


def run(setup: Setup, path: Path, options: RunOptions, listener: Listener) -> Drawn:
    """Draw what is missing of a suite whose model is loaded, and score.

    Raises:
        EddyError: the folder holds another run or is in use, or a method cannot be used.
    """
    suite = setup.suite
    setup, matched = match_costs(setup, earlier_matches(setup, path))
    plan = make_plan(setup)
    folder = RunFolder.prepare(path, plan.settings)
    with locked(folder.path, lambda text: listener.tell(text, "Note")) as check_ownership:
        drawn = draw(plan, folder, matched, options, listener, check_ownership)
        listener.drawn(drawn, folder.path)
        scored = bool(drawn.drawn or drawn.kept) and options.shard is None
        if scored:
            del setup, plan  # the model makes room for the networks that score
            release_memory()
            request = ScoringRequest(
                suite.metrics,
                suite.reference,
                suite.weights,
                # of workers that have GPUs: this machine may have none
                "auto" if options.executor == "ray" and suite.device != "cpu" else suite.device,
                check_ownership,
                suite.permission("metrics"),
            )
            score_if_needed(folder, request, listener)
    if scored:
        listener.finished(folder)
    elif options.shard is not None:
        tell_bad(folder, listener)
        whole = shlex.quote(str(out_of_shard(path)))
        merge = f"eddy-bench merge {whole} {whole}-shard-*"
        listener.tell(f"Drawn into {path}. When every shard is: {merge}")
    return drawn


def earlier_matches(setup: Setup, path: Path) -> list[CostMatch]:
    """Return costs that a folder's run measured; a run with other settings is refused here."""
    if not RunFolder(path).has_run:
        return []
    return RunFolder.prepare(path, setup.settings).read_run().matched


def draw(
    plan: Plan,
    folder: RunFolder,
    matched: Sequence[CostMatch],
    options: RunOptions,
    listener: Listener,
    check_ownership: Callable[[], None],
) -> Drawn:
    """Draw the groups that are missing, and the hold-out set where iid could be drawn."""
    broken: list[str] = []
    read_manifest(folder.path, broken)
    listener.tell_all(broken, "Warning")
    wanted = options.shard_of(plan, plan.groups)
    missing, notes = find_missing(wanted, folder, options.verify)
    if unlike := record_plan(plan, folder, matched, draws=bool(missing)):
        listener.tell(f"{unlike}: figures may differ by more than the method.", "Warning")
    listener.tell_all([*plan.prompts.notes, *notes, *idle_methods(plan)], "Note")
    if options.pack:  # what is there already; the rest as it is drawn
        pack_groups(folder, listener, check_ownership)
    start = time.perf_counter()
    with open_executor(plan, options, listener.tell) as executor:
        keywords: dict[str, Any] = {
            "executor": executor,
            "check_ownership": check_ownership,
            "pack": options.pack,
        }
        title = f"Drawing on {executor.title}" if executor else "Drawing"
        with listener.began(title, len(missing)) as advance:
            drawn = draw_groups(plan, folder, missing, advance, **keywords)
        iid = [group for group in wanted if group.label == "iid"]
        failed = [group for group, _ in drawn.failures if group.label == "iid"]
        if iid and len(failed) < len(iid):
            store = folder.reference()
            groups = options.shard_of(plan, plan.reference_groups())
            lacking, notes = find_missing(groups, store, options.verify)
            listener.tell_all(notes, "Note")
            with listener.began("Drawing for drift", len(lacking)) as advance:
                drawn.add(draw_groups(plan, store, lacking, advance, warm_up=False, **keywords))
    drawn.kept, drawn.seconds = len(wanted) - len(missing), time.perf_counter() - start
    if options.pack:
        pack_groups(folder, listener, check_ownership)
        pack_groups(folder.reference(), listener, check_ownership)
    return drawn
