"""Score a run folder: after drawing, where that is needed, or again with other metrics."""

from __future__ import annotations

from contextlib import ExitStack

from eddy_bench.experiment.events import Listener, Scored
from eddy_bench.experiment.grids import write_grids
from eddy_bench.scoring.bad_images import bad_note
from eddy_bench.scoring.found_groups import FoundGroups, read_groups
from eddy_bench.scoring.score import ScoringRequest, asked_columns, score_folder, scoring_state
from eddy_bench.scoring.score_table import digest_of_scores, read_table, unescaped
from eddy_bench.storage import records
from eddy_bench.storage.run_folder import RunFolder, read_manifest, write_manifest


def score_if_needed(folder: RunFolder, request: ScoringRequest, listener: Listener) -> None:
    """Score a folder unless its scores are of these very images, metrics and weights."""
    found = read_groups(folder)
    state = scoring_state(folder.read_run(), found, request)
    digest = digest_of_scores(folder.path)
    if digest and read_manifest(folder.path).scored == records.Scored(state=state, files=digest):
        tell_bad(folder, listener, found)
        listener.tell("Nothing to score: scores.csv is up to date.")
        summary = unescaped(read_table(folder.path / "summary.csv"))
        wanted = asked_columns(folder.read_run(), request)
        listener.scored(Scored(folder, summary, [], wanted))
        return
    scored = None
    if score(folder, request, listener, found):
        scored = records.Scored(state=state, files=digest_of_scores(folder.path))
    write_manifest(folder.path, read_manifest(folder.path).updated(scored=scored))


def score_again(folder: RunFolder, request: ScoringRequest, listener: Listener) -> None:
    """Score a folder; what is there and was not requested stays."""
    score(folder, request, listener, read_groups(folder))
    # the next run scores what its suite asks for
    write_manifest(folder.path, read_manifest(folder.path).updated(scored=None))


def score(
    folder: RunFolder, request: ScoringRequest, listener: Listener, found: FoundGroups
) -> bool:
    """Score and draw the grids; returns whether no metric was skipped."""
    tell_bad(folder, listener, found)
    with ExitStack() as stage:
        result = score_folder(
            folder,
            found,
            request,
            lambda total: stage.enter_context(listener.began("Scoring", total)),
        )
    grids = write_grids(folder, result.groups)
    listener.tell_all(result.warnings, "Warning")
    wanted = result.columns if request.metrics else ()
    listener.scored(Scored(folder, result.summary, grids, wanted))
    return not result.skipped


def tell_bad(folder: RunFolder, listener: Listener, found: FoundGroups | None = None) -> None:
    """Tell how many images of all groups of a run are none, whether drawn now or before."""
    groups = (found or read_groups(folder)).groups
    listener.tell_all(bad_note(groups, folder.reference().finished()), "Warning")
