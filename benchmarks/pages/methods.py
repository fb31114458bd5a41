"""The figures of docs/methods.md: what each method gains at 1% less fidelity, and what it costs.

    python benchmarks/pages/methods.py RUN [FEW_STEP_RUN]

RUN is a run folder of `grid`, FEW_STEP_RUN one of `grid-4step`. The tables between the markers are
written anew; the text around them stays.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.pages.marked import put
from eddy_bench.compare.advice import Candidate, candidates
from eddy_bench.compare.paired import compare
from eddy_bench.compare.subsampling import Subsampling, directions, subsampling_of
from eddy_bench.methods.registry import load_method, method_names
from eddy_bench.results.headroom import headroom
from eddy_bench.results.results import ScoreSet, read_results
from eddy_bench.suites.method_spec import MethodSpec

PAGE = Path(__file__).parents[2] / "docs" / "methods.md"
HEADER = (
    "method",
    "acts on",
    "diversity at 1% less fidelity",
    "free share",
    "where to",
    "times the seconds",
)


def best(options: list[Candidate]) -> Candidate | None:
    """The most diverse strength of a method that loses at most 1% of any fidelity."""
    faithful = [option for option in options if option.faithful]
    return max(faithful, key=lambda option: option.gain.difference, default=None)


def where_to(scores: ScoreSet, label: str, subsampling: Subsampling | None) -> str:
    shown = {answer.towards for answer in directions(scores, label, subsampling)} - {None}
    if len(shown) != 1:
        return "not shown"
    return "closer to the reference" if shown.pop() else "farther from the reference"


def table(run: Path) -> str:
    scores = read_results([run])
    known, subsampling = headroom(scores), subsampling_of(scores)
    shares = {share.label: share for share in known}
    lines = [f"| {' | '.join(HEADER)} |", f"|{' --- |' * len(HEADER)}"]
    found = candidates(compare(scores), scores, known)
    for name in method_names():
        options = [one for one in found if MethodSpec.of_label(one.label).name == name]
        if not options:
            continue
        acted_on = load_method(name).acts_on()
        choice = best(options)
        if choice is None:
            lines.append(f"| `{name}` | {acted_on} | none drawn loses as little | | | |")
            continue
        gain, share = choice.gain, shares[choice.label]
        free = f"{share.free.share:.2f} [{share.free.low:.2f}, {share.free.high:.2f}]"
        mark = "**" if gain.better else ""
        cells = (
            f"`{choice.label}`",
            acted_on,
            f"{mark}{gain.difference:+.3f}{mark} [{gain.low:+.3f}, {gain.high:+.3f}]",
            free + (", moved" if share.moved else ""),
            where_to(scores, choice.label, subsampling),
            f"{choice.times:.2f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    for number, run in enumerate(parser.parse_args().runs, 1):
        marks = f"<!-- table {number} begins -->", f"<!-- table {number} ends -->"
        put(PAGE, *marks, table(run))


if __name__ == "__main__":
    main()
