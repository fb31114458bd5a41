"""Progress in a terminal and out of one, more and less of it, and colours."""

from __future__ import annotations

import importlib
import pkgutil
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.progress import Progress

import eddy_bench.cli
from eddy_bench.cli import progress
from eddy_bench.cli.console import VERBOSITY
from eddy_bench.cli.progress import Left, Rate
from tests.conftest import Result
from tests.makers.scored_runs import make_run
from tests.makers.terminal import command_line, plain, shown_in_terminal, written_to_terminal

Cli = Callable[..., Result]
COLOUR = re.compile(r"\x1b\[[\d;]*(3[0-7]|9[0-7]|38|48|4[0-7])[\d;]*m")


def show() -> None:
    """A bar that stays and one that passes."""
    with progress.progress_bar("Drawing", 1200) as advance:
        for _ in range(3):
            time.sleep(0.15)
            advance(400, "pg:strength=2.0,kernel=denoised,scale=fixed,init=antithetic and more")
        time.sleep(0.15)
    with progress.progress_bar("Comparing", 2, passing=True) as advance:
        advance(2, "vendi")


def test_a_line_at_every_interval_in_a_pipe(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.02)
    with progress.progress_bar("Drawing", 4) as advance:
        advance(1, "[a] cat")
        time.sleep(0.2)
    lines = [line for line in capsys.readouterr().err.splitlines() if " after 0:00" in line]
    assert len(lines) >= 2
    said = re.fullmatch(
        r"Drawing \[a\] cat: 25% \(1 of 4\) after 0:00, [\d.]+/s, a second left", lines[-1]
    )
    assert said, lines[-1]


def test_nothing_but_the_bar_s_end_before_a_minute(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.progress_bar("Drawing", 1) as advance:
        advance(1, "a")
    assert " after " not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "a second"),
        (4.4, "about 4 seconds"),
        (47, "about 50 seconds"),
        (701, "about 12 minutes"),
        (9000, "about 2.5 hours"),
    ],
)
def test_durations_are_rounded_as_estimates_are(seconds: float, text: str) -> None:
    assert progress.about(seconds) == text


def test_the_rate_is_over_the_whole_time() -> None:
    """Batches end many at once, minutes apart."""
    clock = [0.0]
    bar = Progress(get_time=lambda: clock[0], disable=True)
    bar.add_task("Drawing", total=16)
    (task,) = bar.tasks
    assert Rate().render(task).plain == "-/s"
    for count in range(4):
        clock[0] += 100
        bar.update(task.id, advance=4)
        if count == 1:
            assert Left().render(task).plain == "0:03:20"
    assert Rate().render(task).plain == "2.4/min"
    assert Left().render(task).plain == "0:00:00"
    clock[0] += 3600
    assert Rate().render(task).plain == "2.4/min", "what is finished takes no more time"


@pytest.mark.parametrize("width", [80, 120])
def test_a_terminal_shows_what_is_at_work_the_rate_and_the_time_left(width: int) -> None:
    written = written_to_terminal(width, show)
    drawn = [plain(part) for part in written.split("\x1b[2K")]
    assert all(len(line) <= width for part in drawn for line in part.splitlines())
    at_work = next(part for part in drawn if "800/1200" in part)
    assert re.match(r"Drawing pg:strength=2\.0.*… ", at_work)
    assert re.search(r" 800/1200 [\d.]+/s 0:00:00 left 0:00:0\d", at_work)


def test_a_bar_that_passes_leaves_nothing_behind(capsys: pytest.CaptureFixture[str]) -> None:
    shown = shown_in_terminal(80, show)
    assert "Drawing" in shown
    assert "Comparing" not in shown
    show()
    assert [line.split()[0] for line in capsys.readouterr().err.splitlines()] == ["Drawing"]


def test_colours_are_for_terminals_that_want_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    call = command_line("compare", str(make_run(tmp_path / "r")))
    assert COLOUR.search(written_to_terminal(100, call))
    assert not COLOUR.search(written_to_terminal(100, call, NO_COLOR="1"))
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    call()
    piped = capsys.readouterr()
    assert "vendi" in piped.out
    assert "\x1b" not in piped.out + piped.err


