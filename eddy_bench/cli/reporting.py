"""`eddy-bench report`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from rich.markup import escape

from eddy_bench.cli.console import console, say
from eddy_bench.cli.progress import growing_bar
from eddy_bench.compare.comparable import canonical
from eddy_bench.errors import counted
from eddy_bench.report.blind import write_blind
from eddy_bench.report.page import write_report
from eddy_bench.storage.paths import refuse_links


def report_runs(folders: Sequence[Path], out: Path | None, baseline: str, partly: bool) -> None:
    """Write the page and say where it is."""
    refuse_links(folders[0])
    with growing_bar("Writing") as progress:
        path = write_report(folders, out, baseline, partly, progress)
    console().print(
        escape(f"report   {path} ({(path.stat().st_size or 0) / 1e6:.1f} MB)"), soft_wrap=True
    )


def write_ballot(folder: Path, out: Path | None, baseline: str, pairs: int, shuffle: int) -> None:
    """Write the page to vote on, and say where it is and what comes next."""
    refuse_links(folder)
    with growing_bar("Writing") as progress:
        path, count, unread = write_blind(
            folder, out, canonical(baseline), pairs, shuffle, progress
        )
    console().print(escape(f"ballot   {path} ({counted(count, 'pair')})"), soft_wrap=True)
    if unread:
        say(f"left out {counted(unread, 'pair')} with images that cannot be read", "Warning")
    against = "" if canonical(baseline) == "iid" else f" --baseline {shlex.quote(baseline)}"
    run = shlex.quote(str(folder))
    say(f"Then: eddy-bench compare {run}{against} --votes votes.csv")
