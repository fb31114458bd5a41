"""Runs from Python: what `load_run` gives, and that `benchmark` does what the command does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import eddy_bench
from eddy_bench.errors import EddyError, PromptError, StoreError, UnknownName
from eddy_bench.models.load import load_model
from eddy_bench.results.io import escaped
from tests.conftest import Result
from tests.makers.scored_runs import EFFECTS, make_run


@pytest.fixture
def run(tmp_path: Path) -> eddy_bench.Run:
    return eddy_bench.load_run(make_run(tmp_path / "made"))


def test_a_loaded_run_has_its_scores_images_and_differences(run: eddy_bench.Run) -> None:
    assert set(run.methods) == set(EFFECTS)
    assert {"method", "metric", "value", "prompt_id"} <= set(run.scores.columns)
    assert len(run.images("pg:strength=1", "p002")) == 2
    differences = run.compare()
    line = differences[
        (differences["method"] == "pg:strength=2") & differences["metric"].str.startswith("vendi")
    ]
    assert line["better"].tolist() == [True]
    assert line["low"].iloc[0] > 0


def test_methods_are_known_as_they_were_asked_for(tmp_path: Path) -> None:
    effects = {"iid": {"vendi": 0.0}, "pg:strength=2.0": {"vendi": 0.1}}
    run = eddy_bench.load_run(make_run(tmp_path / "made", effects=effects))
    assert run.images("pg:strength=2", "p002") == run.images("pg:strength=2.0", "p002")


def test_a_grid_shows_itself(run: eddy_bench.Run) -> None:
    picture = run.grid(methods=["iid", "eddy-exact"], prompts=["p001", "p002", "p003"])
    assert picture._repr_png_()[:4] == b"\x89PNG"  # what Jupyter calls
    assert picture.height < run.grid().height


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda run: run.images("pgg", "p002"), "pgg"),
        (lambda run: run.images("iid", "p999"), "p999"),
        (lambda run: run.images("iid", "p001", seed=4), "seed 4"),
        (lambda run: run.grid(methods=[]), "got none"),
        (lambda run: run.compare("lhs"), "lhs"),
        (lambda run: run.grid(methods="iid"), "Expected lists"),
        (lambda run: eddy_bench.load_run(run.path / "scores.csv"), "the folder of a run"),
        (lambda run: eddy_bench.benchmark(42, ["iid"], ["coat"]), "got int"),
        (lambda run: eddy_bench.benchmark("fashion", [], ["coat"]), "Expected methods as"),
        (lambda run: eddy_bench.benchmark("fashion", [3], ["coat"]), "Expected methods as"),
    ],
)
def test_what_is_not_there_is_named(
    run: eddy_bench.Run, call: Callable[[eddy_bench.Run], object], message: str
) -> None:
    with pytest.raises(EddyError, match=message):
        call(run)


def test_a_folder_without_scores_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="eddy-bench score"):
        eddy_bench.load_run(tmp_path)


def test_benchmark_draws_what_the_command_draws(tmp_path: Path, cli: Callable[..., Result]) -> None:
    prompts = ["a dress", "an ankle boot"]
    settings = {
        "steps": 2,
        "particles": 2,
        "guidance_scale": 4.0,
        "metrics": ["vendi[fmnist-clip]"],
    }
    pipe = load_model("fashion", device="cpu").pipe
    ours = eddy_bench.benchmark(pipe, ["iid", "antithetic"], prompts, tmp_path / "ours", **settings)
    again = eddy_bench.benchmark(
        pipe, ["iid", "antithetic"], prompts, tmp_path / "ours", **settings
    )
    assert set(ours.methods) == {"iid", "antithetic"}
    assert set(ours.scores["prompt"]) - {""} == set(prompts)
    (tmp_path / "prompts.txt").write_text("\n".join(prompts))
    done = cli(
        *("run", "--prompts", tmp_path / "prompts.txt", "--method", "iid"),
        *(
            "--steps",
            "2",
            "--particles",
            "2",
            "--metric",
            "vendi[fmnist-clip]",
            "--out",
            tmp_path / "theirs",
        ),
    )
    assert done.code == 0, done.err
    theirs = eddy_bench.load_run(tmp_path / "theirs")
    for prompt in set(ours.scores["prompt_id"]) - {""}:
        pairs = zip(ours.images("iid", prompt), theirs.images("iid", prompt), strict=True)
        assert all((np.asarray(one) == np.asarray(other)).all() for one, other in pairs)
        assert again.images("iid", prompt)


@pytest.mark.parametrize("prompts", [[], ["a dress", " "], ["a dress", 3]])
def test_benchmark_refuses_prompts_that_are_none(tmp_path: Path, prompts: list[str]) -> None:
    with pytest.raises(PromptError):
        eddy_bench.benchmark("fashion", ["iid"], prompts, tmp_path / "run")


def test_benchmark_refuses_what_is_no_method(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="antithetic"):
        eddy_bench.benchmark("fashion", ["antithetik"], ["a dress"], tmp_path / "run", steps=1)


def test_benchmark_wants_a_list_of_methods(tmp_path: Path) -> None:
    with pytest.raises(EddyError, match=r"list of methods, got 'iid'"):
        eddy_bench.benchmark("fashion", "iid", ["a dress"], tmp_path / "run", steps=1)


def test_cells_of_the_summary_are_as_they_were(run: eddy_bench.Run) -> None:
    path = run.path / "summary.csv"
    with pytest.raises(StoreError, match=r"no summary\.csv"):
        _ = run.summary
    escaped(pd.DataFrame({"method": ["=1+1"]})).to_csv(path, index=False)
    assert "'=1+1" in path.read_text()
    assert set(eddy_bench.load_run(run.path).summary["method"]) == {"=1+1"}
