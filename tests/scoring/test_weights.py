"""The lpips and fid columns end to end, on random weights that stand in for files that must be
downloaded.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from eddy_bench.scoring.extractors import INCEPTION
from tests.conftest import Result
from tests.makers.networks import save_random_alexnet, save_random_inception
from tests.makers.pipelines import tiny_folder


@pytest.mark.slow
def test_lpips_and_fid_are_finite_columns_of_the_scores(
    cli: Callable[..., Result], tmp_path: Path
) -> None:
    weights, reference = tmp_path / "weights", tmp_path / "real"
    weights.mkdir()
    reference.mkdir()
    save_random_alexnet(weights)
    save_random_inception(weights / INCEPTION)
    rng = np.random.default_rng(0)
    for k in range(6):
        Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(
            reference / f"{k}.png"
        )
    done = cli(
        *(
            "run",
            "--model",
            tiny_folder(),
            "--method",
            "iid",
            "--limit",
            "2",
            "--steps",
            "2",
            "--batch-prompts",
            "2",
            "--particles",
            "3",
        ),
        *(
            "--metric",
            "lpips",
            "--metric",
            "fid",
            "--weights",
            weights,
            "--reference",
            reference,
            "--out",
            tmp_path / "r",
        ),
    )
    assert done.code == 0, done.err
    scores = pd.read_csv(tmp_path / "r" / "scores.csv")
    scores.index = scores["metric"].str.partition("[")[0]
    assert np.isfinite(scores.loc[["lpips", "fid"], "value"]).all()
    assert "small-sample" in scores.loc["fid", "signature"]
    assert "net=alex" in scores.loc["lpips", "signature"].iloc[0]
