"""What stands between two marks of a page."""

from __future__ import annotations

from pathlib import Path

from eddy_bench.storage.files import write_text


def put(page: Path, begin: str, end: str, text: str) -> None:
    """Write text anew between two marks of a page; what is around them stays."""
    before, begun, rest = page.read_text(encoding="utf-8").partition(begin)
    _, ended, after = rest.partition(end)
    if not (begun and ended):
        raise SystemExit(f"{page}: expected the marks {begin} and {end}.")
    write_text(page, f"{before}{begin}\n{text}\n{end}{after}")
