"""The best, the worst and the mean image of a group, from values that scoring keeps."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from eddy_bench.compare.statistic import with_statistic
from eddy_bench.errors import CompareError
from eddy_bench.results.io import with_texts
from eddy_bench.results.results import read_results
from eddy_bench.scoring.metrics import METRICS
from tests.conftest import Result
from tests.makers.score_files import of

Cli = Callable[..., Result]
GROUP = ["method", "prompt_id", "seed"]
PLUGIN = """
from eddy_bench import Metric

def red(image):
    return float(image[..., 0].mean())

METRIC = Metric("red", "image", False, "mean of red", function=red)
"""


@pytest.fixture
def run(cli: Cli, undisturbed: Path, tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(undisturbed, tmp_path / "run"))
    done = cli("score", folder, "--metric", "clip")
    assert done.code == 0, done.err
    return folder


def stored(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "scores.parquet")


def images(folder: Path, metric: str = "clip") -> pd.DataFrame:
    rows = stored(folder)
    return rows[rows["metric"].str.partition("[")[0] == f"image:{metric}"].reset_index(drop=True)


def groups(folder: Path, metric: str = "clip") -> pd.Series:
    rows = pd.read_csv(folder / "scores.csv", keep_default_na=False, dtype={"seed": str})
    return rows[of(rows, metric)].set_index(GROUP)["value"].astype(float)


def forget_images(folder: Path) -> None:
    rows = stored(folder)
    rows[rows["image"].isna()].to_parquet(folder / "scores.parquet")


def test_there_is_a_row_for_each_image_whose_mean_is_the_groups_value(run: Path) -> None:
    rows, values = images(run), groups(run)
    assert len(rows) == 2 * len(values)
    assert sorted(set(rows["image"])) == [0, 1]
    means = rows.groupby(GROUP)["value"].mean().reindex(values.index)
    assert np.allclose(means, values, rtol=1e-12)
    assert not rows.duplicated([*GROUP, "image"]).any()


def test_rows_of_groups_stand_in_both_files_as_they_did(run: Path) -> None:
    table = pd.read_csv(run / "scores.csv", keep_default_na=False, dtype=str)
    rows = stored(run)
    own = rows[rows["image"].isna()].drop(columns="image").reset_index(drop=True)
    assert "image" not in table
    assert list(own["metric"]) == list(table["metric"])
    assert np.allclose(own["value"], pd.to_numeric(table["value"]), equal_nan=True)
    assert set(rows[rows["image"].notna()]["metric"]) == {"image:clip[fmnist-clip]"}, (
        "vendi judges no image"
    )


def test_best_and_worst_are_on_both_sides_of_the_mean(run: Path) -> None:
    scores = read_results([run])
    tables = {name: with_texts(with_statistic(scores, name)[0].frame) for name in ("best", "worst")}
    keys = ["method", "prompt_id", "seed"]
    own = {
        name: table[table["metric"] == f"clip[fmnist-clip]:image={name}"].set_index(keys)["value"]
        for name, table in tables.items()
    }
    plain = with_texts(scores.frame)
    mean = plain[of(plain, "clip")].set_index(keys)["value"]
    assert (own["worst"] < mean).all()
    assert (mean < own["best"]).all()
    assert np.allclose((own["best"] + own["worst"]) / 2, mean), "groups of two"
    assert with_statistic(scores, "mean") == (scores, [])
    other = tables["best"]
    same = other[~of(other, "clip")]["value"].to_numpy()
    before = plain[~of(plain, "clip")]["value"].to_numpy()
    assert np.array_equal(same, before, equal_nan=True)


def test_lower_is_better_turns_best_round(cli: Cli, run: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(PLUGIN.replace("METRIC", "red_metric"))
    done = cli("score", run, "--metric", f"{file}:red_metric")
    assert done.code == 0, done.err
    name = next(name for name in stored(run)["metric"] if name.startswith("image:mine"))
    rows = images(run, name.removeprefix("image:"))
    frame = with_texts(with_statistic(read_results([run]), "best")[0].frame)
    frame = frame[of(frame, name.removeprefix("image:"))]
    frame = frame.assign(metric=name.removeprefix("image:")).set_index(GROUP)
    lowest = rows.groupby(GROUP)["value"].min()
    assert np.array_equal(frame["value"], lowest.reindex(frame.index))
    assert len(images(run)) == 2 * len(groups(run)), "those of clip are kept"


@pytest.mark.parametrize("statistic", ["best", "worst"])
def test_compare_takes_the_statistic_by_name(cli: Cli, run: Path, statistic: str) -> None:
    done = cli("compare", run, "--statistic", statistic, "--format", "json")
    assert done.code == 0, done.err
    assert f"each group's {statistic} image" in done.err
    column = f"clip[fmnist-clip]:image={statistic}"
    record = next(row for row in json.loads(done.out)["differences"] if row["metric"] == column)
    rows = images(run).groupby(["method", "prompt_id"])["value"]
    best = (rows.max() if statistic == "best" else rows.min()).groupby("method").mean()
    assert record["difference"] == pytest.approx(best["pg"] - best["iid"])
    table = cli("compare", run, "--statistic", statistic)
    assert table.code == 0
    assert f"clip:image={statistic}" in " ".join(table.out.split())


def test_without_it_or_with_mean_nothing_moves(cli: Cli, run: Path) -> None:
    plain = cli("compare", run, "--format", "csv").out
    assert cli("compare", run, "--format", "csv", "--statistic", "mean").out == plain


def test_against_takes_it_on_both_sides(cli: Cli, run: Path, tmp_path: Path) -> None:
    other = shutil.copytree(run, tmp_path / "other")
    done = cli("compare", run, "--against", other, "--statistic", "best", "--format", "json")
    assert done.code == 0, done.err
    rows = json.loads(done.out)["differences"]
    own = [row for row in rows if row["metric"] == "clip[fmnist-clip]:image=best"]
    assert {row["difference"] for row in own} == {0}


def test_scoring_something_else_keeps_them(cli: Cli, run: Path) -> None:
    before = images(run)
    for metric in ("mss", "vendi:q=2"):
        assert cli("score", run, "--metric", metric).code == 0
        pd.testing.assert_frame_equal(images(run), before)
    again = cli("score", run, "--metric", "clip")
    assert again.code == 0, again.err
    pd.testing.assert_frame_equal(images(run), before)


def test_a_run_without_them_is_one_line_and_can_be_scored_again(cli: Cli, run: Path) -> None:
    forget_images(run)
    done = cli("compare", run, "--statistic", "best")
    assert done.code == 2
    assert len(done.err.splitlines()) == 1
    assert f"score it again: eddy-bench score {run} --metric 'clip[fmnist-clip]'" in done.err
    assert cli("score", run, "--metric", "mss").code == 0, "what is there stays"
    assert cli("compare", run, "--statistic", "best").code == 2
    assert cli("score", run, "--metric", "clip[fmnist-clip]").code == 0
    assert cli("compare", run, "--statistic", "best").code == 0


def test_values_of_another_score_file_are_refused(cli: Cli, run: Path) -> None:
    rows = stored(run)
    rows.loc[rows["image"] == 0, "value"] += 1.0
    rows.to_parquet(run / "scores.parquet")
    done = cli("compare", run, "--statistic", "best")
    assert done.code == 2
    assert "others than its scores.csv" in done.err


def test_a_metric_without_its_images_blocks_no_other(cli: Cli, run: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(PLUGIN.replace("METRIC", "red_metric"))
    assert cli("score", run, "--metric", f"{file}:red_metric").code == 0
    rows = stored(run)
    lost = (rows["image"] == 0) & (rows["metric"] == "image:mine.red_metric")
    rows[~lost].to_parquet(run / "scores.parquet")
    done = cli("compare", run, "--statistic", "best", "--format", "json")
    assert done.code == 0, done.err
    columns = {row["metric"] for row in json.loads(done.out)["differences"]}
    assert {"clip[fmnist-clip]:image=best", "mine.red_metric"} <= columns
    assert "no values of single images for mine.red_metric" in done.err
    assert "score it again, plug-ins by their file or package." in done.err


@pytest.mark.parametrize("content", [b"", b"no table", b"PAR1PAR1"])
def test_a_damaged_file_is_one_line(cli: Cli, run: Path, content: bytes) -> None:
    (run / "scores.parquet").write_bytes(content)
    done = cli("compare", run, "--statistic", "worst")
    assert done.code == 2
    assert "scores.parquet cannot be read" in done.err
    assert len(done.err.splitlines()) == 1
    assert cli("compare", run).code == 0
    assert cli("score", run, "--metric", "mss").code == 0


def test_what_it_cannot_be_taken_of_is_one_line(
    cli: Cli, run: Path, undisturbed: Path, tmp_path: Path
) -> None:
    file = tmp_path / "alone.csv"
    shutil.copy(run / "scores.csv", file)
    gate = tmp_path / "gate.yaml"
    gate.write_text("checks: []")
    wrong = {
        "Expected --statistic mean, best or worst, got 'median'": (run, "median"),
        "Add one: eddy-bench score": (undisturbed, "best"),
        "Name the folder": (file, "best"),
    }
    for message, (source, statistic) in wrong.items():
        done = cli("compare", source, "--statistic", statistic)
        assert done.code == 2
        assert message in done.err
    gated = cli("compare", run, "--against", run, "--gate", gate, "--statistic", "best")
    assert gated.code == 2
    assert "--statistic means nothing to a gate" in gated.err
    csv = cli("compare", run / "scores.csv", "--statistic", "best")
    assert csv.code == 0, "its scores.parquet stands beside it"


@pytest.mark.parametrize(
    "name", [name for name, metric in METRICS.items() if metric.each is not None]
)
def test_a_groups_value_is_the_mean_of_its_images(name: str) -> None:
    metric, rng = METRICS[name], np.random.default_rng(0)
    features = rng.normal(size=(5, 1 if "aesthetic" in name else 8))
    words = rng.normal(size=(len(metric.texts), 8)) if metric.texts else rng.normal(size=8)
    given = (features,) if metric.needs == "features" else (features, words)
    values = metric.of_images(*given)
    assert len(values) == 5
    assert np.mean(values) == pytest.approx(metric(*given), rel=1e-12)


def test_there_are_metrics_of_single_images() -> None:
    single = {
        name for name, metric in METRICS.items() if metric.judges_images and not metric.source
    }
    assert single == {"clip", "clip-iqa", "aesthetic", "aesthetic-mlp", "pickscore", "hps"}


def test_a_run_without_any_says_so(undisturbed: Path) -> None:
    with pytest.raises(CompareError, match="such as clip"):
        with_statistic(read_results([undisturbed]), "best")
