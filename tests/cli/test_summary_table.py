"""The table that `run` ends with, in terminals of several widths and out of one."""

from __future__ import annotations

import io
import re
from contextlib import redirect_stdout
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from eddy_bench.cli.summary_table import print_summary
from eddy_bench.experiment.score import Scored
from eddy_bench.ids import MethodId, MetricId
from eddy_bench.results.headroom import Headroom, headrooms
from eddy_bench.results.results import Results, read_results
from eddy_bench.results.summary import summarise, write_summary
from eddy_bench.scoring.metrics import METRICS
from eddy_bench.storage.group import FinishedGroup
from eddy_bench.storage.records import Group
from eddy_bench.storage.run_folder import RunFolder
from eddy_bench.suites.method_spec import MethodSpec
from tests.makers.groups import make_folder, make_group
from tests.makers.terminal import shown_in_terminal

METHODS = (
    "iid",
    "repulsion:strength=0.0625,window=0%..35%,init=antithetic",
    "repulsion:strength=12.5,kernel=features",
    "pg:strength=0.30000000000000004,kernel=denoised",
    "pg:strength=2,bandwidth=0.123456789,kernel=features",
    "eddy-exact:strength=200,div_sign=published",
    "eddy-fd:max_coordinates=16,strength=3.5",
    "eddy-hutch:probes=25,strength=0.05,v_source=self",
    "antithetic",
    "best-of-m:m=1024",
    "a-very-long-name-of-a-plug-in-that-somebody-wrote:strength=1.5",
    "lhs",
)
VALUES = {
    "vendi[fmnist-clip]": 1.5,
    "pdist[fmnist-clip]": 0.45,
    "attributes[classifier]": 2.0,
    "clip[fmnist-clip]": 67.3,
    "align[classifier]": 0.95,
    "fd[fmnist-clip]": 1234.5,
    "drift[fmnist-clip]": 5678.9,
    "seconds_per_image": 0.1039,
    "nfe": 40.0,
}
PROMPTS = 14


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scored run of twelve methods of which the last is better than iid on every prompt."""
    return scored(tmp_path_factory.mktemp("table") / "r", PROMPTS, METHODS)


def scored(path: Path, prompts: int, methods: tuple[str, ...]) -> Path:
    folder, rng = make_folder(path), np.random.default_rng(0)
    rows = [
        _row(method, name, prompt, rng, gain=1.0 if method == methods[-1] else 0.0)
        for method in methods
        for name in VALUES
        for prompt in ([""] if _scope(name) == "pooled" else [f"p{k}" for k in range(prompts)])
    ]
    pd.DataFrame(rows).to_csv(folder.path / "scores.csv", index=False)
    own = read(folder.path)
    write_summary(folder.path, own.results, own.summaries)
    return folder.path


def read(path: Path) -> Scored:
    """What scoring gave."""
    results = read_results([path])
    groups = {method: [FinishedGroup(_group(method), path)] for method in results.methods}
    return Scored(results, summarise(results, groups, headrooms(results)), [], groups)


def _group(method: MethodId) -> Group:
    kernel = "features" if "features" in str(method) else "latent" if method.parameters else ""
    return make_group(method=method.name, parameters=method.parameters, kernel=kernel)


def _scope(name: str) -> str:
    return METRICS[MetricId.parse(name).name].scope


def _row(
    method: str, name: str, prompt: str, rng: np.random.Generator, gain: float
) -> dict[str, object]:
    metric, level = METRICS[MetricId.parse(name).name], VALUES[name]
    spread = 0.01 * level * rng.normal() if metric.scope == "group" else 0.0
    better = gain * 0.2 * level if metric.name == "vendi" else 0.0
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
        "metric": name,
        "value": level + spread + better,
        "higher_is_better": metric.higher_is_better,
        "signature": f"{metric.name}|features=fmnist-clip@0|N=2",
    }


def show(run: Path) -> None:
    print_summary(RunFolder(run), read(run), [])


@cache
def terminal(width: int, run: Path) -> str:
    """What a terminal of some width shows, colours aside."""
    return shown_in_terminal(width, lambda: show(run))


@cache
def piped(run: Path) -> str:
    with redirect_stdout(io.StringIO()) as out:
        show(run)
    return out.getvalue()


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
    assert set(METHODS) <= set(names_of(table))


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_names_are_those_of_the_score_file_and_can_be_typed(run: Path, width: int) -> None:
    shown = names_of(lines_of_table(terminal(width, run)))
    labels = list(pd.read_csv(run / "scores.csv")["method"].unique())
    assert shown == labels
    for label in labels:
        assert str(MethodSpec.parse(label)) == label


def test_long_names_go_on_in_lines_that_figures_have_anyway(tmp_path: Path) -> None:
    """Names that are folded make room for figures: they come before any are left out."""
    methods = ("iid", "pg:strength=2,kernel=denoised", "lhs")
    shown = terminal(80, scored(tmp_path / "r", 3, methods)).splitlines()
    row = next(k for k, line in enumerate(shown) if line.startswith("pg"))
    assert shown[row].startswith("pg:strength=2,  ")
    assert shown[row + 1].startswith("  kernel=denoised")
    assert "±" in shown[row + 1]
    assert shown[row + 2].startswith("lhs")


def test_no_name_is_folded_where_there_is_room(run: Path) -> None:
    rows = [line.split()[0] for line in lines_of_table(piped(run))[3:]]
    assert rows == list(METHODS)


def test_kernels_that_no_name_gives_are_below_the_table(run: Path) -> None:
    note = (
        "Kernel where none is named: latent of repulsion, eddy-exact, eddy-fd, eddy-hutch, "
        "best-of-m, a-very-long-name-of-a-plug-in-that-somebody-wrote.\n"
    )
    assert note in piped(run)


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
    methods = ("iid", "repulsion:strength=123.5", "lhs")
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


def test_a_significant_gain_is_marked_and_no_other(run: Path) -> None:
    marked = [line for line in piped(run).splitlines() if "*" in line.partition("±")[0]]
    rows = [line for line in marked if not line.startswith("Mean")]
    assert [line.split()[0] for line in rows] == [METHODS[-1]]


def test_two_prompts_show_nothing(tmp_path: Path) -> None:
    """The best mean of two prompts gets no mark."""
    shown = piped(scored(tmp_path / "r", 2, METHODS[-3:]))
    assert "*" not in shown
    shown = piped(scored(tmp_path / "s", 2, (METHODS[0], METHODS[-1])))
    assert "*" not in shown
    assert "Nothing is significantly better than iid" in shown


def test_each_kind_of_metric_is_summarised_in_its_own_way(tmp_path: Path) -> None:
    """Prompts count alike however many seeds they have; costs are means, memory is the highest."""
    lines = [
        ("vendi", "p0", "0", 1.0),
        ("vendi", "p0", "1", 2.0),
        ("vendi", "p0", "2", 6.0),
        ("vendi", "p1", "0", 5.0),
        ("seconds_per_image", "p0", "0", 1.0),
        ("seconds_per_image", "p0", "1", 1.0),
        ("seconds_per_image", "p1", "0", 4.0),
        ("peak_memory_mb", "p0", "0", 70.0),
        ("peak_memory_mb", "p0", "1", 90.0),
        ("peak_memory_mb", "p1", "0", 80.0),
        ("fd", "", "", 12.0),
    ]
    frame = pd.DataFrame(lines, columns=["metric", "prompt_id", "seed", "value"])
    own = frame.assign(
        method=MethodId("lhs"),
        metric=[MetricId(name) for name in frame["metric"]],
        particles=4,
        signature="s",
    )
    share = Headroom(MethodId("lhs"), MetricId("headroom"), 0.3, 0.1, 0.6, 0.5, 2)
    others = replace(share, method=MethodId("pg"), value=0.9)
    groups = {MethodId("lhs"): [FinishedGroup(_group(MethodId("lhs")), tmp_path)] * 3}
    (found,) = summarise(Results(own, {}, ("r",)), groups, [share, others])
    values = {column.name: estimate for column, estimate in found.values.items()}
    assert list(values)[-2:] == ["seconds_per_image", "peak_memory_mb"], "costs stand last"
    assert {name: estimate.value for name, estimate in values.items()} == {
        "vendi": 4.0,
        "fd": 12.0,
        "headroom": 0.3,
        "seconds_per_image": 2.0,
        "peak_memory_mb": 90.0,
    }
    vendi, headroom = values["vendi"], values["headroom"]
    assert vendi.low < 4.0 < vendi.high
    assert (headroom.low, headroom.high) == (0.1, 0.6)
    assert np.isnan([values["fd"].low, values["seconds_per_image"].high]).all()
    assert (found.groups, found.images) == (3, 3 * groups[MethodId("lhs")][0].group.particles)
