"""A verdict on one thing, and sections of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from eddy_bench.errors import brief

Verdict = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Finding:
    """Hold what was found of one thing.

    Args:
        section: `versions`, `devices`, `hub`, `weights` or `drawing`.
        name: of the thing.
        verdict: `ok`; `note`, something optional is not there; `problem`, something needed fails.
        detail: what was found.
        cure: what to do, where there is something to do.
    """

    section: str
    name: str
    verdict: Verdict
    detail: str
    cure: str = ""


def guarded(
    section: str, name: str, check: Callable[[], Iterable[Finding]], cure: str
) -> Iterator[Finding]:
    """Yield what a check finds; one that raises ends in a problem instead of a traceback."""
    try:
        yield from check()
    except Exception as error:  # whatever a broken library raises
        yield Finding(section, name, "problem", f"{type(error).__name__}: {brief(error)}", cure)


def worst(findings: Sequence[Finding]) -> Verdict:
    """Return `problem` if there is one, else `note` if there is one, else `ok`.

    >>> worst([Finding("hub", "hub", "ok", ""), Finding("hub", "cache", "note", "")])
    'note'
    """
    found = {finding.verdict for finding in findings}
    return "problem" if "problem" in found else "note" if "note" in found else "ok"
