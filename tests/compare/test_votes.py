"""Votes on pairs of groups: what a ballot hides, what votes are read as, how metrics agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from eddy_bench.compare.preference import (
    Item,
    Opinion,
    Vote,
    agreements,
    drawn_groups,
    opinions,
    read_votes,
    sides,
    study_items,
    win_rates,
)
from eddy_bench.errors import CompareError
from eddy_bench.ids import IID, MethodId
from eddy_bench.results.io import with_texts
from eddy_bench.results.results import read_results
from tests.conftest import Result
from tests.makers.score_files import of
from tests.makers.scored_runs import EFFECTS, make_run

HEADER = "item,shuffle,different,better,voter\n"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "made", prompts=12)


def for_the_method(items: list[Item], shuffle: int) -> list[str]:
    """Votes that call every method more different and the baseline better."""
    return [
        f"{item.id},{shuffle},{'left' if item.method_left else 'right'},"
        f"{'right' if item.method_left else 'left'},ann"
        for item in items
    ]


def test_items_are_shuffled_and_take_methods_by_turns(run: Path) -> None:
    groups = drawn_groups(run)
    items = study_items(groups, IID, 0)
    assert len(items) == 12
    assert {str(item.method) for item in items[:3]} == set(EFFECTS) - {"iid"}
    assert [item.prompt_id for item in items] != sorted(item.prompt_id for item in items)
    assert 1 <= sum(item.method_left for item in items) <= 11
    other = study_items(groups, IID, 1)
    assert not {item.id for item in items} & {item.id for item in other}
    assert study_items(groups, IID, 0) == items


@pytest.mark.parametrize("baseline", ["iid", "pg:strength=1"])
@pytest.mark.parametrize("shuffle", range(5))
@pytest.mark.parametrize("without", [0, 3])
def test_each_set_of_images_is_seen_equally_often(
    run: Path, baseline: str, shuffle: int, without: int
) -> None:
    """Where the baseline's was seen once per method, it was known by that."""
    groups = drawn_groups(run)
    for place in sorted(groups, key=str)[:without]:
        del groups[place]
    items = study_items(groups, MethodId.parse(baseline), shuffle)
    seen = Counter(
        (label, *place_of(item))
        for item in items
        for label in sides(item, MethodId.parse(baseline))
    )
    assert set(seen.values()) == {1}
    methods = Counter(str(item.method) for item in items)
    assert max(methods.values()) - min(methods.values()) <= 1 + without


def place_of(item: Item) -> tuple[str, int]:
    return item.prompt_id, item.seed


def test_votes_are_read_as_wins_of_methods(tmp_path: Path) -> None:
    run = make_run(tmp_path / "many", prompts=36)
    for shuffle in (0, 7):
        items = study_items(drawn_groups(run), IID, shuffle)
        file = tmp_path / f"{shuffle}.csv"
        file.write_text(HEADER + "\n".join(for_the_method(items, shuffle)) + "\n")
        rates = win_rates(opinions(run, read_votes([file]), IID)[0])
        by_question = {str(line.metric): line for line in rates if str(line.method) == "eddy-exact"}
        assert by_question["votes[different]"].value == 1
        assert by_question["votes[different]"].better is True
        assert by_question["votes[better]"].value == 0
        assert by_question["votes[better]"].better is False


def test_a_win_rate_is_a_mean_over_prompts_with_an_interval() -> None:
    rng = np.random.default_rng(0)
    chosen = [Item(str(k), MethodId("pg"), f"p{k // 2}", k % 2, True) for k in range(80)]
    values = rng.choice([0.0, 0.5, 1.0], 80)
    (line,) = [
        line
        for line in win_rates(
            [
                Opinion(item, "different", float(value))
                for item, value in zip(chosen, values, strict=True)
            ]
        )
        if str(line.metric) == "votes[different]"
    ]
    assert line.value == pytest.approx(values.mean())
    assert line.prompts == 40
    assert line.low < line.difference < line.high
    assert line.better is None


def test_a_metric_that_orders_pairs_as_people_do_agrees(run: Path) -> None:
    """The made-up scores: vendi rises by method, clip falls."""
    scores = read_results([run])
    frame = scores.frame[(of(with_texts(scores.frame), "vendi")) & (scores.frame["seed"] != "")]
    values = with_texts(frame).set_index(["method", "prompt_id"])["value"]
    items = study_items(drawn_groups(run), IID, 0)
    gains = [
        float(values[str(item.method), item.prompt_id] - values["iid", item.prompt_id])
        for item in items
    ]
    middle = float(np.median(gains))
    found = [
        Opinion(item, "different", float(gain > middle))
        for item, gain in zip(items, gains, strict=True)
    ]
    lines = {(str(line.method), str(line.metric)): line for line in agreements(scores, found)}
    vendi = next(line for (label, _), line in lines.items() if label.startswith("vendi"))
    clip = next(line for (label, _), line in lines.items() if label.startswith("clip"))
    assert vendi.value > 0.8
    assert vendi.low > 0.5
    assert clip.value < 0


def test_agreement_on_one_prompt_has_no_interval(run: Path) -> None:
    scores = read_results([run])
    frame = scores.frame
    once = frame[(frame["method"] == IID) & (frame["prompt_id"] != "")]
    prompt = str(once["prompt_id"].iloc[0])
    labels = [f"pg:strength={k}" for k in range(1, 10)]
    more = [
        once.assign(method=[MethodId.parse(label)] * len(once), value=once["value"] + k**2)
        for k, label in enumerate(labels)
    ]
    wider = replace(scores, frame=pd.concat([once, *more], ignore_index=True))
    found = [
        Opinion(Item(label, MethodId.parse(label), prompt, 0, True), "different", float(k > 4))
        for k, label in enumerate(labels)
    ]
    lines = agreements(wider, found)
    assert lines
    assert all(line.value > 0 or not str(line.metric).startswith("vendi") for line in lines)
    assert all(np.isnan([line.low, line.high]).all() for line in lines)


