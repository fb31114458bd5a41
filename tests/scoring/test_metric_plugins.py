"""Metrics from elsewhere: files, entry points, torchmetrics; what each may be asked, and says."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from eddy_bench import Metric
from eddy_bench.audit.metric_conformance import CHECKS, check_metric
from eddy_bench.errors import UnknownName
from eddy_bench.scoring import plugins
from eddy_bench.scoring.metrics import MetricSpec
from eddy_bench.suites.plugins import Permission
from tests.conftest import Result
from tests.makers.runs import SHORT
from tests.makers.score_files import of

Cli = Callable[..., Result]
MINE = """
import numpy as np
from eddy_bench import Metric, Parameter


def mean_level(image, above=0.0):
    return float((image > above).mean())


level = Metric(
    "level", "image", True, "share of pixels above a level", function=mean_level,
    parameters=(Parameter("above", default=0.0, above=-1, below=256),), range=(0, 1),
)
contrast = Metric("c", "pairs", True, "", function=lambda a, b: np.abs(a / 255 - b / 255).mean())
words = Metric("w", "image and text", True, "", function=lambda image, text: len(text.split()))
spread = Metric("s", "features", True, "", function=lambda features: features.std(0).mean())
apart = Metric("p", "real", False, "", function=lambda ours, real: (ours.mean() - real.mean()) ** 2)
broken = Metric("b", "image", True, "", function=lambda image: 1 / 0)
text = "no metric"
empty = Metric("e", "image", True, "")
odd = Metric("o", "images", True, "", function=len)
vague = Metric("v", "image", "up", "", function=len)
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(MINE)
    return tmp_path / "mine.py"


def test_each_kind_of_plugin_is_a_column(cli: Cli, tmp_path: Path, mine: Path) -> None:
    run = tmp_path / "run"
    names = ("level", "level:above=100", "contrast", "words", "spread[pixels]", "apart[pixels]")
    asked = [word for name in names for word in ("--metric", f"{mine}:{name}")]
    done = cli(*SHORT[:-4], "--method", "iid", *asked, "--out", run)
    assert done.code == 0, done.err
    summary = pd.read_csv(run / "summary.csv").iloc[0]
    images = [
        np.asarray(Image.open(path).convert("RGB")) for path in run.glob("samples/*/*/*/*.png")
    ]
    assert summary["mine.level"] == pytest.approx(np.mean([(image > 0).mean() for image in images]))
    above = np.mean([(image > 100).mean() for image in images])
    assert summary["mine.level:above=100"] == pytest.approx(above)
    gap = np.abs(images[0] / 255 - images[1] / 255).mean()
    assert summary["mine.contrast"] == pytest.approx(gap)
    table = pd.read_csv(run / "scores.csv", keep_default_na=False)
    prompt = table["prompt"][0]
    assert summary["mine.words"] == len(prompt.split())
    own = table[table["metric"].str.startswith("mine.")]
    assert own["signature"].str.contains(r"\|source=[0-9a-f]{10}").all()
    assert (own[of(own, "mine.apart")]["prompt_id"] == "").all()


def test_what_a_file_scored_is_compared_without_it(cli: Cli, tmp_path: Path, mine: Path) -> None:
    run = tmp_path / "run"
    call = (*SHORT[:-4], "--method", "iid", "--method", "antithetic", "--out", run)
    names = ("level", "level:above=100", "apart[pixels]")
    done = cli(*call, *(word for name in names for word in ("--metric", f"{mine}:{name}")))
    assert done.code == 0, done.err
    mine.unlink()
    compared = cli("compare", run, "--format", "csv")
    assert compared.code == 0, compared.err
    assert "mine.level," in compared.out
    assert "mine.level:above=100" in compared.out
    assert "mine.apart[pixels]" in compared.out
    assert cli("score", run, "--metric", "mss[pixels]").code == 0, "what was there stays"
    assert "mine.level" in pd.read_csv(run / "summary.csv")
    assert cli("report", run).code == 0


