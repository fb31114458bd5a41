"""Run folders at an address: the same files as on this machine, whole or absent after a kill at any
write, one process at a time.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from eddy_bench.errors import ParameterError, StoreError
from eddy_bench.experiment.draw import find_missing
from eddy_bench.storage.lock import BEAT, EXPIRY, Lease, _space, leased, locked
from eddy_bench.storage.paths import as_path, files_below, is_remote
from eddy_bench.storage.records import RunRecord, SuiteRecord
from eddy_bench.storage.run_folder import RunFolder, write_run
from tests.conftest import Result
from tests.makers.groups import COST, SETTINGS, make_group, make_images
from tests.makers.runs import RUN, SHORT, change_a_byte, image_hashes, scores

pytest.importorskip("upath", reason="needs the package universal_pathlib")
Cli = Callable[..., Result]
ADDRESS = "memory://bucket/run"


@pytest.fixture(autouse=True)
def memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An empty file system in memory, and leases that do not wait."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    system.pseudo_dirs[:] = [""]
    monkeypatch.setattr("eddy_bench.storage.lock.SETTLE", 0.0)
    yield system
    system.store.clear()


def remote() -> RunFolder:
    folder = RunFolder.prepare(as_path(ADDRESS), SETTINGS)
    write_run(folder.path, RunRecord(suite=SuiteRecord(), settings=SETTINGS))
    return folder


def test_a_run_at_an_address_is_the_run_on_this_machine(cli: Cli, tmp_path: Path) -> None:
    out = as_path(ADDRESS)
    here, there = cli(*RUN, "--out", tmp_path / "run"), cli(*RUN, "--out", ADDRESS)
    assert (here.code, there.code) == (0, 0), there.err
    assert f"{ADDRESS}/scores.csv" in there.out
    assert image_hashes(out) == image_hashes(tmp_path / "run")
    assert scores(out) == scores(tmp_path / "run")
    names = [
        {path.name for path in folder.iterdir() if path.is_file()} - {".lock"}
        for folder in (out, tmp_path / "run")
    ]
    assert names[0] == names[1], "and no lease is left"
    again = cli(*RUN, "--out", ADDRESS)
    assert "Nothing to draw" in again.err
    assert "Nothing to score" in again.err
    more = cli(*RUN, "--verify", "--method", "antithetic", "--out", ADDRESS)
    assert "Drew 6 groups" in more.err
    assert "kept 12" in more.err
    for command in (
        ("score", ADDRESS),
        ("compare", ADDRESS),
        ("compare", ADDRESS, "--against", tmp_path / "run", "--allow-missing"),
        ("report", ADDRESS),
    ):
        assert cli(*command).code == 0, command
    assert (out / "report.html").read_text().count("data:image") > 0
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_shards_at_an_address_merge_into_the_run(cli: Cli, tmp_path: Path) -> None:
    for share in ("1/2", "2/2"):
        assert cli(*RUN, "--shard", share, "--out", ADDRESS).code == 0
    merged = cli("merge", ADDRESS, f"{ADDRESS}-shard-1-of-2", f"{ADDRESS}-shard-2-of-2")
    assert merged.code == 0, merged.err
    assert cli(*RUN, "--out", tmp_path / "run").code == 0
    assert image_hashes(as_path(ADDRESS)) == image_hashes(tmp_path / "run")
    assert scores(as_path(ADDRESS)) == scores(tmp_path / "run")
    again = cli("merge", ADDRESS, f"{ADDRESS}-shard-*")
    assert f"{ADDRESS}: 0 groups copied, 18 were there." in again.err, again.err
    assert "found none" in cli("merge", ADDRESS, f"{ADDRESS}-other-*").err


class Killed(BaseException):
    """The end of a process, as far as its code can tell."""


def test_whole_groups_survive_a_kill_at_any_write(
    monkeypatch: pytest.MonkeyPatch, memory: Any
) -> None:
    """Three groups of two pictures, with the process ending after each single object: what is whole
    is kept, the rest is drawn again.
    """
    planned = [make_group(prompt_id=f"p{k}", key=str(k)) for k in range(3)]
    inner, left = type(memory).pipe_file, [0]

    def pipe_file(self: Any, path: str, value: bytes, **more: Any) -> Any:
        if left[0] == 0:
            raise Killed
        left[0] -= 1
        return inner(self, path, value, **more)

    monkeypatch.setattr(type(memory), "pipe_file", pipe_file)
    ends = 0
    for info in range(12):
        memory.store.clear()
        left[0] = 1000
        remote()
        left[0] = info
        try:
            for group in planned:
                folder = RunFolder(as_path(ADDRESS))
                folder.write_group(group, make_images(), COST, {})
        except Killed:
            ends += 1
        left[0] = 1000
        whole = min(3, info // 3)
        folder = RunFolder(as_path(ADDRESS))
        assert [finished.group.prompt_id for finished in folder.finished()] == [
            f"p{k}" for k in range(whole)
        ]
        missing, said = find_missing(planned, folder, False)
        assert (missing, said) == (planned[whole:], [])
        for group in missing:
            folder.write_group(group, make_images(), COST, {})
        assert find_missing(planned, RunFolder(as_path(ADDRESS)), True) == ([], [])
    assert ends == 9


def test_a_damaged_group_at_an_address_is_moved_aside() -> None:
    folder = remote()
    group = folder.write_group(make_group(), make_images(), COST, {})
    folder.index.flush()
    (group.folder / "1.png").write_bytes(b"")
    missing, (said,) = find_missing([make_group()], RunFolder(folder.path), False)
    assert missing == [make_group()]
    assert "is broken" in said
    assert f"{ADDRESS}/broken/" in said
    assert len(files_below(folder.path / "broken").names("*/*")) == 3
    assert files_below(folder.samples).names("*/*/*/*") == []


def test_an_address_that_looks_like_a_pattern_is_taken_literally(cli: Cli) -> None:
    run = (*SHORT, "--out", "memory://bucket/a [x]*?")
    assert cli(*run).code == 0
    (as_path("memory://bucket/a [x]*?") / "samples/iid/t-shirt/0/1.png").write_bytes(b"")
    done = cli(*run)
    assert (done.code, "Drew 1 group " in done.err) == (0, True), done.err
    assert "is held by" not in done.err, "the first run gave its lease back"


def test_the_index_is_written_in_steps() -> None:
    folder = remote()
    for k in range(130):
        folder.write_group(make_group(prompt_id=f"p{k}", key=str(k)), make_images(), COST, {})
    assert len(RunFolder(folder.path).index.read()) == 100
    find_missing(
        [make_group(prompt_id=f"p{k}", key=str(k)) for k in range(130)],
        RunFolder(folder.path),
        False,
    )
    assert len(RunFolder(folder.path).index.read()) == 130, (
        "what it lacked was read from the groups"
    )


def other(**changes: Any) -> str:
    return json.dumps(
        {
            "token": "other",
            "count": 3,
            "pid": 77,
            "host": "elsewhere",
            "space": "another boot",
            **changes,
        }
    )


def test_a_live_owner_is_named(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    note = as_path(ADDRESS) / ".lease"
    note.write_text(other())
    waited = []

    def wait(seconds: float) -> None:
        waited.append(seconds)
        note.write_text(other(count=3 + int(sum(waited) / BEAT)))

    with pytest.raises(StoreError, match="in use by process 77 on elsewhere"):
        Lease(note).take(wait)
    assert sum(waited) <= BEAT + EXPIRY / 4
    monkeypatch.setattr("eddy_bench.storage.lock.Lease.take.__defaults__", (wait, print))
    done = cli(*RUN, "--out", ADDRESS)
    assert (done.code, "in use by process 77 on elsewhere" in done.err) == (2, True), done.err


def test_a_silent_owner_is_replaced_whatever_the_clocks_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    note = as_path(ADDRESS) / ".lease"
    note.write_text(other())
    monkeypatch.setattr("time.time", lambda: -1e9)
    waited: list[float] = []
    lease = Lease(note)
    lease.take(waited.append)
    assert EXPIRY <= sum(waited) < EXPIRY + 2 * BEAT
    lease.give_back()
    assert not note.exists()


def test_a_dead_owner_on_this_machine_is_replaced_at_once() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"],
        capture_output=True,
        text=True,
        check=True,
    )
    note = as_path(ADDRESS) / ".lease"
    waited: list[float] = []
    for text in (other(pid=int(done.stdout), space=_space()), "{half writ"):
        note.write_text(text)
        waited.clear()
        Lease(note).take(waited.append)
        assert (sum(waited) < EXPIRY) == (text[1] == '"')


def until_it_raises(check: Callable[[], None]) -> None:
    for _ in range(300):
        time.sleep(0.01)
        check()


def test_a_second_owner_is_refused_and_one_that_slept_loses_its_lease(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("eddy_bench.storage.lock.BEAT", 0.01)
    note = as_path(ADDRESS) / ".lease"
    with pytest.raises(StoreError, match="in use by process 77"):
        Lease(note).take(lambda seconds: note.write_text(other()))
    note.unlink()
    with locked(as_path(ADDRESS)) as check_ownership:
        check_ownership()
        for _ in range(200):
            if json.loads(note.read_text())["count"] > 2:
                break
            time.sleep(0.01)
        note.write_text(other())
        with pytest.raises(StoreError, match="taken over by process 77"):
            until_it_raises(check_ownership)
    assert json.loads(note.read_text())["token"] == "other", "it is not ours to remove"


class NoCredentials(Exception):
    """As file systems have their own."""


def test_a_renewal_that_fails_once_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eddy_bench.storage.lock.BEAT", 0.01)
    calls = []
    inner = Lease.renew

    def renew(lease: Lease) -> None:
        calls.append(1)
        if len(calls) == 1:
            raise NoCredentials("the token is old")
        inner(lease)

    monkeypatch.setattr(Lease, "renew", renew)
    with leased(as_path(ADDRESS)) as check_ownership:
        for _ in range(300):
            if len(calls) > 3:
                break
            time.sleep(0.01)
        check_ownership()
    assert len(calls) > 3


def test_a_lease_whose_note_is_gone_is_lost() -> None:
    """Another process may have come and gone meanwhile."""
    with leased(as_path(ADDRESS)) as check_ownership:
        lease = Lease(
            as_path(ADDRESS) / ".lease",
            token=json.loads((as_path(ADDRESS) / ".lease").read_text())["token"],
        )
        lease.path.unlink()
        lease.renew()
        check_ownership()
    with pytest.raises(StoreError, match="taken over"):
        lease.check()


def test_a_lease_that_cannot_be_renewed_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def renew(lease: Lease) -> None:
        raise NoCredentials("the token is old")

    monkeypatch.setattr("eddy_bench.storage.lock.BEAT", 0.01)
    monkeypatch.setattr("eddy_bench.storage.lock.EXPIRY", 0.05)
    monkeypatch.setattr(Lease, "renew", renew)
    with (
        leased(as_path(ADDRESS)) as check_ownership,
        pytest.raises(StoreError, match="was not renewed for"),
    ):
        until_it_raises(check_ownership)


@pytest.mark.parametrize("info", ["drawing", "scoring", "merging"])
def test_a_folder_that_is_taken_over_is_left_alone(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, info: str
) -> None:
    """From then on nothing is written there."""
    if info != "drawing":
        out = "memory://bucket/share" if info == "merging" else ADDRESS
        assert cli(*RUN, "--out", out).code == 0
    checks = []

    def check(lease: Lease) -> None:
        checks.append(1)
        if len(checks) > (3 if info == "drawing" else 0):
            raise StoreError("taken over")

    monkeypatch.setattr(Lease, "check", check)
    command = {
        "drawing": (*RUN, "--out", ADDRESS),
        "scoring": ("score", ADDRESS, "--metric", "pdist"),
        "merging": ("merge", ADDRESS, "memory://bucket/share"),
    }
    done = cli(*command[info])
    assert (done.code, done.err.splitlines()[-1]) == (2, "Error: taken over")
    groups = files_below(as_path(ADDRESS) / "samples").names("*/*/*/group.json")
    assert len(groups) == {"drawing": 3, "scoring": 12, "merging": 0}[info]
    assert info != "scoring" or "pdist" not in (as_path(ADDRESS) / "scores.csv").read_text()


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("foo://bucket/run", "Unsupported"),
        ("memory://", "folder is missing"),
        ("github://x/y", "cannot be used"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_in_one_line(
    cli: Cli, address: str, message: str
) -> None:
    done = cli(*RUN, "--out", address)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert message in done.err


def test_an_address_without_its_package_names_what_to_install(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "upath", None)
    assert "eddy-bench[remote]" in cli(*RUN, "--out", ADDRESS).err
    with pytest.raises(ParameterError):
        as_path(ADDRESS)
    assert as_path(f"file://{os.getcwd()}") == Path.cwd()
    assert not is_remote(as_path("results/x"))


def test_a_file_system_that_does_not_answer_is_said_in_one_line(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, memory: Any
) -> None:
    def fails(*arguments: Any, **more: Any) -> Any:
        raise TimeoutError("timed out")

    monkeypatch.setattr(type(memory), "ls", fails)
    for command in ((*RUN, "--out"), ("score",), ("compare",), ("report",)):
        done = cli(*command, ADDRESS)
        assert (done.code, done.err) == (2, f"Error: {ADDRESS} cannot be reached: timed out.\n")


@pytest.mark.parametrize("function", ["pipe_file", "find", "info", "_open"])
def test_whatever_a_file_system_raises_is_one_line(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, memory: Any, function: str
) -> None:
    def fails(*arguments: Any, **more: Any) -> Any:
        raise NoCredentials("no credentials were found")

    monkeypatch.setattr(type(memory), function, fails)
    done = cli(*RUN, "--out", ADDRESS)
    assert (done.code, done.err.splitlines()[-1].count("no credentials were found")) == (2, 1), (
        done.err
    )


def test_hashes_are_checked_at_an_address() -> None:
    folder = remote()
    group = folder.write_group(make_group(), make_images(), COST, {})
    path = group.folder / "0.png"
    change_a_byte(path)
    assert hashlib.sha256(path.read_bytes()).hexdigest() != group.files["0.png"].sha256
    assert find_missing([make_group()], RunFolder(folder.path), False)[0] == []
    assert find_missing([make_group()], RunFolder(folder.path), True)[0] == [make_group()]
