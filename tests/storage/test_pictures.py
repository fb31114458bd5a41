"""Pictures of others: whatever their headers say, one line and no other program."""

from __future__ import annotations

import io
import shutil
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from eddy_bench.compare.preference import HEADER
from eddy_bench.storage.files import open_picture
from eddy_bench.storage.group import FinishedGroup
from eddy_bench.storage.run_folder import RunFolder
from tests.conftest import Result
from tests.makers.runs import SHORT
from tests.makers.scored_runs import make_run

Cli = Callable[..., Result]


def png(width: int = 8, height: int = 8, side: int = 8) -> bytes:
    """A picture whose header says another size."""
    buffer = io.BytesIO()
    Image.new("L", (side, side)).save(buffer, "PNG")
    data = bytearray(buffer.getvalue())
    header = b"IHDR" + struct.pack(">II", width, height) + data[24:29]
    data[12:33] = header + struct.pack(">I", zlib.crc32(header))
    return bytes(data)


def encoded(form: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, form)
    return buffer.getvalue()


WRONG = {
    "a huge header": png(50_000, 50_000),
    "a large header": png(9_000, 9_000),
    "more than there is": png(4000, 4000),
    "nothing across": png(0, 8),
    "no picture": b"nothing",
    "empty": b"",
    "cut": png()[:40],
    "a text that unpacks": png()[:33]
    + struct.pack(">I", 10)
    + b"zTXta\0\0"
    + zlib.compress(bytes(2**24))
    + png()[33:],
    **{form: encoded(form) for form in ("EPS", "TIFF", "BMP", "ICO", "PCX", "PPM", "JPEG", "GIF")},
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_png_of_a_size_that_is_drawn_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="Error: "):
        open_picture(io.BytesIO(WRONG[name]), ("PNG",))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60), st.integers(0, 200))
def test_damage_anywhere_is_a_value_error(damage: bytes, place: int) -> None:
    content = bytearray(encoded("PNG"))
    content[place : place + len(damage)] = damage
    try:
        open_picture(io.BytesIO(bytes(content)), ("PNG",))
    except ValueError:
        return


def replace_image(folder: Path, content: bytes) -> None:
    """Put other bytes in the place of an image, and their hash and size in its group.json."""
    store = RunFolder(folder)
    group: FinishedGroup = next(iter(store.finished()))
    images = [content, *group.contents()[1:]]
    shutil.rmtree(group.folder)
    store.write_group(group.group, images, group.cost, {})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from eddy_bench.cli.app import main

    folder = tmp_path_factory.mktemp("run") / "run"
    with pytest.raises(SystemExit):
        main([*SHORT, "--out", str(folder)])
    return folder


@pytest.mark.parametrize("name", ["a huge header", "EPS", "no picture"])
def test_every_command_that_reads_images_says_it_in_one_line(
    cli: Cli, tmp_path: Path, run: Path, name: str
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    replace_image(copy, WRONG[name])
    for call in (
        ("score", copy, "--metric", "pdist[pixels]"),
        ("merge", tmp_path / "merged", copy),
        (*SHORT, "--out", copy),
    ):
        done = cli(*call)
        assert done.code in (0, 2), done.err  # a traceback would have ended the test
    assert cli("report", copy).code in (0, 2)
    assert cli("report", copy, "--blind").code == 2


@pytest.mark.parametrize("name", ["a huge header", "EPS"])
def test_reference_images_are_refused_alike(cli: Cli, tmp_path: Path, run: Path, name: str) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "0.png").write_bytes(WRONG[name])
    done = cli("score", run, "--metric", "kid", "--reference", tmp_path / "real")
    assert done.code == 2
    assert "cannot be read as an image" in done.err


def test_votes_of_many_shuffles_are_counted_first(cli: Cli, tmp_path: Path) -> None:
    scored = make_run(tmp_path / "scored")
    lines = [",".join(HEADER), *(f"x{k},{k},left,left,me" for k in range(400_000))]
    (tmp_path / "v.csv").write_text("\n".join(lines))
    start = time.perf_counter()
    done = cli("compare", scored, "--votes", tmp_path / "v.csv")
    assert done.code == 2
    assert "Expected at most 1,000,000 pairs over all shuffles of the votes, got" in done.err
    assert time.perf_counter() - start < 60  # hours, where each pair is looked at
