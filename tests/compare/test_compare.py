"""Comparisons: statistics against scipy and by hand, what may be compared, formats."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from eddy_bench.compare.comparable import some_of
from eddy_bench.compare.paired import Difference, compare, corrected, win_rate
from eddy_bench.errors import CompareError
from eddy_bench.ids import IID, MethodId, MetricId
from eddy_bench.results.results import bad_words, last_run, read_results
from eddy_bench.results.statistics import (
    detectable,
    holm,
    mean_interval,
    mean_intervals,
    positive_mean_p,
    zero_mean_p,
)
from eddy_bench.scoring.metrics import BAD_IMAGES
from tests.conftest import Result
from tests.makers.score_files import frame, of, write
from tests.makers.terminal import command_line, shown_in_terminal

EFFECTS = {
    "iid": {"vendi": 0.0, "clip": 0.0, "nfe": 0.0},
    "pg": {"vendi": 0.3, "clip": -0.2, "nfe": 5.0},
    "pg:strength=2": {"vendi": 0.0, "clip": 0.0, "nfe": 0.0},
}


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    return write(tmp_path / "scores.csv", frame(EFFECTS))


def find(result: list[Difference], label: str, metric: str) -> Difference:
    return next(
        line for line in result if str(line.method) == label and str(line.metric).startswith(metric)
    )


def test_a_difference_of_normal_values_has_nearly_the_figures_of_student_s_t(csv: Path) -> None:
    rows = pd.read_csv(csv, keep_default_na=False)
    table = rows[of(rows, "vendi")].pivot(index="prompt_id", columns="method", values="value")
    gaps = (table["pg"] - table["iid"]).to_numpy()
    result = find(compare(read_results([csv])), "pg", "vendi")
    assert result.prompts == 30
    assert result.difference == pytest.approx(gaps.mean())
    assert result.value - result.baseline == pytest.approx(gaps.mean())
    interval = stats.ttest_1samp(gaps, 0).confidence_interval(0.95)
    error = gaps.std(ddof=1) / len(gaps) ** 0.5
    assert result.low == pytest.approx(interval.low, abs=0.3 * error)
    assert result.high == pytest.approx(interval.high, abs=0.3 * error)
    assert result.effect == pytest.approx(gaps.mean() / gaps.std(ddof=1))
    assert result.better is True
    assert find(compare(read_results([csv])), "pg", "clip").better is False
    assert find(compare(read_results([csv])), "pg:strength=2", "vendi").better is None
    assert find(compare(read_results([csv])), "pg", "nfe").prompts == 0


def test_chances_of_few_prompts_are_those_of_their_signs_at_least() -> None:
    """Four differences of one sign show no more than 2 of 2^4 sign patterns do."""
    few = zero_mean_p(np.array([[1.0, 2, 3, 4], [0, 0, 0, 0], [1, 1, 1, 1]]))
    assert few[0] >= 2 / 16
    assert few[1:] == [1.0, 2 / 16]
    gaps = np.random.default_rng(0).normal(0.3, 1, 40)
    assert zero_mean_p(gaps[None])[0] == pytest.approx(stats.ttest_1samp(gaps, 0).pvalue, abs=0.02)
    assert zero_mean_p(gaps[None]) == zero_mean_p(-gaps[None])


def test_chances_and_intervals_of_many_prompts_are_student_s() -> None:
    many = np.random.default_rng(0).normal(0.03, 1, (1, 1500))
    expected = stats.ttest_1samp(many[0], 0)
    assert zero_mean_p(many)[0] == pytest.approx(expected.pvalue, abs=1e-12)
    assert mean_interval(many[0])[1:] == pytest.approx(tuple(expected.confidence_interval(0.95)))


def test_batched_intervals_agree_with_single_ones() -> None:
    values = np.random.default_rng(0).normal(0.3, 1, (3, 25))
    lows, highs = mean_intervals(values)
    for row, low, high in zip(values, lows, highs, strict=True):
        _, single_low, single_high = mean_interval(row)
        error = row.std() / 5
        assert (low, high) == (
            pytest.approx(single_low, abs=0.2 * error),
            pytest.approx(single_high, abs=0.2 * error),
        )


def test_holm_is_over_the_methods(csv: Path) -> None:
    result = [line for line in compare(read_results([csv])) if str(line.metric).startswith("vendi")]
    assert [line.p_holm for line in result] == pytest.approx(holm([line.p for line in result]))


def test_the_detectable_difference_is_detected_four_times_in_five() -> None:
    rng = np.random.default_rng(0)
    size = detectable(rng.normal(0, 1, 100_000)) * (100_000 / 30) ** 0.5
    shown = [stats.ttest_1samp(rng.normal(size, 1, 30), 0).pvalue < 0.05 for _ in range(3000)]
    assert np.mean(shown) == pytest.approx(0.8, abs=0.04)


def test_ties_count_half_as_wins() -> None:
    assert win_rate(np.array([1.0, 0.0])) == 0.75
    assert np.isnan(win_rate(np.array([])))


def test_seeds_are_averaged_within_prompts(tmp_path: Path) -> None:
    rows = frame({"iid": {"vendi": 0.0}, "pg": {"vendi": 0.1}})
    path = write(
        tmp_path / "s.csv",
        pd.concat(
            [rows, rows.assign(seed="1", value=rows["value"] + 0.2 * (rows["method"] == "pg"))]
        ),
    )
    result = compare(read_results([path]))[0]
    assert result.prompts == 30
    once = compare(read_results([write(tmp_path / "one.csv", rows)]))[0]
    assert result.difference == pytest.approx(once.difference + 0.1)


def test_prompts_that_a_method_lacks_are_left_out_of_its_difference(tmp_path: Path) -> None:
    rows = frame(EFFECTS)
    short = rows[~((rows["method"] == "pg") & (rows["prompt_id"] < "p010"))]
    result = compare(read_results([write(tmp_path / "s.csv", short)]))
    assert find(result, "pg", "vendi").prompts == 20
    assert find(result, "pg:strength=2", "vendi").prompts == 30


@pytest.mark.parametrize("form", ["table", "markdown", "csv", "json"])
def test_every_format_holds_the_differences(
    cli: Callable[..., Result], csv: Path, form: str
) -> None:
    result = cli("compare", csv, "--format", form, "--full")
    assert result.code == 0, result.err
    assert "vendi[fmnist-clip]" in result.out
    if form == "csv":
        table = pd.read_csv(StringIO(result.out))
        assert len(table) == 9
        assert sum(table["metric"].str.startswith("hypervolume")) == 2, "the front is in it, too"
        assert {
            "difference",
            "low",
            "high",
            "effect",
            "p",
            "p_holm",
            "wins",
            "detectable",
            "better",
        } <= set(table.columns)
    if form == "json":
        assert json.loads(result.out)["differences"][0]["prompts"] == 30
    if form == "markdown":
        table = result.out.split("\n\n")[0].splitlines()
        assert len({line.count("|") for line in table}) == 1


def test_the_full_table_puts_each_figure_under_its_title(
    cli: Callable[..., Result], csv: Path
) -> None:
    result = cli("compare", csv, "--format", "markdown", "--full")
    part = result.out[result.out.index("vendi[fmnist-clip]") :]
    titles, _, *rows = [line.split(" | ") for line in part.splitlines() if line.startswith("|")]
    pg = dict(zip(titles, next(row for row in rows if row[0] == "| pg"), strict=True))
    own = find(compare(read_results([csv])), "pg", "vendi")
    assert pg["difference"] == f"{own.difference:+.3g}"
    assert pg["95% interval"] == f"{own.low:+.3g} to {own.high:+.3g}"
    assert (pg["p"], pg["wins"]) == (f"{own.p_holm:.2g}", f"{own.wins:.0%}")
    assert (pg["effect"], pg["detectable"]) == (f"{own.effect:.2g}", f"{own.detectable:.2g}")
    assert pg["prompts"] == "30"


def test_the_usual_table_puts_each_figure_under_its_metric(
    cli: Callable[..., Result], csv: Path
) -> None:
    result = cli("compare", csv, "--format", "markdown")
    titles, _, *rows = [
        line.strip("| ").split(" | ") for line in result.out.splitlines() if line.startswith("|")
    ]
    pg = dict(zip(titles, next(row for row in rows if row[0] == "pg"), strict=True))
    for metric in ("vendi", "clip"):
        own = find(compare(read_results([csv])), "pg", metric)
        assert pg[f"{metric} ↑"].startswith(f"{own.difference:+.3g}")


def test_markdown_is_one_table_of_all_methods(cli: Callable[..., Result], csv: Path) -> None:
    result = cli("compare", csv, "--format", "markdown")
    lines = [line for line in result.out.splitlines() if line.startswith("|")]
    assert lines[0].startswith("| method | vendi ↑ | clip ↑ | ")
    assert len({line.count("|") for line in lines}) == 1
    methods = [line.split(" | ")[0].removeprefix("| ") for line in lines[2:]]
    assert methods == list(dict.fromkeys(methods)), "a row per method"
    assert "\\*" in result.out, "a mark is no emphasis"


def test_the_last_run_is_compared_when_none_is_named(
    cli: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "found none" in cli("compare").err
    write(tmp_path / "results" / "mine" / "scores.csv", frame(EFFECTS))
    assert "vendi" in cli("compare").out


def test_against_another_run_each_method_is_compared_with_itself(
    cli: Callable[..., Result], tmp_path: Path, csv: Path
) -> None:
    changed = {
        label: {name: value + 0.5 * (name == "vendi") for name, value in by.items()}
        for label, by in EFFECTS.items()
    }
    now = write(tmp_path / "now.csv", frame(changed))
    result = json.loads(cli("compare", now, "--against", csv, "--format", "json").out)[
        "differences"
    ]
    gains = {
        line["method"]: line["difference"] for line in result if line["metric"].startswith("vendi")
    }
    assert gains == {label: pytest.approx(0.5) for label in EFFECTS}


def edited(rows: pd.DataFrame, **values: object) -> pd.DataFrame:
    return rows.assign(**values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[rows["method"] != "iid"], "Add it: eddy-bench run --method iid"),
        (lambda rows: rows.iloc[:0], "has no rows"),
        (lambda rows: rows.drop(columns="signature"), "no column 'signature'"),
        (lambda rows: rows.assign(seed="abc"), "whole number in `seed`"),
        (lambda rows: rows.assign(particles="abc"), "whole number in `particles`"),
        (lambda rows: edited(rows, metric="beauty"), "unknown metric 'beauty'"),
        (lambda rows: pd.concat([rows, rows]), "stand twice in"),
        (
            lambda rows: rows.assign(steps=[20] * 50 + [30] * (len(rows) - 50)),
            "mixes runs: steps is 20",
        ),
        (
            lambda rows: rows.assign(
                signature=rows["signature"].where(rows.index > 5, "vendi|features=other@1|N=4")
            ),
            "signatures of vendi",
        ),
        (
            lambda rows: rows[~((rows["method"] == "pg") & (rows["prompt_id"] == "p003"))],
            "prompts differ: 'p003'",
        ),
        (lambda rows: rows[rows["method"] == "iid"], "Nothing to compare"),
    ],
)
def test_what_cannot_be_compared_says_why(
    cli: Callable[..., Result],
    tmp_path: Path,
    change: Callable[[pd.DataFrame], pd.DataFrame],
    message: str,
) -> None:
    result = cli("compare", write(tmp_path / "s.csv", change(frame(EFFECTS))))
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert message in result.err


def test_a_file_that_is_cut_short(cli: Callable[..., Result], csv: Path) -> None:
    text = csv.read_text()
    csv.write_text(text[: text.rindex("vendi|")])
    assert "may be cut short" in cli("compare", csv).err
    csv.write_text("")
    assert "is not a scores.csv" in cli("compare", csv).err
    assert "got nowhere" in cli("compare", "nowhere").err


def test_two_runs_of_one_method_need_a_choice(
    cli: Callable[..., Result], tmp_path: Path, csv: Path
) -> None:
    other = write(tmp_path / "other.csv", frame(EFFECTS, noise_seed=5))
    assert "Compare them as --against" in cli("compare", csv, other).err


def test_what_differs_is_compared_only_when_asked(
    cli: Callable[..., Result], tmp_path: Path, csv: Path
) -> None:
    other = write(
        tmp_path / "other.csv", frame({"eddy-exact": {"vendi": 0.1}}, prompts=20).assign(steps=50)
    )
    refused = cli("compare", csv, other)
    assert refused.code == 2
    assert "steps differs: 20 and 50" in refused.err
    assert "prompts differ" in refused.err
    result = cli("compare", csv, other, "--allow-missing", "--format", "json")
    assert result.code == 0
    assert {
        line["method"]: line["prompts"]
        for line in json.loads(result.out)["differences"]
        if line["metric"].startswith("vendi")
    }["eddy-exact"] == 20


@pytest.mark.parametrize("form", ["table", "markdown", "json"])
def test_several_strengths_give_fronts(
    cli: Callable[..., Result], tmp_path: Path, form: str
) -> None:
    rows = frame(
        {
            "iid": {"vendi": 0.0, "clip": 0.0},
            "pg:strength=1": {"vendi": 0.2, "clip": -0.1},
            "pg:strength=3": {"vendi": 0.5, "clip": -2.0},
        }
    )
    result = cli("compare", write(tmp_path / "s.csv", rows), "--full", "--format", form)
    assert result.code == 0, result.err
    if form == "json":
        (front,) = json.loads(result.out)["fronts"]
        assert (front["family"], front["strengths"]) == ("pg", 2)
        assert [point["strength"] for point in front["points"]] == ["", "1", "3"]
    else:
        assert "at no more than 1% loss" in " ".join(result.out.split()).replace("│ ", "")


def test_one_prompt_shows_nothing(cli: Callable[..., Result], tmp_path: Path) -> None:
    result = cli(
        "compare", write(tmp_path / "s.csv", frame(EFFECTS, prompts=1)), "--format", "json"
    )
    assert result.code == 0, result.err
    assert {line["p"] for line in json.loads(result.out)["differences"] if line["prompts"]} == {1.0}


def test_runs_that_share_iid_are_one_comparison(cli: Callable[..., Result], tmp_path: Path) -> None:
    rows = frame(EFFECTS)
    first, other = (
        write(
            tmp_path / f"{k}.csv",
            rows[rows["method"].isin(["iid", method])],
        )
        for k, method in enumerate(("pg", "pg:strength=2"))
    )
    result = cli("compare", first, other, "--format", "json")
    assert result.code == 0, result.err
    assert {part["method"] for part in json.loads(result.out)["differences"]} == {
        "pg",
        "pg:strength=2",
    }


@pytest.mark.parametrize("value", ["abc", "inf", "-inf"])
def test_values_that_are_no_numbers(cli: Callable[..., Result], tmp_path: Path, value: str) -> None:
    rows = frame(EFFECTS).astype({"value": object})
    rows.loc[3, "value"] = value
    result = cli("compare", write(tmp_path / "s.csv", rows))
    assert (result.code, "line 5: expected a finite number" in result.err) == (2, True)


def test_other_texts_and_seeds_are_not_the_same_prompts(
    cli: Callable[..., Result], tmp_path: Path
) -> None:
    rows = frame(EFFECTS)
    for column in ("prompt", "seed"):
        changed = rows.assign(**{column: rows[column].where(rows["method"] != "pg", "7")})
        assert "prompts differ" in cli("compare", write(tmp_path / "s.csv", changed)).err


def test_against_corrects_over_the_methods(
    cli: Callable[..., Result], tmp_path: Path, csv: Path
) -> None:
    now = write(tmp_path / "now.csv", frame(EFFECTS, noise_seed=9))
    result = [
        line
        for line in json.loads(cli("compare", now, "--against", csv, "--format", "json").out)[
            "differences"
        ]
        if line["metric"].startswith("vendi")
    ]
    assert [line["p_holm"] for line in result] == pytest.approx(
        holm([line["p"] for line in result])
    )


def test_a_method_that_lacks_values_says_so(cli: Callable[..., Result], tmp_path: Path) -> None:
    rows = frame(EFFECTS)
    rows.loc[
        (of(rows, "clip")) & (rows["method"] == "pg") & (rows["prompt_id"] < "p004"),
        "value",
    ] = float("nan")
    result = json.loads(cli("compare", write(tmp_path / "s.csv", rows), "--format", "json").out)[
        "differences"
    ]
    (line,) = [
        line for line in result if (line["method"], line["metric"]) == ("pg", "clip[fmnist-clip]")
    ]
    assert (line["prompts"], line["warning"]) == (26, "4 prompts have one value only")


def test_two_runs_without_a_common_method(cli: Callable[..., Result], tmp_path: Path) -> None:
    rows = frame(EFFECTS)
    first, other = (
        write(tmp_path / f"{name}.csv", rows[(rows["method"] == name)]) for name in ("iid", "pg")
    )
    result = cli("compare", first, "--against", other)
    assert (result.code, "no method is in both" in result.err) == (2, True)
    partly = cli(
        "compare", write(tmp_path / "all.csv", rows), "--against", other, "--format", "json"
    )
    assert any("only here" in note for note in json.loads(partly.out)["notes"])


def test_orders_of_vendi_in_any_notation(tmp_path: Path) -> None:
    rows = frame({"iid": {"vendi": 0.0}})
    result = read_results(
        [write(tmp_path / "s.csv", rows.assign(metric="vendi[fmnist-clip]:q=0.00001"))]
    )
    assert set(map(str, result.frame["metric"])) == {"vendi[fmnist-clip]:q=1e-05"}


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_figure_or_method_is_cut_in_a_terminal(
    cli: Callable[..., Result], tmp_path: Path, width: int
) -> None:
    long = "pg:strength=0.30000000000000004,kernel=denoised"
    effects = {"iid": {"vendi": 0.0}, "pg": {"vendi": 0.1}, long: {"vendi": 0.2}}
    csv = write(tmp_path / "s.csv", frame(effects))
    lines = json.loads(cli("compare", csv, "--format", "json").out)["differences"]
    parts = {part for line in lines for part in re.split(r"(?<=,)", line["method"])}
    matrix = shown_in_terminal(width, command_line("compare", str(csv)))
    assert all(len(line) <= width for line in matrix.splitlines()), matrix
    assert parts <= set(re.split(r"\s+|(?<=,)", matrix))
    shown = shown_in_terminal(width, command_line("compare", str(csv), "--full"))
    table = shown.partition("Difference to iid")[0]
    assert all(len(line) <= width for line in table.splitlines()), table
    assert parts <= set(re.split(r"\s+|(?<=,)", table))
    for line in lines:
        assert f"{line['difference']:+.3g}" in table.split()
        assert f"{line['low']:+.3g} to {line['high']:+.3g}" in table
    assert len(lines) == 2


def test_a_baseline_as_the_user_wrote_it(cli: Callable[..., Result], tmp_path: Path) -> None:
    rows = frame({"iid": {"vendi": 0.0}, "pg:strength=2.0,kernel=features": {"vendi": 0.1}})
    csv = write(tmp_path / "s.csv", rows)
    for written in ("pg:kernel=features,strength=2", "pg:strength=2.0,kernel=features"):
        result = cli("compare", csv, "--baseline", written)
        assert result.code == 0, result.err
        assert "pg:strength=2,kernel=features" in result.out


def test_a_baseline_of_elsewhere_as_score_files_name_it(
    cli: Callable[..., Result], tmp_path: Path
) -> None:
    rows = frame({"iid": {"vendi": 0.0}, "theirs:scale=2.0": {"vendi": 0.1}})
    result = cli("compare", write(tmp_path / "s.csv", rows), "--baseline", "theirs:scale=2.0")
    assert result.code == 0, result.err
    assert "differences to theirs:scale=2\n" in result.out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("idd", "Unknown baseline 'idd'. Did you mean 'iid'? The run holds: iid, pg."),
        ("cads", "The baseline 'cads' is not in"),
    ],
)
def test_a_baseline_that_is_not_there(
    cli: Callable[..., Result], tmp_path: Path, text: str, said: str
) -> None:
    csv = write(tmp_path / "s.csv", frame({"iid": {"vendi": 0.0}, "pg": {"vendi": 0.1}}))
    result = cli("compare", csv, "--baseline", text)
    assert result.code == 2
    assert said in result.err
    assert ("eddy-bench run" in result.err) == (text == "cads")


def test_each_run_s_seconds_are_compared_with_its_own(
    cli: Callable[..., Result], tmp_path: Path
) -> None:
    first = frame(
        {
            "iid": {"vendi": 0.0, "seconds_per_image": 0.0},
            "pg": {"vendi": 0.1, "seconds_per_image": 0.1},
        }
    )
    slow = frame(
        {
            "iid": {"vendi": 0.0, "seconds_per_image": 0.9},
            "lhs": {"vendi": 0.1, "seconds_per_image": 1.9},
        }
    )
    slow.loc[slow["method"] == "iid", "value"] = slow.loc[slow["method"] == "iid", "value"].where(
        ~of(slow, "vendi"), first.loc[first["method"] == "iid", "value"].to_numpy()
    )
    files = [write(tmp_path / f"{name}.csv", rows) for name, rows in (("a", first), ("b", slow))]
    result = json.loads(cli("compare", *files, "--format", "json").out)["differences"]
    ratio = {
        line["method"]: line["value"] / line["baseline"]
        for line in result
        if line["metric"] == "seconds_per_image"
    }
    assert ratio == pytest.approx({"pg": 2.0, "lhs": 2.0})


def test_no_verdict_where_signatures_differ(cli: Callable[..., Result], tmp_path: Path) -> None:
    before, now = (
        write(tmp_path / f"{name}.csv", frame(EFFECTS).assign(signature=f"vendi|features=a@{name}"))
        for name in ("0", "1")
    )
    result = json.loads(
        cli("compare", now, "--against", before, "--allow-missing", "--format", "json").out
    )["differences"]
    assert {line["better"] for line in result} == {None}
    assert all("signatures differ" in line["warning"] for line in result if line["prompts"])


def test_with_few_prompts_nothing_can_be_shown(cli: Callable[..., Result], tmp_path: Path) -> None:
    csv = write(tmp_path / "s.csv", frame(EFFECTS, prompts=5))
    result = cli("compare", csv, "--format", "markdown", "--full")
    assert "too few prompts to show anything" in result.out
    assert "inf" in result.out


def test_a_method_without_a_metric_is_told(cli: Callable[..., Result], tmp_path: Path) -> None:
    rows = frame(EFFECTS)
    cut = write(tmp_path / "s.csv", rows[~((rows["method"] == "pg") & (of(rows, "clip")))])
    assert "no value of clip[fmnist-clip], which other methods have" in cli("compare", cut).err


@pytest.mark.parametrize(
    ("change", "better"),
    [
        ({}, True),
        ({"higher_is_better": False}, False),
        ({"difference": -1.0, "low": -1.5, "high": -0.5}, False),
        ({"difference": -1.0, "low": -1.5, "high": -0.5, "higher_is_better": False}, True),
        ({"p_holm": 0.05}, None),
        ({"p_holm": float("nan")}, None),
        ({"low": -0.1}, None),
        ({"low": 0.0}, None),
        ({"difference": -1.0, "low": -1.5, "high": 0.0}, None),
        ({"judged": False}, None),
        ({"warning": "small-sample, signatures differ"}, None),
        ({"warning": "small-sample"}, True),
    ],
)
def test_a_verdict_needs_a_p_below_5_percent_and_an_interval_without_0(
    change: dict[str, Any], better: bool | None
) -> None:
    """With a corrected p of 4.9%."""
    pg, vendi = MethodId("pg"), MetricId("vendi", "fmnist-clip")
    own = Difference(pg, vendi, True, 30, 2.0, 3.0, 1.0, 0.5, 1.5, p_holm=0.049)
    assert replace(own, **change).better is better


def test_a_difference_is_counted_up_where_it_is_better() -> None:
    pg, drift = MethodId("pg"), MetricId("drift", "fmnist-clip")
    own = Difference(pg, drift, False, 0, 4.0, 6.0, 2.0)
    assert (own.gain, replace(own, higher_is_better=True).gain) == (-2.0, 2.0)
    assert own.ratio == 1.5
    assert np.isnan(replace(own, baseline=0.0).ratio)


def test_what_has_no_p_counts_as_a_method_that_shows_nothing() -> None:
    pg, vendi = MethodId("pg"), MetricId("vendi", "fmnist-clip")
    parts = [Difference(pg, vendi, True, 9, 2.0, 3.0, 1.0, p=p) for p in (0.03, float("nan"), 0.01)]
    assert [own.p_holm for own in corrected(parts)] == pytest.approx([0.06, 1.0, 0.03])


def test_figures_of_a_difference_by_hand(tmp_path: Path) -> None:
    """A metric whose smaller values are better, 2 methods, prompts given in reverse."""
    rows = frame({name: {"mss": 0.0} for name in ("iid", "pg", "lhs")}, prompts=8, scatter=0.0)
    gaps = np.array([-0.3, 0.0, -0.1, 0.2, -0.2, -0.4, -0.1, 0.1])
    moved = rows.assign(value=rows["value"] + np.concatenate([np.zeros(8), gaps, np.zeros(8)]))
    own, lhs = compare(read_results([write(tmp_path / "s.csv", moved[::-1])]))[::-1]
    assert (str(own.method), str(lhs.method)) == ("pg", "lhs")
    assert own.difference == pytest.approx(-0.1)
    assert own.scatter == pytest.approx(gaps.std(ddof=1))
    assert own.effect == pytest.approx(-0.1 / gaps.std(ddof=1))
    assert own.wins == pytest.approx(5.5 / 8)
    assert own.detectable == pytest.approx(detectable(gaps, comparisons=2))
    assert own.p_holm == pytest.approx(2 * own.p)
    assert lhs.wins == 0.5
    assert np.isnan(lhs.effect), "without scatter there is none"


def test_costs_are_medians_which_one_stalled_batch_does_not_move(tmp_path: Path) -> None:
    rows = frame({name: {"seconds_per_image": 0.0} for name in ("iid", "pg")}, prompts=5)
    stalled = rows.assign(value=[1.0, 1.0, 90.0, 1.0, 1.0, 3.0, 80.0, 3.0, 3.0, 3.0])
    (own,) = compare(read_results([write(tmp_path / "s.csv", stalled)]))
    assert (own.baseline, own.value, own.difference, own.prompts) == (1.0, 3.0, 2.0, 0)
    assert own.better is None


def test_what_can_be_detected_is_student_s_and_bonferroni_s_by_hand() -> None:
    values = np.array([1.0, -1.0, 2.0, -2.0, 0.0, 3.0])
    error = values.std(ddof=1) / 6**0.5
    expected = error * (stats.t.ppf(0.975, 5) + stats.t.ppf(0.8, 5))
    assert detectable(values) == pytest.approx(expected)
    more = np.tile(values, 2)
    error = more.std(ddof=1) / 12**0.5
    expected = error * (stats.t.ppf(1 - 0.025 / 4, 11) + stats.t.ppf(0.9, 11))
    assert detectable(more, power=0.9, comparisons=4) == pytest.approx(expected)
    assert detectable(values[:5]) == detectable(values, comparisons=2) == float("inf")
    assert np.isnan(detectable(values[:1]))


def test_few_skewed_prompts_widen_an_interval_by_a_third_at_most() -> None:
    """By 10/n where that is more."""
    for count, widest in ((6, 10 / 6), (7, 10 / 7), (12, 4 / 3), (40, 4 / 3)):
        values = np.zeros((1, count))
        values[0, 0] = 1.0
        reach = widest * stats.t.ppf(0.975, count - 1) * values.std(ddof=1) / count**0.5
        (low,), (high,) = mean_intervals(values)
        assert high == pytest.approx(1 / count + reach)
        assert low > 1 / count - reach
        (mirrored,), _ = mean_intervals(-values)
        assert mirrored == pytest.approx(-high)


def test_intervals_and_chances_of_next_to_no_prompts() -> None:
    assert np.isnan(mean_intervals(np.ones((2, 1)))).all()
    assert np.isnan(zero_mean_p(np.ones((1, 0)))).all()
    assert zero_mean_p(np.ones((2, 1))) == positive_mean_p(np.ones((2, 1))) == [1.0, 1.0]
    assert mean_intervals(np.full((1, 3), 2.0)) == ([2.0], [2.0])
    assert mean_interval(np.array([1.0, np.nan]))[0] == 1.0
    assert np.isnan(mean_interval(np.array([np.nan]))).all()


def test_one_sided_chances_are_half_of_the_two_sided() -> None:
    gaps = np.random.default_rng(1).normal(0.3, 1, (1, 40))
    (up,), (down,), (both,) = positive_mean_p(gaps), positive_mean_p(-gaps), zero_mean_p(gaps)
    assert up == pytest.approx(both / 2)
    assert up + down == pytest.approx(1, abs=1e-3)
    many = np.random.default_rng(1).normal(0.05, 1, (1, 1200))
    expected = stats.ttest_1samp(many[0], 0, alternative="greater").pvalue
    assert positive_mean_p(many)[0] == pytest.approx(expected)
    sure = np.array([[1.0, 2.0, 3.0, 4.0]])
    assert positive_mean_p(sure) == [1 / 16]
    assert positive_mean_p(np.zeros((1, 4))) == [1.0]


def test_an_interval_of_another_level_is_wider_or_narrower() -> None:
    values = np.random.default_rng(2).normal(0, 1, (1, 2000))
    (low,), (high,) = mean_intervals(values, level=0.9)
    expected = stats.ttest_1samp(values[0], 0).confidence_interval(0.9)
    assert (low, high) == pytest.approx((expected.low, expected.high))


def test_the_newest_run_is_the_last(tmp_path: Path) -> None:
    for name, age in (("b", 1), ("c", 3), ("a", 2)):
        path = write(tmp_path / name / "scores.csv", frame({"iid": {"nfe": 0.0}}, prompts=1))
        os.utime(path, (10**9 - age, 10**9 - age))
    assert last_run(tmp_path) == tmp_path / "b"


def test_bad_images_are_counted_by_method_and_reason(tmp_path: Path) -> None:
    scores = read_results([write(tmp_path / "s.csv", frame({"iid": {"nfe": 0.0}}, prompts=1))])
    assert scores.bad_images == {}
    lines = [("pg", "black", 2), ("pg", "black", 1), ("pg", "grey", 4), ("iid", "black", 5)]
    bad = [
        {"method": MethodId(method), "metric": MetricId(BAD_IMAGES, why), "value": float(count)}
        for method, why, count in lines
    ]
    counts = replace(scores, bad=pd.DataFrame(bad)).bad_images
    assert counts == {("pg", "black"): 3, ("pg", "grey"): 4, ("iid", "black"): 5}
    (words,) = bad_words(counts)
    assert words.startswith("12 bad images: pg 3 (black), pg 4 (grey), iid 5 (black).")


def test_what_two_runs_hold_alike_stands_once_and_each_keeps_its_costs(tmp_path: Path) -> None:
    """iid is the same in both but for its seconds, which differ; so is a value that is none."""
    rows = frame({name: {"vendi": 0.0, "seconds_per_image": 0.0} for name in ("iid", "pg", "lhs")})
    rows.loc[0, "value"] = np.nan
    slow = rows.assign(value=rows["value"].mask(of(rows, "seconds_per_image"), 0.4))
    slow.loc[slow.index[of(slow, "seconds_per_image")][0], "value"] = 70.0
    paths = [
        write(tmp_path / "a.csv", rows[rows["method"] != "lhs"]),
        write(tmp_path / "b.csv", slow[slow["method"] != "pg"]),
    ]
    scores = read_results(paths)
    assert len(scores.rows(IID, MetricId("vendi", "fmnist-clip"))) == 30
    assert set(scores.rows(IID)["source"]) == {str(paths[0])}
    costs = scores.baseline_costs(MetricId("seconds_per_image"))
    assert costs == pytest.approx({str(paths[0]): 0.1, str(paths[1]): 0.4})
    assert scores.baseline_costs(MetricId("vendi", "fmnist-clip")) == {}


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows.assign(value=rows["value"] + 1e-9),
        lambda rows: rows.assign(prompt="another"),
        lambda rows: rows.assign(signature="vendi|N=4|of=another"),
        lambda rows: rows[rows["prompt_id"] != "p003"],
    ],
)
def test_what_two_runs_do_not_hold_alike_is_refused(
    tmp_path: Path, change: Callable[[pd.DataFrame], pd.DataFrame]
) -> None:
    rows = frame({"iid": {"vendi": 0.0}})
    paths = [write(tmp_path / "a.csv", rows), write(tmp_path / "b.csv", change(rows))]
    with pytest.raises(CompareError, match=r"stand in .*a\.csv and in .*b\.csv"):
        read_results(paths)


def test_a_few_methods_are_named_those_of_the_same_name_first() -> None:
    ids = [MethodId("lhs"), *(MethodId("pg", f"strength={k}") for k in range(8))]
    assert some_of(ids[:2], MethodId("pg")) == "pg:strength=0, lhs"
    assert some_of(ids[1:], MethodId("lhs")).endswith("strength=7")
    assert some_of(ids, MethodId("pg")).endswith("pg:strength=7 and 1 more")
    assert some_of(ids, MethodId("lhs")).startswith("lhs, pg:strength=0")


def test_latex_has_a_row_a_method_and_bibtex_an_entry_a_source(
    cli: Callable[..., Result], tmp_path: Path
) -> None:
    effects = {"iid": {"vendi": 2.0, "clip": 30.0, "nfe": 40.0}}
    effects |= {"pg:kernel=denoised": {"vendi": 2.3, "clip": 30.0, "nfe": 40.0}}
    scores = write(tmp_path / "scores.csv", frame(effects))
    done = cli("compare", scores, "--format", "latex")
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    rows = [line for line in lines if line.endswith(r"\\")]
    assert len(rows) == 2
    assert lines[2] == r"\begin{tabular}{lrr}"
    assert [row.count(" & ") for row in rows] == [2, 2]
    assert r"\texttt{pg:kernel=denoised}" in rows[1]
    assert r"{\scriptsize [" in rows[1]
    assert "over 30 prompts" in lines[1]
    assert "N = 4 images" in lines[1]
    assert r"95\% studentised" in lines[1]
    assert done.out.count("{") == done.out.count("}")
    sources = cli("compare", scores, "--format", "bibtex").out
    assert "@misc{arxiv:2310.13102," in sources
    assert "@misc{arxiv:2210.02410," in sources
    assert "note = {eddy-bench: pg}," in sources
    assert sources.count("@misc{") == len(set(re.findall(r"@misc\{(.*),", sources)))
