"""Plug-in metrics with networks of their own, and declarations that cannot be kept."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from eddy_bench.audit.metric_conformance import check_metric
from eddy_bench.errors import ParameterError
from eddy_bench.scoring.metrics import MetricSpec
from eddy_bench.suites.plugins import Permission
from tests.conftest import Result
from tests.makers.score_files import of

Cli = Callable[..., Result]
HEAD = """
import numpy as np
from eddy_bench import Extractor, Judge, Metric, Parameter
"""
SEES = """
def sees(weights, device):
    rows = lambda rows: (FACTOR * row[0][:1, :2].reshape(-1) for row in rows)
    return Extractor(NAME, "w1", lambda image: np.asarray(image.convert("RGB"), np.float32), rows)
m = Metric("m", "features", True, "", function=lambda x: x.mean(), sees=sees, extractor=NAME)
"""
JUDGES = """
def load(weights, device):
    return Judge(values, DIGEST)
m = Metric("m", "image", True, "", function=lambda x: x.mean(), load=load)
"""


@pytest.fixture
def run(undisturbed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(undisturbed, tmp_path / "run"))


def write(folder: Path, code: str, name: str = "mine") -> str:
    """Write a file with the metric `m`."""
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text(HEAD + code)
    return f"{folder}/{name}.py:m"


def values(run: Path, metric: str) -> list[float]:
    scores = pd.read_csv(run / "scores.csv")
    return [float(value) for value in scores[of(scores, metric)]["value"]]


def seeing(name: str, factor: float) -> str:
    return SEES.replace("NAME", repr(name)).replace("FACTOR", repr(factor))


def test_features_of_an_edited_file_are_computed_anew(cli: Cli, tmp_path: Path, run: Path) -> None:
    assert cli("score", run, "--metric", write(tmp_path / "x", seeing("own", 1.0))).code == 0
    before = values(run, "mine.m")
    assert cli("score", run, "--metric", write(tmp_path / "x", seeing("own", 10.0))).code == 0
    assert values(run, "mine.m") == pytest.approx([10 * value for value in before])
    assert any(before)


def test_extractors_of_one_name_are_kept_apart(cli: Cli, tmp_path: Path, run: Path) -> None:
    one = write(tmp_path / "x", seeing("pixels", 0.0), "one")
    other = write(tmp_path / "x", seeing("pixels", 5.0), "other")
    done = cli("score", run, "--metric", one, "--metric", other, "--metric", "vendi[pixels]")
    assert done.code == 0, done.err
    assert not any(values(run, "one.m"))
    assert any(values(run, "other.m"))
    assert all(value > 1 for value in values(run, "vendi"))


WRONG_COUNTS = {
    "one more": "def values(rows):\n    yield 0.0\n    for row in rows: yield 1.0",
    "two each": "def values(rows):\n    for row in rows: yield 1.0; yield 2.0",
    "too few": "def values(rows):\n    yield from [1.0, 2.0]",
    "arrays": "def values(rows):\n    for row in rows: yield np.zeros(3)",
}


@pytest.mark.parametrize("kind", WRONG_COUNTS)
def test_a_judge_gives_a_number_for_each_image(
    cli: Cli, tmp_path: Path, run: Path, kind: str
) -> None:
    code = f"{WRONG_COUNTS[kind]}\n{JUDGES.replace('DIGEST', repr('w1'))}"
    done = cli("score", run, "--metric", write(tmp_path / "x", code))
    assert (done.code, "Expected" in done.err, "Traceback" in done.err) == (2, True, False)
    assert "mine.m" in done.err


@pytest.mark.parametrize("digest", ["None", "''", "7"])
def test_weights_without_a_digest_are_refused(
    cli: Cli, tmp_path: Path, run: Path, digest: str
) -> None:
    code = WRONG_COUNTS["too few"] + "\n" + JUDGES.replace("DIGEST", digest)
    done = cli("score", run, "--metric", write(tmp_path / "x", code))
    assert (done.code, "a text that changes with the weights" in done.err) == (2, True)


DECLARED = {
    "marks=(1, 2)": "Expected marks",
    "marks='abc'": "Expected marks",
    "parameters=(Parameter('k', 1, None, 10),)": "above < default < below",
    "parameters=(Parameter('k', 100, 0, 10),)": "above < default < below",
    "parameters=(Parameter('k', 1, 0, 10), Parameter('k', 2, 0, 10))": "got it twice",
    "parameters=(Parameter('a-b', 1, 0, 10),)": "letters and _",
    "range=(1, 0)": "least and its largest",
    "range=None": "least and its largest",
    "range=('a', 'b')": "least and its largest",
    "load=print, function=None": "Expected a function",
}


@pytest.mark.parametrize("declared", DECLARED)
def test_a_record_that_cannot_be_kept_is_refused(tmp_path: Path, declared: str) -> None:
    code = f"m = Metric('m', 'image', True, '', **{{'function': len, **dict({declared})}})\n"
    with pytest.raises(ParameterError, match=re.escape(DECLARED[declared])):
        MetricSpec.parse(write(tmp_path / "x", code), Permission())


def test_what_the_page_shows_with_a_network_of_its_own_holds(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    block = text.split("eddy_bench.Judge`")[1].split("```python\n")[1].split("```")[0]
    code = "\n".join(line.removeprefix("    ") for line in block.splitlines())
    (tmp_path / "mine.py").write_text(code)
    torch.save(torch.nn.Linear(3, 1).state_dict(), tmp_path / "tone.pt")
    findings = check_metric(MetricSpec.parse(f"{tmp_path}/mine.py:tone", Permission()), tmp_path)
    assert [finding.name for finding in findings if finding.holds is False] == []


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("fid",), "pt_inception"),
        (("torchmetrics:image.psnrb",), "torchmetrics"),
        (("vendi", "--weights", "/nowhere"), "a folder at --weights"),
    ],
)
def test_what_cannot_be_checked_is_no_broken_promise(
    cli: Cli, asked: tuple[str, ...], said: str
) -> None:
    done = cli("check-metric", *asked)
    assert (done.code, said in done.err, "broken" in done.out) == (2, True, False), done.err
