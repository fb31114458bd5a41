"""Progress on stderr."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from eddy_bench.tables import console


@contextmanager
def progress_bar(title: str, total: int, percent: bool = False) -> Iterator[Callable[[int, str], None]]:
    """A bar with time left; yields a function of (how much is done, what is at work). percent: show shares, not counts."""
    amount: ProgressColumn = TaskProgressColumn() if percent else MofNCompleteColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), amount, TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    with Progress(*columns, console=console(stderr=True), transient=False) as bar:
        task = bar.add_task(title, total=total)

        def advance(count: int, label: str) -> None:
            bar.update(task, advance=count, description=f"{title} {escape(label)}")

        yield advance
        bar.update(task, description=title)


@contextmanager
def growing_bar(title: str) -> Iterator[Callable[[int], Callable[[int, str], None]]]:
    """A bar whose total becomes known inside."""
    with ExitStack() as stack:
        yield lambda total: stack.enter_context(progress_bar(title, total))
