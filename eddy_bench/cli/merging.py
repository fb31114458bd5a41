"""`eddy-bench merge`: the groups of shards in one folder, scored."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from eddy_bench.cli.console import say, say_all
from eddy_bench.cli.progress import growing_bar
from eddy_bench.cli.scoring import score_if_needed
from eddy_bench.storage.lock import locked
from eddy_bench.suites.method_spec import is_file_plugin

SHOWN_FAILURES = 20


def without_files(metrics: Sequence[str] | None) -> tuple[list[str] | None, list[str]]:
    """Return the metrics of a run.yaml that run no file's code, and the others."""
    if metrics is None:
        return None, []
    files = [text for text in metrics if is_file_plugin(text)]
    return [text for text in metrics if text not in files], files


def merge_shards(target: Path, sources: Sequence[Path]) -> int:
    """Merge shards and score them; returns the exit code: 2 when groups are missing."""
    from eddy_bench.experiment.score import ScoringRequest
    from eddy_bench.runs.merge import merge
    from eddy_bench.storage.run_folder import RunFolder

    with growing_bar("Merging") as progress:
        merged = merge(target, sources, progress)
    say(f"{target}: {merged.copied} groups copied, {merged.kept} were there.")
    if merged.unlike:
        say(f"{merged.unlike}: figures may differ by more than the method.", "Warning")
    say_all((f"{text}, copied again" for text in merged.moved), "Warning")
    for failure in merged.failures[:SHOWN_FAILURES]:
        say(failure, "Failed")
    if merged.missing:
        say(
            f"{merged.missing} of {merged.planned} groups are in no share; "
            "the scores are of the others.",
            "Missing",
        )
    folder = RunFolder.existing(target)
    suite = folder.read_run().suite
    metrics, left_out = without_files(suite.metrics)
    for name in left_out:
        say(
            f"{name} is a Python file's, and run.yaml may be anyone's. Add it: score --metric.",
            "Note",
        )
    with locked(target) as check_ownership:
        # the shards' device may not be here
        request = ScoringRequest(metrics, suite.reference, suite.weights, "auto", check_ownership)
        score_if_needed(folder, request)
    return 2 if merged.missing else 0
