"""What can be wrong inside a run folder: each is drawn or scored again, or said in one line;
nothing is counted twice, and nothing leaves the folder.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from eddy_bench.errors import SuiteError
from eddy_bench.experiment.events import Listener
from eddy_bench.experiment.score import ScoringRequest, score_again
from eddy_bench.methods.registry import build_method
from eddy_bench.results.io import read_table
from eddy_bench.storage.files import parse_yaml, read_arrays
from eddy_bench.storage.lock import locked
from eddy_bench.storage.run_folder import RunFolder
from eddy_bench.suites.method_spec import MethodSpec
from tests.conftest import Result
from tests.makers.groups import COST, make_folder, make_group, make_images
from tests.makers.runs import RUN, change_a_byte, image_hashes, scores
from tests.makers.score_files import of

Cli = Callable[..., Result]
DRIFT = (*RUN, "--metric", "drift")


@pytest.fixture
def run(undisturbed: Path, tmp_path: Path) -> Path:
    """A copy of a finished run."""
    return Path(shutil.copytree(undisturbed, tmp_path / "run"))


def says(done: Result, code: int = 2) -> str:
    """The one line of an error."""
    assert done.code == code, done.err
    assert "Traceback" not in done.err
    assert code == 0 or done.err.splitlines()[-1].startswith("Error: "), done.err
    return done.err.splitlines()[-1]


def test_images_of_another_size_than_the_other_groups_are_one_line(cli: Cli, run: Path) -> None:
    folder = run / "samples" / "pg" / "dress" / "0"
    record = json.loads((folder / "group.json").read_text())
    for name, info in record["files"].items():
        image = Image.new("L", (64, 64))
        image.save(folder / name)
        content = (folder / name).read_bytes()
        info.update(size=len(content), sha256=hashlib.sha256(content).hexdigest())
    (folder / "group.json").write_text(json.dumps(record))
    assert "of one size under pixels" in says(cli("score", run, "--metric", "pdist[pixels]"))


def test_what_is_made_again_or_lost_is_told(cli: Cli, run: Path) -> None:
    (features,) = run.glob("features/*/iid.npz")
    features.write_bytes(b"no arrays")
    (run / "scores.parquet").write_bytes(b"no table")
    done = cli("score", run, "--metric", "pdist")
    assert done.code == 0
    assert f"{features} could not be read; its features are computed again" in done.err
    assert "values of single images of metrics that are kept are gone" in done.err
    again = cli("score", run, "--metric", "pdist")
    assert "could not be read" not in again.err
    assert "are gone" not in again.err


def test_a_manifest_that_is_replaced_is_told(cli: Cli, run: Path, tmp_path: Path) -> None:
    """It holds the environments of earlier images, and tags."""
    merged = tmp_path / "merged"
    commands = (("score", run, "--metric", "pdist"), ("merge", merged, run), (*RUN, "--out", run))
    for command in commands:
        (run / "manifest.json").write_text("{")
        done = cli(*command)
        assert done.code == 0, done.err
        told = " ".join(done.err.split())
        assert told.count(f"{run / 'manifest.json'} could not be read and is replaced") == 1, told
    assert "manifest.json" not in cli(*RUN, "--out", run).err


def test_merging_tells_which_broken_group_was_in_the_way(
    cli: Cli, run: Path, tmp_path: Path
) -> None:
    merged = tmp_path / "merged"
    assert cli("merge", merged, run).code == 0
    (merged / "samples" / "pg" / "dress" / "0" / "0.png").unlink()
    done = cli("merge", merged, run)
    assert done.code == 0
    assert f"moved to {merged / 'broken'}" in done.err
    assert "copied again" in done.err
    assert "copied again" not in cli("merge", merged, run).err


def replace_by_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def in_time(call: Callable[[], Result]) -> Result:
    """What a call returns, within half a minute."""

    def stop(signum: int, frame: Any) -> None:
        raise TimeoutError("it waits")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(30)
    try:
        return call()
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def test_nothing_waits_for_a_pipe_in_a_run_folder(cli: Cli, run: Path) -> None:
    for path in [path for path in run.rglob("*") if path.is_file() and path.name != "run.yaml"]:
        if "samples" not in path.parts or (path.parent.name == "0" and path.name == "group.json"):
            replace_by_pipe(path)
    for command in (("score",), ("compare",), ("report",)):
        says(in_time(lambda command=command: cli(*command, run)), 2)
    assert "Remove it" in says(in_time(lambda: cli(*DRIFT, "--out", run)))
    (run / "planned.json").unlink()
    says(in_time(lambda: cli(*DRIFT, "--out", run)), 0)
    for command in (("score",), ("compare",), ("report",)):
        assert in_time(lambda command=command: cli(*command, run)).code == 0


def test_a_file_of_arrays_takes_no_more_memory_than_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, rows=np.zeros((1000, 100)))
    assert read_arrays(path)["rows"].shape == (1000, 100)
    np.savez_compressed(path, rows=np.zeros((1000, 100)))
    with pytest.raises(ValueError, match="unpacks to more"):
        read_arrays(path)


@pytest.mark.parametrize("name", ["samples/iid/dress/0/1.png", "reference/reference/dress/0/0.png"])
@pytest.mark.parametrize("command", [("score", "--metric", "vendi", "--metric", "drift"), DRIFT])
def test_a_changed_image_is_drawn_again_by_the_next_run(
    cli: Cli, run: Path, undisturbed: Path, name: str, command: tuple[str, ...]
) -> None:
    shutil.rmtree(run / "features")
    change_a_byte(run / name)
    where = (str(run),) if command[0] == "score" else ("--out", str(run))
    assert "changed after it was drawn. Run again" in says(cli(*command, *where))
    again = cli(*DRIFT, "--out", run)
    says(again, 0)
    assert "moved to" in again.err
    assert image_hashes(run) == image_hashes(undisturbed)
    assert (run / name).read_bytes() == (undisturbed / name).read_bytes()


def test_a_changed_image_is_refused_though_its_features_are_kept(
    cli: Cli, run: Path, undisturbed: Path
) -> None:
    """It is told by the grids, and by a shard that is merged."""
    change_a_byte(run / "samples/iid/dress/0/1.png")
    assert "changed after it was drawn" in says(cli("score", run, "--metric", "vendi"))
    says(cli(*RUN, "--out", run), 0)
    assert image_hashes(run) == image_hashes(undisturbed)
    change_a_byte(run / "samples/pg/dress/0/1.png")
    assert "changed after it was drawn" in says(cli("merge", run.with_name("all"), run))
    says(cli(*RUN, "--out", run), 0)
    shutil.rmtree(run.with_name("all"))
    says(cli("merge", run.with_name("all"), run), 0)
    assert image_hashes(run.with_name("all")) == image_hashes(undisturbed)


def test_a_group_in_another_place_does_not_count(cli: Cli, run: Path, undisturbed: Path) -> None:
    shutil.copytree(run / "samples/iid/dress/0", run / "samples/iid/dress/1")
    done = cli("score", run, "--metric", "vendi")
    says(done, 0)
    assert "group.json is that of" in done.err
    assert scores(run) == scores(undisturbed)
    path = run / "samples/pg/dress/0/group.json"
    data = json.loads(path.read_text())
    data["group"]["label"] = "../../../evil/x"
    path.write_text(json.dumps(data))
    says(cli("score", run, "--metric", "vendi"), 0)
    assert "broken" in says(cli("merge", run.with_name("all"), run))
    assert sorted(path.name for path in run.parent.iterdir()) == ["run"], "nothing is made before"


def another_count(count: int) -> Callable[[Any], Any]:
    def change(data: Any) -> None:
        data["group"]["particles"] = count
        data["files"] = {} if count < 1 else data["files"]

    return change


ODD_GROUPS: dict[str, Callable[[Any], Any]] = {
    "no hash": lambda data: data["files"]["0.png"].pop("sha256"),
    "no place": lambda data: data["group"].update(prompt_id=None),
    "a number": lambda data: data["group"].update(label=5),
    "cost": lambda data: data["cost"].update(nfe="many"),
    "a large cost": lambda data: data["cost"].update(nfe=10**400),
    "key": lambda data: data["group"].update(key=["k"]),
    "parameters": lambda data: data["group"].update(parameters=None),
    "particles": lambda data: data["group"].update(particles=2.0),
    "many particles": another_count(10**10),
    "no particles": another_count(0),
    "fewer than none": another_count(-3),
    "prompt": lambda data: data["group"].update(prompt=3),
    "half a character": lambda data: data["group"].update(prompt="\ud800"),
    "more": lambda data: data["group"].update(more=3),
    "name": lambda data: data["files"].update({"../x.png": {"size": 1, "sha256": ""}}),
}


@pytest.mark.parametrize("change", ODD_GROUPS.values(), ids=ODD_GROUPS.keys())
def test_a_group_file_with_an_odd_value_is_broken(
    tmp_path: Path, change: Callable[[Any], Any]
) -> None:
    folder = make_folder(tmp_path / "r")
    path = folder.write_group(make_group(), make_images(), COST, {}).folder / "group.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    broken: list[str] = []
    assert list(folder.finished(broken=broken)) == []
    assert len(broken) == 1
    assert not folder.index.path.exists(), "the next run looks at every group"


def odd_runs() -> dict[str, Callable[[dict[str, Any]], Any]]:
    return {
        "no settings": lambda data: data.update(settings={}),
        "methods": lambda data: data["suite"].update(methods=5),
        "nothing": lambda data: data["suite"].update(methods=None),
        "model": lambda data: data["settings"].update(model=["x"]),
        "scheduler": lambda data: data["settings"].pop("scheduler"),
        "metrics": lambda data: data["suite"].update(metrics=[5]),
        "reference": lambda data: data["suite"].update(reference=5),
    }


@pytest.mark.parametrize("change", odd_runs().values(), ids=odd_runs().keys())
def test_a_run_file_with_an_odd_value_is_refused(
    cli: Cli, run: Path, change: Callable[[Any], Any]
) -> None:
    data = yaml.safe_load((run / "run.yaml").read_text())
    change(data)
    (run / "run.yaml").write_text(yaml.safe_dump(data))
    for command in (("score", run), ("merge", run.with_name("all"), run), (*RUN, "--out", run)):
        assert "is not a run's" in says(cli(*command))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("samples.jsonl", '{"place": "iid/dress/0", "key": "k", "sizes": {"0.png": Infinity}}\n'),
        ("samples.jsonl", "[" * 200_000 + "\n"),
        ("samples.jsonl", '{"place": "iid/dress/0", "key": "KEY", "sizes": {"a\\u0000": 1}}\n'),
        ("samples.jsonl", '{"place": "iid/dress/0", "key": "KEY", "sizes": {"\\ud800": 1}}\n'),
        ("manifest.json", "[" * 200_000),
        ("scores.csv", ""),
        ("summary.csv", "a,b\n1,2\n"),
        ("scores.parquet", "no table"),
        (".scores.csv-abc.tmp", "left behind"),
        ("grids/.iid.png-abc.tmp", "left behind"),
    ],
)
def test_files_of_any_content_are_written_again(
    cli: Cli, run: Path, undisturbed: Path, name: str, text: str
) -> None:
    key = json.loads((run / "samples/iid/dress/0/group.json").read_text())["group"]["key"]
    (run / name).write_text(text.replace("KEY", key))
    says(cli(*RUN, "--out", run), 0)
    assert scores(run) == scores(undisturbed)
    assert not name.endswith(".tmp") or not (run / name).exists()
    assert name != "summary.csv" or (run / name).read_text() != text


def test_scores_that_were_half_replaced_are_not_up_to_date(
    cli: Cli, run: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def killed(*arguments: Any) -> Any:
        raise Killed

    monkeypatch.setattr("eddy_bench.experiment.score.summarise", killed)
    with pytest.raises(Killed):
        score_again(RunFolder(run), ScoringRequest(["pdist"]), Listener())
    assert ",pdist[" in (run / "scores.csv").read_text()
    monkeypatch.undo()
    says(cli(*RUN, "--out", run), 0)
    rows = scores(run).splitlines()
    assert [row for row in rows if ",pdist[" not in row] == scores(undisturbed).splitlines()
    assert "pdist[fmnist-clip]" in (run / "summary.csv").read_text(), "both files belong together"


def test_a_run_that_ended_at_its_first_file_is_begun_anew(
    cli: Cli, tmp_path: Path, undisturbed: Path
) -> None:
    (tmp_path / "run/samples").mkdir(parents=True)
    (tmp_path / "run/.lock").write_text("")
    (tmp_path / "run/.run.yaml-ab12.tmp").write_text("model: fash")
    says(cli(*RUN, "--out", tmp_path / "run"), 0)
    assert image_hashes(tmp_path / "run") == image_hashes(undisturbed)
    for k, name in enumerate([".gitignore", ".mine.tmp"]):
        (tmp_path / f"mine{k}").mkdir()
        (tmp_path / f"mine{k}" / name).write_text("precious")
        assert "not of a run" in says(cli(*RUN, "--out", tmp_path / f"mine{k}"))
        assert (tmp_path / f"mine{k}" / name).read_text() == "precious"


ODD_ARRAYS: dict[str, Callable[[Any], Any]] = {
    "another shape": lambda value: value[:1],
    "texts": lambda value: np.array(["a", "b"]),
    "one dimension": lambda value: value[:, 0],
    "nan": lambda value: value * np.nan,
}


@pytest.mark.parametrize("change", ODD_ARRAYS.values(), ids=ODD_ARRAYS.keys())
def test_features_that_do_not_fit_are_computed_again(
    cli: Cli, run: Path, undisturbed: Path, change: Callable[[Any], Any]
) -> None:
    (path,) = (run / "features").glob("*/iid.npz")
    with np.load(path) as data:
        kept = {name: data[name] for name in data.files}
    np.savez(path, **{**kept, "rows": change(kept["rows"])})
    says(cli("score", run, "--metric", "vendi"), 0)
    assert scores(run) == scores(undisturbed)
    path.write_bytes(b"\x93NUMPY no archive")
    says(cli("score", run, "--metric", "vendi"), 0)


def test_merging_some_of_the_shards_names_what_is_missing(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "run"
    says(cli(*RUN, "--shard", "1/2", "--out", out), 0)
    merged = cli("merge", out, f"{out}-shard-1-of-2")
    assert merged.code == 2
    assert "Missing: 8 of 18 groups" in merged.err, "the reference set counts, too"
    says(cli(*RUN, "--shard", "2/2", "--out", out), 0)
    with locked(Path(f"{out}-shard-2-of-2")):
        assert "in use by process" in says(cli("merge", out, f"{out}-shard-2-of-2"))
    merged = cli("merge", out, f"{out}-shard-1-of-2", f"{out}-shard-2-of-2")
    assert (merged.code, "Missing" in merged.err) == (0, False), merged.err


def test_a_group_that_only_the_index_names_is_drawn(cli: Cli, run: Path, undisturbed: Path) -> None:
    key = json.loads((run / "samples/iid/dress/0/group.json").read_text())["group"]["key"]
    (run / "samples.jsonl").write_text(
        json.dumps({"place": "iid/dress/0", "key": key, "sizes": {}}) + "\n"
    )
    shutil.rmtree(run / "samples/iid/dress")
    done = cli(*RUN, "--out", run)
    says(done, 0)
    assert "Drew 1 group " in done.err
    assert image_hashes(run) == image_hashes(undisturbed)


def test_a_group_of_another_number_of_particles_is_not_scored(cli: Cli, run: Path) -> None:
    path = run / "samples/iid/dress/0/group.json"
    data = json.loads(path.read_text())
    data["group"]["particles"] = 3
    data["files"]["2.png"] = data["files"]["1.png"]
    shutil.copy(path.with_name("1.png"), path.with_name("2.png"))
    path.write_text(json.dumps(data))
    done = cli("score", run, "--metric", "vendi")
    says(done, 0)
    assert "has 3 particles, the run 2" in done.err
    done = cli(*RUN, "--out", run)
    says(done, 0)
    assert "moved to" in done.err


@pytest.mark.parametrize("content", [b"no picture", b"\x89PNG\r\n\x1a\n cut off"])
def test_a_file_that_is_no_image_is_said_by_its_group(cli: Cli, run: Path, content: bytes) -> None:
    """Its size and hash may be right: that is for a person to look at."""
    path = run / "samples/iid/dress/0/group.json"
    data = json.loads(path.read_text())
    data["files"]["1.png"] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    path.write_text(json.dumps(data))
    path.with_name("1.png").write_bytes(content)
    assert "iid/dress/0 holds no pictures" in says(cli("score", run, "--metric", "vendi"))


MINE = "from eddy_bench.methods.iid import Iid\nclass Mine(Iid):\n    pass\n"


def test_merging_runs_no_code(cli: Cli, tmp_path: Path) -> None:
    """What is missing is told from what was planned, also when a method's file is gone, or was
    never to be run.
    """
    method = tmp_path / "mine.py"
    method.write_text(MINE)
    for share in ("1/2", "2/2"):
        says(
            cli(*RUN, "--method", f"{method}:Mine", "--shard", share, "--out", tmp_path / "run"), 0
        )
    method.write_text(f"{MINE}open({str(tmp_path / 'ran')!r}, 'w')\n")
    shares = [tmp_path / f"run-shard-{k}-of-2" for k in (1, 2)]
    merged = cli("merge", tmp_path / "run", *shares)
    assert (merged.code, "Missing" in merged.err) == (0, False), merged.err
    method.unlink()
    shutil.rmtree(shares[1] / "samples/pg")
    (tmp_path / "less").mkdir()
    merged = cli("merge", tmp_path / "less" / "run", *shares)
    assert (merged.code, "of 24 groups" in merged.err) == (2, True), merged.err
    assert not (tmp_path / "ran").exists()


def test_shards_of_a_folder_that_grew_know_what_is_missing(cli: Cli, tmp_path: Path) -> None:
    """Each command's own prompts and methods count, whichever came last."""
    for share in ("1/2", "2/2"):
        says(cli(*RUN, "--limit", "2", "--shard", share, "--out", tmp_path / "run"), 0)
        says(
            cli(
                *RUN[:-4],
                "--limit",
                "4",
                "--method",
                "iid",
                "--shard",
                share,
                "--out",
                tmp_path / "run",
            ),
            0,
        )
    shares = [tmp_path / f"run-shard-{k}-of-2" for k in (1, 2)]
    merged = cli("merge", tmp_path / "run", *shares)
    assert (merged.code, "Missing" in merged.err) == (0, False), merged.err
    shutil.rmtree(tmp_path / "run/samples/pg")
    shutil.rmtree(next(path for share in shares for path in (share / "samples").glob("pg/*")))
    merged = cli("merge", tmp_path / "run", *shares)
    assert (merged.code, "Missing: 1 of 10 groups" in merged.err) == (2, True), merged.err