def test_no_bar_is_drawn_over_and_over_where_colours_are_forced_in_a_pipe(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    show()
    piped = capsys.readouterr()
    assert "\x1b" not in piped.err
    assert len(piped.err.splitlines()) == 1


def test_of_no_work_there_is_no_bar(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.progress_bar("Drawing", 0):
        pass
    assert capsys.readouterr().err == ""


def test_quiet_and_verbose_exclude_each_other(cli: Cli) -> None:
    done = cli("-q", "-v", "list", "methods")
    assert (done.code, done.out) == (2, "")
    assert done.err == "Error: Expected -q or -v, got both. Leave one out.\n"


def test_where_quiet_and_verbose_stand_is_said(cli: Cli) -> None:
    done = cli("run", "-q")
    assert (done.code, done.out) == (2, "")
    assert "No such option: -q. It stands before the command: eddy-bench -q run." in done.err


def test_verbose_says_what_is_loaded_and_where_every_picture_is(cli: Cli, tmp_path: Path) -> None:
    command = COMMANDS["run"].replace("OUT", str(tmp_path / "r")).split()
    done = cli("-v", *command, "--method", "antithetic")
    assert done.code == 0, done.err
    assert "Loading fashion." in done.err
    assert "Loaded fashion in " in done.err
    pictures = ("iid.png", "antithetic.png", "side-by-side.png")
    assert all(str(tmp_path / "r/grids" / name) in done.out for name in pictures)
    again = cli(*command, "--method", "antithetic")
    assert "Loading" not in again.err
    assert again.out.count(".png") == 1


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> list[list[tuple[float, str]]]:
    """Every bar of a command, as what it was told, its total first; -q stands for all of them."""
    told: list[list[tuple[float, str]]] = []
    bar = progress.progress_bar

    @contextmanager
    def spied(title: str, total: float, **settings: bool) -> Iterator[Callable[[float, str], None]]:
        own = [(total, title)]
        told.append(own)
        with bar(title, total, **settings) as advance:

            def spy(count: float, label: str) -> None:
                own.append((count, label))
                advance(count, label)

            yield spy

    for found in pkgutil.iter_modules(eddy_bench.cli.__path__, "eddy_bench.cli."):
        if not found.name.endswith("__main__"):
            module = importlib.import_module(found.name)
            if hasattr(module, "progress_bar"):
                monkeypatch.setattr(module, "progress_bar", spied)
    return told


COMMANDS = {
    "score": "score RUN --metric vendi[fmnist-clip]",
    "compare": "compare RUN",
    "compare --against": "compare RUN --against RUN",
    "gate": "compare RUN --against RUN --gate GATE",
    "power": "power RUN",
    "report": "report RUN",
    "report --blind": "report RUN --blind",
    "reference": "reference IMAGES --extractor fmnist-clip --out OUT",
    "check-metric": "check-metric vendi[fmnist-clip]",
    "check-method": "check-method antithetic",
    "audit": "audit --task ring8 --method antithetic --groups 50 --steps 5,10 --scheduler ddim "
    "--out OUT",
    "run": "run --method iid --steps 2 --particles 2 --limit 2 --metric vendi[fmnist-clip] "
    "--out OUT",
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_long_commands_say_how_far_they_are_and_q_silences_them(
    cli: Cli,
    tmp_path: Path,
    command: str,
    bars: list[list[tuple[float, str]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A bar's total is reached, and what is at work has a name; nothing is left on stderr."""
    monkeypatch.setattr(progress, "EVERY", 0.001)  # with -q no line of a pipe either
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for k in range(5):
        pixels = rng.integers(0, 255, (32, 32), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"images/{k}.png")
    (tmp_path / "gate.yaml").write_text(
        "checks: [{metric: 'vendi[fmnist-clip]', test: noninferior, margin: 0.1}]\n"
    )
    places = {
        "RUN": str(make_run(tmp_path / "r")),
        "IMAGES": str(tmp_path / "images"),
        "OUT": str(tmp_path / "out.npz"),
        "GATE": str(tmp_path / "gate.yaml"),
    }
    done = cli("-q", *(places.get(word, word) for word in command.split()))
    assert done.code == 0, done.err
    assert VERBOSITY.get() == -1
    assert not re.search(r" after 0:|━|left", done.err)
    assert bars
    for (total, title), *told in (bar for bar in bars if bar[0][0]):
        assert sum(count for count, _ in told) == pytest.approx(total), title
        assert all(label for _, label in told)
