"""What a run of a million groups rests on: nothing is read, or worked out, more often than once."""

from __future__ import annotations

import io
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eddy_bench.experiment.draw import find_missing
from eddy_bench.experiment.plan import make_plan
from eddy_bench.experiment.setup import Setup
from eddy_bench.results.statistics import mean_interval
from eddy_bench.scoring.scorer import read_features, write_features
from eddy_bench.storage import records
from eddy_bench.storage.group import Entry, GroupIndex, group_key
from eddy_bench.storage.records import Group
from eddy_bench.storage.run_folder import RunFolder
from eddy_bench.suites.suite import Suite
from tests.conftest import Result
from tests.makers.groups import COST, make_folder, make_group, make_images
from tests.makers.runs import RUN


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each file was opened to be read, by its path."""
    counts: Counter[str] = Counter()
    inner = io.open

    def counting(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if "r" in mode:
            counts[str(file)] += 1
        return inner(file, mode, *arguments, **options)

    monkeypatch.setattr(io, "open", counting)
    return counts


def drawn(path: Path, prompts: int) -> tuple[RunFolder, list[Group]]:
    """Return a folder with a group per prompt, and the groups."""
    folder = make_folder(path, ("iid",))
    groups = [make_group(prompt_id=f"p{k}", key=f"k{k}") for k in range(prompts)]
    for group in groups:
        folder.write_group(group, make_images(), COST, {})
    return folder, groups


def test_resuming_reads_the_index_once_and_no_group(tmp_path: Path, opened: Counter[str]) -> None:
    folder, groups = drawn(tmp_path / "run", 30)
    opened.clear()
    assert find_missing(groups, folder) == ([], [])
    assert opened == {str(folder.index.path): 1}


def test_resuming_without_the_index_reads_every_file_once(
    tmp_path: Path, opened: Counter[str]
) -> None:
    folder, groups = drawn(tmp_path / "run", 30)
    folder.index.forget()
    opened.clear()
    assert find_missing(groups, folder) == ([], [])
    assert set(opened.values()) == {1}
    assert sum(path.endswith("group.json") for path in opened) == 30


def test_scoring_after_drawing_reads_every_group_once(
    cli: Any, undisturbed: Path, tmp_path: Path, opened: Counter[str]
) -> None:
    """To tell whether scores are up to date, to score and to draw the grids."""
    run = Path(shutil.copytree(undisturbed, tmp_path / "run"))
    opened.clear()
    done: Result = cli(*RUN, "--metric", "pdist", "--out", run)
    assert done.code == 0, done.err
    read = {path: times for path, times in opened.items() if path.endswith("group.json")}
    samples = str(run / "samples")
    assert {path for path in read if path.startswith(samples)} == {
        str(path) for path in run.glob("samples/*/*/*/group.json")
    }
    assert {times for path, times in read.items() if path.startswith(samples)} == {1}


@pytest.mark.parametrize("prompts", [2, 40])
def test_planning_writes_the_settings_down_once(
    prompts: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "prompts.txt").write_text("".join(f"picture {k}\n" for k in range(prompts)))
    setup = Setup.open(
        Suite.model_validate(
            {"model": "exact:ring8", "prompts": str(tmp_path / "prompts.txt"), "methods": ["iid"]}
        )
    )
    calls: list[None] = []
    inner = records.RunSettings.as_dict

    def counting(self: records.RunSettings) -> dict[str, Any]:
        calls.append(None)
        return inner(self)

    monkeypatch.setattr(records.RunSettings, "as_dict", counting)
    plan = make_plan(setup)
    assert (len(plan.groups), len(calls)) == (prompts * setup.suite.seeds, 1)
    first, method = plan.groups[0], plan.methods[0]
    assert first.key == group_key(
        **inner(plan.settings),
        method="iid",
        source="",
        parameters=method.method.parameters(),
        kernel=method.kernel,
        prompt=first.prompt,
        seed=0,
    )


def test_groups_share_their_texts(tmp_path: Path) -> None:
    folder, _ = drawn(tmp_path / "run", 2)
    first, second = folder.finished()
    assert first.group.prompt is second.group.prompt
    assert next(iter(first.files)) is next(iter(second.files))
    assert [a is b for a, b in zip(first.cost, second.cost, strict=True)] == [True] * len(COST)
    for record in (first, first.group, *first.files.values()):
        assert not hasattr(record, "__dict__")


def test_an_index_is_written_in_few_pieces_and_read_line_by_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eddy_bench.storage.group.WRITTEN_TOGETHER", 4)
    monkeypatch.setattr(Path, "read_text", lambda *_: pytest.fail("held as one text"))
    index = GroupIndex(tmp_path / "samples.jsonl")
    entries = [Entry(f"iid/p{k}/0", f"k{k}", {"0.png": k}) for k in range(10)]
    index.add(iter(entries))
    assert list(index.read().values()) == entries
    lines = index.path.read_bytes().splitlines()
    assert [json.loads(line)["key"] for line in lines] == [f"k{k}" for k in range(10)]


@pytest.mark.parametrize("groups", [1, 60])
def test_features_are_three_arrays_however_many_groups(groups: int, tmp_path: Path) -> None:
    path, rng = tmp_path / "iid.npz", np.random.default_rng(0)
    features = {f"g{k}": rng.normal(size=(1 + k % 3, 5)).astype(np.float32) for k in range(groups)}
    write_features(path, features)
    with np.load(path) as data:
        assert len(data.files) == 3
    read = read_features(path)
    assert read.keys() == features.keys()
    assert all(np.array_equal(read[name], features[name]) for name in features)


def test_an_interval_over_many_prompts_resamples_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resamples of 50,000 prompts would take gigabytes, and change nothing."""

    def refuse(count: int) -> None:
        raise AssertionError(f"resampled {count} prompts")

    monkeypatch.setattr("eddy_bench.results.statistics._resampled_shares", refuse)
    mean, low, high = mean_interval(np.random.default_rng(0).normal(1, 1, 50_000))
    assert low < mean < high
