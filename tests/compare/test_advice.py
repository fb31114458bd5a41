"""Which method a comparison recommends."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from eddy_bench.compare.advice import (
    NONE_FITS,
    NOT_SHOWN,
    QUESTIONS,
    UNDECIDED,
    Answer,
    Candidate,
    answers,
    preserves_marginal,
    together,
    unfaithful,
)
from eddy_bench.compare.fronts import families_of
from eddy_bench.compare.paired import Difference, compare
from eddy_bench.compare.power import prompts_needed
from eddy_bench.ids import IID, MethodId, MetricId
from eddy_bench.methods.registry import load_method, method_names
from eddy_bench.results.headroom import Headroom, headrooms
from eddy_bench.results.results import Results, read_results
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
    differences, scores = with_scores(tmp_path, gains)
    return answers(differences, scores, headrooms(scores))


def with_scores(
    tmp_path: Path, gains: dict[str, tuple[float, float, float]]
) -> tuple[list[Difference], Results]:
    """Write scores of 30 prompts, and read them."""
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
    return compare(scores), scores


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


FIDELITY, DIVERSITY = MetricId("clip", "fmnist-clip"), MetricId("vendi", "fmnist-clip")


def change(
    difference: float, method: str = "pg", metric: MetricId = FIDELITY, baseline: float = 1.0
) -> Difference:
    """A significant difference over 30 prompts."""
    ends = (difference - 1e-6, difference + 1e-6)
    value = baseline + difference
    name = MethodId.parse(method)
    spread = {"p_holm": 0.001, "scatter": 0.01 * baseline}
    return Difference(name, metric, True, 30, baseline, value, difference, *ends, **spread)


def choice(
    *losses: Difference, times: float = 1.0, method: str = "pg", shifted: bool = False
) -> Candidate:
    name = MethodId.parse(method)
    return Candidate(name, change(0.5, method, DIVERSITY), losses, times, shifted)


def test_a_method_is_faithful_where_no_fidelity_metric_loses_more_than_1_percent() -> None:
    assert choice(change(-0.01)).faithful
    assert choice(change(0.3)).faithful
    assert not choice(change(-0.0101)).faithful
    assert not choice(change(0.2), change(-0.02)).faithful
    assert not choice(change(-0.02), change(0.2)).faithful
    assert not choice(change(float("nan"))).faithful
    assert not choice().faithful, "none was compared"
    assert choice(change(-0.9, baseline=100.0)).faithful
    assert not choice(change(-0.5, baseline=-10.0)).faithful
    assert choice(change(-0.5, baseline=0.0)).faithful, "there is no share of nothing"
    lower = replace(change(0.02), higher_is_better=False)
    assert not choice(lower).faithful
    assert choice(replace(lower, difference=-0.02)).faithful


@pytest.mark.parametrize(
    ("candidate", "fits"),
    [
        (choice(change(0.0), times=1.2), [False, True, True]),
        (choice(change(0.0), times=1.21), [False, False, True]),
        (choice(change(0.0), times=float("nan")), [False, False, True]),
        (choice(change(-0.02), times=1.0), [False, False, False]),
        (choice(change(-0.02), method="lhs"), [True, False, False]),
        (choice(change(0.0), method="lhs", shifted=True), [False, True, True]),
    ],
)
def test_what_fits_which_question(candidate: Candidate, fits: list[bool]) -> None:
    assert [question.fits(candidate) for question in QUESTIONS] == fits


def test_the_best_of_those_shown_to_gain_is_taken(tmp_path: Path) -> None:
    """The largest gain is not significant; the answer is the next, and its share of the baseline's
    diversity.
    """
    _, scores = with_scores(tmp_path, {"iid": GAINS["iid"]})
    unsure = replace(change(0.9, "pg", DIVERSITY, 2.0), p_holm=0.05)
    gains = [change(0.1, "lhs", DIVERSITY, 2.0), unsure, change(0.4, "rke", DIVERSITY, 2.0)]
    losses = [change(0.0, name) for name in ("lhs", "pg", "rke")]
    *_, faithful = answers([*gains, *losses], scores, [])
    assert (str(faithful.method), faithful.gain) == ("rke", 0.2)
    *_, faithful = answers([unsure, *losses], scores, [])
    assert (faithful.method, faithful.why) == (None, NOT_SHOWN)
    for none in (0.0, -0.3):
        *_, faithful = answers([replace(unsure, difference=none), *losses], scores, [])
        assert (faithful.method, faithful.why) == (None, NOT_SHOWN)
    *_, faithful = answers([unsure, change(-0.5)], scores, [])
    assert (faithful.method, faithful.why) == (None, NONE_FITS)
    assert answers(losses, scores, []) == []


def test_the_largest_loss_is_told_beside_the_gain(tmp_path: Path) -> None:
    _, scores = with_scores(tmp_path, {"iid": GAINS["iid"]})
    other = MetricId("align", "classifier")
    parts = [change(0.5, "pg", DIVERSITY), change(-0.002), change(-0.008, metric=other)]
    *_, faithful = answers(parts, scores, [])
    assert "-0.8% align" in faithful.sentence
    assert "clip" not in faithful.sentence
    *_, faithful = answers([parts[0], change(0.1)], scores, [])
    assert "clip" not in faithful.sentence, "a gain is no loss"


def test_methods_that_lose_fidelity_are_named(tmp_path: Path) -> None:
    _, scores = with_scores(tmp_path, {"iid": GAINS["iid"]})
    losses = [change(-0.01, "a"), change(-0.02, "b"), change(float("nan"), "c"), change(0.5, "d")]
    ignored = [change(-0.5, "e", DIVERSITY), replace(change(-0.5, "f"), prompts=0)]
    assert {str(own) for own in unfaithful([*losses, *ignored], scores)} == {"b", "c"}


def test_a_method_whose_marginals_shifted_does_not_keep_them(tmp_path: Path) -> None:
    differences, scores = with_scores(tmp_path, GAINS)
    column = MetricId("headroom", "fmnist-clip")
    lhs, sure = MethodId("lhs"), Headroom(MethodId("lhs"), column, 1.5, 1.2, 1.8, 0.001, 30, 0.01)
    assert str(answers(differences, scores, [sure])[0].method) == "antithetic"
    for kept in (replace(sure, p_holm=0.05), replace(sure, value=1.0)):
        assert answers(differences, scores, [kept])[0].method == lhs


def test_absence_of_evidence_is_told_from_evidence_of_absence(tmp_path: Path) -> None:
    """Too few prompts, not shown, shown to be small: three answers."""
    _, scores = with_scores(tmp_path, {"iid": GAINS["iid"]})
    wide = replace(change(0.1, "pg", DIVERSITY), low=-0.3, high=0.5, p_holm=0.4, scatter=0.2)
    loss = change(0.0)
    *_, few = answers([wide, loss], scores, [])
    assert (few.method, few.why) == (None, UNDECIDED)
    assert few.sentence == "30 prompts cannot decide; about 128 would show 5%."
    *_, many = answers([replace(wide, prompts=128), loss], scores, [])
    assert many.sentence.startswith("no gain is shown; largest: pg, +10% vendi [-30%, +50%]")
    *_, small = answers([replace(wide, difference=0.01, low=-0.01, high=0.049), loss], scores, [])
    assert small.sentence == "no method gains 5%: stay with iid."
    *_, nearly = answers([replace(wide, difference=0.01, low=-0.01, high=0.05), loss], scores, [])
    assert nearly.why == UNDECIDED
    lower = replace(wide, higher_is_better=False, difference=-0.01, low=-0.049, high=0.2)
    *_, lower_small = answers([lower, loss], scores, [])
    assert lower_small.why == small.why
    *_, lower_wide = answers([replace(lower, low=-0.3), loss], scores, [])
    assert lower_wide.why == UNDECIDED
    double = replace(change(0.02, "pg", DIVERSITY, 2.0), low=-0.02, high=0.098, p_holm=0.4)
    *_, of_two = answers([double, loss], scores, [])
    assert of_two.why == small.why, "5% of the baseline's value"
    wider = replace(wide, method=MethodId("rke"), scatter=0.4)
    *_, both = answers([wide, wider, loss, change(0.0, "rke")], scores, [])
    needed = dict(prompts_needed([wide, wider], 0.05, 2))
    assert f"about {needed[wider]:.0f} would show" in both.sentence, "the one that needs most"
    assert needed[wider] > needed[wide]


def test_a_loss_that_is_not_excluded_is_told(tmp_path: Path) -> None:
    """`within 1%` is claimed where the interval ends there, else it is an average."""
    _, scores = with_scores(tmp_path, {"iid": GAINS["iid"]})
    gain = change(0.5, "pg", DIVERSITY)
    kept = replace(change(-0.004), low=-0.01, high=0.002)
    *_, shown = answers([gain, kept], scores, [])
    assert "not excluded" not in shown.sentence
    *_, average = answers([gain, replace(kept, low=-0.032)], scores, [])
    assert average.sentence.endswith(" On average; a loss of up to 3.2% of clip is not excluded.")
    falling = replace(kept, higher_is_better=False, low=-0.01, high=0.015)
    *_, rising = answers([gain, falling], scores, [])
    assert rising.sentence.endswith("a loss of up to 1.5% of clip is not excluded.")
    law, *_ = answers([change(0.5, "lhs", DIVERSITY), change(-0.5, "lhs")], scores, [])
    assert "not excluded" not in law.sentence, "that question is of the law alone"


def test_a_run_without_the_baseline_is_timed_against_another_s(tmp_path: Path) -> None:
    """Seconds are over the baseline's of the same run, or of the first run that has it."""
    with_scores(tmp_path, {"iid": (0.0, 0.0, 1.0), "lhs": (0.2, 0.0, 2.0)})
    table = pd.read_csv(tmp_path / "scores.csv", keep_default_na=False)
    paths = [tmp_path / name for name in ("a.csv", "b.csv")]
    table[table["method"] == "iid"].to_csv(paths[0], index=False)
    table[table["method"] == "lhs"].to_csv(paths[1], index=False)
    for order in (paths, paths[::-1]):
        scores = read_results(order)
        law, *_ = answers(compare(scores), scores, [])
        assert "2.00x time" in law.sentence
