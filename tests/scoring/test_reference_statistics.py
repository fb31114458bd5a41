"""Statistics of real images in a file give what the images give; wrong files are one line."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from eddy_bench.scoring import reference
from eddy_bench.scoring.fidelity import frechet_distance, frechet_to_moments
from tests.conftest import Result

Cli = Callable[..., Result]
RUN = ("run", "--limit", "4", "--steps", "2", "--particles", "2", "--batch-prompts", "4")
REAL = ("fd", "kid", "precision", "recall")


def save_pictures(folder: Path, count: int = 7) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for k in range(count):
        pixels = rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels // (1 + k % 3)).save(folder / f"{k}.png")
    return folder


def asked(*names: str) -> list[str]:
    return [part for name in names for part in ("--metric", name)]


def values(folder: Path) -> pd.DataFrame:
    rows = pd.read_csv(folder / "scores.csv", keep_default_na=False)
    rows = rows[(rows["prompt_id"] == "") & (rows["method"] == "iid")]
    names = rows["metric"].str.partition("[")[0]
    return rows.set_index(names)[["value", "signature"]].astype(str)


@pytest.fixture
def real(tmp_path: Path) -> Path:
    return save_pictures(tmp_path / "real")


@pytest.fixture
def stats(cli: Cli, tmp_path: Path, real: Path) -> Path:
    out = tmp_path / "stats.npz"
    done = cli("reference", real, "--extractor", "fmnist-clip", "--out", out)
    assert done.code == 0, done.err
    assert "7 images real@" in done.err
    return out


@pytest.fixture
def run(undisturbed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(undisturbed, tmp_path / "run"))


@pytest.mark.parametrize("width", [1, 3, 6, 35, 100])
def test_a_distance_to_moments_is_the_distance_to_the_features(width: int) -> None:
    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(size=(40, width)), 0.5 + 2 * rng.normal(size=(30, width))
    moments = theirs.mean(0), np.atleast_2d(np.cov(theirs, rowvar=False))
    assert frechet_to_moments(ours, *moments) == pytest.approx(frechet_distance(ours, theirs))
    own = ours.mean(0), np.atleast_2d(np.cov(ours, rowvar=False))
    assert frechet_to_moments(ours, *own) == pytest.approx(0, abs=1e-6)
    assert np.isnan(frechet_to_moments(ours[:1], *moments))


def test_a_file_scores_as_its_folder_does(cli: Cli, run: Path, real: Path, stats: Path) -> None:
    assert cli("score", run, *asked(*REAL), "--reference", real).code == 0
    by_folder = values(run)
    done = cli("score", run, *asked(*REAL), "--reference", stats)
    assert done.code == 0, done.err
    by_file = values(run)
    assert set(by_file.index) == set(REAL)
    for name in REAL:
        own, other = (float(table.loc[name, "value"]) for table in (by_file, by_folder))
        assert own == pytest.approx(other, rel=1e-6)
    assert (by_file["signature"] == by_folder["signature"]).all(), "the images' digest is in both"


def test_the_digest_is_of_pixels_in_order_and_not_of_files(
    cli: Cli, tmp_path: Path, real: Path, stats: Path
) -> None:
    copy = tmp_path / "elsewhere" / "real"
    copy.mkdir(parents=True)
    for path in real.iterdir():
        Image.open(path).save(copy / path.name, compress_level=9)
    again = tmp_path / "again.npz"
    assert cli("reference", copy, "--extractor", "fmnist-clip", "--out", again).code == 0
    pixels = np.asarray(Image.open(copy / "0.png")).copy()
    pixels[0, 0] ^= 1
    Image.fromarray(pixels).save(copy / "0.png")
    other = tmp_path / "other.npz"
    assert cli("reference", copy, "--extractor", "fmnist-clip", "--out", other).code == 0
    first, same, changed = (str(np.load(path)["images"]) for path in (stats, again, other))
    assert first == same != changed


def test_without_features_a_file_gives_fd_alone(
    cli: Cli, run: Path, real: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "FEATURES_LIMIT", 0)
    out = tmp_path / "small.npz"
    done = cli("reference", real, "--extractor", "fmnist-clip", "--out", out)
    assert done.code == 0
    assert "too many for kid" in done.err
    assert cli("score", run, *asked("fd"), "--reference", out).code == 0
    before = (run / "scores.csv").read_bytes()
    named = cli("score", run, *asked("kid"), "--reference", out)
    assert named.code == 2
    assert "Traceback" not in named.err
    assert "Give --reference DIR" in named.err
    assert (run / "scores.csv").read_bytes() == before, "nothing is lost"
    unnamed = cli("score", run, "--reference", out)
    assert unnamed.code == 0, unnamed.err
    notes = [line for line in unnamed.err.splitlines() if "skipped" in line]
    assert len(notes) == 1
    assert all(name in notes[0] for name in ("kid[", "precision[", "recall["))
    assert "fd" in values(run).index


def test_statistics_of_another_extractor_are_refused(
    cli: Cli, run: Path, real: Path, tmp_path: Path
) -> None:
    out = tmp_path / "pixels.npz"
    assert cli("reference", real, "--extractor", "pixels", "--out", out).code == 0
    done = cli("score", run, *asked("fd[fmnist-clip]"), "--reference", out)
    assert done.code == 2
    assert "Expected statistics of fmnist-clip@" in done.err
    assert "got those of pixels@v1" in done.err
    assert cli("score", run, *asked("fd[pixels]"), "--reference", out).code == 0


class Trap:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


def without(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda arrays: arrays.__delitem__(name)


def with_value(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda arrays: arrays.update({name: value})


DAMAGES: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "no mean": (without("mean"), "it lacks mean"),
    "no digest": (without("images"), "it lacks images"),
    "one image": (with_value("count", np.array(1)), "2 or more in count"),
    "a text for a count": (with_value("count", np.array("7")), "count"),
    "a number for a text": (with_value("extractor", np.array(3)), "a text in extractor"),
    "float32": (with_value("mean", np.zeros(3, np.float32)), "float64"),
    "another width": (with_value("covariance", np.eye(3)), "in covariance"),
    "variances below 0": (
        lambda arrays: arrays.update(covariance=-arrays["covariance"]),
        "below 0",
    ),
    "not finite": (with_value("mean", np.full(3, np.nan)), "finite"),
    "other features": (with_value("features", np.zeros((7, 2), np.float32)), "in features"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_one_line(cli: Cli, run: Path, stats: Path, damage: str) -> None:
    change, message = DAMAGES[damage]
    with np.load(stats) as data:
        arrays = dict(data)
    change(arrays)
    np.savez(stats, **arrays)
    before = (run / "scores.csv").read_bytes()
    done = cli("score", run, *asked("fd"), "--reference", stats)
    assert done.code == 2
    assert len(done.err.partition("Error: ")[2].splitlines()) == 1
    assert message in done.err
    assert "eddy-bench reference DIR" in done.err
    assert (run / "scores.csv").read_bytes() == before


def test_features_that_are_not_those_of_the_mean_are_refused(
    cli: Cli, run: Path, stats: Path
) -> None:
    with np.load(stats) as data:
        arrays = dict(data)
    np.savez(stats, **{**arrays, "features": arrays["features"] + 1})
    done = cli("score", run, *asked("kid"), "--reference", stats)
    assert done.code == 2
    assert "not those of its mean" in done.err


@pytest.mark.parametrize("content", [b"", b"mean", b"PK\x03\x04"])
def test_a_file_of_something_else_is_refused_before_anything_is_drawn(
    cli: Cli, tmp_path: Path, content: bytes
) -> None:
    wrong = tmp_path / "wrong.npz"
    wrong.write_bytes(content)
    done = cli(*RUN, "--method", "iid", *asked("fd"), "--reference", wrong, "--out", tmp_path / "r")
    assert done.code == 2
    assert "a file of `eddy-bench reference`" in done.err
    assert not (tmp_path / "r").exists()


def test_no_file_of_statistics_runs_code(cli: Cli, run: Path, tmp_path: Path, stats: Path) -> None:
    mark = tmp_path / "mark"
    plain = tmp_path / "plain.npz"
    plain.write_bytes(pickle.dumps(Trap(mark)))
    with np.load(stats) as data:
        arrays = dict(data)
    np.savez(stats, **{**arrays, "mean": np.array([Trap(mark)], dtype=object)})
    for path in (plain, stats):
        assert cli("score", run, *asked("fd"), "--reference", path).code == 2
    assert not mark.exists()


def test_what_cannot_be_saved_is_one_line(cli: Cli, tmp_path: Path, real: Path) -> None:
    out = tmp_path / "out.npz"
    empty = tmp_path / "empty"
    empty.mkdir()
    single = save_pictures(tmp_path / "single", 1)
    broken = save_pictures(tmp_path / "broken", 3)
    (broken / "1.png").write_bytes(b"no picture")
    taken = tmp_path / "taken.npz"
    taken.write_bytes(b"mine")
    wrong = {
        "found none": (empty, "pixels", out),
        "Did you mean": (real, "pixel", out),
        "at least 2 images": (single, "pixels", out),
        "1.png cannot be read": (broken, "pixels", out),
        "is there already": (real, "pixels", taken),
    }
    for message, (folder, extractor, path) in wrong.items():
        done = cli("reference", folder, "--extractor", extractor, "--out", path)
        assert done.code == 2
        assert message in done.err.splitlines()[-1]
        assert not out.exists()
    assert taken.read_bytes() == b"mine"


def test_a_run_scored_with_a_file_is_scored_again_when_the_file_changes(
    cli: Cli, tmp_path: Path, real: Path, stats: Path
) -> None:
    command = (*RUN, "--method", "iid", *asked("fd"), "--reference", stats, "--out", tmp_path / "r")
    assert cli(*command).code == 0
    assert "Nothing to score" in cli(*command).err
    stats.unlink()
    (real / "0.png").unlink()
    assert cli("reference", real, "--extractor", "fmnist-clip", "--out", stats).code == 0
    assert "Nothing to score" not in cli(*command).err
    assert "ref=real@" in values(tmp_path / "r").loc["fd", "signature"]
