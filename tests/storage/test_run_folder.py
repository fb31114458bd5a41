"""Run folders: whole groups or none, and nothing foreign overwritten."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from eddy_bench.errors import StoreError
from eddy_bench.storage.files import write_text
from eddy_bench.storage.group import group_key
from eddy_bench.storage.run_folder import RunFolder
from tests.makers.groups import COST, SETTINGS, make_folder, make_group, make_images
from tests.makers.runs import change_a_byte


def test_a_group_is_read_back(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "r")
    folder.write_group(make_group(), make_images(), {**COST, "nfe": 40}, {"rows": 8})
    loaded = folder.load(make_group().path, folder.files())
    assert loaded is not None
    assert loaded.group == make_group()
    assert loaded.cost["nfe"] == 40
    assert [image.getpixel((0, 0)) for image in loaded.images()] == [0, 10]
    assert not any((tmp_path / "r" / "partial").iterdir())
    assert [finished.group for finished in folder.finished()] == [make_group()]


@pytest.mark.parametrize(
    "damage",
    [
        lambda f: (f / "0.png").write_bytes(b""),
        lambda f: (f / "1.png").unlink(),
        lambda f: (f / "group.json").write_text("{"),
        lambda f: (f / "group.json").write_text("[]"),
        lambda f: (f / "group.json").unlink(),
        lambda f: (f / "group.json").write_text(json.dumps({"group": {}, "files": {}, "cost": {}})),
        lambda f: (f / "group.json").write_bytes(b"\xff\xfe"),
    ],
)
def test_a_damaged_group_is_refused_and_not_counted(tmp_path: Path, damage: Any) -> None:
    folder = make_folder(tmp_path / "r")
    group = folder.write_group(make_group(), make_images(), COST, {})
    damage(group.folder)
    with pytest.raises(StoreError):
        folder.load(make_group().path, folder.files())
    assert list(folder.finished()) == []
    assert folder.set_aside(make_group().path).is_dir()
    assert folder.load(make_group().path, folder.files()) is None


def test_a_changed_image_of_the_same_size_is_seen(tmp_path: Path) -> None:
    group = make_folder(tmp_path / "r").write_group(make_group(), make_images(), COST, {})
    change_a_byte(group.folder / "0.png")
    with pytest.raises(StoreError, match="changed after it was drawn"):
        group.images()


def test_a_failed_write_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_folder(tmp_path / "r")

    def full(source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("eddy_bench.storage.run_folder.os.replace", full)
    with pytest.raises(StoreError, match="No space left"):
        folder.write_group(make_group(), make_images(), COST, {})
    assert not any((tmp_path / "r" / "partial").iterdir())
    assert folder.load(make_group().path, folder.files()) is None


def test_a_folder_with_other_settings_is_refused(tmp_path: Path) -> None:
    make_folder(tmp_path / "r")
    RunFolder.prepare(tmp_path / "r", SETTINGS)
    with pytest.raises(StoreError, match="steps 2 there, 3 now"):
        RunFolder.prepare(tmp_path / "r", SETTINGS.model_copy(update={"steps": 3}))
    (tmp_path / "r" / "run.yaml").write_text(": : [")
    with pytest.raises(StoreError, match="not valid YAML"):
        RunFolder.prepare(tmp_path / "r", SETTINGS)


def test_a_group_key_depends_on_values_and_not_on_their_order() -> None:
    assert group_key(a=1, b=2) == group_key(b=2, a=1)
    assert group_key(a=1, b=2) != group_key(a=1, b=3)


def test_write_text_replaces_in_one_step(tmp_path: Path) -> None:
    write_text(tmp_path / "x" / "a.csv", "1")
    write_text(tmp_path / "x" / "a.csv", "2")
    assert [path.read_text() for path in (tmp_path / "x").iterdir()] == ["2"]
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError):
        write_text(tmp_path / "file" / "a.csv", "1")
