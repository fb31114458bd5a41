"""Progress on stderr."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from eddy_bench.cli.console import console, quiet
from eddy_bench.shown import shown

EVERY = 60.0  # seconds between lines where there is no terminal
WIDE = 100  # columns of a terminal where the bar is long
BARS = (10, 30)  # its columns in others, and there
FIGURES = 40  # columns of the figures beside it, at most
FEWEST = 16  # columns of what is at work, at least


class Rate(ProgressColumn):
    """Show how much is done per second or minute."""

    def render(self, task: Task) -> Text:
        """The cell."""
        return Text(_rate(task))


class Left(ProgressColumn):
    """Show the time left, at the rate since the beginning."""

    def render(self, task: Task) -> Text:
        """The cell."""
        if task.finished or not task.completed or not task.elapsed or not task.total:
            return Text("0:00:00" if task.finished else "-:--:--")
        left = task.elapsed * (task.total / task.completed - 1)
        return Text(str(timedelta(seconds=max(0, round(left)))))


class Work(ProgressColumn):
    """Show what is at work, in so many columns: figures beside it are never cut."""

    def __init__(self, room: int) -> None:
        """Take the columns that there are."""
        super().__init__()
        self.room = max(FEWEST, room)

    def render(self, task: Task) -> Text:
        """The cell."""
        text = Text(task.description, no_wrap=True)
        text.truncate(self.room, overflow="ellipsis")
        return text


@contextmanager
def progress_bar(
    title: str, total: float, passing: bool = False
) -> Iterator[Callable[[float, str], None]]:
    """Show a bar with the time left; yields a function of how much is done and what is at work.

    Nothing is shown of no work, and with -q. Where there is no terminal, a line a minute says
    the same.

    Args:
        title: of the bar.
        total: amount of work.
        passing: leave nothing of the bar behind.
    """
    shown = console(stderr=True, live=True)
    bar_width = BARS[shown.width >= WIDE]
    columns = (
        Work(shown.width - bar_width - FIGURES),
        BarColumn(bar_width),
        MofNCompleteColumn(),
        Rate(),
        TimeElapsedColumn(),
        TextColumn("left"),
        Left(),
    )
    off = quiet() or not total or (passing and not shown.is_terminal)
    with Progress(*columns, console=shown, transient=passing, disable=off) as bar:
        task = bar.add_task(title, total=total)

        def advance(count: float, label: str) -> None:
            bar.update(task, advance=count, description=f"{title} {label}" if label else title)

        with _lines_in_a_pipe(bar, task):
            yield advance
        done = bar.tasks[bar.task_ids.index(task)].completed
        bar.update(task, description=title, total=done or total)  # what was not needed is no work


@contextmanager
def _lines_in_a_pipe(bar: Progress, task: TaskID) -> Iterator[None]:
    """Print how far a bar is, every minute inside the block, unless it is in a terminal."""
    if bar.console.is_terminal or quiet():
        yield
        return
    stream, ended = sys.stderr, threading.Event()

    def report() -> None:
        while not ended.wait(EVERY):
            line = progress_line(bar.tasks[bar.task_ids.index(task)])
            print(shown(line), file=stream, flush=True)

    thread = threading.Thread(target=report, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def progress_line(task: Task) -> str:
    """Return how far a task is, in words."""
    share = task.completed / task.total if task.total else 0.0
    elapsed = task.elapsed or 0.0
    left = f", {about(elapsed * (1 / share - 1))} left" if 0 < share <= 1 else ""
    rate = f", {_rate(task)}" if elapsed and task.completed else ""
    counts = f"{share:.0%} ({task.completed:g} of {task.total:g})"
    return f"{task.description}: {counts} after {duration(elapsed)}{rate}{left}"


def _rate(task: Task) -> str:
    """Return how much is done per second, or per minute where that is less than one.

    Since the beginning: groups may take minutes each, and end many at once.
    """
    elapsed = task.finished_time or task.elapsed
    if not task.completed or not elapsed or not task.total:
        return "-/s"
    speed = task.completed / elapsed
    return f"{speed:.1f}/s" if speed >= 1 else f"{60 * speed:.1f}/min"


def about(seconds: float) -> str:
    """Return a duration in words, rounded as an estimate is.

    >>> about(0.4), about(47), about(700), about(9000)
    ('a second', 'about 50 seconds', 'about 12 minutes', 'about 2.5 hours')
    """
    if seconds < 1.5:
        return "a second"
    if seconds < 10:
        return f"about {seconds:.0f} seconds"
    if seconds < 90:
        return f"about {round(seconds, -1):.0f} seconds"
    return (
        f"about {seconds / 60:.0f} minutes"
        if seconds < 5400
        else f"about {seconds / 3600:.1f} hours"
    )


def duration(seconds: float) -> str:
    """Return minutes and seconds.

    >>> duration(125.2)
    '2:05'
    """
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


@contextmanager
def growing_bar(
    title: str, passing: bool = False
) -> Iterator[Callable[[int], Callable[[int, str], None]]]:
    """Show a bar whose total becomes known inside the block."""
    with ExitStack() as stack:
        yield lambda total: stack.enter_context(progress_bar(title, total, passing=passing))
