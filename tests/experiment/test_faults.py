"""Faults, each put in on purpose: what is finished is kept, what is not is drawn again, and the
results are those of an undisturbed run.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from eddy_bench.errors import StoreError
from eddy_bench.experiment.batches import Batch, GroupResult, InProcess, OutOfMemory
from eddy_bench.experiment.draw import find_missing
from eddy_bench.experiment.events import Kind, Listener
from eddy_bench.experiment.merge import merge
from eddy_bench.experiment.options import parse_shard
from eddy_bench.models.base import Cost
from eddy_bench.results.io import read_table
from eddy_bench.storage.group import Group
from eddy_bench.storage.lock import locked
from eddy_bench.storage.run_folder import RunFolder, read_run, write_run
from tests.conftest import Result
from tests.makers.groups import COST, make_folder, make_group, make_images
from tests.makers.runs import RUN, change_a_byte, image_hashes, scores
from tests.makers.score_files import of

Cli = Callable[..., Result]


def start(
    folder: Path, *more: str, program: str = "from eddy_bench.cli import main; main()"
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *RUN, *more, "--out", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(reached: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    for _ in range(1200):
        if reached() or process.poll() is not None:
            return
        time.sleep(0.05)


SLOW_SCORING = """
import time, eddy_bench.experiment.score as s
inner = s.measure
def slow(*a):
    for value in inner(*a):
        time.sleep(0.3); yield value
s.measure = slow
from eddy_bench.cli import main; main()
"""
STUCK_WRITE = """
import os, time, eddy_bench.storage.run_folder as s
inner = os.replace
def replace(a, b):
    samples = __import__("pathlib").Path(str(b)).parent.parent.parent
    if len(list(samples.glob("*/*/*/group.json"))) >= 3 and "samples" in str(b):
        open(os.environ["STUCK"], "w").close(); time.sleep(60)
    return inner(a, b)
