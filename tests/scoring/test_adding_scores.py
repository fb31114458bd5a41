"""Scoring adds: columns that were not asked for stay while their images are what they were."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import Result
from tests.makers.score_files import of

Cli = Callable[..., Result]
RUN = ("run", "--limit", "3", "--steps", "2", "--particles", "2", "--batch-prompts", "2")
METHODS = ("--method", "iid", "--method", "pg")


def scores(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "scores.csv", keep_default_na=False, dtype=str)


@pytest.fixture
def run(cli: Cli, tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    done = cli(*RUN, *METHODS, "--metric", "vendi", "--metric", "clip", "--out", folder)
    assert done.code == 0, done.err
    return folder


def of_metric(table: pd.DataFrame, name: str) -> list[tuple[object, ...]]:
    rows = table[of(table, name.partition("[")[0])]
    return sorted(rows.itertuples(index=False, name=None))


def test_score_keeps_every_column_that_was_there(cli: Cli, run: Path) -> None:
    before = scores(run)
    done = cli("score", run, "--metric", "fd")
    assert done.code == 0, done.err
    after = scores(run)
    assert set(after["metric"]) == set(before["metric"]) | {"fd[fmnist-clip]"}
    for name in set(before["metric"]):
        assert of_metric(after, name) == of_metric(before, name), "to the last digit"
    summary = pd.read_csv(run / "summary.csv")
    assert {"vendi[fmnist-clip]", "clip[fmnist-clip]", "fd[fmnist-clip]"} <= set(summary.columns)
    stored = pd.read_parquet(run / "scores.parquet")
    assert set(stored[stored["image"].isna()]["metric"]) == set(after["metric"])


def test_orders_of_one_metric_are_different_columns(cli: Cli, run: Path) -> None:
    assert cli("score", run, "--metric", "vendi:q=2").code == 0
    summary = pd.read_csv(run / "summary.csv")
    assert {"vendi[fmnist-clip]", "vendi[fmnist-clip]:q=2"} <= set(summary.columns)
    assert (summary["vendi[fmnist-clip]"] >= summary["vendi[fmnist-clip]:q=2"]).all()


def test_a_column_scored_again_stands_once(cli: Cli, run: Path) -> None:
    before = scores(run)
    assert cli("score", run, "--metric", "vendi").code == 0
    assert of_metric(scores(run), "vendi") == of_metric(before, "vendi")
    assert len(scores(run)) == len(before)


def test_another_reference_replaces_the_signature_of_a_pooled_metric(cli: Cli, run: Path) -> None:
    assert cli("score", run, "--metric", "fd").code == 0
    folder = run / "grids"
    assert cli("score", run, "--metric", "fd", "--reference", folder).code == 0
    rows = scores(run)
    signatures = set(rows[of(rows, "fd")]["signature"])
    assert all("ref=grids@" in signature for signature in signatures)
    assert len(rows[of(rows, "fd")]) == 2, "one per method"


def test_images_that_changed_take_their_old_values_along(cli: Cli, run: Path) -> None:
    assert cli("score", run, "--metric", "mss").code == 0
    group = sorted(run.glob("samples/pg/*/0"))[0]
    (group / "0.png").write_bytes((group / "1.png").read_bytes())
    again = cli(*RUN, *METHODS, "--metric", "vendi", "--metric", "clip", "--out", run)
    assert again.code == 0, again.err
    other = cli(*RUN, *METHODS, "--metric", "vendi", "--seeds", "2", "--out", run)
    assert other.code == 0, other.err
    rows = scores(run)
    kept = rows[of(rows, "mss")]
    assert set(kept["seed"]) == {"0"}, "the new groups have none, the old ones stay"
    assert "mss[fmnist-clip] is kept from before and 6 groups have none" in other.err


def test_a_value_of_images_that_were_replaced_is_left_out(cli: Cli, run: Path) -> None:
    """The group is drawn by another version of a plug-in's file, say: other images, same place."""
    from eddy_bench.storage.run_folder import read_manifest, write_manifest

    assert cli("score", run, "--metric", "mss").code == 0
    digests = read_manifest(run).scored_images
    assert digests is not None
    stale = {**digests, "pg": "0" * 16}
    write_manifest(run, read_manifest(run).updated(scored_images=stale))
    done = cli("score", run, "--metric", "vendi")
    assert done.code == 0
    rows = scores(run)
    assert set(rows[of(rows, "mss")]["method"]) == {"iid"}
    assert "mss[fmnist-clip] of images that changed since was left out" in done.err


def test_a_damaged_score_file_counts_as_empty(cli: Cli, run: Path) -> None:
    for text in ("", "nonsense\n1,2\n", "\x00\x01"):
        (run / "scores.csv").write_text(text)
        done = cli("score", run, "--metric", "mss")
        assert done.code == 0, done.err
        assert "mss[fmnist-clip]" in set(scores(run)["metric"])
    assert done.err.count("scores.csv could not be read and was replaced") == 1
    (run / "scores.csv").unlink()
    again = cli("score", run, "--metric", "vendi")
    assert (again.code, "could not be read" in again.err) == (0, False), "none is no loss"


def test_a_prompt_that_says_skipped_is_not_scored_again(cli: Cli, tmp_path: Path) -> None:
    """Notes quote prompts; whether a metric was skipped is not read from them."""
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a skipped dress " + "with very long sleeves " * 40 + "\na sandal\n")
    command = (*RUN, "--prompts", prompts, "--method", "iid", "--metric", "clip")
    first = cli(*command, "--out", tmp_path / "run")
    assert "a skipped dress" in first.err
    assert "Nothing to score" in cli(*command, "--out", tmp_path / "run").err