def test_a_suite_runs_no_file_unless_it_may(cli: Cli, tmp_path: Path, mine: Path) -> None:
    suite = tmp_path / "suite.yaml"
    suite.write_text(yaml.safe_dump({"metrics": [f"{mine}:level"], "limit": 1, "steps": 1}))
    refused = cli("run", suite, "--dry-run")
    assert (refused.code, "--allow-code" in refused.err) == (2, True)
    assert cli("run", suite, "--dry-run", "--allow-code").code == 0


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("none", "Unknown name in"),
        ("text", "to be an eddy_bench.Metric, got 'no metric'"),
        ("empty", "Expected a function"),
        ("odd", "real or iid, got 'images'"),
        ("vague", "to be True or False, got 'up'"),
        ("level:beneath=1", "has no parameter 'beneath'. It takes above."),
        ("level[pixels]", "takes no extractor"),
    ],
)
def test_what_is_no_metric_is_refused_in_one_line(
    cli: Cli, tmp_path: Path, mine: Path, name: str, said: str
) -> None:
    done = cli(*SHORT, "--metric", f"{mine}:{name}", "--out", tmp_path / "run")
    assert (done.code, said in done.err, done.err.count("\n")) == (2, True, 1), done.err
    assert not (tmp_path / "run").exists()


def test_merging_runs_no_file_of_a_run_folder(cli: Cli, tmp_path: Path, mine: Path) -> None:
    """Who merges folders of others did not choose what their run.yaml names."""
    out = tmp_path / "x"
    asked = ("--metric", f"{mine}:level", "--metric", "vendi[pixels]")
    assert cli(*SHORT[:-4], "--method", "iid", *asked, "--shard", "1/1", "--out", out).code == 0
    mine.write_text("raise SystemExit('run')")
    done = cli("merge", out, f"{out}-shard-1-of-1")
    assert done.code == 0, done.err
    assert "mine.py:level is a Python file's" in done.err
    assert "vendi[pixels]" in pd.read_csv(out / "summary.csv")