s.os.replace = replace
from eddy_bench.cli import main; main()
"""


@pytest.mark.parametrize("info", ["drawing", "writing", "scoring"])
def test_a_run_goes_on_after_sigkill_at_any_moment(
    cli: Cli, tmp_path: Path, undisturbed: Path, info: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At any info; the same command goes on and ends with the same images and scores."""
    out, stuck = tmp_path / "run", tmp_path / "stuck"
    monkeypatch.setenv("STUCK", str(stuck))
    program = {"scoring": SLOW_SCORING, "writing": STUCK_WRITE}.get(
        info, "from eddy_bench.cli import main; main()"
    )
    process = start(out, program=program)
    reached: dict[str, Callable[[], bool]] = {
        "drawing": lambda: len(list(out.glob("samples/*/*/*/group.json"))) >= 2,
        "writing": stuck.exists,
        "scoring": lambda: (
            len(list(out.glob("samples/*/*/*/group.json"))) == 12
            and any(out.glob("features/*/*.npz"))
        ),
    }
    wait_for(reached[info], process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    finished = len(list(out.glob("samples/*/*/*/group.json")))
    assert finished > 0
    if info == "writing":
        assert any((out / "partial").iterdir()), "it was killed between writing and moving"
    again = cli(*RUN, "--out", out)
    assert again.code == 0, again.err
    assert f"kept {finished}" in again.err or "Nothing to draw" in again.err
    assert image_hashes(out) == image_hashes(undisturbed)
    assert scores(out) == scores(undisturbed)
    assert not (out / "partial").exists() or not any((out / "partial").iterdir())


OLD_INSTRUCTIONS = {
    "ATEN_CPU_CAPABILITY": "default",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "MKL_CBWR": "COMPATIBLE",
}
SAYS_WHICH = (
    "import torch; assert torch.backends.cpu.get_cpu_capability() in ('DEFAULT', 'NO AVX'); "
    "from eddy_bench.cli import main; main()"
)


def test_another_kind_of_machine_changes_last_digits_only(
    tmp_path: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other instructions and other batches change last digits only: the tolerance that
    docs/reliability.md states.
    """
    for name, value in OLD_INSTRUCTIONS.items():
        monkeypatch.setenv(name, value)
    process = start(tmp_path / "run", "--batch-prompts", "3", program=SAYS_WHICH)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    names = image_hashes(undisturbed)
    assert names.keys() == image_hashes(tmp_path / "run").keys()
    for name in names:
        expected, drawn = (
            np.asarray(Image.open(folder / name)).astype(int)
            for folder in (undisturbed, tmp_path / "run")
        )
        assert np.abs(expected - drawn).max() <= 2, name
    tables = [read_table(folder / "scores.csv") for folder in (undisturbed, tmp_path / "run")]
    here, there = (
        table[of(table, "vendi")].set_index(["method", "prompt_id"])["value"] for table in tables
    )
    assert (here - there).abs().max() < 0.01


STUBBORN = """
import contextlib, os, time, eddy_bench.experiment.experiment as c
inner = c.locked
@contextlib.contextmanager
def stubborn(folder, tell):
    try:
        with inner(folder, tell) as check:
            yield check
    finally:
        open(os.environ["STUCK"], "w").close(); time.sleep(120)
c.locked = stubborn
from eddy_bench.cli import main; main()
"""


def test_a_second_ctrl_c_ends_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one does not wait for what the first one set off."""
    stuck = tmp_path / "stuck"
    monkeypatch.setenv("STUCK", str(stuck))
    process = start(tmp_path / "run", "--limit", "48", "--steps", "20", program=STUBBORN)
    wait_for(lambda: any(tmp_path.glob("run/samples/*/*/*/group.json")), process)
    process.send_signal(signal.SIGINT)
    wait_for(stuck.exists, process)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in said
    assert "goes on from there" in said


def test_a_damaged_group_is_drawn_again(cli: Cli, tmp_path: Path, undisturbed: Path) -> None:
    out = tmp_path / "run"
    assert cli(*RUN, "--out", out).code == 0
    groups = sorted(out.glob("samples/iid/*/0"))
    (groups[0] / "0.png").write_bytes((groups[0] / "0.png").read_bytes()[:50])
    (groups[1] / "group.json").write_text((groups[1] / "group.json").read_text()[:100])
    (groups[2] / "1.png").unlink()
    again = cli(*RUN, "--out", out)
    assert again.code == 0, again.err
    assert "Drew 3 groups" in again.err
    assert image_hashes(out) == image_hashes(undisturbed)
    assert len(list((out / "broken").iterdir())) == 3, "nothing is thrown away"
    change_a_byte(groups[3] / "0.png")
    assert "Nothing to draw" in cli(*RUN, "--out", out).err, "sizes alone do not show it"
    verified = cli(*RUN, "--out", out, "--verify")
    assert "was changed after it was drawn" in verified.err
    assert image_hashes(out) == image_hashes(undisturbed)


def test_a_changed_image_is_told_at_scoring_and_drawn_by_the_next_run(
    cli: Cli, tmp_path: Path, undisturbed: Path
) -> None:
    out = tmp_path / "run"
    assert cli(*RUN, "--out", out).code == 0
    change_a_byte(next(out.glob("samples/pg/*/0")) / "0.png")
    for file in out.glob("features/*/*.npz"):
        file.unlink()
    done = cli("score", out, "--metric", "vendi")
    assert (done.code, "was changed after it was drawn" in done.err) == (2, True)
    assert "Drew 1 group " in cli(*RUN, "--out", out).err
    assert image_hashes(out) == image_hashes(undisturbed)


def test_a_full_disk_keeps_whole_groups_and_the_run_goes_on(
    cli: Cli, tmp_path: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, inner, written = tmp_path / "run", Path.write_bytes, [0]

    def full(path: Path, data: bytes) -> int:
        if path.suffix == ".png":
            written[0] += 1
            if written[0] > 7:
                raise OSError(errno.ENOSPC, "No space left on device")
        return inner(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    done = cli(*RUN, "--out", out)
    assert done.code == 2
    assert done.err.splitlines()[-1].startswith("Error:")
    assert "No space left on device" in done.err
    assert "Traceback" not in done.err
    kept = image_hashes(out)
    assert len(kept) == 6, "three whole groups"
    monkeypatch.undo()
    assert cli(*RUN, "--out", out).code == 0
    assert image_hashes(out) == image_hashes(undisturbed)


ON_A_SMALL_DISK = """
mount -t tmpfs -o size=150k tmpfs "$1" || exit 77
"$2" -m eddy_bench.cli "${@:3}" --out "$1/run"; echo "first: $?" >&2
mount -o remount,size=50m "$1"
"$2" -m eddy_bench.cli "${@:3}" --out "$1/run"; echo "second: $?" >&2
cp -r "$1/run" "$1.copy"
"""


def test_a_run_goes_on_after_a_disk_that_is_really_full(tmp_path: Path, undisturbed: Path) -> None:
    """A file system of 150 kB of its own, which grows between the two runs."""
    disk = tmp_path / "disk"
    disk.mkdir()
    script = [
        "unshare",
        "-rm",
        "bash",
        "-c",
        ON_A_SMALL_DISK,
        "bash",
        str(disk),
        sys.executable,
        *RUN,
    ]
    try:
        done = subprocess.run(script, capture_output=True, text=True, check=False, timeout=300)
    except FileNotFoundError:
        pytest.skip("needs unshare")
    if done.returncode == 77 or "unshare:" in done.stderr:
        pytest.skip("may not mount a file system")
    lines = done.stderr.splitlines()
    first = lines.index("first: 2")
    assert "No space left on device" in lines[first - 1]
    assert lines[first - 1].startswith("Error:")
    assert lines[-1] == "second: 0", done.stderr
    assert "Traceback" not in done.stderr
    kept = next(line for line in lines[first:] if line.startswith("Drew"))
    assert "kept 0" not in kept, "some groups fitted"
    assert image_hashes(tmp_path / "disk.copy") == image_hashes(undisturbed)
    assert scores(tmp_path / "disk.copy") == scores(undisturbed)


FAULTY = """
from dataclasses import dataclass
import torch
from eddy_bench import Method
@dataclass(frozen=True)
class Faulty(Method):
    kind: str = "raise"
    def guidance(self, state):
        force = torch.zeros_like(state.score)
        for k, g in enumerate(state.generators):
            if g.initial_seed() == {seed}:
                if self.kind == "raise":
                    raise RuntimeError("boom")
                force[k] = float("nan")
        return force
"""


@pytest.mark.parametrize(("kind", "words"), [("raise", "boom"), ("nan", "not finite")])
def test_a_method_that_fails_for_one_prompt_loses_that_group_only(
    cli: Cli, tmp_path: Path, kind: str, words: str
) -> None:
    from eddy_bench.sampling.noise import probe_generator
    from eddy_bench.suites.prompts import load_prompts

    prompt = load_prompts("fashion").prompts[3]
    seed = probe_generator(0, prompt.text).initial_seed()
    (tmp_path / "faulty.py").write_text(FAULTY.replace("{seed}", str(seed)))
    out = tmp_path / "run"
    done = cli(
        *RUN[:-4],
        "--method",
        "iid",
        "--method",
        f"{tmp_path}/faulty.py:Faulty:kind={kind}",
        "--out",
        out,
    )
    assert done.code == 2
    assert done.err.count("Failed:") == 1
    assert words in done.err
    table = pd.read_csv(out / "scores.csv")
    counts = table[of(table, "vendi")].groupby("method")["prompt_id"].nunique().to_dict()
    faulty = "Faulty" if kind == "raise" else "Faulty:kind=nan"  # `raise` is its default
    assert counts == {"iid": 6, faulty: 5}
    (failed,) = (out / "failed").glob("*/*/*.json")
    assert json.loads(failed.read_text())["group"]["prompt_id"] == prompt.id
    again = cli(
        *RUN[:-4],
        "--method",
        "iid",
        "--method",
        f"{tmp_path}/faulty.py:Faulty:kind={kind}",
        "--out",
        out,
    )
    assert (again.code, "kept 11" in again.err) == (2, True), (
        "it is tried again, and the rest is not"
    )


def test_a_folder_in_use_is_refused(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    with locked(out):
        done = cli(*RUN, "--out", out)
        assert done.code == 2
        assert f"in use by process {os.getpid()} on " in done.err
    assert cli(*RUN, "--out", out).code == 0
    with locked(out):
        assert cli("score", out).code == 2


def test_the_second_of_two_processes_is_refused_while_the_first_lives(
    tmp_path: Path, cli: Cli
) -> None:
    """The second one is refused, and the first one ends undisturbed when it may."""
    out = tmp_path / "run"
    first = start(out, "--limit", "48", "--steps", "20")
    wait_for(
        lambda: (
            (out / ".lock").is_file() and f"process {first.pid} " in (out / ".lock").read_text()
        ),
        first,
    )
    second = cli(*RUN, "--limit", "48", "--steps", "20", "--out", out)
    first.kill()
    first.communicate()
    assert (second.code, f"in use by process {first.pid} on " in second.err) == (2, True), (
        second.err
    )
    assert cli(*RUN, "--limit", "1", "--steps", "20", "--out", out).code == 0, (
        "a lock ends with its process"
    )


def test_groups_are_set_aside_under_different_names_whatever_the_clock_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_folder(tmp_path / "r")
    monkeypatch.setattr("eddy_bench.storage.run_folder.time.time_ns", lambda: 5)
    for _ in range(3):
        folder.write_group(make_group(), make_images(), COST, {})
        (folder.samples / make_group().path / "0.png").write_bytes(b"")
        folder.set_aside(make_group().path)
    assert len(list((folder.path / "broken").iterdir())) == 3


def test_memory_that_runs_out_makes_later_batches_smaller() -> None:
    """Only from there on are batches smaller, and every group is drawn once."""
    groups = tuple(make_group(prompt_id=f"p{k}", key=str(k)) for k in range(8))
    sizes = []

    def draw(batch: Batch) -> list[GroupResult]:
        sizes.append(batch.size)
        if batch.size > 2 and any(group.key == "5" for group in batch.groups):
            raise OutOfMemory
        return [GroupResult(group, (b"",), Cost(), batch.size) for group in batch.groups]

    notes: list[str] = []
    results = list(InProcess(draw).run([Batch(groups[:4], 4), Batch(groups[4:], 4)], notes))
    assert [result.group.key for result in results] == [str(k) for k in range(8)]
    assert sizes == [4, 4, 2, 2]
    assert len(notes) == 1


def finished_run(path: Path, count: int, start: int = 0) -> Iterator[Group]:
    """Groups of a run, written quickly."""
    folder = make_folder(path)
    for k in range(start, start + count):
        group = make_group(prompt_id=f"p{k}", key=str(k))
        folder.write_group(group, make_images(), COST, {})
        yield group


def test_a_cut_off_or_lost_index_is_read_from_the_groups(tmp_path: Path) -> None:
    groups = list(finished_run(tmp_path / "r", 5))
    folder = RunFolder(tmp_path / "r")
    index = folder.index.path
    assert len(index.read_text().splitlines()) == 5
    index.write_text(index.read_text()[:-30])
    more = make_group(prompt_id="p9", key="9")
    folder.write_group(more, make_images(), COST, {})
    assert set(folder.index.read()) == {f"iid/p{k}/0" for k in (0, 1, 2, 3, 9)}, (
        "the line that was cut off does not take the next one along"
    )
    assert find_missing([*groups, more], folder, False) == ([], [])
    assert len(folder.index.read()) == 6
    index.unlink()
    assert find_missing([*groups, more], folder, False) == ([], [])
    index.write_bytes(b'\xff\xfe{}\n[]\n3\nnull\n{"place": 1}\n')
    assert find_missing(groups, folder, False) == ([], [])


class Heard(Listener):
    """Everything that was told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def tell(self, text: str, kind: Kind = "") -> None:
        self.lines.append(text)


def test_merging_copies_whole_groups_once_and_refuses_what_differs(tmp_path: Path) -> None:
    whole = [*finished_run(tmp_path / "a", 3), *finished_run(tmp_path / "b", 2, 3)]
    heard = Heard()
    for _ in range(2):
        assert merge(tmp_path / "all", [tmp_path / "a", tmp_path / "b"], heard) == 0
    assert "5 groups copied, 0 were there" in heard.lines[0]
    assert "0 groups copied, 5 were there" in heard.lines[1]
    folder = RunFolder(tmp_path / "all")
    assert find_missing(whole, folder, True) == ([], [])
    (tmp_path / "a/samples/iid/p0/0/0.png").write_bytes(b"x")
    with pytest.raises(StoreError, match="broken"):
        merge(tmp_path / "other", [tmp_path / "a", tmp_path / "b"], heard)
    record = read_run(tmp_path / "b")
    settings = record.settings.model_copy(update={"steps": 3})
    write_run(tmp_path / "b", record.model_copy(update={"settings": settings}))
    with pytest.raises(StoreError, match="another steps"):
        merge(tmp_path / "third", [tmp_path / "all", tmp_path / "b"], heard)
    with pytest.raises(StoreError, match="among the folders"):
        merge(tmp_path / "all", [tmp_path / "all"], heard)


def test_shards_hold_every_group_once() -> None:
    batches = [Batch((make_group(prompt_id=f"p{k}"),), 1) for k in range(11)]
    shards = [parse_shard(f"{k}/3").of(batches) for k in (1, 2, 3)]
    assert sorted(group.prompt_id for shard in shards for group in shard) == sorted(
        f"p{k}" for k in range(11)
    )
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "1/0", "-1/2"])
def test_a_text_that_is_no_shard_is_refused(cli: Cli, tmp_path: Path, text: str) -> None:
    done = cli(*RUN, "--shard", text, "--out", tmp_path / "run")
    assert (done.code, "--shard i/n" in done.err) == (2, True)


def test_merged_shards_of_a_run_are_the_run(cli: Cli, tmp_path: Path, undisturbed: Path) -> None:
    for k in (1, 2):
        assert cli(*RUN, "--shard", f"{k}/2", "--out", tmp_path / "x").code == 0
    assert not (tmp_path / "x").exists()
    done = cli("merge", tmp_path / "x", tmp_path / "x-shard-1-of-2", tmp_path / "x-shard-2-of-2")
    assert done.code == 0, done.err
    assert image_hashes(tmp_path / "x") == image_hashes(undisturbed)
    assert scores(tmp_path / "x") == scores(undisturbed)


def test_images_without_colour_are_written_and_loaded(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "r")
    image = Image.new("L", (4, 4))
    written = folder.write_group(make_group(), [image, image], COST, {})
    loaded: Any = folder.load(make_group().path, folder.files())
    assert loaded.files == written.files


@pytest.mark.slow
def test_a_short_soak_ends_with_the_same_images_and_scores(tmp_path: Path) -> None:
    script = Path(__file__).with_name("soak.py")
    command = [
        sys.executable,
        str(script),
        "--kills",
        "4",
        "--limit",
        "6",
        "--",
        "--steps",
        "6",
        "--batch-prompts",
        "2",
        "--method",
        "iid",
        "--method",
        "pg",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "images the same, scores the same" in done.stdout
    assert "killed after" in done.stdout
