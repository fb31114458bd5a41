"""Which method a comparison recommends."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from eddy_bench.compare.advice import Answer, answers, keeps_law, together
from eddy_bench.compare.families import families_of
from eddy_bench.compare.free_shares import free_shares
from eddy_bench.compare.load import read_scores
from eddy_bench.compare.paired import compare
from eddy_bench.methods.registry import load_method, method_names
from eddy_bench.scoring.metrics import METRICS

GAINS = {  # diversity, fidelity, seconds
    "iid": (0.0, 0.0, 1.0),
    "antithetic": (0.1, 0.0, 1.0),
    "lhs": (0.2, 0.0, 1.1),
    "pg": (0.3, -0.004, 1.15),
    "repulsion": (0.5, -0.03, 1.0),
    "best-of-m:m=16": (0.4, -0.005, 4.0),
}


def scored(tmp_path: Path, gains: dict[str, tuple[float, float, float]]) -> list[Answer]:
    """Write scores of 30 prompts, and read the answers to them."""
    rng = np.random.default_rng(0)
    template = pd.read_csv("results/baselines/fashion.csv", nrows=1, keep_default_na=False)
    rows = []
    for prompt in range(30):
        shared = rng.normal(0, 0.2)
        for label, (diversity, fidelity, seconds) in gains.items():
            name, _, params = label.partition(":")
            for metric, extractor, value in (
                ("vendi", "fmnist-clip", 2 + shared + diversity + rng.normal(0, 0.02)),
                ("clip", "fmnist-clip", 1 + fidelity + rng.normal(0, 1e-4)),
                ("seconds_per_image", "", seconds),
            ):
                row = template.iloc[0].to_dict()
                row |= {"method": name, "params": params, "prompt_id": f"p{prompt}"}
                row |= {"metric": metric, "value": value, "signature": metric}
                row |= {"higher_is_better": METRICS[metric].higher_is_better}
                row |= {"extractor": extractor} if "extractor" in row else {}
                rows.append(row)
    path = tmp_path / "scores.csv"
    pd.DataFrame(rows).to_csv(path, index=False)
    scores = read_scores([path])
    return answers(compare(scores), scores, free_shares(scores), "iid")


def test_each_question_takes_the_most_diverse_of_those_that_fit(tmp_path: Path) -> None:
    law, quick, faithful = scored(tmp_path, GAINS)
    assert law.label == "lhs"
    assert quick.label == "pg"  # repulsion loses 3%, best-of-m takes 4 times as long
    assert faithful.label == "best-of-m:m=16"
    assert "+20% vendi [" in faithful.sentence
    assert "4.00x time" in faithful.sentence


def test_a_method_that_is_not_shown_to_gain_is_not_recommended(tmp_path: Path) -> None:
    law, *_ = scored(tmp_path, {"iid": (0.0, 0.0, 1.0), "lhs": (0.0, 0.0, 1.0)})
    assert law.label == ""
    assert law.sentence.startswith("no")


def test_without_a_method_of_the_kind_the_baseline_stays(tmp_path: Path) -> None:
    law, *_ = scored(tmp_path, {"iid": (0.0, 0.0, 1.0), "pg": (0.3, 0.0, 1.0)})
    assert (law.label, "stay with iid" in law.sentence) == ("", True)


def test_what_was_not_measured_fits_nothing(tmp_path: Path) -> None:
    scored(tmp_path, GAINS)
    path = tmp_path / "scores.csv"
    table = pd.read_csv(path, keep_default_na=False)
    table[table["metric"] != "clip"].to_csv(path, index=False)
    scores = read_scores([path])
    law, quick, faithful = answers(compare(scores), scores, free_shares(scores), "iid")
    assert law.label == "lhs"
    assert (quick.label, faithful.label) == ("", "")
    assert faithful.sentence == "fidelity was not scored: stay with iid."


def test_only_couplings_and_fair_selection_keep_the_law() -> None:
    kept = {name for name in method_names() if load_method(name)().keeps_law}
    assert kept == {"iid", "antithetic", "lhs", "sobol", "coupled"}
    assert keeps_law("best-of-m:m=16,fair=True")
    assert not keeps_law("best-of-m:m=16")
    assert not keeps_law("of another version:x=1")


def test_a_score_file_makes_no_python_file_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.py"
    file.write_text("print('ran')\n")
    label = f"{file}:Mine:strength=2"
    assert list(families_of(["iid", label], "iid").values()) == [["iid", label]]
    assert not keeps_law(label)
    assert capsys.readouterr().out == ""


def test_every_method_has_its_place_in_a_family() -> None:
    labels = [name for name in method_names() if name != "iid"]
    assert set(families_of(["iid", *labels], "iid")) == set(labels)


def test_questions_with_one_answer_stand_together() -> None:
    parts = [("If a", "lhs: x."), ("If b", "pg: y."), ("If c", "pg: y.")]
    found = together([Answer(question, "", "", said, 0.0) for question, said in parts])
    assert found == [("If a", "lhs: x."), ("If b; if c", "pg: y.")]