def test_a_network_of_a_plugin_that_fails_is_one_line(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text(
        "from eddy_bench import Metric\n"
        "bad = Metric('b', 'image', True, '', function=len, load=lambda weights, device: 1 / 0)\n"
    )
    assert cli(*SHORT, "--out", tmp_path / "run").code == 0
    done = cli("score", tmp_path / "run", "--metric", f"{tmp_path}/bad.py:bad")
    assert (done.code, "failed: ZeroDivisionError" in done.err) == (2, True)
    checked = cli("check-metric", f"{tmp_path}/bad.py:bad")
    assert (checked.code, "ZeroDivisionError" in checked.err) == (2, True)


def test_a_metric_that_fails_loses_nothing(cli: Cli, tmp_path: Path, mine: Path) -> None:
    run = tmp_path / "run"
    assert cli(*SHORT, "--out", run).code == 0
    before = (run / "scores.csv").read_bytes()
    done = cli("score", run, "--metric", f"{mine}:broken")
    assert done.code == 2
    assert "Metric 'mine.broken' failed: ZeroDivisionError" in done.err
    assert (run / "scores.csv").read_bytes() == before


def test_packages_register_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint(
        "their-level", "tests.scoring.test_metric_plugins:THEIRS", "eddy_bench.metrics"
    )
    monkeypatch.setattr(plugins, "entry_points", lambda group: [point])
    spec = MetricSpec.parse("their-level")
    assert (str(spec.id), spec.metric.higher_is_better) == ("their-level", False)
    assert spec.metric.source
    with pytest.raises(UnknownName, match="Did you mean 'their-level'"):
        MetricSpec.parse("their-levl")


THEIRS = Metric("anything", "image", False, "", function=lambda image: float(image.max()))


HELD = (
    *("vendi", "vendi-rbf", "logdet", "pdist", "mss", "ms-ssim", "clip"),
    *(
        "fd",
        "kid",
        "cmmd",
        "recall",
        "coverage",
        "drift",
        "attributes",
        "values-seen",
        "torchmetrics:image.kid",
    ),
)


@pytest.mark.parametrize("name", HELD)
def test_our_metrics_keep_their_promises(name: str) -> None:
    findings = check_metric(MetricSpec.parse(name, Permission()), None)
    promises = {finding.name: finding for finding in findings}
    assert promises.keys() == CHECKS.keys()
    broken = {key for key, finding in promises.items() if finding.holds is False}
    assert not broken


def test_a_clip_that_was_not_taught_its_words_is_refused_to_clip_iqa(cli: Cli) -> None:
    done = cli("check-metric", "clip-iqa")
    assert (done.code, done.err.count("Error:")) == (2, 1)
    assert "clip-iqa[open_clip:" in " ".join(done.err.split())


BREAKS = {
    "numbers in its range": "lambda image: float(image.mean())",
    "deterministic": "lambda image: float(np.random.rand())",
    "noise is no gain": "lambda image: float(image.std() / 255) / 2",
    "black images": "lambda image: 0.5 if image.max() else float('inf')",
}


@pytest.mark.parametrize("promise", BREAKS)
def test_what_breaks_a_promise_is_told(cli: Cli, tmp_path: Path, promise: str) -> None:
    (tmp_path / "bad.py").write_text(
        "import numpy as np\nfrom eddy_bench import Metric\n"
        f"bad = Metric('bad', 'image', True, '', function={BREAKS[promise]}, "
        "aspect='fidelity', range=(0, 1))\n"
    )
    done = cli("check-metric", f"{tmp_path}/bad.py:bad")
    assert done.code == 1
    assert f"{promise}" in done.out.splitlines()[-1]


BROKEN = {
    "'features', True, '', function=lambda f: float(f[0, 0])": {"permutation of images"},
    "'features', True, '', function=lambda f: float(f[0, 0] + f[-1, 0])": {"permutation of images"},
    "'real', False, '', function=lambda f, real: float(f[0, 0] + f[-1, 0]), aspect='diversity'": {
        "permutation of images",
        "permutation of groups",
    },
    "'real', True, '', function=lambda f, real: float(abs(f.mean(0) - real.mean(0)).sum())": {
        "blur is no gain",
        "noise is no gain",
    },
    "'features', True, '', function=lambda f: 1.0 if len(f) != 2 else float('nan')": {
        "no NaN of ordinary images"
    },
    "'features', True, '', function=lambda f: 1.0 if len(f) == 1 or f.std(0).any() else np.inf": {
        "black images"
    },
}


@pytest.mark.parametrize("declared", BROKEN)
def test_check_metric_finds_what_is_broken_and_nothing_else(tmp_path: Path, declared: str) -> None:
    (tmp_path / "bad.py").write_text(
        f"import numpy as np\nfrom eddy_bench import Metric\nbad = Metric('bad', {declared})\n"
    )
    findings = check_metric(MetricSpec.parse(f"{tmp_path}/bad.py:bad", Permission()), None)
    assert {f.name for f in findings if f.holds is False} == BROKEN[declared]


def test_check_metric_of_none_is_one_line(cli: Cli) -> None:
    done = cli("check-metric", "vendy")
    assert (done.code, "Did you mean 'vendi'" in done.err) == (2, True)
    missing = cli("check-metric", "lpips")
    assert (missing.code, "alexnet" in missing.err) == (2, True)


def test_the_readme_s_metric_keeps_its_promises(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "README.md").read_text()
    code = text.split("## Your own metric")[1].split("```python\n")[1].split("```")[0]
    assert len(code.splitlines()) < 20
    (tmp_path / "mine.py").write_text(code)
    findings = check_metric(
        MetricSpec.parse(f"{tmp_path}/mine.py:colour:scale=2", Permission()), None
    )
    assert [finding.name for finding in findings if finding.holds is False] == []
