"""What makes scores be computed anew, what stops before drawing, and values that are no numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from eddy_bench.errors import MetricError
from eddy_bench.scoring import perceptual
from eddy_bench.scoring.diversity import gaussian_vendi, vendi
from eddy_bench.scoring.inception import INCEPTION
from tests.conftest import Result
from tests.makers.runs import SHORT
from tests.makers.score_files import of

Cli = Callable[..., Result]
RUN = SHORT[:-4]  # without metric and method


def plugin(path: Path, body: str) -> str:
    path.write_text(
        "from eddy_bench import Metric\n"
        f"m = Metric('m', 'image', True, '', function=lambda image: {body})\n"
    )
    return f"{path}:m"


def summary(run: Path) -> pd.DataFrame:
    return pd.read_csv(run / "summary.csv").set_index("method")


def test_infinite_values_are_left_out_and_told(cli: Cli, tmp_path: Path) -> None:
    run = tmp_path / "run"
    name = plugin(tmp_path / "far.py", "float('inf') if image.mean() > 1 else 0.0")
    call = (*RUN, "--method", "iid", "--method", "pg", "--metric", "vendi", "--metric", name)
    done = cli(*call, "--out", run)
    assert done.code == 0, done.err
    told = " ".join(done.err.split())
    assert "far.m is infinite for iid, " in told
    assert "far.m has no value for any group" in told
    assert "inf" not in (run / "scores.csv").read_text().replace("information", "")
    for command in ("compare", "report"):
        assert cli(command, run).code == 0


def test_vendi_of_any_order_is_a_number() -> None:
    for q in (0.5, 2, 40, 600, 999):
        assert vendi(np.eye(4), q) == pytest.approx(4)
        assert gaussian_vendi(np.eye(4), h=0.001, q=q) == pytest.approx(4)
        assert vendi(np.ones((4, 3)), q) == pytest.approx(1)
    assert vendi(np.zeros((4, 3)), 2) == 1, "equal images, whatever their features"
    assert np.isnan(vendi(np.full((4, 3), np.nan), 2))


def test_an_edited_plug_in_is_scored_again(cli: Cli, tmp_path: Path) -> None:
    run = tmp_path / "run"
    call = (*RUN, "--method", "iid", "--out", run, "--metric", "logdet", "--metric")
    first = cli(*call, plugin(tmp_path / "mine.py", "1.0"))
    again = cli(*call, f"{tmp_path}/mine.py:m")
    assert "Nothing to score" in again.err
    for done in (first, again):
        assert {"logdet", "mine.m"} <= set(done.out.split()), "what was asked for is shown"
    assert cli(*call, plugin(tmp_path / "mine.py", "7.0")).code == 0
    assert summary(run)["mine.m"].tolist() == [7.0]


def open_prompts(path: Path, **attributes: Any) -> Path:
    path.write_text(yaml.safe_dump([{"prompt": "a dress", "attributes": attributes}]))
    return path


def test_values_of_other_lists_are_not_compared(cli: Cli, tmp_path: Path) -> None:
    prompts = tmp_path / "open.yaml"
    signatures = []
    for tones in (["dark", "light"], ["dark", "mid", "light"]):
        open_prompts(prompts, tone=tones)
        done = cli(
            *(*RUN, "--method", "iid", "--prompts", prompts, "--metric", "values-seen"),
            *("--out", tmp_path / "run"),
        )
        assert done.code == 0, done.err
        assert "Nothing to score" not in done.err
        table = pd.read_csv(tmp_path / "run/scores.csv")
        signatures += table[of(table, "values-seen")]["signature"].unique().tolist()
    assert len(set(signatures)) == 2


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        ([True, False], "got True. Put it in quotes"),
        ([None, "red"], "got None"),
        (["red", "blue", "red"], "'red' twice"),
        ([["a"], "b"], "got ['a']"),
        (["", "red"], "got ''"),
    ],
)
def test_what_is_no_value_is_told_before_drawing(
    cli: Cli, tmp_path: Path, listed: list[Any], message: str
) -> None:
    prompts = open_prompts(tmp_path / "open.yaml", tone=listed)
    run = tmp_path / "run"
    call = (*RUN, "--method", "iid", "--prompts", prompts, "--metric", "values-seen")
    done = cli(*call, "--out", run)
    assert (done.code, done.err.count("Error:")) == (2, 1)
    assert message in " ".join(done.err.split())
    assert not run.exists()


@pytest.mark.parametrize(("metric", "file"), [("lpips", perceptual.ALEXNET), ("fid", INCEPTION)])
def test_weights_are_looked_for_before_drawing(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metric: str, file: str
) -> None:
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path / "none"))
    run = tmp_path / "run"
    done = cli(*RUN, "--method", "iid", "--metric", metric, "--out", run)
    assert (done.code, done.err.count("Error:")) == (2, 1)
    assert file in done.err
    assert not run.exists()


def test_weights_that_cannot_be_had_are_tried_once(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without network each try waits for a hub."""
    tries = []

    def fail(name: str, *rest: Any) -> None:
        tries.append(name)
        raise MetricError("no network")

    run = tmp_path / "run"
    assert cli(*RUN, "--method", "iid", "--metric", "vendi[pixels]", "--out", run).code == 0
    monkeypatch.setattr("eddy_bench.scoring.scorer.load_extractor", fail)
    done = cli("score", run)
    assert done.code == 0
    assert tries == ["fmnist-clip"]
    assert "vendi[fmnist-clip], pdist[fmnist-clip]" in " ".join(done.err.split())