def test_broken_groups_of_the_target_are_copied_again(
    cli: Cli, run: Path, undisturbed: Path
) -> None:
    whole = Path(shutil.copytree(undisturbed, run.with_name("whole")))
    (run / "samples/iid/dress/0/1.png").write_bytes(b"")
    change_a_byte(run / "samples/pg/dress/0/1.png")
    assert "changed after it was drawn" in says(cli("merge", run, whole))
    says(cli("merge", run, whole), 0)
    assert image_hashes(run) == image_hashes(undisturbed)


def test_parameters_without_a_value_are_read_back() -> None:
    spec = MethodSpec(name="pg", parameters={"strength": None})
    assert build_method(MethodSpec.parse(str(spec))) == build_method(spec)


def test_shards_with_other_settings_are_refused_in_any_order(cli: Cli, tmp_path: Path) -> None:
    solver = ("--scheduler", "dpmpp-2m")
    says(cli(*RUN, *solver, "--timesteps", "karras", "--shard", "1/2", "--out", tmp_path / "a"), 0)
    says(cli(*RUN, *solver, "--shard", "2/2", "--out", tmp_path / "b"), 0)
    shares = [tmp_path / "a-shard-1-of-2", tmp_path / "b-shard-2-of-2"]
    for order in (shares, shares[::-1]):
        assert "another timesteps" in says(cli("merge", tmp_path / "all", *order))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--method", "best-of-m", "--shard", "1/2"), "best-of-m:m=16"),
        (("--shard", ""), "i/n"),
        (("--shard", f"1/{'9' * 5000}"), "i/n"),
        (("--cpus-per-worker", "2"), "Add --executor ray"),
    ],
)
def test_options_that_mean_nothing_are_refused(
    cli: Cli, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    assert message in says(cli(*RUN, *options, "--out", tmp_path / "run"))


def test_a_shard_of_the_working_folder_lies_beside_it(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    says(cli(*RUN, "--limit", "1", "--shard", "1/2", "--out", "."), 0)
    assert (tmp_path / "here-shard-1-of-2").is_dir()
    assert "nothing beside" in says(cli(*RUN, "--shard", "1/2", "--out", "/"))


def test_yaml_that_grows_or_holds_itself_is_refused() -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    for name, following in zip("abcdefg", "bcdefgh", strict=True):
        lines.append(f"{following}: &{following} [{', '.join([f'*{name}'] * 10)}]")
    with pytest.raises(SuiteError, match="more than 1000000 values"):
        parse_yaml(Path("bomb.yaml"), "\n".join(lines), SuiteError)
    with pytest.raises(SuiteError, match="holds itself"):
        parse_yaml(Path("loop.yaml"), "a: &a [*a]", SuiteError)
    assert parse_yaml(Path("fine.yaml"), "a: &a [1]\nb: *a", SuiteError) == {"a": [1], "b": [1]}


def test_a_file_system_without_locks_refuses_nobody_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*arguments: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    told: list[str] = []
    with locked(tmp_path, told.append), locked(tmp_path, told.append):
        assert sum("has no locks" in line for line in told) == 2


def test_a_prompt_that_iid_cannot_draw_costs_its_own_groups_only(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It costs its own group, in the samples and in the reference set; everything else is scored,
    drift included.
    """
    from eddy_bench.experiment import batches

    inner = batches._draw

    def draw(setup: Any, method: Any, batch: Any) -> Any:
        if any(group.method == "iid" and group.prompt_id == "dress" for group in batch.groups):
            raise SystemExit("bye")
        return inner(setup, method, batch)

    monkeypatch.setattr(batches, "_draw", draw)
    done = cli(*DRIFT, "--out", tmp_path / "run")
    assert done.code == 2
    assert "Failed: iid/dress/0" in done.err
    assert "Failed: reference/dress/0" in done.err
    assert "failed 2" in done.err
    table = read_table(tmp_path / "run/scores.csv")
    assert of(table, "drift").any()
    assert of(table, "vendi").sum() == 11
    monkeypatch.undo()
    says(cli(*DRIFT, "--out", tmp_path / "run"), 0)
    assert not list((tmp_path / "run/failed").rglob("*.json"))


def test_a_replaced_file_is_the_old_one_or_the_new_one(tmp_path: Path) -> None:
    """While a file is being replaced, and when that fails, the old one stands."""
    from eddy_bench.storage.paths import replacing

    path = tmp_path / "a.csv"
    path.write_text("old")
    with replacing(path) as written:
        written.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    with pytest.raises(IndexError), replacing(path) as written:
        written.write_text("half"[:4][7])
    assert [file.name for file in tmp_path.iterdir()] == ["a.csv"]
    assert path.read_text() == "new"


def test_failures_of_labels_and_prompts_that_join_alike_have_two_paths() -> None:
    folder = RunFolder(Path("r"))
    paths = {
        folder.failure_path(make_group(label="pg", prompt_id="3-dress")),
        folder.failure_path(make_group(label="pg-3", prompt_id="dress")),
    }
    assert len(paths) == 2
