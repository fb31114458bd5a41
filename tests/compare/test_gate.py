"""Gates: every kind of regression through the command line, and how often they are wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import yaml
from numpy.typing import NDArray

from eddy_bench.compare.gate import (
    PASS,
    REGRESSION,
    TOO_FEW,
    UNUSABLE,
    Check,
    CheckResult,
    Gate,
    _with_values,
    equal,
    exit_code,
    judge_gaps,
    noninferior,
    pooled,
    ratio,
    run_gate,
)
from eddy_bench.ids import IID, MethodId, MetricId, Signature
from eddy_bench.results.results import read_results
from eddy_bench.results.statistics import detectable
from eddy_bench.scoring.metrics import BAD_IMAGES
from tests.conftest import Result
from tests.makers.score_files import frame, of, write

LEVELS = {"vendi": 0.0, "clip": 0.0, "nfe": 0.0, "seconds_per_image": 0.0, "fd": 0.0}
EFFECTS = {"iid": LEVELS, "pg": {**LEVELS, "seconds_per_image": 0.05}}
GATE = {
    "checks": [
        {"metric": "vendi[fmnist-clip]", "test": "noninferior", "margin": 0.15},
        {"metric": "clip[fmnist-clip]", "test": "noninferior", "margin": 0.3},
        {"metric": "nfe", "test": "equal"},
        {"metric": "seconds_per_image", "test": "ratio", "margin": 0.5},
        {"metric": "fd[fmnist-clip]", "test": "pooled", "margin": 0.2},
    ]
}
Change = Callable[[pd.DataFrame], pd.DataFrame]


def run(
    cli: Callable[..., Result], folder: Path, change: Change = lambda rows: rows, **options: object
) -> Result:
    """A candidate, changed, against a baseline whose scatter is another draw."""
    before = write(folder / "baseline.csv", frame(EFFECTS))
    now = write(folder / "candidate.csv", change(frame(EFFECTS, noise_seed=7, **options)))  # type: ignore[arg-type]
    (folder / "gate.yaml").write_text(yaml.safe_dump(GATE))
    return cli(
        "compare",
        now,
        "--against",
        before,
        "--gate",
        folder / "gate.yaml",
        "--junit",
        folder / "junit.xml",
        "--summary",
        folder / "summary.md",
    )


def shift(metric: str, by: float, method: str = "pg") -> Change:
    return lambda rows: rows.assign(
        value=rows["value"] + by * ((of(rows, metric)) & (rows["method"] == method))
    )


def test_no_change_passes(cli: Callable[..., Result], tmp_path: Path) -> None:
    result = run(cli, tmp_path)
    assert (result.code, result.err) == (0, "")
    suite = ElementTree.parse(tmp_path / "junit.xml").getroot()
    assert suite.attrib["tests"] == "10"
    assert suite.attrib["failures"] == suite.attrib["errors"] == suite.attrib["skipped"] == "0"
    assert "10 of 10 checks pass" in (tmp_path / "summary.md").read_text()


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (shift("vendi", -0.3), 1, "margin 0.15"),
        (shift("clip", -1.0), 1, "margin 0.3"),
        (shift("nfe", 1.0), 1, "30 of 30 groups differ"),
        (shift("seconds_per_image", 0.2), 1, "times iid now"),
        (shift("fd", 20.0), 1, "no test without features"),
        (lambda rows: rows[rows["method"] != "pg"], 2, "eddy-bench run --method pg"),
        (
            lambda rows: rows[~((of(rows, "vendi")) & (rows["prompt_id"] == "p004"))],
            2,
            "'p004', seed 0 is not in the candidate",
        ),
        (
            lambda rows: rows.assign(
                value=rows["value"].mask((of(rows, "clip")) & (rows["prompt_id"] == "p001"))
            ),
            2,
            "not a number",
        ),
        (
            lambda rows: rows.assign(signature=rows["signature"].str.replace("@0", "@1")),
            2,
            "signatures differ",
        ),
        (lambda rows: rows[~of(rows, "fd")], 2, "has no such value"),
    ],
    ids=[
        "diversity",
        "fidelity",
        "counter",
        "time",
        "pooled",
        "missing method",
        "missing prompt",
        "NaN",
        "signature",
        "missing metric",
    ],
)
def test_each_kind_of_regression(
    cli: Callable[..., Result], tmp_path: Path, change: Change, code: int, words: str
) -> None:
    result = run(cli, tmp_path, change)
    assert result.code == code
    assert words in (tmp_path / "summary.md").read_text()


def test_too_few_prompts_on_both_sides(cli: Callable[..., Result], tmp_path: Path) -> None:
    before = write(tmp_path / "b.csv", frame(EFFECTS, prompts=4))
    now = write(tmp_path / "n.csv", frame(EFFECTS, prompts=4, noise_seed=7))
    (tmp_path / "gate.yaml").write_text(yaml.safe_dump(GATE))
    assert cli("compare", now, "--against", before, "--gate", tmp_path / "gate.yaml").code == 3
    scattered = [
        write(tmp_path / f"{k}.csv", frame(EFFECTS, prompts=12, scatter=1.0, noise_seed=k))
        for k in (1, 2)
    ]
    assert (
        cli(
            "compare", scattered[0], "--against", scattered[1], "--gate", tmp_path / "gate.yaml"
        ).code
        == 3
    )


def test_what_could_not_be_measured_comes_before_a_regression(
    cli: Callable[..., Result], tmp_path: Path
) -> None:
    def both(rows):
        return shift("vendi", -0.3)(rows[~((of(rows, "nfe")) & (rows["method"] == "iid"))])

    assert run(cli, tmp_path, both).code == 2


@pytest.mark.parametrize(
    ("gate", "message"),
    [
        ({"checks": [{"metric": "beauty", "test": "equal"}]}, "Unknown metric 'beauty'"),
        ({"checks": [{"metric": "vendi", "test": "pooled"}]}, "does not fit"),
        ({"checks": []}, "checks"),
        ({"checks": [{"metric": "nfe", "test": "equal", "colour": 1}]}, "checks.0.colour"),
        ({"checks": [{"metric": "nfe", "test": "equal", "margin": -1}]}, "margin"),
        ([], "the file"),
        (
            {"checks": [{"metric": "nfe", "test": "equal"}], "methods": ["lhs"]},
            "names the method 'lhs'",
        ),
    ],
)
def test_a_wrong_gate_is_refused_with_what_is_wrong(
    cli: Callable[..., Result], tmp_path: Path, gate: object, message: str
) -> None:
    csv = write(tmp_path / "s.csv", frame(EFFECTS))
    (tmp_path / "gate.yaml").write_text(yaml.safe_dump(gate))
    result = cli(
        "compare",
        csv,
        "--against",
        csv,
        "--gate",
        tmp_path / "gate.yaml",
        "--summary",
        tmp_path / "s.md",
        "--junit",
        tmp_path / "j.xml",
    )
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert message in result.err
    assert message in (tmp_path / "s.md").read_text(), "a pull request shows what was wrong"
    assert ElementTree.parse(tmp_path / "j.xml").getroot().attrib["errors"] == "1"


def test_options_that_belong_together(cli: Callable[..., Result], tmp_path: Path) -> None:
    csv = write(tmp_path / "s.csv", frame(EFFECTS))
    assert "--gate needs a baseline" in cli("compare", csv, "--gate", tmp_path / "g.yaml").err
    assert "Add --gate" in cli("compare", csv, "--junit", tmp_path / "j.xml").err
    assert (
        "cannot be read" in cli("compare", csv, "--against", csv, "--gate", tmp_path / "g.yaml").err
    )
    assert "Expected --format" in cli("compare", csv, "--format", "pdf").err
    assert (
        "--allow-missing means nothing"
        in cli(
            "compare", csv, "--against", csv, "--gate", tmp_path / "g.yaml", "--allow-missing"
        ).err
    )
    gated = cli("compare", csv, "--against", csv, "--gate", tmp_path / "g.yaml", "--full")
    assert "--full means nothing to a gate" in gated.err
    assert (
        "--baseline means nothing" in cli("compare", csv, "--against", csv, "--baseline", "pg").err
    )


def test_small_samples_are_too_little_data(cli: Callable[..., Result], tmp_path: Path) -> None:
    def small(rows):
        return rows.assign(signature=rows["signature"].mask(of(rows, "fd"), "fd|small-sample"))

    (tmp_path / "gate.yaml").write_text(yaml.safe_dump(GATE))
    before, now = (
        write(tmp_path / f"{k}.csv", small(frame(EFFECTS, noise_seed=k))) for k in (1, 2)
    )
    assert cli("compare", now, "--against", before, "--gate", tmp_path / "gate.yaml").code == 3


def test_a_repeated_key_is_refused(cli: Callable[..., Result], tmp_path: Path) -> None:
    csv = write(tmp_path / "s.csv", frame(EFFECTS))
    (tmp_path / "gate.yaml").write_text("checks:\n  - {metric: nfe, test: equal, metric: vendi}\n")
    result = cli("compare", csv, "--against", csv, "--gate", tmp_path / "gate.yaml")
    assert (result.code, "line 2: not valid YAML: the key 'metric' stands twice" in result.err) == (
        2,
        True,
    )


def test_names_that_xml_cannot_hold(cli: Callable[..., Result], tmp_path: Path) -> None:
    odd = lambda rows: rows.assign(method=rows["method"].str.replace("pg", "p\x08g"))  # noqa: E731
    (tmp_path / "gate.yaml").write_text(yaml.safe_dump(GATE))
    csv = write(tmp_path / "s.csv", odd(frame(EFFECTS)))
    assert (
        cli(
            "compare",
            csv,
            "--against",
            csv,
            "--gate",
            tmp_path / "gate.yaml",
            "--junit",
            tmp_path / "j.xml",
        ).code
        == 0
    )
    assert "p\ufffdg" in {
        case.attrib["classname"] for case in ElementTree.parse(tmp_path / "j.xml").getroot()
    }


@pytest.mark.slow
def test_the_gate_s_error_rates() -> None:
    """Without a difference at most 64 alarms in 1,000; twice the smallest difference that it says
    it sees is caught 950 times or more.
    """
    for margin in (0.0, 0.05):
        rng, alarms, caught = np.random.default_rng(11), 0, 0
        for _ in range(1000):
            gaps = rng.normal(0, 0.2, 48)
            alarms += judge_gaps(gaps, margin)[0] == REGRESSION
            caught += judge_gaps(gaps - 2 * (margin + detectable(gaps)), margin)[0] == REGRESSION
        assert alarms <= 64
        assert caught >= 950


@pytest.mark.slow
@pytest.mark.parametrize("prompts", [12, 48])
def test_the_error_rate_of_the_whole_gate(tmp_path: Path, prompts: int) -> None:
    """From score files on: two draws of the same methods, at the fewest prompts that are judged and
    at the embedded suite's.
    """
    gate = Gate(
        checks=[Check(metric="vendi[fmnist-clip]", test="noninferior", margin=0.0)], methods=["pg"]
    )
    shared = frame({"pg": {"vendi": 0.0}}, prompts=prompts, scatter=0.0)
    rng, alarms = np.random.default_rng(3), 0
    scores = read_results([write(tmp_path / "s.csv", shared)])
    for _ in range(1000):
        sides = [
            replace(
                scores,
                frame=scores.frame.assign(value=shared["value"] + rng.normal(0, 0.2, prompts)),
            )
            for _ in range(2)
        ]
        alarms += exit_code(run_gate(gate, sides[0], sides[1])) == REGRESSION
    assert alarms <= 64


def test_bit_equal_runs_pass_without_scatter() -> None:
    assert judge_gaps(np.zeros(3), 0.0)[0] == PASS


@pytest.mark.parametrize(
    "setting", [{"steps": 50}, {"model": "other"}, {"scheduler": "Euler"}, {"particles": 8}]
)
def test_other_settings_are_no_candidate(
    cli: Callable[..., Result], tmp_path: Path, setting: dict[str, object]
) -> None:
    result = run(cli, tmp_path, lambda rows: rows.assign(**setting))
    assert (result.code, "drawn with other settings" in result.err) == (2, True)


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows[
            ~(
                (of(rows, "seconds_per_image"))
                & (rows["method"] == "pg")
                & (rows["prompt_id"] > "p000")
            )
        ],
        lambda rows: rows.assign(
            value=rows["value"].mask(
                (of(rows, "seconds_per_image"))
                & (rows["method"] == "iid")
                & (rows["prompt_id"] > "p000")
            )
        ),
    ],
)
def test_time_needs_every_group_of_both_methods(
    cli: Callable[..., Result], tmp_path: Path, change: Change
) -> None:
    assert run(cli, tmp_path, change).code == 2


def test_a_metric_that_is_undefined_for_some_prompts_can_be_gated(
    cli: Callable[..., Result], tmp_path: Path
) -> None:
    def undefined(rows: pd.DataFrame) -> pd.DataFrame:
        return rows.assign(
            value=rows["value"].mask((of(rows, "vendi")) & (rows["prompt_id"] < "p005"))
        )

    before, now = (
        write(tmp_path / "b.csv", undefined(frame(EFFECTS))),
        write(tmp_path / "n.csv", undefined(frame(EFFECTS, noise_seed=7))),
    )
    (tmp_path / "gate.yaml").write_text(yaml.safe_dump(GATE))
    assert cli("compare", now, "--against", before, "--gate", tmp_path / "gate.yaml").code == 0


@pytest.mark.parametrize(
    "text",
    [
        "checks: 2024-99-99",
        "checks: [{metric: nfe, test: equal, margin: true}]",
        "checks: [{metric: nfe, test: equal}]\nmethods: []",
    ],
)
def test_gates_that_yaml_takes_and_we_do_not(
    cli: Callable[..., Result], tmp_path: Path, text: str
) -> None:
    csv = write(tmp_path / "s.csv", frame(EFFECTS))
    (tmp_path / "gate.yaml").write_text(text)
    result = cli("compare", csv, "--against", csv, "--gate", tmp_path / "gate.yaml")
    assert (result.code, result.err.count("\n")) == (2, 1)


def test_a_plugin_s_values_are_gated_without_its_code(
    cli: Callable[..., Result], tmp_path: Path
) -> None:
    """Its direction, here lower is better, and its scope are those of the score files."""
    names = {"mss": "mine.level", "fd": "mine.apart"}
    levels = {"iid": {"mss": 0.0, "fd": 0.0}, "pg": {"mss": 0.0, "fd": 0.0}}

    def of_plugin(rows: pd.DataFrame) -> pd.DataFrame:
        called = rows["metric"].str.partition("[")[0].map(names)
        pooled = np.where(rows["prompt_id"] == "", "|pooled", "")
        return rows.assign(
            metric=called,
            higher_is_better=False,
            signature=called + "|source=0123456789" + pooled + "|N=4",
        )

    before = write(tmp_path / "before.csv", of_plugin(frame(levels)))
    checks = [
        {"metric": "mine.level", "test": "noninferior", "margin": 0.1},
        {"metric": "mine.apart", "test": "pooled", "margin": 0.2},
    ]
    (tmp_path / "gate.yaml").write_text(yaml.safe_dump({"checks": checks}))
    for gain, code in ((-0.5, 0), (0.5, 1)):
        rows = of_plugin(shift("mss", gain)(frame(levels, noise_seed=7)))
        now = write(tmp_path / "now.csv", rows)
        done = cli("compare", now, "--against", before, "--gate", tmp_path / "gate.yaml")
        assert done.code == code, (done.out, done.err)
    assert cli("compare", before).code == 0


@pytest.mark.parametrize(
    ("gains", "margin", "status"),
    [
        (np.full(12, -1.0), 0.5, REGRESSION),
        (np.full(11, -1.0), 0.5, TOO_FEW),
        (np.full(11, 1.0), 0.5, TOO_FEW),
        (np.full(12, -1.0), 0.0, REGRESSION),
        (np.tile([1.0, -1.0], 6), 0.0, TOO_FEW),
        (np.tile([1.0, -1.0], 6), 0.1, TOO_FEW),
        (np.full(12, -0.25), 0.25, TOO_FEW),
        (np.full(12, -0.25), 0.26, PASS),
        (np.array([]), 0.0, TOO_FEW),
        (np.array([0.0, 0.0, -1.0]), 0.0, TOO_FEW),
    ],
    ids=[
        "a loss of 12 prompts",
        "a loss of 11",
        "a gain of 11",
        "no margin",
        "gains and losses",
        "gains and losses around the margin",
        "exactly the margin",
        "within the margin",
        "no prompts",
        "no change on most of few",
    ],
)
def test_gains_are_judged_from_12_prompts_on_against_the_margin(
    gains: NDArray[np.float64], margin: float, status: int
) -> None:
    assert judge_gaps(gains, margin)[0] == status


def values(*numbers: float, signature: str = "fd|N=4") -> pd.DataFrame:
    """Rows of one method and metric, a prompt each."""
    names = [f"p{k}" for k in range(len(numbers))]
    table = {"prompt_id": names, "seed": "0", "value": numbers}
    return pd.DataFrame(table).assign(signature=[Signature.parse(signature)] * len(names))


@pytest.mark.parametrize(
    ("difference", "error", "status"),
    [
        (0.0, 0.51, PASS),
        (0.0, 0.52, TOO_FEW),
        (2.0, 0.51, REGRESSION),
        (2.0, 0.52, TOO_FEW),
        (-9.0, 0.5, PASS),
        (1.0, 0.0, PASS),
        (1.0, float("nan"), UNUSABLE),
        (float("nan"), 0.1, UNUSABLE),
    ],
)
def test_a_pooled_difference_is_judged_by_its_95_percent_interval(
    difference: float, error: float, status: int
) -> None:
    """Of a distance, of which 1 more is allowed: 2% of 50."""
    check = Check(metric="fd[fmnist-clip]", test="pooled", margin=0.02)
    sides = [values(50 + difference, signature="fd|now"), values(50.0, signature="fd|before")]
    asked = (IID, check.id, Signature.parse("fd|now"))
    outcome = pooled(check, -1.0, IID, sides, lambda *own: {asked: (difference, error)}[own])
    assert outcome[0] == status


@pytest.mark.parametrize(
    ("now", "before", "status"),
    [(51.0, 50.0, PASS), (51.1, 50.0, REGRESSION), (9.0, 50.0, PASS), (-49.0, -50.0, PASS)],
)
def test_without_features_a_pooled_value_is_held_against_its_margin(
    now: float, before: float, status: int
) -> None:
    check = Check(metric="fd[fmnist-clip]", test="pooled", margin=0.02)
    sides = [values(now), values(before)]
    assert pooled(check, -1.0, IID, sides, lambda method, metric, mark: None)[0] == status


@pytest.mark.parametrize(
    ("sign", "now", "status"),
    [
        (-1.0, (3.0, 3.0, 90.0), PASS),  # one batch stalled
        (-1.0, (3.1, 3.1, 3.1), REGRESSION),
        (-1.0, (0.1, 0.1, 0.1), PASS),
        (1.0, (1.0, 1.0, 1.0), PASS),
        (1.0, (0.9, 0.9, 0.9), REGRESSION),
        (1.0, (9.0, 9.0, 9.0), PASS),
    ],
)
def test_a_ratio_may_be_worse_by_the_margin_and_no_more(
    sign: float, now: tuple[float, ...], status: int
) -> None:
    """iid takes 2 now and 4 before: a ratio of 1 before, of 1.5 or 0.5 allowed."""
    check = Check(metric="seconds_per_image", test="ratio", margin=0.5)
    sides, iid = [values(*now), values(4, 4, 80)], [values(2, 2, 60), values(4, 4, 1)]
    assert ratio(check, sign, sides, iid)[0] == status


NEVER = values(0.0, 0.0, 9.0)  # but for one batch


def test_there_is_no_ratio_to_a_cost_of_nothing() -> None:
    check = Check(metric="seconds_per_image", test="ratio", margin=0.5)
    sides = [values(1.0), values(1.0)]
    some = values(1.0)
    for iid in ([values(0.0), some], [some, values()], [some, values(-1.0)], [NEVER, some]):
        assert ratio(check, -1.0, sides, iid)[0] == UNUSABLE


def test_equal_means_equal_up_to_rounding_group_by_group() -> None:
    before = values(40.0, 50.0)
    assert equal(values(40.0, 50.0)[::-1], before)[0] == PASS
    assert equal(values(40.0 * (1 + 1e-10), 50.0), before)[0] == PASS
    assert equal(values(40.0, 50.0 * (1 + 1e-8)), before)[0] == REGRESSION
    assert equal(values(50.0, 40.0), before)[0] == REGRESSION, "the mean is the same"
    assert equal(values(1e-12, 50.0), values(0.0, 50.0))[0] == REGRESSION


def test_prompts_are_paired_by_name_and_not_by_place() -> None:
    before = values(*range(12))
    assert noninferior(1.0, 0.0, before[::-1], before) == (PASS, "no change on any of 12 prompts")
    worse = before.assign(value=before["value"] - 1)
    assert noninferior(1.0, 0.5, worse, before)[0] == REGRESSION
    assert noninferior(-1.0, 0.5, worse, before)[0] == PASS


@pytest.mark.parametrize(
    ("codes", "code"),
    [
        ((PASS, TOO_FEW, REGRESSION, UNUSABLE), UNUSABLE),
        ((PASS, TOO_FEW, REGRESSION), REGRESSION),
        ((PASS, TOO_FEW), TOO_FEW),
        ((PASS,), PASS),
        ((), PASS),
    ],
)
def test_the_exit_code_is_that_of_the_worst(codes: tuple[int, ...], code: int) -> None:
    assert exit_code([CheckResult("pg", "nfe", "equal", own, "") for own in codes]) == code
    assert (PASS, REGRESSION, UNUSABLE, TOO_FEW) == (0, 1, 2, 3), "as CI jobs know them"


@pytest.mark.parametrize(
    ("bad", "allowed", "statuses"),
    [
        (0, None, []),
        (0, 0, [PASS]),
        (2, None, [REGRESSION]),
        (2, 1, [REGRESSION]),
        (2, 2, [PASS]),
    ],
)
def test_bad_images_are_counted_against_those_allowed(
    tmp_path: Path, bad: int, allowed: int | None, statuses: list[int]
) -> None:
    """Of the method itself, in the candidate alone; its groups are left out on both sides."""
    scores = read_results([write(tmp_path / "s.csv", frame({"iid": {"nfe": 0}, "pg": {"nfe": 0}}))])
    pg = MethodId("pg")
    lines = [
        {"method": method, "prompt_id": "p000", "seed": "0", "value": count}
        | {"metric": MetricId(BAD_IMAGES, "black")}
        for method, count in ((pg, bad), (IID, 7))
        if count
    ]
    now = replace(scores, bad=pd.DataFrame(lines))
    odd = (scores.frame["method"] == pg) & (scores.frame["prompt_id"] == "p000")
    moved = replace(
        scores, frame=scores.frame.assign(value=scores.frame["value"] + (odd & (bad > 0)))
    )
    checks = [{"metric": "nfe", "test": "equal"}]
    gate = Gate.model_validate({"checks": checks, "methods": ["pg"], BAD_IMAGES: allowed})
    for sides in ((now, moved), (replace(moved, bad=now.bad), scores)):
        found = run_gate(gate, *sides)
        assert [own.status for own in found if own.metric == BAD_IMAGES] == statuses
        assert [own.status for own in found if own.metric == "nfe"] == [PASS]
    held = run_gate(gate, moved, replace(scores, bad=now.bad))
    assert [own.status for own in held if own.metric == "nfe"] == [PASS]


def test_the_direction_of_a_check_is_the_metric_s_unless_it_says_another(tmp_path: Path) -> None:
    scores = read_results([write(tmp_path / "s.csv", frame(EFFECTS))])
    signs = [
        Check(metric=metric, test="equal", direction=direction).sign(scores)
        for metric in ("vendi[fmnist-clip]", "nfe")
        for direction in (None, "higher", "lower")
    ]
    assert signs == [1.0, 1.0, -1.0, -1.0, 1.0, -1.0]


def test_too_few_prompts_say_what_they_would_show() -> None:
    gains = np.tile([1.0, -1.0], 6)
    seen = f"regressions from {0.5 + detectable(gains):.3g} are seen"
    assert seen in judge_gaps(gains, 0.5)[1]


def test_a_baseline_is_written_and_gates_against_itself(
    cli: Callable[..., Result], tmp_path: Path
) -> None:
    rows = frame(EFFECTS).assign(category="=dark, or so")
    candidate = write(tmp_path / "candidate.csv", rows)
    (tmp_path / "gate.yaml").write_text(yaml.safe_dump(GATE))
    baseline = tmp_path / "kept" / "mine.csv"
    done = cli("compare", candidate, "--write-baseline", baseline)
    assert done.code == 0, done.err
    assert f"2 methods and 5 metrics written into {baseline}." in " ".join(done.err.split())
    own, other = (
        read_results([path]).frame.drop(columns="source") for path in (candidate, baseline)
    )
    pd.testing.assert_frame_equal(own, other[own.columns])
    gate = ("--against", baseline, "--gate", tmp_path / "gate.yaml")
    assert cli("compare", candidate, *gate).code == 0
    assert "Expected a CSV file to write, got the folder" in (
        cli("compare", candidate, "--write-baseline", tmp_path).err
    )
    assert (
        "means nothing to a gate" in cli("compare", candidate, *gate, "--write-baseline", "x").err
    )


def test_groups_without_a_value_on_both_sides_are_left_out() -> None:
    """Unless a side has no other: then the missing numbers are told."""

    def side(**values: float) -> pd.DataFrame:
        rows = [{"prompt_id": name, "seed": "0", "value": value} for name, value in values.items()]
        return pd.DataFrame(rows)

    nan = float("nan")
    one, other = side(a=1.0, b=nan, c=nan), side(a=2.0, b=nan, c=3.0)
    assert [list(own["prompt_id"]) for own in _with_values([one, other])] == [["a", "c"]] * 2
    whole = [side(a=1.0), side(a=2.0)]
    assert _with_values(whole) is whole
    for sides in ([side(a=nan), other.assign(value=nan)], [other.assign(value=nan), side(a=nan)]):
        assert _with_values(sides) is sides
