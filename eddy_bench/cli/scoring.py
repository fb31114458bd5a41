"""Score, draw the grids, print the table: `eddy-bench score`, and what follows drawing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from eddy_bench.cli.console import say, say_all
from eddy_bench.cli.progress import growing_bar
from eddy_bench.cli.summary_table import print_summary
from eddy_bench.cli.tracking import check_trackers, log_summary
from eddy_bench.storage.lock import locked
from eddy_bench.suites.plugins import Permission

if TYPE_CHECKING:
    from eddy_bench.experiment.score import FoundGroups, ScoringRequest
    from eddy_bench.storage.run_folder import RunFolder


def score_run(
    path: Path,
    metrics: Sequence[str] | None,
    reference: str | None,
    weights: str | None,
    device: str = "auto",
    log: Sequence[str] = (),
) -> None:
    """Score a run folder again without drawing; what is there and was not asked for stays.

    log: trackers that the summary is sent to.
    """
    check_trackers(log)
    from eddy_bench.cli.judging import check_folder
    from eddy_bench.experiment.score import ScoringRequest, read_groups
    from eddy_bench.scoring.metrics import MetricSpec
    from eddy_bench.storage.run_files import read_manifest, write_manifest
    from eddy_bench.storage.run_folder import RunFolder

    typed = Permission()
    for text in metrics or []:
        MetricSpec.parse(text, typed)
    check_folder(weights, "a folder at --weights")
    folder = RunFolder.existing(path)
    with locked(folder.path) as check_ownership:
        request = ScoringRequest(metrics, reference, weights, device, check_ownership, typed)
        found = read_groups(folder)
        say_bad(folder, found)
        _score(folder, found, request)
        # the next run scores what its suite asks for
        write_manifest(folder.path, read_manifest(folder.path).updated(scored=None))
    log_summary(folder, log)


def score_if_needed(folder: RunFolder, request: ScoringRequest) -> None:
    """Score a folder unless its scores are of these very images, metrics and weights."""
    from eddy_bench.experiment.score import (
        read_groups,
        requested_metrics,
        scored_before,
        scoring_state,
    )
    from eddy_bench.results.io import digest_of_scores
    from eddy_bench.storage.records import Scored
    from eddy_bench.storage.run_files import read_manifest, write_manifest

    found = read_groups(folder)
    say_bad(folder, found)
    state = scoring_state(folder.read_run(), found, request)
    digest = digest_of_scores(folder.path)
    if digest and read_manifest(folder.path).scored == Scored(state=state, files=digest):
        say("Nothing to score: scores.csv is up to date.")
        requested = requested_metrics(folder.read_run(), request)
        print_summary(folder, scored_before(folder, found), [], requested)
        return
    complete = _score(folder, found, request)
    scored = Scored(state=state, files=digest_of_scores(folder.path))
    manifest = read_manifest(folder.path).updated(scored=scored if complete else None)
    write_manifest(folder.path, manifest)


def say_bad(folder: RunFolder, found: FoundGroups | None = None) -> None:
    """Say how many images of all groups of a run are bad, whether drawn now or before."""
    from eddy_bench.experiment.score import read_groups
    from eddy_bench.results.results import bad_images_of, bad_words

    groups = (found or read_groups(folder)).groups
    say_all(bad_words(bad_images_of(groups, folder.reference().finished())), "Warning")


def _score(folder: RunFolder, found: FoundGroups, request: ScoringRequest) -> bool:
    """Score, draw the grids, print the table; returns whether no metric was skipped."""
    from eddy_bench.experiment.score import score_folder
    from eddy_bench.report.grids import write_grids

    with growing_bar("Scoring") as progress:
        scored = score_folder(folder, found, request, progress)
    grids = write_grids(folder, scored.methods)
    say_all(scored.warnings, "Warning")
    print_summary(folder, scored, grids, scored.requested if request.metrics else ())
    return not scored.skipped
