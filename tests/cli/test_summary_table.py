"""The table that `run` ends with, in terminals of several widths and out of one."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from eddy_bench.experiment.score import Scored
from eddy_bench.ids import MethodId
from eddy_bench.results.headroom import headrooms
from eddy_bench.results.io import COLUMNS
from eddy_bench.results.results import read_results
from eddy_bench.results.summary import summarise, write_summary
from eddy_bench.scoring.metrics import METRICS
from eddy_bench.storage.group import FinishedGroup
from eddy_bench.suites.method_spec import MethodSpec
from tests.makers.groups import make_folder, make_group
from tests.makers.terminal import shown_in_terminal

METHODS = (
    ("iid", ""),
    ("repulsion", "strength=0.0625,window=0%..35%,init=antithetic"),
    ("repulsion", "strength=12.5,kernel=features"),
    ("pg", "strength=0.30000000000000004,kernel=denoised"),
    ("pg", "strength=2.0,bandwidth=0.123456789,kernel=features"),
    ("eddy-exact", "strength=200.0,div_sign=published"),
    ("eddy-fd", "max_coordinates=16,strength=3.5"),
    ("eddy-hutch", "probes=25,strength=0.05,v_source=self"),
    ("antithetic", ""),
    ("best-of-m", "m=1024"),
    ("a-very-long-name-of-a-plug-in-that-somebody-wrote", "strength=1.5"),
    ("lhs", ""),
)
VALUES = {
    "vendi": ("fmnist-clip", 1.5),
    "pdist": ("fmnist-clip", 0.45),
    "attributes": ("classifier", 2.0),
    "clip": ("fmnist-clip", 67.3),
    "align": ("classifier", 0.95),
    "fd": ("fmnist-clip", 1234.5),
    "drift": ("fmnist-clip", 5678.9),
    "seconds_per_image": ("", 0.1039),
    "nfe": ("", 40.0),
}
PROMPTS = 14
SHOW = """
import sys
from pathlib import Path
from eddy_bench.cli.summary_table import print_summary
from eddy_bench.storage.run_folder import RunFolder
from tests.cli.test_summary_table import summarised
folder = RunFolder(Path(sys.argv[1]))
print_summary(folder, summarised(folder.path), [])
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scored run of twelve methods of which the last is better than iid on every prompt."""
    return scored(tmp_path_factory.mktemp("table") / "r", PROMPTS, METHODS)


def scored(path: Path, prompts: int, methods: tuple[tuple[str, str], ...]) -> Path:
    folder, rng, rows = make_folder(path), np.random.default_rng(0), []
    for number, (method, params) in enumerate(methods):
        gain = 1.0 if number == len(methods) - 1 else 0.0
        rows += [
            _row(str(MethodId(method, params)), name, prompt, rng, gain)
            for name in VALUES
            for prompt in ([""] if METRICS[name].scope == "pooled" else _prompts(prompts))
        ]
    pd.DataFrame(rows)[COLUMNS].to_csv(folder.path / "scores.csv", index=False)
    done = summarised(folder.path)
    write_summary(folder.path, done.results, done.summaries)
    return folder.path


def summarised(path: Path) -> Scored:
    """What scoring would give of the made-up values of a folder."""
    results = read_results([path])
    methods = {
        own: [
            FinishedGroup(
                make_group(method=own.name, parameters=own.parameters, kernel=_kernel(own)), path
            )
        ]
        for own in results.methods
    }
    return Scored(results, summarise(results, methods, headrooms(results)), [], methods)


def _kernel(method: MethodId) -> str:
    return "features" if "features" in method.parameters else "latent" if method.parameters else ""


def _prompts(count: int) -> list[str]:
    return [f"p{k}" for k in range(count)]


def _row(
    method: str, name: str, prompt: str, rng: np.random.Generator, gain: float
) -> dict[str, object]:
    extractor, level = VALUES[name]
    spread = 0.01 * level * rng.normal() if METRICS[name].scope == "group" else 0.0
    better = gain * 0.2 * level if name == "vendi" else 0.0
    return {
        "model": "fashion",
        "method": method,
        "scheduler": "s",
        "steps": 2,
        "guidance_scale": 1.0,
        "particles": 2,
        "prompt_id": prompt,
        "prompt": prompt,
        "seed": "0" if prompt else "",
        "metric": f"{name}[{extractor}]" if extractor else name,
        "value": level + spread + better,
        "higher_is_better": METRICS[name].higher_is_better,
        "signature": f"{name}|features={extractor}@0|N=2",
    }


@cache
def terminal(width: int, run: Path) -> str:
    """What a terminal of some width shows, colours aside."""
    return shown_in_terminal(width, [sys.executable, "-c", SHOW, str(run)])


@cache
def piped(run: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", SHOW, str(run)], capture_output=True, text=True, check=True
    )
    return done.stdout


def figures(run: Path) -> dict[str, list[str]]:
    """The figures of each column of summary.csv, as the table writes them."""
    summary = pd.read_csv(run / "summary.csv")
    return {
        "vendi": [f"{value:.3f}" for value in summary["vendi[fmnist-clip]"]],
        "clip": [f"{value:.2f}" for value in summary["clip[fmnist-clip]"]],
        "drift": [f"{value:.2f}" for value in summary["drift[fmnist-clip]"]],
        "s/image": [f"{value:.4f}" for value in summary["seconds_per_image"]],
    }


def lines_of_table(shown: str) -> list[str]:
    return shown.partition("float32.\n")[2].partition("Mean over prompts")[0].splitlines()


def names_of(table: list[str]) -> list[str]:
    """The methods of a table, joined where they were folded: names have no blanks."""
    names: list[str] = []
    for line in table[3:]:
        if re.match(r"[\w.-]", line):
            names.append(line.split()[0])
        elif part := re.match(r"  ([^\s±\d.*-][^\s±]*)", line):
            names[-1] += part[1]
    return names


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_no_figure_name_or_heading_is_cut(run: Path, width: int) -> None:
    shown = terminal(width, run)
    assert "…" not in shown
    table = lines_of_table(shown)
    assert all(len(line) <= width for line in table), max(table, key=len)
    words = " ".join(table).split()
    for heading, values in figures(run).items():
        assert heading in words, "what decides is shown at every width"
        for value in values:
            assert (
                value in words
                or f"{value}*" in words
                or any(
                    word.startswith(f"{value}±") or word.startswith(f"{value}*±") for word in words
                )
            )
    for method, params in METHODS:
        assert str(MethodId(method, params)) in names_of(table)


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_names_are_those_of_the_score_file_and_can_be_typed(run: Path, width: int) -> None:
    shown = names_of(lines_of_table(terminal(width, run)))
    names = list(dict.fromkeys(pd.read_csv(run / "scores.csv")["method"]))
    assert shown == names
    for name in names:
        assert str(MethodSpec.parse(name)) == name


def test_long_names_go_on_in_lines_that_figures_have_anyway(tmp_path: Path) -> None:
    """Names that are folded make room for figures: they come before any are left out."""
    methods = (("iid", ""), ("pg", "strength=2.0,kernel=denoised"), ("lhs", ""))
    shown = terminal(80, scored(tmp_path / "r", 3, methods)).splitlines()
    row = next(k for k, line in enumerate(shown) if line.startswith("pg"))
    assert shown[row].startswith("pg:strength=2,  ")
    assert shown[row + 1].startswith("  kernel=denoised")
    assert "±" in shown[row + 1]
    assert shown[row + 2].startswith("lhs")


def test_no_name_is_folded_where_there_is_room(run: Path) -> None:
    rows = [line.split()[0] for line in lines_of_table(piped(run))[3:]]
    assert rows == [str(MethodId(method, params)) for method, params in METHODS]


def test_kernels_that_no_name_gives_are_below_the_table(run: Path) -> None:
    note = next(line for line in piped(run).splitlines() if "Kernel" in line)
    assert note.endswith(
        "Kernel where none is named: latent of repulsion, eddy-exact, eddy-fd, eddy-hutch, "
        "best-of-m, a-very-long-name-of-a-plug-in-that-somebody-wrote."
    )


@pytest.mark.parametrize("width", [60, 80])
def test_columns_left_out_are_named(run: Path, width: int) -> None:
    shown = terminal(width, run)
    heading = next(line for line in shown.splitlines() if "vendi ↑" in line)
    left_out = [name for name in ("nfe ↓", "attributes ↑", "align ↑") if name not in heading]
    assert left_out
    note = " ".join(shown.partition("In summary.csv only")[2].split())
    assert all(name in note for name in left_out)


def test_columns_that_decide_are_never_left_out_for_narrower_ones(tmp_path: Path) -> None:
    """Beside names of 26 columns, fd would fit at 60 where seconds do not."""
    methods = (("iid", ""), ("repulsion", "strength=123.5"), ("lhs", ""))
    shown = terminal(60, scored(tmp_path / "r", 2, methods))
    heading = next(line for line in shown.splitlines() if "vendi ↑" in line)
    assert all(f"{name} ↑" in heading for name in ("vendi", "clip"))
    assert all(f"{name} ↓" in heading for name in ("drift", "s/image"))


def test_out_of_a_terminal_the_table_has_its_natural_width(run: Path) -> None:
    shown = piped(run)
    assert "In summary.csv only" not in shown
    heading = next(line for line in shown.splitlines() if "vendi ↑" in line)
    assert "nfe ↓" in heading
    assert "±" in shown
    assert "\x1b" not in shown


def test_a_gain_that_was_shown_is_marked_and_no_other(run: Path) -> None:
    marked = [line for line in piped(run).splitlines() if "*" in line.partition("±")[0]]
    rows = [line for line in marked if not line.startswith("Mean")]
    assert [line.split()[0] for line in rows] == [METHODS[-1][0]]


def test_two_prompts_show_nothing(tmp_path: Path) -> None:
    """The best mean of two prompts gets no mark."""
    shown = piped(scored(tmp_path / "r", 2, METHODS[-3:]))
    assert "*" not in shown
    shown = piped(scored(tmp_path / "s", 2, (METHODS[0], METHODS[-1])))
    assert "*" not in shown
    assert "Nothing is significantly better than iid" in shown
