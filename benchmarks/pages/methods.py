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
from eddy_bench.ids import MethodId
from eddy_bench.methods.registry import load_method, method_names
from eddy_bench.results.headroom import headrooms
from eddy_bench.results.results import Results, read_results

PAGE = Path(__file__).parents[2] / "docs" / "methods.md"
HEADER = (
    "method",
    "acts on",
    "diversity at 1% less fidelity",
    "headroom used",
    "where to",
    "times the seconds",
)


def best(options: list[Candidate]) -> Candidate | None:
    """The most diverse strength of a method that loses at most 1% of any fidelity."""
    faithful = [option for option in options if option.faithful]
    return max(faithful, key=lambda option: option.gain.difference, default=None)


def where_to(results: Results, method: MethodId, subsampling: Subsampling | None) -> str:
    shown = {answer.closer for answer in directions(results, method, subsampling)} - {None}
    if len(shown) != 1:
        return "not significant"
    return "closer to the reference" if shown.pop() else "farther from the reference"


def table(run: Path) -> str:
    results = read_results([run])
    known, subsampling = headrooms(results), subsampling_of(results)
    by_method = {own.method: own for own in known}
    lines = [f"| {' | '.join(HEADER)} |", f"|{' --- |' * len(HEADER)}"]
    found = candidates(compare(results), results, known)
    for name in method_names():
        options = [one for one in found if one.method.name == name]
        if not options:
            continue
        acted_on = load_method(name).acts_on()
        choice = best(options)
        if choice is None:
            lines.append(f"| `{name}` | {acted_on} | none drawn loses as little | | | |")
            continue
        gain, own = choice.gain, by_method[choice.method]
        used = f"{own.value:.2f} [{own.low:.2f}, {own.high:.2f}]"
        mark = "**" if gain.better else ""
        cells = (
            f"`{choice.method}`",
            acted_on,
            f"{mark}{gain.difference:+.3f}{mark} [{gain.low:+.3f}, {gain.high:+.3f}]",
            used + (", shifted" if own.shifted else ""),
            where_to(results, choice.method, subsampling),
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
