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
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from eddy_bench.cli.console import console


class Rate(ProgressColumn):
    """Show how much is done per second, or per minute where that is less than one."""

    def render(self, task: Task) -> Text:
        """The cell."""
        speed = task.finished_speed or task.speed
        if not speed:
            return Text("-/s")
        return Text(f"{speed:.1f}/s" if speed >= 1 else f"{60 * speed:.1f}/min")


@contextmanager
def progress_bar(
    title: str, total: int, percent: bool = False, rate: bool = False
) -> Iterator[Callable[[int, str], None]]:
    """Show a bar with the time left; yields a function of how much is done and what is at work.

    Args:
        title: of the bar.
        total: amount of work.
        percent: show percentages, not counts.
        rate: show how many are done per second.

    """
    amount: ProgressColumn = TaskProgressColumn() if percent else MofNCompleteColumn()
    speed = (Rate(),) if rate else ()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        amount,
        *speed,
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console(stderr=True), transient=False) as bar:
        task = bar.add_task(title, total=total)

        def advance(count: int, label: str) -> None:
            bar.update(task, advance=count, description=f"{title} {escape(label)}")

        yield advance
        bar.update(task, description=title)


@contextmanager
def growing_bar(title: str) -> Iterator[Callable[[int], Callable[[int, str], None]]]:
    """Show a bar whose total becomes known inside the block."""
    with ExitStack() as stack:
        yield lambda total: stack.enter_context(progress_bar(title, total))
