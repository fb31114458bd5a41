"""What `eddy-bench compare --votes` prints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from eddy_bench.cli.comparison_formats import Comparison, printer_of
from eddy_bench.cli.console import say
from eddy_bench.compare.comparable import canonical
from eddy_bench.compare.load import last_run, read_scores
from eddy_bench.compare.votes import FEW, agreements, opinions, read_votes, win_rates
from eddy_bench.errors import ParameterError, counted

LEGEND = (
    "Votes: how often a method wins over its pairs with the baseline, the same counted half, less "
    "one half; a mean over prompts, with Wilson's 95% interval. p: that both win alike, by the "
    "studentised bootstrap over prompts, Holm over the methods; with few prompts it may differ "
    "from the interval. Better, worse: p below 0.05 and an interval without 0. Rank correlation: "
    "Spearman's between votes and the metric's differences, over pairs; its interval by resampling "
    "prompts."
)


def compare_votes(sources: Sequence[Path], baseline: str, form: str, votes: Sequence[Path]) -> int:
    """Print how often each method wins people's votes, and how far each metric agrees.

    Returns the exit code.
    """
    printer, given = printer_of(form, full=True), read_votes(votes)
    folders = list(sources) or [last_run()]
    if len(folders) > 1:
        raise ParameterError("--votes takes one run folder: votes are on its images.")
    baseline = canonical(baseline)
    found, lost = opinions(folders[0], given, baseline)
    voters = len({vote.voter for vote in given})
    notes = [f"{counted(len(given), 'vote')} of {counted(voters, 'voter')}"]
    notes += [f"left out {counted(lost, 'vote')} on no pair of {folders[0]}"] if lost else []
    agreeing = agreements(read_scores(folders), found, baseline)
    if not agreeing:
        notes.append(
            f"how far metrics agree is not said: that takes {FEW} pairs with an answer, "
            "not all of them the same"
        )
    lines = [*win_rates(found), *agreeing]
    for note in notes:
        say(note, "Note")
    printer(Comparison(lines, "a tie", notes, None, [], [], LEGEND))
    return 0
