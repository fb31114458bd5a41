"""`run --pack`: the images, scores and pages are those of a run in folders."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eddy_bench.notebook import load_run
from eddy_bench.storage import packs
from eddy_bench.storage.run_folder import RunFolder
from tests.conftest import Result
from tests.makers.runs import RUN, image_hashes, scores

Cli = Callable[..., Result]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packs of five groups, written while drawing goes on."""
    monkeypatch.setattr("eddy_bench.storage.run_folder.PACK_GROUPS", 5)
    monkeypatch.setattr("eddy_bench.experiment.draw.PACK_GROUPS", 5)
    monkeypatch.setattr(packs, "BLOCK_GROUPS", 2)


def images(run: Path) -> dict[str, list[bytes]]:
    """The images of all groups, the hold-out set's included."""
    folder = RunFolder(run)
    groups = [*folder.finished(), *folder.reference().finished()]
    return {own.group.path.as_posix(): own.contents() for own in groups}


def packed(run: Path) -> list[str]:
    """The files below the samples and the hold-out set, all of which are packs."""
    files = [own for name in ("samples", "reference") for own in (run / name).rglob("*")]
    assert all(own.match("pack-*.parquet") for own in files if own.is_file()), files
    return [own.name for own in files if own.is_file()]


def test_a_packed_run_is_the_run_in_folders(cli: Cli, undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = cli("-v", *RUN, "--pack", "--out", out)
    assert done.code == 0, done.err
    assert "Packed 2 groups" in done.err, "of 12, the others while it drew"
    assert len(packed(out)) == 5
    assert images(out) == images(undisturbed)
    assert scores(out) == scores(undisturbed)
    for grid in undisturbed.glob("grids/*.png"):
        assert (out / "grids" / grid.name).read_bytes() == grid.read_bytes()
    again = cli(*RUN, "--out", out)
    assert "Nothing to draw" in again.err
    assert "Nothing to score" in again.err
    for command in (("compare", out), ("compare", out, "--against", undisturbed)):
        assert cli(*command).code == 0, command
    pages = [page(cli, run) for run in (out, undisturbed_copy(undisturbed, tmp_path))]
    assert pages[0].count("data:image") == pages[1].count("data:image") > 0
    assert load_run(out).images("pg", "dress")[0].size == (32, 32)


def undisturbed_copy(undisturbed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(undisturbed, tmp_path / "copy"))


def page(cli: Cli, run: Path) -> str:
    done = cli("report", run)
    assert done.code == 0, done.err
    return (run / "report.html").read_text()


def test_an_existing_run_is_packed_and_goes_on_in_folders(
    cli: Cli, undisturbed: Path, tmp_path: Path
) -> None:
    out = undisturbed_copy(undisturbed, tmp_path)
    done = cli(*RUN, "--pack", "--out", out)
    assert "Nothing to draw" in done.err
    assert "Nothing to score" in done.err
    assert images(out) == images(undisturbed)
    assert len(packed(out)) == 5
    more = cli(*RUN, "--method", "antithetic", "--out", out)
    assert "Drew 6 groups" in more.err
    assert "kept 12" in more.err
    assert {name.split("/")[1] for name in image_hashes(out)} == {"antithetic"}
    assert cli("score", out, "--metric", "pdist").code == 0


def test_a_damaged_pack_is_told_by_score_and_drawn_again_by_run(
    cli: Cli, undisturbed: Path, tmp_path: Path
) -> None:
    out = undisturbed_copy(undisturbed, tmp_path)
    RunFolder(out).pack(lambda count, label: None, lambda: None)
    own = sorted((out / "samples").glob("pack-*"))[1]
    own.write_bytes(own.read_bytes()[:500])
    told = cli("score", out, "--metric", "vendi")
    assert told.code == 0
    (line,) = [line for line in told.err.splitlines() if own.name in line]
    assert "left out 5 broken groups" in line
    assert "run again to redraw its groups" in line
    done = cli(*RUN, "--pack", "--out", out)
    assert "Drew 5 groups" in done.err
    (line,) = [line for line in done.err.splitlines() if own.name in line]
    assert "moved to" in line
    assert images(out) == images(undisturbed)
    assert scores(out) == scores(undisturbed)


@pytest.mark.slow
def test_packed_shards_merge_into_the_run(cli: Cli, undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shards = [tmp_path / f"run-shard-{k}-of-2" for k in (1, 2)]
    for k, more in ((1, ["--pack"]), (2, [])):
        assert cli(*RUN, "--shard", f"{k}/2", *more, "--out", out).code == 0
    merged = cli("merge", out, *shards)
    assert merged.code == 0, merged.err
    assert images(out) == images(undisturbed)
    assert scores(out) == scores(undisturbed)


@pytest.mark.slow
def test_a_packed_run_at_an_address_is_the_run(
    cli: Cli, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("upath", reason="needs the package universal_pathlib")
    import fsspec

    from eddy_bench.storage.paths import as_path

    monkeypatch.setattr("eddy_bench.storage.lock.SETTLE", 0.0)
    system: Any = fsspec.filesystem("memory")
    system.store.clear()
    out = as_path("memory://bucket/run")
    try:
        done = cli(*RUN, "--pack", "--out", str(out))
        assert done.code == 0, done.err
        assert images(out) == images(undisturbed)
        assert scores(out) == scores(undisturbed)
        assert "Nothing to draw" in cli(*RUN, "--out", str(out)).err
        assert page(cli, out).count("data:image") > 0
        names = [name for name in system.store if "/samples/" in name or "/reference/" in name]
        assert all(name.endswith(".parquet") for name in names)
    finally:
        system.store.clear()
