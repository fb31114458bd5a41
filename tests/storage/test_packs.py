"""Packs: the same groups in fewer files; whole or absent, and never counted twice."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from eddy_bench.errors import StoreError
from eddy_bench.experiment.draw import find_missing
from eddy_bench.experiment.events import Listener
from eddy_bench.experiment.merge import merge
from eddy_bench.experiment.score import ScoringRequest, read_groups, scoring_state
from eddy_bench.storage import packs
from eddy_bench.storage.group import FinishedGroup
from eddy_bench.storage.paths import as_path
from eddy_bench.storage.records import Group, RunRecord, SuiteRecord
from eddy_bench.storage.run_folder import Packing, RunFolder, write_run
from tests.makers.groups import COST, SETTINGS, make_folder, make_group, make_images

COUNT = 12


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packs of five groups, in blocks of two."""
    monkeypatch.setattr("eddy_bench.storage.run_folder.PACK_GROUPS", 5)
    monkeypatch.setattr(packs, "BLOCK_GROUPS", 2)


@pytest.fixture(params=["here", "there"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A run folder to be, on this machine and at an address."""
    if request.param == "here":
        yield tmp_path / "run"
        return
    pytest.importorskip("upath", reason="needs the package universal_pathlib")
    import fsspec

    system: Any = fsspec.filesystem("memory")
    system.store.clear()
    yield as_path("memory://bucket/run")
    system.store.clear()


def planned(count: int = COUNT) -> list[Group]:
    return [make_group(prompt_id=f"p{k}", key=f"k{k}") for k in range(count)]


def drawn(path: Path, groups: list[Group]) -> RunFolder:
    """A run folder in which groups stand in folders, each with images of its own."""
    folder = RunFolder.prepare(path, SETTINGS)
    write_run(folder.path, RunRecord(suite=SuiteRecord(methods=["iid"]), settings=SETTINGS))
    draw(folder, groups)
    return folder


def draw(folder: RunFolder, groups: list[Group], shade: int = 0) -> None:
    for group in groups:
        number = int(group.key[1:])
        images = [Image.new("L", (8, 8), shade + 10 * number + k) for k in range(2)]
        folder.write_group(group, images, COST, {"rows": number})
    folder.index.flush()


def pack(folder: RunFolder) -> Packing:
    return folder.pack(lambda count, label: None, lambda: None)


def contents(folder: RunFolder) -> list[tuple[Group, bytes, list[bytes]]]:
    """All that is read of each group."""
    return [(own.group, own.text(), own.contents()) for own in folder.finished()]


def pack_files(folder: RunFolder) -> list[Path]:
    return sorted(folder.samples.glob("pack-*"), key=str)


def damage(path: Path, at: int = -1, part: bytes = b"") -> None:
    """Change a byte of a file: at a place, or in the middle of what it holds there."""
    data = bytearray(path.read_bytes())
    at = data.index(part) + len(part) // 2 if part else at
    data[at] ^= 1
    path.write_bytes(bytes(data))


def test_a_packed_run_is_read_as_the_one_in_folders(path: Path) -> None:
    folder = drawn(path, planned())
    before, state = contents(folder), state_of(folder)
    done = pack(folder)
    assert (len(done.places), done.packs, done.left) == (COUNT, 3, [])
    assert [own.name for own in pack_files(folder)] == [
        "pack-000001-of-5-groups.parquet",
        "pack-000002-of-5-groups.parquet",
        "pack-000003-of-2-groups.parquet",
    ]
    assert [own for own in folder.samples.rglob("*.json")] == []
    assert contents(folder) == before, "in the same order"
    assert state_of(folder) == state, "scores stay up to date"
    for verify in (False, True):
        assert find_missing(planned(), folder, verify) == ([], [])
    assert pack(folder).packs == 0


def state_of(folder: RunFolder) -> str:
    return scoring_state(folder.read_run(), read_groups(folder), ScoringRequest())


def test_no_folder_is_left_and_the_index_is_not_needed(tmp_path: Path) -> None:
    folder = drawn(tmp_path / "run", planned())
    pack(folder)
    assert folder.index.read() == {}
    assert sorted(own.name for own in folder.samples.iterdir()) == [
        own.name for own in pack_files(folder)
    ]
    assert not any((folder.path / "partial").iterdir())


def test_groups_that_come_later_stand_beside_packs(path: Path) -> None:
    folder = drawn(path, planned(6))
    pack(folder)
    missing, _ = find_missing(planned(), folder)
    assert missing == planned()[6:]
    draw(folder, missing)
    assert find_missing(planned(), folder) == ([], [])
    both = contents(folder)
    assert [group.prompt_id for group, _, _ in both] == sorted(f"p{k}" for k in range(COUNT))
    assert pack(folder).packs == 2
    assert contents(folder) == both


def test_large_groups_make_packs_of_fewer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = drawn(tmp_path / "run", planned(4))
    sizes = [sum(map(len, images)) for _, _, images in contents(folder)]
    monkeypatch.setattr("eddy_bench.storage.run_folder.PACK_BYTES", sum(sizes[:3]))
    monkeypatch.setattr(packs, "BLOCK_BYTES", 1)
    before = contents(folder)
    assert pack(folder).packs == 2
    packs._column.cache_clear()
    assert contents(folder) == before
    assert packs._column.cache_info().currsize == 4, "records are kept, large images are not"


def test_a_pass_in_order_reads_each_block_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = drawn(tmp_path / "run", planned())
    pack(folder)
    opened: list[Path] = []
    inner = packs.open_file
    monkeypatch.setattr(packs, "open_file", lambda path: opened.append(path) or inner(path))
    contents(folder)
    assert len(opened) == 3 + 2 * 7, "a listing of each pack, records and images of each block"


def test_packing_does_not_read_the_packs_that_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run of a million groups packs a thousand times."""
    folder = drawn(tmp_path / "run", planned(5))
    pack(folder)
    draw(folder, planned()[5:])
    monkeypatch.setattr(packs, "open_file", lambda path: pytest.fail(f"{path} was read"))
    assert pack(folder).packs == 2


class Killed(BaseException):
    """The end of a process, as far as its code can tell."""


def test_nothing_is_lost_or_counted_twice_after_a_kill_at_any_step(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every rename, write and removal of packing is the last one once."""
    monkeypatch.setattr("eddy_bench.storage.run_folder.PACK_GROUPS", 2)
    left = [10**6]

    def counting(inner: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if left[0] == 0:
                raise Killed
            left[0] -= 1
            return inner(*arguments, **options)

        return call

    monkeypatch.setattr("eddy_bench.storage.run_folder.REMOVED_TOGETHER", 1)
    remote = not isinstance(path, Path)
    if remote:
        system: Any = type(path.fs)
        for name in ("pipe_file", "rm_file"):
            monkeypatch.setattr(system, name, counting(getattr(system, name)))
    else:
        for name in ("replace", "unlink", "rmdir", "fsync"):
            monkeypatch.setattr(os, name, counting(getattr(os, name)))
    steps = ends = 0
    while True:
        folder = drawn(path, planned(3))
        before, left[0] = contents(folder), steps
        try:
            pack(folder)
        except Killed:
            ends += 1
        else:
            break
        finally:
            left[0] = 10**6
        again = RunFolder(path)
        assert contents(again) == before, steps
        assert find_missing(planned(3), again, verify=True) == ([], []), steps
        again.clear_partial()
        pack(again)
        assert contents(again) == before, steps
        if remote:
            path.fs.store.clear()
        else:
            files = [own for own in again.samples.rglob("*") if own.is_file()]
            assert sorted(files) == pack_files(again)
            shutil.rmtree(path)
        steps += 1
    assert ends == steps > 10


def test_a_damaged_image_is_drawn_again_and_the_rest_is_kept(path: Path) -> None:
    folder = drawn(path, planned())
    before = contents(folder)
    pack(folder)
    damage(pack_files(folder)[0], part=before[3][2][0])
    with pytest.raises(StoreError, match=r"pack-000001-of-5-groups.parquet/iid/p\w+/0/0.png was"):
        contents(folder)
    missing, (note,) = find_missing(planned(), folder)
    assert missing == [before[3][0]]
    assert "pack-000001" in note
    assert note.endswith("drawn again")
    assert find_missing(planned(), folder)[0] == missing, "until it is drawn"
    draw(folder, missing)
    assert find_missing(planned(), folder) == ([], [])
    assert contents(folder) == before
    assert find_missing(planned(), folder, verify=True) == ([], []), "folders count first"
    pack(folder)
    assert contents(folder) == before, "the last pack counts"
    assert find_missing(planned(), folder, verify=True) == ([], [])


def test_several_damaged_groups_of_a_pack_are_one_line(tmp_path: Path) -> None:
    folder = drawn(tmp_path / "run", planned())
    before = contents(folder)
    pack(folder)
    for k in (0, 2, 3):
        damage(pack_files(folder)[0], part=before[k][2][1])
    with pytest.raises(StoreError):
        contents(folder)
    missing, (note,) = find_missing(planned(), folder)
    assert {own.path for own in missing} == {before[k][0].path for k in (0, 2, 3)}
    assert "3 broken groups in that pack" in note


def test_a_pack_that_cannot_be_read_is_told_in_one_line_and_its_groups_are_drawn_again(
    path: Path,
) -> None:
    folder = drawn(path, planned())
    before = contents(folder)
    pack(folder)
    own = pack_files(folder)[1]
    own.write_bytes(own.read_bytes()[:-100])
    broken: list[str] = []
    assert len(list(folder.finished(broken))) == COUNT - 5
    assert len(broken) == 5, "as many as the pack held"
    (line,) = set(broken)
    assert f"{own} (5 groups) is broken: " in line
    assert line.endswith("run again to redraw its groups")
    missing, (note,) = find_missing(planned(), folder)
    assert len(missing) == 5
    assert f"moved to {folder.path / 'broken'}" in note
    draw(folder, missing)
    assert contents(folder) == before
    assert find_missing(planned(), folder) == ([], [])
    assert len(pack_files(folder)) == 2


def test_records_that_cannot_be_read_are_drawn_again(tmp_path: Path) -> None:
    folder = drawn(tmp_path / "run", planned())
    before = contents(folder)
    pack(folder)
    own = pack_files(folder)[0]
    data, broken = own.read_bytes(), []
    for at in range(0, len(data), 7):  # until a block's records are hit
        damage(own, at)
        broken = []
        if len(list(folder.finished(broken))) == COUNT - 2:
            break
        own.write_bytes(data)
    assert len(broken) == 2
    missing, (note,) = find_missing(planned(), folder)
    assert len(missing) == 2
    assert "2 broken groups in that pack" in note
    draw(folder, missing)
    assert contents(folder) == before


def test_a_changed_byte_anywhere_is_never_taken_for_a_group(tmp_path: Path) -> None:
    folder = drawn(tmp_path / "run", planned(3))
    before = {group.path: (text, images) for group, text, images in contents(folder)}
    pack(folder)
    (own,) = pack_files(folder)
    data = own.read_bytes()
    for at in range(0, len(data), 23):
        damage(own, at)
        broken: list[str] = []
        for group in (there := list(folder.finished(broken))):
            assert group.text() == before[group.group.path][0], at
            assert images_or_error(group) in (before[group.group.path][1], "told"), at
        assert len(there) + len(broken) == 3, at
        own.write_bytes(data)


def images_or_error(group: FinishedGroup) -> list[bytes] | str:
    try:
        return group.contents()
    except StoreError:
        return "told"


def test_a_disk_that_fails_is_no_broken_pack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = drawn(tmp_path / "run", planned(5))
    pack(folder)

    def refuse(path: Path) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(packs, "open_file", refuse)
    with pytest.raises(StoreError, match=r"parquet cannot be read: Permission denied"):
        find_missing(planned(5), folder)
    assert len(pack_files(folder)) == 1


def test_a_full_disk_leaves_the_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = drawn(tmp_path / "run", planned(5))
    before = contents(folder)

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="No space left on device"):
        pack(folder)
    assert [own.name for own in folder.samples.iterdir()] == ["iid"]
    assert contents(folder) == before


def test_a_group_that_is_broken_or_not_alone_keeps_its_folder(tmp_path: Path) -> None:
    folder = drawn(tmp_path / "run", planned(5))
    (folder.samples / "iid/p1/0/notes.txt").write_text("mine")
    damage(folder.samples / "iid/p2/0/0.png", 20)
    (folder.samples / "iid/p3").rename(tmp_path / "elsewhere")
    (folder.samples / "iid/p3").symlink_to(tmp_path / "elsewhere")
    done = pack(folder)
    assert sorted(done.places) == ["iid/p0/0", "iid/p4/0"]
    assert [text for text in done.left if "notes" not in text] == done.left
    assert ["other files" in text for text in done.left] == [True, False, False]
    assert "changed after it was drawn" in done.left[1]
    assert "symbolic link" in done.left[2]
    assert (folder.samples / "iid/p1/0/notes.txt").read_text() == "mine"


def test_shards_in_packs_and_in_folders_merge(tmp_path: Path) -> None:
    one, other = (drawn(tmp_path / name, []) for name in ("one", "other"))
    draw(one, planned()[:7])
    draw(other, planned()[7:])
    pack(one)
    merge(tmp_path / "run", [one.path, other.path], Listener())
    whole = drawn(tmp_path / "whole", planned())
    merged = RunFolder(tmp_path / "run")
    assert contents(merged) == contents(whole)
    pack(merged)
    (note,) = told(lambda listener: merge(merged.path, [one.path, other.path], listener))
    assert "0 groups copied, 12 were there" in note
    own = pack_files(merged)[0]
    own.write_bytes(b"PAR1")
    lines = told(lambda listener: merge(merged.path, [one.path, other.path], listener))
    assert "5 groups copied, 7 were there" in lines[0]
    assert "copied again" in lines[1]
    assert contents(merged) == contents(whole)
    pack_files(one)[0].write_bytes(b"PAR1")
    with pytest.raises(StoreError, match=r"\(5 broken groups\). Merge when that is done"):
        merge(tmp_path / "more", [one.path, other.path], Listener())


def test_a_merge_packs_what_it_copies_and_what_was_there(tmp_path: Path) -> None:
    one, whole = drawn(tmp_path / "one", planned()[:9]), drawn(tmp_path / "whole", planned())
    merge(tmp_path / "run", [one.path], Listener())
    merge(tmp_path / "run", [whole.path], Listener(), pack=True)
    merged = RunFolder(tmp_path / "run")
    assert contents(merged) == contents(whole)
    assert not list(merged.samples.rglob("group.json"))
    assert len(pack_files(merged)) == 3, "nine that were there, three that came"


def test_groups_that_another_process_packs_meanwhile_are_told(tmp_path: Path) -> None:
    folder, broken = drawn(tmp_path / "run", planned()), []
    inner = folder.files()
    listed = Listed(inner.folders.names("*/*/*/group.json"))

    def before() -> Any:
        pack(RunFolder(folder.path))
        return replace(inner, folders=listed)

    folder.files = before  # type: ignore[method-assign]
    assert list(folder.finished(broken)) == []
    assert len(broken) == COUNT
    assert "went away while it was read: try again" in broken[0]


class Listed:
    """Folders as they were."""

    def __init__(self, listed: list[str]) -> None:
        self.listed = listed

    def size(self, name: str) -> int | None:
        return None

    def names(self, pattern: str) -> list[str]:
        return self.listed


def told(call: Callable[[Listener], Any]) -> list[str]:
    lines: list[str] = []

    class Told(Listener):
        def tell(self, text: str, kind: Any = "") -> None:
            lines.append(text)

    call(Told())
    return lines


def test_the_hold_out_is_packed_in_its_own_place(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "run", ("iid",))
    store = folder.reference()
    store.write_group(make_group(label="reference"), make_images(), COST, {})
    before = contents(store)
    pack(store)
    assert (contents(store), contents(folder)) == (before, [])
    assert [own.name for own in store.samples.iterdir()] == ["pack-000001-of-1-group.parquet"]
