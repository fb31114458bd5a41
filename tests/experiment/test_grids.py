"""Pictures of a run: what stands above the images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw, ImageFont

import eddy_bench
from eddy_bench.compare.comparison import compare_methods
from eddy_bench.compare.tables import matrix_of
from eddy_bench.experiment.grids import SIDE_BY_SIDE, WIDEST, draw_bands, draw_table, write_grids
from eddy_bench.ids import MethodId
from eddy_bench.results.results import read_results
from eddy_bench.storage.group import FinishedGroup, group_key
from eddy_bench.storage.run_folder import RunFolder
from tests.makers.groups import COST, make_folder, make_group
from tests.makers.scored_runs import make_run

LONG = "strength=2,kernel=denoised,scale=fixed,init=antithetic"


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple[float, float], str]]:
    """What is written into pictures, and where."""
    texts: list[tuple[tuple[float, float], str]] = []
    draw = ImageDraw.ImageDraw.text

    def text(pen: ImageDraw.ImageDraw, place: Any, words: Any, *rest: Any) -> None:
        texts.append((place, words))
        draw(pen, place, words, *rest)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    return texts


def test_methods_are_named_as_in_tables(
    tmp_path: Path, written: list[tuple[tuple[float, float], str]]
) -> None:
    path = make_run(tmp_path / "r", prompts=2)
    run = eddy_bench.load_run(path)
    run.grid(methods=run.methods, prompts=["p000", "p001"])
    drawn = [text for _, text in written]
    assert set(run.methods) < set(drawn)
    matrix = matrix_of(compare_methods(read_results([path])))
    assert matrix is not None
    assert set(matrix.names) == set(run.methods) - {"iid"}
    groups = by_method(path)
    written.clear()
    paths = write_grids(RunFolder(path), groups)
    assert paths[-1].name == SIDE_BY_SIDE
    assert [text for _, text in written if text in run.methods].count("pg:strength=1") == 2


@pytest.mark.parametrize("particles", [1, 2, 4])
def test_long_names_are_folded_and_never_cut(
    tmp_path: Path, particles: int, written: list[tuple[tuple[float, float], str]]
) -> None:
    """Names that differ at their ends alone can be told apart, and stand above the images."""
    names = [LONG, LONG.replace("antithetic", "lhs")]
    run = make_folder(tmp_path / "r", ("pg",), model="fashion", particles=particles)
    for label, name in zip(("a", "b"), names, strict=True):
        group = make_group(
            method="pg", label=label, parameters=name, key=group_key(a=name), particles=particles
        )
        run.write_group(group, [Image.new("L", (32, 32))] * particles, COST, {})
    groups = [by_folder(run.path)[label][0] for label in ("a", "b")]
    picture = draw_table([groups])
    prompt = next(top for (_, top), text in written if text == "a dress")
    columns: dict[float, str] = {}
    for (left, top), text in written:
        if top < prompt:
            columns[left] = columns.get(left, "") + text.strip()
    assert list(columns.values()) == [f"pg:{name}" for name in names]
    edges = [*columns, picture.width]
    font = ImageFont.load_default(13)
    for (left, top), text in written:
        if top < prompt:
            assert left + font.getlength(text) <= edges[edges.index(left) + 1]


def test_many_methods_stand_in_bands_beside_the_first(
    tmp_path: Path, written: list[tuple[tuple[float, float], str]]
) -> None:
    run = make_folder(tmp_path / "r", ("iid",), model="fashion", particles=4)
    names = [f"strength={number}" for number in range(1, 15)]
    for label in ("iid", *names):
        method, parameters = ("pg", label) if label in names else ("iid", "")
        group = make_group(
            method=method, label=label, parameters=parameters, key=group_key(a=label), particles=4
        )
        run.write_group(group, [Image.new("L", (32, 32))] * 4, COST, {})
    groups = by_folder(run.path)
    picture = draw_bands([[groups[label][0] for label in ("iid", *names)]])
    assert picture.width <= WIDEST
    shown = [text for _, text in written]
    assert {f"pg:{name}" for name in names} < set(shown)
    beside = [left for (left, _), text in written if text == "iid"]
    assert len(beside) == 4, "5 other methods in each band"
    assert len(set(beside)) == 1


def by_folder(path: Path) -> dict[str, list[FinishedGroup]]:
    groups: dict[str, list[FinishedGroup]] = {}
    for group in RunFolder(path).finished():
        groups.setdefault(group.group.label, []).append(group)
    return groups


def by_method(path: Path) -> dict[MethodId, list[FinishedGroup]]:
    return {groups[0].group.id: groups for groups in by_folder(path).values()}