def test_a_later_answer_of_a_voter_replaces_the_earlier_one(tmp_path: Path) -> None:
    file = tmp_path / "votes.csv"
    file.write_text(HEADER + "a,0,left,,ann\na,0,right,same,ann\na,0,left,left,bob\n")
    assert read_votes([file]) == [
        Vote("a", 0, "right", "same", "ann"),
        Vote("a", 0, "left", "left", "bob"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected the columns"),
        ("item,shuffle\n", "expected the columns"),
        (HEADER, "there are no votes"),
        (HEADER + "a,0,up,,ann\n", "line 2"),
        (HEADER + "a,x,left,,ann\n", "line 2"),
        (HEADER + "a,0,left\n", "line 2"),
        (HEADER + f"a,{'9' * 5000},left,left,ann\n", "line 2"),
        (HEADER + f"{'a' * 200_000},0,left,left,ann\n", "field limit"),
        (HEADER + "abc,0,left,left,ann\n", "None of 1 vote is on a pair"),
    ],
)
def test_bad_votes_are_refused_in_one_line(
    cli: Callable[..., Result], run: Path, tmp_path: Path, text: str, message: str
) -> None:
    file = tmp_path / "votes.csv"
    file.write_text(text)
    done = cli("compare", run, "--votes", file)
    assert (done.code, done.err.count("Error:")) == (2, 1)
    assert message in " ".join(done.err.split())


def test_one_vote_is_one(cli: Callable[..., Result], run: Path, tmp_path: Path) -> None:
    item = study_items(drawn_groups(run), IID, 0)[0]
    file = tmp_path / "votes.csv"
    file.write_text(HEADER + f"{item.id},0,left,left,ann\n")
    assert "Note: 1 vote of 1 voter\n" in cli("compare", run, "--votes", file).err
    file.write_text(HEADER + f"{item.id},0,left,left,ann\nabc,0,left,left,bob\n")
    shown = cli("compare", run, "--votes", file).err
    assert "Note: 2 votes of 2 voters\n" in shown
    assert f"Note: left out 1 vote on no pair of {run}\n" in shown


def test_whoever_gives_no_name_is_one_voter_per_file(tmp_path: Path) -> None:
    files = [tmp_path / "1.csv", tmp_path / "2.csv"]
    for file in files:
        file.write_text(HEADER + "a,0,left,,\nb,0,left,,\n")
    votes = read_votes(files)
    assert len(votes) == 4
    assert {vote.voter for vote in votes} == {str(file) for file in files}


def test_missing_votes_and_runs_are_refused(
    cli: Callable[..., Result], run: Path, tmp_path: Path
) -> None:
    assert cli("compare", run, "--votes", tmp_path / "none.csv").code == 2
    file = tmp_path / "votes.csv"
    file.write_text(HEADER + "abc,0,left,left,ann\n")
    assert "run folder" in cli("compare", run / "scores.csv", "--votes", file).err
    for option in ("--allow-missing", "--full", "--statistic=best", "--against=x", "--gate=x"):
        done = cli("compare", run, "--votes", file, option)
        name = option.partition("=")[0]
        assert (done.code, done.out) == (2, "")
        assert f"{name} means nothing to --votes" in done.err


@pytest.mark.parametrize("form", ["table", "markdown", "csv", "json"])
def test_the_command_prints_win_rates_and_agreement(
    cli: Callable[..., Result], run: Path, tmp_path: Path, form: str
) -> None:
    file = tmp_path / "votes.csv"
    items = study_items(drawn_groups(run), IID, 0)
    file.write_text(HEADER + "\n".join(for_the_method(items, 0)) + "\n")
    done = cli("compare", run, "--votes", file, "--format", form)
    assert done.code == 0, done.err
    assert "votes[different]" in done.out
    assert "eddy-exact" in done.out


def test_votes_without_answers_are_refused(run: Path) -> None:
    item = study_items(drawn_groups(run), IID, 0)[0]
    with pytest.raises(CompareError, match="got none"):
        opinions(run, [Vote(item.id, 0, "", "", "ann")], IID)


def test_a_baseline_that_was_not_drawn_is_named(run: Path) -> None:
    with pytest.raises(CompareError, match="'lhs'"):
        study_items(drawn_groups(run), MethodId("lhs"), 0)


def test_a_win_rates_interval_stays_within_0_and_1_and_keeps_a_width() -> None:
    for values in ([1.0] * 4, [0.0] * 4, [0.0, 0.0, 1.0, 0.0], [0.5]):
        found = [
            Opinion(Item(str(k), MethodId("pg"), f"p{k}", 0, True), "different", value)
            for k, value in enumerate(values)
        ]
        (line,) = [line for line in win_rates(found) if str(line.metric) == "votes[different]"]
        assert -0.5 <= line.low <= line.difference <= line.high <= 0.5
        assert line.high - line.low > 0.3
    # Wilson (1927): 8 of 10 is 0.490 to 0.943
    found = [
        Opinion(Item(str(k), MethodId("pg"), f"p{k}", 0, True), "different", k < 8)
        for k in range(10)
    ]
    (line,) = [line for line in win_rates(found) if str(line.metric) == "votes[different]"]
    assert (line.low + 0.5, line.high + 0.5) == pytest.approx((0.490, 0.943), abs=1e-3)
