"""What an experiment tells of itself while it works, to whoever listens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from eddy_bench.errors import counted

if TYPE_CHECKING:
    from eddy_bench.experiment.score import Scored
    from eddy_bench.ids import MetricId
    from eddy_bench.storage.records import Group
    from eddy_bench.storage.run_folder import RunFolder

Advance = Callable[[float, str], None]  # takes how much was done since, and what is at work
Kind = Literal["", "Note", "Warning", "Failed", "Missing", "Detail"]
SHOWN_WARNINGS, SHOWN_FAILURES = 5, 20


@dataclass
class Drawn:
    """What drawing did.

    drawn: groups. kept: groups that were there.
    failures: groups that could not be drawn, and why.
    warnings: for the user.
    fallbacks: how often something slower was done: by a noun for what, and what was done.
    seconds: of drawing.
    """

    drawn: int = 0
    kept: int = 0
    failures: list[tuple[Group, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    fallbacks: Counter[tuple[str, str]] = field(default_factory=Counter)
    seconds: float = 0.0

    @property
    def fallback_notes(self) -> list[str]:
        """What was fallen back to, each once with its count."""
        return [f"{counted(count, noun)} {what}" for (noun, what), count in self.fallbacks.items()]

    def add(self, other: Drawn) -> None:
        """Add failures and warnings of groups that are drawn beside, each warning once."""
        self.failures += other.failures
        self.fallbacks += other.fallbacks
        self.warnings = list(dict.fromkeys([*self.warnings, *other.warnings]))

    def lines(self, folder: Path) -> Iterator[tuple[str, Kind]]:
        """Yield what to tell of it, and of which kind each line is."""
        for text in [*self.fallback_notes, *self.warnings[:SHOWN_WARNINGS]]:
            yield text, "Warning"
        if (more := len(self.warnings) - SHOWN_WARNINGS) > 0:
            yield f"{more} more of this kind.", "Warning"
        if self.drawn == 0 and not self.failures:
            yield f"Nothing to draw: all {self.kept} groups are finished.", ""
        else:
            yield (
                f"Drew {counted(self.drawn, 'group')} in {self.seconds:.0f} s, kept {self.kept}, "
                f"failed {len(self.failures)}.",
                "",
            )
        for group, reason in self.failures[:SHOWN_FAILURES]:
            yield f"{group.path}: {reason}", "Failed"
        if (more := len(self.failures) - SHOWN_FAILURES) > 0:
            yield f"{more} more; all are in {folder / 'failed'}.", "Failed"


class Listener:
    """Somebody who is told; a subclass shows what it wants to, and the rest is silent."""

    def began(self, title: str, total: float) -> AbstractContextManager[Advance]:
        """A stage began, of `total` units of work; what is yielded is called with its progress."""
        return nullcontext(lambda count, label: None)

    def tell(self, text: str, kind: Kind = "") -> None:
        """A line for the user: plain, a note, a warning, a failure, or a detail."""

    def drawn(self, drawn: Drawn, folder: Path) -> None:
        """Drawing is done."""
        for text, kind in drawn.lines(folder):
            self.tell(text, kind)

    def scored(
        self, folder: RunFolder, scored: Scored, grids: Sequence[Path], requested: list[MetricId]
    ) -> None:
        """Scoring is done, or scores.csv was up to date.

        Args:
            folder: of the run.
            scored: what scoring gave.
            grids: pictures that were drawn; none where nothing was to score.
            requested: metrics that were requested by name.
        """

    def finished(self, folder: RunFolder) -> None:
        """Nothing is left to do in a run folder, which is free for others."""

    def tell_all(self, texts: Sequence[str], kind: Kind) -> None:
        """Tell lines of one kind."""
        for text in texts:
            self.tell(text, kind)
