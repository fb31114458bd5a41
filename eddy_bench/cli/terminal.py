"""The listener of the command line: an experiment's events on the terminal, and to trackers."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from eddy_bench.cli.console import say, verbose
from eddy_bench.cli.progress import progress_bar
from eddy_bench.cli.tracking import check_trackers, log_summary
from eddy_bench.experiment.events import Advance, Kind, Listener

if TYPE_CHECKING:
    from eddy_bench.experiment.score import Scored
    from eddy_bench.ids import MetricId
    from eddy_bench.storage.run_folder import RunFolder


class Terminal(Listener):
    """Lines and bars on stderr, the table on stdout; `log` names trackers for the summary.

    Raises:
        EddyError: there is no such tracker, or its client is not installed.
    """

    def __init__(self, log: Sequence[str] = ()) -> None:
        check_trackers(log)
        self.log = log
        self.undiverse = False  # what was scored says nothing of diversity

    def began(self, title: str, total: float) -> AbstractContextManager[Advance]:
        """Show a bar."""
        return progress_bar(title, total)

    def tell(self, text: str, kind: Kind = "") -> None:
        """Print a line; details only with -v."""
        if kind != "Detail":
            say(text, kind)
        elif verbose():
            say(text)

    def scored(
        self, folder: RunFolder, scored: Scored, grids: Sequence[Path], requested: list[MetricId]
    ) -> None:
        """Print the table, and where the files are."""
        from eddy_bench.cli.summary_table import print_summary
        from eddy_bench.scoring.metrics import METRICS

        print_summary(folder, scored, grids, requested)
        skipped = [own for own in scored.skipped if own.name in METRICS]
        lacks = any(METRICS[own.name].aspect == "diversity" for own in skipped)
        results = scored.results
        self.undiverse = lacks and not results.of_aspect("diversity", results.columns)
        if self.undiverse:
            again = f"eddy-bench score {shlex.quote(str(folder.path))}"
            say(
                f"No metric of diversity could be scored. With weights: {again} --weights DIR; "
                f"without: {again} --metric pdist[pixels].",
                "Warning",
            )

    def finished(self, folder: RunFolder) -> None:
        """Send the summary to the trackers."""
        log_summary(folder, self.log)
