"""What merging and resuming keep and say, and advice that works."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from eddy_bench.experiment import manifest
from eddy_bench.storage.run_folder import read_manifest, write_manifest
from tests.conftest import Result
from tests.makers.runs import SHORT

Cli = Callable[..., Result]
OTHER = {"libraries": {"torch": "0.1"}, "hardware": {"gpus": ["another card"]}}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from eddy_bench.cli.app import main

    out = tmp_path_factory.mktemp("shards") / "run"
    for shard in ("1/2", "2/2"):
        call = [*SHORT, "--method", "antithetic", "--shard", shard, "--out", str(out)]
        with pytest.raises(SystemExit) as stop:
            main(call)
        assert not stop.value.code
    return out.parent


def copies(shards: Path, folder: Path) -> list[Path]:
    paths = [folder / path.name for path in sorted(shards.glob("*-shard-*"))]
    for path in paths:
        shutil.copytree(shards / path.name, path)
    return paths


def elsewhere(folder: Path) -> None:
    """Say that a folder was drawn with other versions on other hardware."""
    known = read_manifest(folder)
    write_manifest(folder, known.updated(environments=[{**known.environments[0], **OTHER}]))


def test_merging_keeps_every_environment_and_warns(cli: Cli, tmp_path: Path, shards: Path) -> None:
    first, second = copies(shards, tmp_path)
    assert "environments" not in cli("merge", tmp_path / "alike", first, second).err
    assert len(read_manifest(tmp_path / "alike").environments) == 1
    elsewhere(second)
    done = cli("merge", tmp_path / "unlike", first, second)
    assert done.code == 0, done.err
    assert "Warning: the images were drawn in 2 environments, which differ in" in done.err
    assert "libraries.torch" in done.err
    assert read_manifest(tmp_path / "unlike").environments[1]["hardware"] == OTHER["hardware"]


def test_resuming_keeps_every_environment_that_drew_and_warns(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call: tuple[Any, ...] = (*SHORT, "--out", tmp_path / "r")
    assert "environments" not in cli(*call).err
    own = manifest.environment()
    monkeypatch.setattr(manifest, "environment", lambda: {**own, **OTHER})
    assert "environments" not in cli(*call).err, "nothing was drawn"
    done = cli(*call, "--seeds", "2")
    assert "Warning: the images were drawn in 2 environments, which differ in libraries" in done.err
    found = read_manifest(tmp_path / "r").environments
    assert found == [own, {**own, **OTHER}]


def test_a_share_that_is_given_twice_is_told_before_anything_is_made(
    cli: Cli, tmp_path: Path, shards: Path
) -> None:
    first, _ = copies(shards, tmp_path)
    (tmp_path / "again").symlink_to(first)
    for twice in (first, tmp_path / "again", first / ".." / first.name):
        done = cli("merge", tmp_path / "new", first, twice)
        assert done.code == 2
        assert "are one folder. Give each shard once." in done.err
        assert not (tmp_path / "new").exists()


def spoil_group(folder: Path) -> None:
    next(folder.glob("samples/*/*/*/group.json")).write_text("{}")


def spoil_settings(folder: Path) -> None:
    data = yaml.safe_load((folder / "run.yaml").read_text())
    data["settings"]["steps"] = 99
    (folder / "run.yaml").write_text(yaml.safe_dump(data))


@pytest.mark.parametrize("spoil", [spoil_group, spoil_settings, shutil.rmtree])
def test_a_merge_that_is_refused_leaves_no_folder(
    cli: Cli, tmp_path: Path, shards: Path, spoil: Callable[[Path], None]
) -> None:
    first, second = copies(shards, tmp_path)
    spoil(second)
    assert cli("merge", tmp_path / "new", first, second).code == 2
    assert not (tmp_path / "new").exists()


def test_advice_on_a_misplaced_group_works(cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "r"
    call = (*SHORT, "--seeds", "2", "--out", folder)
    assert cli(*call).code == 0
    place = next(folder.glob("samples/iid/*/1"))
    stray = place.with_name("7")
    shutil.move(place, stray)
    done = cli("score", folder, "--metric", "pdist[pixels]")
    assert f"group.json is that of {place.relative_to(folder / 'samples')}" in done.err
    assert "no command draws a group there: move it back to its place, or remove it" in done.err
    assert "run again to redraw" not in done.err
    shutil.move(stray, place)
    assert "left out" not in cli("score", folder, "--metric", "pdist[pixels]").err
    (place / "group.json").write_text("{}")
    assert "run again to redraw it" in cli("score", folder, "--metric", "pdist[pixels]").err
    assert cli(*call).code == 0
    assert "left out" not in cli("score", folder, "--metric", "pdist[pixels]").err


COMMANDS: dict[str, Callable[[Path], tuple[Any, ...]]] = {
    "run": lambda folder: (*SHORT, "--out", folder),
    "score": lambda folder: ("score", folder, "--metric", "pdist[pixels]"),
    "merge": lambda folder: ("merge", folder.with_name("new"), folder),
    "merge into": lambda folder: ("merge", folder, folder.with_name("other")),
    "report": lambda folder: ("report", folder),
    "compare": lambda folder: ("compare", folder),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from eddy_bench.cli.app import main

    folder = tmp_path_factory.mktemp("run") / "run"
    with pytest.raises(SystemExit):
        main([*SHORT, "--method", "antithetic", "--out", str(folder)])
    return folder


@pytest.mark.parametrize(("name", "value"), [("steps", 99), ("particles", 4), ("model", "other")])
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_refuses_settings_that_the_images_were_not_drawn_with(
    cli: Cli, tmp_path: Path, run: Path, command: str, name: str, value: object
) -> None:
    for copy in ("edited", "other"):
        shutil.copytree(run, tmp_path / copy)
    path = tmp_path / "edited" / "run.yaml"
    data = yaml.safe_load(path.read_text())
    data["settings"][name] = value
    path.write_text(yaml.safe_dump(data))
    done = cli(*COMMANDS[command](tmp_path / "edited"))
    assert done.code == 2
    assert "were changed after its images were drawn with others" in done.err
