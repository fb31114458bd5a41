"""A run folder may be anyone's: what is written in it stays in it, under names of every system."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eddy_bench.errors import EddyError, StoreError, line_of
from eddy_bench.storage.group import Entry, GroupIndex
from eddy_bench.storage.paths import is_reserved, read_many, safe_name
from eddy_bench.storage.run_folder import read_planned, read_run
from eddy_bench.suites.prompts import load_prompts, prompt_set_names, text_id
from eddy_bench.suites.suite import load_suite
from tests.conftest import Result
from tests.makers.groups import COST, make_folder, make_group, make_images
from tests.makers.runs import SHORT

Cli = Callable[..., Result]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from eddy_bench.cli.app import main

    folder = tmp_path_factory.mktemp("run") / "run"
    with pytest.raises(SystemExit):
        main([*SHORT, "--method", "antithetic", "--out", str(folder)])
    return folder


def contents(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def replace_by_link(path: Path, outside: Path) -> None:
    """Move what is at a path out of its folder, and leave a link to it."""
    if not path.exists():
        outside.mkdir() if path.suffix == "" else outside.write_text("{}\n")
    else:
        shutil.move(path, outside)
    path.symlink_to(outside)


ENTRIES = [
    "run.yaml",
    "samples.jsonl",
    "reference.jsonl",
    "manifest.json",
    "planned.json",
    "scores.csv",
    "scores.parquet",
    "summary.csv",
    ".lock",
    "samples",
    "reference",
    "grids",
    "features",
    "failed",
    "partial",
    "broken",
    "report.html",
]
DEEPER = ("samples/iid", "reference/reference")
WRITERS: dict[str, Callable[[Path], tuple[str | Path, ...]]] = {
    "run": lambda copy: (*SHORT, "--method", "pg", "--seeds", "2", "--out", copy),
    "score": lambda copy: ("score", copy, "--metric", "pdist[pixels]"),
    "merge": lambda copy: ("merge", copy, copy.with_name("other")),
    "report": lambda copy: ("report", copy),
}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("entry", ENTRIES)
def test_no_command_writes_through_a_link_in_a_run_folder(
    cli: Cli, tmp_path: Path, run: Path, entry: str, writer: str
) -> None:
    copy, outside = tmp_path / "copy", tmp_path / "outside"
    shutil.copytree(run, copy)
    shutil.copytree(run, tmp_path / "other")
    replace_by_link(copy / entry, outside)
    before = contents(outside) if outside.is_dir() else outside.read_bytes()
    done = cli(*WRITERS[writer](copy))
    after = contents(outside) if outside.is_dir() else outside.read_bytes()
    assert after == before
    assert done.code == 2
    assert f"{entry} is a symbolic link" in done.err
    assert "The run folder itself may be a link" in done.err


@pytest.mark.parametrize("place", DEEPER)
def test_no_group_is_written_through_a_link(
    cli: Cli, tmp_path: Path, run: Path, place: str
) -> None:
    copy, outside = tmp_path / "copy", tmp_path / "outside"
    shutil.copytree(run, copy)
    replace_by_link(copy / place, outside)
    before = contents(outside)
    done = cli(*SHORT, "--seeds", "2", "--out", copy)
    assert contents(outside) == before
    assert (done.code, "is a symbolic link" in done.err) == (2, True)


def test_a_reader_that_doubts_a_group_follows_no_link_of_the_index(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_text("mine\n")
    (tmp_path / "samples.jsonl").symlink_to(tmp_path / "theirs")
    with pytest.raises(StoreError, match="cannot be written"):
        GroupIndex(tmp_path / "samples.jsonl").add([Entry("a/b/0", "k", {})])
    assert (tmp_path / "theirs").read_text() == "mine\n"


def test_a_run_folder_may_itself_be_a_link(cli: Cli, tmp_path: Path, run: Path) -> None:
    shutil.copytree(run, tmp_path / "there")
    (tmp_path / "latest").symlink_to(tmp_path / "there")
    assert cli("score", tmp_path / "latest", "--metric", "pdist[pixels]").code == 0


def test_files_without_an_end_are_not_read(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "r")
    folder.write_group(make_group(), make_images(), COST, {})
    for path in (tmp_path / "r/samples/iid/p/0/0.png", tmp_path / "r/samples/iid/p/0/group.json"):
        path.unlink()
        path.symlink_to("/dev/zero")
        with pytest.raises(OSError, match="Not a file"):
            read_many([path])
    assert list(folder.finished(broken=[])) == []
    for name in ("samples.jsonl", "planned.json", "run.yaml", "manifest.json"):
        (tmp_path / "r" / name).unlink(missing_ok=True)
        os.mkfifo(tmp_path / "r" / name)
    assert folder.index.read() == {}
    for read in (read_planned, read_run):
        with pytest.raises(StoreError, match="a device or a pipe"):
            read(tmp_path / "r")


RESERVED = ["CON", "con", "nul.txt", "a.", "Aux", "COM1", "lpt9.x.y", "prn."]


@pytest.mark.parametrize("name", RESERVED)
def test_names_that_some_system_reserves_are_not_written(tmp_path: Path, name: str) -> None:
    (tmp_path / "p.yaml").write_text(json.dumps([{"id": name, "prompt": "a hat"}]))
    prompts = load_prompts(str(tmp_path / "p.yaml"))
    assert prompts.prompts[0].id == text_id("a hat")
    assert f"cannot name a folder ({name})" in prompts.notes[0]
    (tmp_path / "s.yaml").write_text(json.dumps({"name": name}))
    with pytest.raises(EddyError, match="cannot be a folder's on every system"):
        load_suite(str(tmp_path / "s.yaml"))
    with pytest.raises(EddyError, match="cannot be a folder's on every system"):
        load_suite(None, {"name": name})


@given(st.text() | st.sampled_from(RESERVED))
def test_a_name_that_is_made_is_one_of_every_system(text: str) -> None:
    name = safe_name(text)
    assert name
    assert not is_reserved(name)
    assert not name.startswith(".")
    assert not set(name) & set('/\\:*?"<>|\0\n')


def test_ids_of_our_prompts_are_names_of_every_system() -> None:
    for source in prompt_set_names():
        assert not [prompt.id for prompt in load_prompts(source).prompts if is_reserved(prompt.id)]


def test_memory_that_ends_is_one_line(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from eddy_bench.models import load

    for error in (MemoryError(), torch.OutOfMemoryError("CUDA out of memory")):

        def fail(*given: object, error: Exception = error, **named: object) -> None:
            raise error

        assert "Memory ran out. Free some" in str(line_of(error))
        monkeypatch.setattr(load, "_open_pipeline", fail)
        done = cli("run", "--method", "iid", "--dry-run")
        assert (done.code, done.err.count("\n")) == (2, 1)
        assert "emory" in done.err


LEAKING = """
import logging, sys, warnings
from eddy_bench.cli.app import main
import eddy_bench.cli.list as listing
before = listing.print_list
def loud(kind):
    import diffusers, transformers
    warnings.warn("a library's word")
    for name in ("diffusers.x", "transformers.y", "matplotlib.font_manager", "PIL.z", "timm.w"):
        logging.getLogger(name).warning("a library's word")
    before(kind)
listing.print_list = loud
main([*sys.argv[1:], "list", "models"])
"""


@pytest.mark.parametrize(("option", "said"), [([], False), (["-v"], True)])
def test_words_of_libraries_are_shown_with_v_alone(option: list[str], said: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LEAKING, *option], capture_output=True, text=True, check=True
    )
    assert ("a library's word" in done.stderr) == said
