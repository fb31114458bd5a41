"""Comparisons on classes of prompts."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from eddy_bench.compare.classes import by_class, classes_of
from eddy_bench.compare.paired import compare
from eddy_bench.errors import CompareError
from eddy_bench.results.results import Results, read_results
from eddy_bench.results.statistics import holm
from tests.conftest import Result
from tests.makers.score_files import frame, write


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """16 prompts of two classes: `a` gains on the first alone; `b` on none."""
    methods = {name: {"vendi": 0.0} for name in ("iid", "a", "b")}
    table = frame(methods, prompts=16)
    place = table["prompt_id"].str[1:].astype(int)
    gain = ((table["method"] == "a") & (place < 8)) * 1.0
    words = place.map(lambda k: " ".join(["word"] * (1 + k // 4)) + f" {k}")
    tags = place.map(lambda k: "first" if k < 8 else "second")
    changed = table.assign(value=table["value"] + gain, prompt=words, **{"prompt.kind": tags})
    return write(tmp_path / "s.csv", changed)


def results(path: Path) -> Results:
    return read_results([path])


def test_a_gain_on_one_class_is_seen_there_alone(path: Path) -> None:
    own = by_class(results(path), "kind")
    assert [(part.name, part.prompts) for part in own] == [("first", 8), ("second", 8)]
    better = {
        (part.name, str(line.method)) for part in own for line in part.differences if line.better
    }
    assert better == {("first", "a")}


def test_differences_of_a_class_are_those_of_its_prompts_corrected_over_all(path: Path) -> None:
    whole = results(path)
    own = by_class(whole, "kind")
    chances = []
    for part in own:
        alone = compare(part.results)
        for line, expected in zip(part.differences, alone, strict=True):
            assert (line.difference, line.low, line.high, line.p) == (
                expected.difference,
                expected.low,
                expected.high,
                expected.p,
            )
        chances += [line.p for line in alone]
    corrected = [line.p_holm for part in own for line in part.differences]
    assert corrected == pytest.approx(holm(chances))


def test_lengths_are_terciles_of_words(path: Path) -> None:
    own = by_class(results(path), "length")
    assert [part.name for part in own] == ["2 to 3 words", "4 words", "5 words"]
    assert [part.prompts for part in own] == [8, 4, 4]


def test_what_prompts_can_be_compared_by_is_listed(path: Path) -> None:
    assert classes_of(results(path)) == ["kind", "length"]
    with pytest.raises(CompareError, match=r"got 'colour'.* has kind, length"):
        by_class(results(path), "colour")


@pytest.mark.parametrize("form", ["table", "markdown", "csv", "json"])
def test_every_format_has_the_classes(cli: Callable[..., Result], path: Path, form: str) -> None:
    done = cli("compare", path, "--by", "kind", "--format", form)
    assert done.code == 0, done.err
    if form == "json":
        document = json.loads(done.out)
        assert {row["class"] for row in document["classes"]} == {"first", "second"}
    elif form == "csv":
        (path.parent / "out.csv").write_text(done.out)
        table = pd.read_csv(path.parent / "out.csv", keep_default_na=False)
        assert set(table["class"]) == {"", "first", "second"}
    else:
        assert "kind first: 8 prompts, differences to iid" in done.out
        assert "corrected over the methods and the classes" in done.out


def test_classes_go_with_one_runs_methods_alone(cli: Callable[..., Result], path: Path) -> None:
    done = cli("compare", path, "--against", path, "--by", "kind")
    assert done.code == 2
    assert "Leave --against out" in done.err


def tagged(path: Path, kinds: int, prompts: int, **others: str) -> Results:
    """Prompts whose tag takes `kinds` values by turns."""
    table = frame({name: {"vendi": 0.0, "fd": 0.0} for name in ("iid", "a")}, prompts=prompts)
    place = pd.to_numeric(table["prompt_id"].str[1:].replace("", "0")).astype(int)
    tags = (place % kinds).map("k{}".format).where(table["prompt_id"] != "", "")
    more = {f"prompt.{name}": text for name, text in others.items()}
    return results(write(path / "s.csv", table.assign(**{"prompt.kind": tags}, **more)))


def test_there_are_50_classes_at_most(tmp_path: Path) -> None:
    assert len(by_class(tagged(tmp_path, 50, 52), "kind")) == 50
    with pytest.raises(CompareError, match="at most 50 classes of prompts, got 51"):
        by_class(tagged(tmp_path, 51, 52), "kind")


def test_a_tag_is_offered_where_its_classes_have_two_prompts_on_average(tmp_path: Path) -> None:
    assert classes_of(tagged(tmp_path, 4, 8, same="x")) == ["kind", "length"]
    assert classes_of(tagged(tmp_path, 5, 8)) == ["length"]
    assert classes_of(tagged(tmp_path, 50, 100)) == ["kind", "length"]
    assert classes_of(tagged(tmp_path, 51, 104)) == ["length"]


def test_prompts_without_a_tag_are_a_class_that_stands_last(tmp_path: Path) -> None:
    own = tagged(tmp_path, 2, 8)
    none = own.frame["prompt.kind"].astype(str).replace("k0", "")
    parts = by_class(replace(own, frame=own.frame.assign(**{"prompt.kind": none})), "kind")
    assert [(part.name, part.prompts) for part in parts] == [("k1", 4), ("(none)", 4)]
    assert {line.metric.name for part in parts for line in part.differences} == {"vendi"}
