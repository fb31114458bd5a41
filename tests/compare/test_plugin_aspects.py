"""What a plug-in judges counts in comparisons, after ours, from its score file alone."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from eddy_bench.compare.advice import candidates
from eddy_bench.compare.comparison import compare_methods
from eddy_bench.compare.fronts import fronts
from eddy_bench.compare.paired import compare
from eddy_bench.ids import MetricId, Signature
from eddy_bench.report.verdicts import verdicts
from eddy_bench.results.io import metrics_of
from eddy_bench.results.results import read_results
from eddy_bench.scoring.metrics import METRICS
from tests.conftest import Result
from tests.makers.score_files import of

Cli = Callable[..., Result]
MINE = """
import numpy as np
from eddy_bench import Metric

def apart(a, b):
    return float(np.abs(a / 255 - b / 255).mean())

def dark(image):
    return 1 - float(image.mean()) / 255

spread = Metric("s", "pairs", True, "", function=apart, aspect="diversity")
fit = Metric("f", "image", True, "", function=dark, aspect="fidelity")
far = Metric("f", "real", False, "", function=lambda x, y: 0.0, aspect="fidelity")
"""


@pytest.fixture
def run(cli: Cli, undisturbed: Path, tmp_path: Path) -> Path:
    """Return a run that holds a file's metrics; the file is gone."""
    folder = Path(shutil.copytree(undisturbed, tmp_path / "run"))
    file = tmp_path / "mine.py"
    file.write_text(MINE)
    names = [f"{file}:{name}" for name in ("far", "fit", "spread")]
    done = cli("score", folder, *(word for name in names for word in ("--metric", name)))
    assert done.code == 0, done.err
    file.unlink()
    return folder


def test_plugins_stand_behind_ours(run: Path) -> None:
    results = read_results([run])
    diversity, fidelity = (
        [column.name for column in results.of_aspect(aspect, results.columns)]
        for aspect in ("diversity", "fidelity")
    )
    assert diversity[0] == "vendi"
    assert diversity[-1] == "mine.spread"
    assert fidelity[-1] == "mine.fit", "of what is pooled none"
    assert "mine.spread" not in METRICS


def test_they_stand_alone_where_nothing_of_ours_was_scored(cli: Cli, run: Path) -> None:
    table = pd.read_csv(run / "scores.csv", keep_default_na=False, dtype=str)
    costs = of(table, "seconds_per_image")
    table[table["metric"].str.startswith("mine.") | costs].to_csv(run / "scores.csv", index=False)
    scores = read_results([run])
    found = fronts(scores)
    assert found is not None
    assert (str(found.diversity), str(found.fidelity)) == ("mine.spread", "mine.fit")
    differences = compare(scores)
    (choice,) = candidates(differences, scores, [])
    assert str(choice.gain.metric) == "mine.spread"
    assert [str(loss.metric) for loss in choice.losses] == ["mine.fit"]
    ((_, sentence),) = verdicts(compare_methods(scores))
    assert "mine.spread" in sentence
    assert "mine.fit" in sentence
    assert cli("compare", run).code == 0


def test_a_score_file_s_word_for_it_may_be_anything() -> None:
    for text in ("mine.x|source=1234567890|aspect=quality|N=2", "mine.x|source=1234567890|N=2"):
        row = [MetricId("mine.x"), Signature.parse(text), True]
        frame = pd.DataFrame([row], columns=["metric", "signature", "higher_is_better"])
        assert metrics_of(frame)["mine.x"].aspect == ""


def turned(run: Path, folder: Path, metric: str) -> Path:
    """A copy of a run whose file says the opposite of a metric's direction."""
    other = Path(shutil.copytree(run, folder))
    frame = pd.read_csv(other / "scores.csv", dtype=str, keep_default_na=False)
    own = of(frame, metric)
    frame.loc[own, "higher_is_better"] = "False"
    if metric.startswith("mine"):
        frame.loc[own, "value"] = [str(float(value) + 1) for value in frame.loc[own, "value"]]
    frame.to_csv(other / "scores.csv", index=False)
    return other


def test_each_file_has_its_own_direction_or_two_are_refused(
    run: Path, cli: Cli, tmp_path: Path
) -> None:
    """Whatever was read before in this process."""
    other = turned(run, tmp_path / "other", "mine.spread")
    for path, higher in ((run, True), (other, False), (run, True)):
        assert read_results([path]).metrics["mine.spread"].higher_is_better is higher
    for flags in ([], ["--against", str(run)]):
        sources = [other] if flags else [run, other]
        done = cli("compare", *sources, *flags)
        assert done.code == 2
        assert "Higher is better of mine.spread in" in done.err
    ours = turned(run, tmp_path / "ours", "vendi")
    assert "says the opposite of vendi" in cli("compare", ours).err
