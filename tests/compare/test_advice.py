"""Which method a comparison recommends."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from eddy_bench.compare.advice import Answer, answers, preserves_marginal, together
from eddy_bench.compare.fronts import families_of
from eddy_bench.compare.paired import compare
from eddy_bench.ids import IID, MethodId
from eddy_bench.methods.registry import load_method, method_names
from eddy_bench.results.headroom import headrooms
from eddy_bench.results.results import read_results
from eddy_bench.scoring.metrics import METRICS
from tests.makers.score_files import of

GAINS = {  # diversity, fidelity, seconds
    "iid": (0.0, 0.0, 1.0),
    "antithetic": (0.1, 0.0, 1.0),
    "lhs": (0.2, 0.0, 1.1),
    "pg": (0.3, -0.004, 1.15),
    "vendi-guidance": (0.35, 0.0, 1.3),  # takes more than 20% more time
    "best-of-m:m=16": (0.4, -0.009, 4.0),
    "rke": (0.45, -0.011, 1.0),  # loses more than 1%
    "repulsion": (0.5, -0.03, 1.0),
}
STALLED = 2  # prompts whose batch took a hundred times as long, of every method but the baseline


def scored(tmp_path: Path, gains: dict[str, tuple[float, float, float]]) -> list[Answer]:
    """Write scores of 30 prompts, and read the answers to them."""
    rng = np.random.default_rng(0)
    template = pd.read_csv("results/baselines/fashion.csv", nrows=1, keep_default_na=False)
    rows = []
    for prompt in range(30):
        shared = rng.normal(0, 0.2)
        for label, (diversity, fidelity, seconds) in gains.items():
            stalled = label != "iid" and prompt < STALLED
            for metric, extractor, value in (
                ("vendi", "[fmnist-clip]", 2 + shared + diversity + rng.normal(0, 0.02)),
                ("clip", "[fmnist-clip]", 1 + fidelity + rng.normal(0, 1e-4)),
                ("seconds_per_image", "", seconds * (100 if stalled else 1)),
            ):
                row = template.iloc[0].to_dict()
                row |= {"method": label, "prompt_id": f"p{prompt}"}
                row |= {"metric": metric + extractor, "value": value, "signature": metric}
                row |= {"higher_is_better": METRICS[metric].higher_is_better}
                rows.append(row)
    path = tmp_path / "scores.csv"
    pd.DataFrame(rows).to_csv(path, index=False)
    scores = read_results([path])
    return answers(compare(scores), scores, headrooms(scores))


def test_each_question_takes_the_most_diverse_of_those_that_fit(tmp_path: Path) -> None:
    law, quick, faithful = scored(tmp_path, GAINS)
    assert str(law.method) == "lhs"
    assert str(quick.method) == "pg"
    assert str(faithful.method) == "best-of-m:m=16"
    assert "+20% vendi [" in faithful.sentence
    assert "4.00x time" in faithful.sentence


def test_a_method_that_is_not_shown_to_gain_is_not_recommended(tmp_path: Path) -> None:
    law, *_ = scored(tmp_path, {"iid": (0.0, 0.0, 1.0), "lhs": (0.0, 0.0, 1.0)})
    assert law.method is None
    assert law.sentence.startswith("no")


def test_without_a_method_of_the_kind_the_baseline_stays(tmp_path: Path) -> None:
    law, *_ = scored(tmp_path, {"iid": (0.0, 0.0, 1.0), "pg": (0.3, 0.0, 1.0)})
    assert law.method is None
    assert "stay with iid" in law.sentence


def test_what_was_not_measured_fits_nothing(tmp_path: Path) -> None:
    scored(tmp_path, GAINS)
    path = tmp_path / "scores.csv"
    table = pd.read_csv(path, keep_default_na=False)
    table[~of(table, "clip")].to_csv(path, index=False)
    scores = read_results([path])
    law, quick, faithful = answers(compare(scores), scores, headrooms(scores))
    assert str(law.method) == "lhs"
    assert quick.method is faithful.method is None
    assert faithful.sentence == "fidelity was not scored: stay with iid."


def test_only_couplings_and_fair_selection_keep_the_law() -> None:
    kept = {name for name in method_names() if load_method(name)().preserves_marginal}
    assert kept == {"iid", "antithetic", "lhs", "sobol", "coupled"}
    assert preserves_marginal(MethodId.parse("best-of-m:m=16,fair=True"))
    assert not preserves_marginal(MethodId.parse("best-of-m:m=16"))
    assert not preserves_marginal(MethodId.parse("of another version:x=1"))


def test_a_score_file_makes_no_python_file_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.py"
    file.write_text("print('ran')\n")
    mine = MethodId.parse(f"{file}:Mine:strength=2")
    assert list(families_of([IID, mine], IID).values()) == [[IID, mine]]
    assert not preserves_marginal(mine)
    assert capsys.readouterr().out == ""


def test_every_method_has_its_place_in_a_family() -> None:
    names = [name for name in method_names() if name != "iid"]
    assert set(families_of([IID, *map(MethodId, names)], IID)) == set(names)


def test_questions_with_one_answer_stand_together() -> None:
    parts = [("If a", "lhs: x."), ("If b", "pg: y."), ("If c", "pg: y.")]
    found = together([Answer(question, "", None, said, 0.0) for question, said in parts])
    assert found == [("If a", "lhs: x."), ("If b; if c", "pg: y.")]
