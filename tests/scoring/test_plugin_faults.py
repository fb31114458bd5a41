"""What a plug-in does wrong changes no other metric, and is one line."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path

import pandas as pd
import pytest

from eddy_bench.errors import ParameterError
from eddy_bench.ids import MetricId
from eddy_bench.scoring import plugins
from eddy_bench.scoring.metric import Metric
from eddy_bench.scoring.metrics import METRICS, MetricSpec
from eddy_bench.suites.plugins import load_from_entry_point
from tests.conftest import Result

Cli = Callable[..., Result]
HEAD = "import sys\nimport numpy as np\nfrom eddy_bench import Metric, Parameter\n"


@pytest.fixture
def run(undisturbed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(undisturbed, tmp_path / "run"))


def write(folder: Path, code: str) -> str:
    """Write a file with the metric `m`."""
    folder.mkdir(exist_ok=True)
    (folder / "mine.py").write_text(HEAD + code)
    return f"{folder}/mine.py:m"


def one_line(done: Result, said: str, code: int = 2) -> None:
    assert (done.code, "Traceback" in done.err) == (code, False), done.err
    assert said in done.err.splitlines()[-1]


WRITES = {
    "features": "def f(x): x /= 2; return x.sum()",
    "text": "def f(x, text): text *= 0; return x.sum()",
    "real": "def f(x, real): real.sort(); return x.sum()",
    "iid": "def f(slots, x): slots[0] = 0; return x.sum()",
    "each": "def each(x): x += 1; return x.sum(1)",
}


@pytest.mark.parametrize("kind", WRITES)
def test_a_plugin_cannot_write_to_what_others_are_given(
    cli: Cli, tmp_path: Path, run: Path, kind: str
) -> None:
    needs = "features" if kind == "each" else kind
    given = "each=each" if kind == "each" else "function=f"
    code = f"{WRITES[kind]}\nm = Metric('m', '{needs}', True, '', {given})\n"
    name = write(tmp_path / "x", code) + "[fmnist-clip]"
    done = cli("score", run, "--metric", name, "--metric", "fd[fmnist-clip]")
    one_line(done, "Copy an array before you write to it: x = x.copy().")


def test_what_a_plugin_is_given_is_what_the_metrics_after_it_are(
    cli: Cli, tmp_path: Path, run: Path
) -> None:
    code = "def f(x):\n    x = x.copy()\n    x *= 0\n    return x.sum()\n"
    name = write(tmp_path / "x", code + "m = Metric('m', 'features', True, '', function=f)\n")
    assert cli("score", run, "--metric", "pdist").code == 0
    before = pd.read_csv(run / "summary.csv")["pdist[fmnist-clip]"]
    done = cli("score", run, "--metric", f"{name}[fmnist-clip]", "--metric", "pdist")
    assert done.code == 0, done.err
    pd.testing.assert_series_equal(pd.read_csv(run / "summary.csv")["pdist[fmnist-clip]"], before)


@pytest.mark.parametrize("needs", ["features", "image"])
def test_a_plugin_that_exits_is_an_error(cli: Cli, tmp_path: Path, run: Path, needs: str) -> None:
    code = f"def f(x): sys.exit()\nm = Metric('m', '{needs}', True, '', function=f)\n"
    name = write(tmp_path / "x", code)
    one_line(cli("score", run, "--metric", name), "Metric 'mine.m' failed: SystemExit")
    checked = cli("check-metric", name)
    assert (checked.code, "numbers in its range" in checked.out) == (1, True)


def test_a_network_or_a_package_that_exits_is_an_error(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = "def load(weights, device): sys.exit(0)\n"
    name = write(tmp_path, load + "m = Metric('m', 'image', True, '', function=len, load=load)\n")
    one_line(cli("check-metric", name), "cannot be loaded: SystemExit")
    (tmp_path / "exits_early.py").write_text("import sys\nsys.exit(0)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ParameterError, match="'theirs' cannot be loaded: SystemExit"):
        load_from_entry_point(EntryPoint("theirs", "exits_early:m", "eddy_bench.metrics"))


DECLARED = {
    "aspect='quality'": "to be 'diversity', 'fidelity' or '', got 'quality'",
    "parameters=(('h', 1, 0, 2),)": "Expected parameters of",
    "parameters=Parameter('h', 1, 0, 2)": "Expected parameters of",
}


@pytest.mark.parametrize("declared", DECLARED)
def test_what_a_metric_declares_wrongly_is_one_line(
    cli: Cli, tmp_path: Path, run: Path, declared: str
) -> None:
    name = write(tmp_path / "x", f"m = Metric('m', 'features', True, '', function=len, {declared})")
    one_line(cli("score", run, "--metric", f"{name}:h=1"), DECLARED[declared])


def register(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    points = [EntryPoint(name, f"{__name__}:THEIRS", "eddy_bench.metrics") for name in names]
    monkeypatch.setattr(plugins, "entry_points", lambda group: points)


THEIRS = Metric("anything", "image", False, "", function=lambda image: float(image.max()))
LIKE_OURS = ("nfe", "headroom", "drift_floor", "bad-images")


@pytest.mark.parametrize("name", LIKE_OURS)
def test_packages_take_no_name_that_reads_as_ours(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    register(monkeypatch, name)
    before = dict(METRICS)
    with pytest.raises(
        ParameterError, match=f"registers the metric '{name}', which eddy-bench has"
    ):
        MetricSpec.parse(name)
    assert before == METRICS


def test_packages_take_names_that_begin_like_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, "fd-dinov2", "vendi-mine", "two words")
    for name in ("fd-dinov2", "vendi-mine"):
        assert MetricId.parse(str(MetricSpec.parse(name).id)).name == name
    with pytest.raises(ParameterError, match="letters, digits"):
        MetricSpec.parse("two words")


def test_a_package_s_metric_of_our_name_is_ignored_and_listed_so(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(monkeypatch, "pdist", "their-level")
    assert not MetricSpec.parse("pdist").metric.source
    MetricSpec.parse("their-level")
    listed = cli("list", "metrics").out
    names = [line.split()[0] for line in listed.splitlines() if line.split()]
    assert (names.count("pdist"), names.count("their-level")) == (1, 1)
    words = " ".join(listed.split())
    assert "a package's metric" in words, "of ours: it is ignored"


def test_two_files_of_one_name_are_one_line(cli: Cli, tmp_path: Path, run: Path) -> None:
    metric = "m = Metric('m', 'image', True, '', function=lambda image: {})\n"
    first, second = (
        write(tmp_path / folder, metric.format(value)) for folder, value in (("a", 1), ("b", 2))
    )
    done = cli("score", run, "--metric", first, "--metric", second)
    one_line(done, "are different metrics and both 'mine.m' in tables. Rename one of them")
    early = cli("run", "--metric", first, "--metric", second, "--dry-run")
    one_line(early, "both 'mine.m' in tables")
    assert cli("score", run, "--metric", first).code == 0
    assert cli("score", run, "--metric", second).code == 0, "one after another they may be scored"
    (tmp_path / "a" / "my metric.py").write_text(HEAD + metric.format(1))
    (tmp_path / "a" / "my_metric.py").write_text(HEAD + metric.format(2))
    names = [f"{tmp_path}/a/{name}.py:m" for name in ("my metric", "my_metric")]
    done = cli("score", run, "--metric", names[0], "--metric", names[1])
    one_line(done, "both 'my_metric.m' in tables")


@pytest.mark.parametrize("each", ["x.sum(1)[1:]", "x.sum(1)[:, None]"])
def test_each_gives_a_number_for_each_image(cli: Cli, tmp_path: Path, run: Path, each: str) -> None:
    functions = f"def each(x): return {each}\n"
    name = write(tmp_path / "x", functions + "m = Metric('m', 'features', True, '', each=each)\n")
    done = cli("score", run, "--metric", name)
    one_line(done, "Expected 2 numbers from `each` of 'mine.m', one for each image")


def test_a_function_and_each_are_one_too_many(cli: Cli, tmp_path: Path, run: Path) -> None:
    for given, got in (("function=len, each=len", "both"), ("", "neither")):
        name = write(tmp_path / "x", f"m = Metric('m', 'features', True, '', {given})")
        one_line(cli("score", run, "--metric", name), f"got {got}")


@pytest.mark.parametrize("needs", ["pairs", "real", "iid"])
def test_what_judges_no_single_images_gives_none(
    cli: Cli, tmp_path: Path, run: Path, needs: str
) -> None:
    name = write(tmp_path / "x", f"m = Metric('m', '{needs}', True, '', each=len)")
    one_line(cli("score", run, "--metric", name), "Expected no `each` in")
