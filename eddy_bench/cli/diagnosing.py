"""`eddy-bench doctor`: findings as text of at most 80 columns, or as JSON."""

from __future__ import annotations

import json
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.text import Text

from eddy_bench import __version__
from eddy_bench.cli.console import console
from eddy_bench.cli.diagnosis.examine import examine
from eddy_bench.cli.diagnosis.finding import Finding, worst
from eddy_bench.shown import shown_json

COLUMNS = 80
INDENT = " " * 9
STYLES = {"ok": "green", "note": "yellow", "problem": "red"}


def print_findings(weights: Path | None, as_json: bool) -> int:
    """Make every check and print what it finds; returns 1 when there is a problem."""
    findings: list[Finding] = []
    for finding in examine(weights):
        if not as_json:
            _print_finding(finding, begins=not findings or findings[-1].section != finding.section)
        findings.append(finding)
    if as_json:
        print(shown_json(json.dumps(document(findings), indent=2)))
    else:
        _print_line(f"\n{summary(findings)}")
    return 1 if worst(findings) == "problem" else 0


def document(findings: Sequence[Finding]) -> dict[str, object]:
    """Return findings as JSON has them."""
    return {
        "eddy_bench": __version__,
        "verdict": worst(findings),
        "findings": [asdict(finding) for finding in findings],
    }


def summary(findings: Sequence[Finding]) -> str:
    """Return how many findings there are of each verdict.

    >>> summary([Finding("hub", "hub", "note", "offline")])
    '0 problems, 1 note, 0 ok. What is needed works.'
    """
    found = Counter(finding.verdict for finding in findings)
    counted = ", ".join(
        f"{found[kind]} {kind}{'' if found[kind] == 1 or kind == 'ok' else 's'}"
        for kind in ("problem", "note", "ok")
    )
    last = (
        "Something that is needed does not work." if found["problem"] else "What is needed works."
    )
    return f"{counted}. {last}"


def _print_finding(finding: Finding, begins: bool) -> None:
    if begins:
        _print_line(f"\n{finding.section}" if finding.section != "versions" else finding.section)
    for line in lines_of(finding, min(COLUMNS, console().width)):
        _print_line(line, STYLES[finding.verdict])


def lines_of(finding: Finding, width: int) -> Iterator[str]:
    """Yield the lines of a finding: its verdict, name and detail, then the cure.

    >>> list(lines_of(Finding("hub", "hub", "note", "offline", "unset it"), 80))
    ['note     hub: offline', '         cure: unset it']

    Args:
        finding: of any length.
        width: in columns; what has no blank in it, such as a path, is never cut.
    """
    yield from _wrapped(f"{finding.verdict:<9}{finding.name}: {finding.detail}", width, INDENT)
    if finding.cure:
        yield from _wrapped(f"{INDENT}cure: {finding.cure}", width, INDENT)


def _wrapped(text: str, width: int, indent: str) -> list[str]:
    return textwrap.wrap(
        text,
        width,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _print_line(line: str, style: str = "") -> None:
    """Print a line with its first word in a colour, where colours are shown."""
    text = Text(line)
    if style and not line.startswith(" "):
        text.stylize(style, 0, len(line.partition(" ")[0]))
    console().print(text, soft_wrap=True)
