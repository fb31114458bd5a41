"""Pooled metrics between two run folders: the interval by subsampling prompts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from eddy_bench.compare.subsampling import Subsampling, direction_words, directions
from eddy_bench.ids import MethodId, MetricId, Signature
from eddy_bench.results.results import read_results
from eddy_bench.scoring.fidelity import frechet_distance
from eddy_bench.scoring.scorer import read_features, write_features
from eddy_bench.storage.run_folder import RunFolder
from tests.conftest import Result
from tests.makers.score_files import frame, of, write
from tests.makers.scored_runs import make_run

FD, EXACT = MetricId("fd", "fmnist-clip"), MethodId("eddy-exact")
SIGNATURE = "fd|features=fmnist-clip@0|n=120|ref=real:400"
LEVELS = {"iid": {"vendi": 0.0, "fd": 0.0}, "eddy-exact": {"vendi": 0.0, "fd": 0.0}}


def with_features(folder: Path, shift: float, seed: int, prompts: int = 60) -> Path:
    """A run whose features are normal, around `shift`; the real images' are around 0."""
    make_run(folder, side=4, prompts=prompts)
    rng, features_of_run = np.random.default_rng(seed), folder / "features" / "fmnist-clip-0"
    groups: dict[str, dict[str, np.ndarray[tuple[int, int], np.dtype[np.float32]]]] = {}
    for group in RunFolder(folder).finished():
        groups.setdefault(group.group.label, {})[group.fingerprint] = (
            shift + rng.normal(size=(2, 3))
        ).astype(np.float32)
    for label, features in groups.items():
        write_features(features_of_run / f"{label}.npz", features)
    write_features(
        features_of_run / "reference-real.npz",
        {"real": np.random.default_rng(0).normal(size=(400, 3)).astype(np.float32)},
    )
    rows = frame(LEVELS, prompts=prompts)
    write(
        folder / "scores.csv",
        rows.assign(signature=rows["signature"].mask(of(rows, "fd"), SIGNATURE)),
    )
    return folder


def test_the_error_is_that_of_repeated_runs(tmp_path: Path) -> None:
    differences, error = [], []
    for k in range(8):
        sides = Subsampling(
            with_features(tmp_path / f"a{k}", 0.5, 2 * k + 1),
            with_features(tmp_path / f"b{k}", 0.5, 2 * k + 2),
        )
        difference = sides.difference(EXACT, FD, Signature.parse(SIGNATURE))
        assert difference is not None
        differences.append(difference[0])
        error.append(difference[1])
    assert 0.4 < np.mean(error) / np.std(differences, ddof=1) < 2.5


def test_the_difference_is_that_of_the_metric(tmp_path: Path) -> None:
    folders = [
        with_features(tmp_path / name, shift, seed)
        for name, shift, seed in (("a", 1.0, 1), ("b", 0.0, 2))
    ]
    difference = Subsampling(folders[0], folders[1]).difference(
        EXACT, FD, Signature.parse(SIGNATURE)
    )
    assert difference is not None
    real = np.random.default_rng(0).normal(size=(400, 3)).astype(np.float32)
    values = []
    for folder in folders:
        features = read_features(folder / "features" / "fmnist-clip-0" / "eddy-exact.npz")
        values.append(frechet_distance(np.concatenate(list(features.values())), real))
    assert difference[0] == pytest.approx(values[0] - values[1], rel=1e-4)
    assert difference[0] > 5 * difference[1]


def test_without_features_there_is_no_interval(tmp_path: Path) -> None:
    folder = with_features(tmp_path / "a", 0.0, 1)
    assert Subsampling(folder, None).difference(EXACT, FD, Signature.parse(SIGNATURE)) is None
    signature = Signature.parse(SIGNATURE)
    sides = Subsampling(folder, folder)
    other = Signature.parse(SIGNATURE.replace("fmnist-clip", "inception"))
    assert sides.difference(EXACT, MetricId("fd", "inception"), other) is None
    assert sides.difference(EXACT, MetricId("drift", "fmnist-clip"), signature) is None
    assert sides.difference(MethodId("lhs"), FD, signature) is None


@pytest.mark.parametrize(("shift", "code"), [(0.0, 0), (3.0, 1)])
def test_a_gate_between_two_folders_tests_pooled_metrics(
    cli: Callable[..., Result], tmp_path: Path, shift: float, code: int
) -> None:
    now, before = (
        with_features(tmp_path / "now", shift, 1),
        with_features(tmp_path / "before", 0.0, 2),
    )
    (tmp_path / "gate.yaml").write_text(
        yaml.safe_dump(
            {
                "methods": ["eddy-exact"],
                "checks": [{"metric": "fd[fmnist-clip]", "test": "pooled", "margin": 0.02}],
            }
        )
    )
    done = cli(
        "compare",
        now,
        "--against",
        before,
        "--gate",
        tmp_path / "gate.yaml",
        "--summary",
        tmp_path / "s.md",
    )
    assert done.code == code, done.out
    assert "by subsampling prompts" in (tmp_path / "s.md").read_text()


class Sampled(Subsampling):
    """Differences whose errors are known."""

    def difference(
        self,
        method: MethodId,
        column: MetricId,
        signature: Signature,
        other: MethodId | None = None,
    ) -> tuple[float, float]:
        assert (method, other) == (EXACT, MethodId("iid"))
        return 99.0, 1.0


@pytest.mark.parametrize(
    ("effect", "gain", "words"),
    [
        (-3.0, 3.0, "closer to the real images (fd"),
        (3.0, -3.0, "farther from them (fd"),
        (-1.9, 1.9, "neither"),
    ],
)
def test_a_smaller_distance_is_closer_where_it_is_significant(
    tmp_path: Path, effect: float, gain: float, words: str
) -> None:
    levels = {"iid": {"vendi": 0.0, "fd": 0.0}, "eddy-exact": {"vendi": 0.0, "fd": effect}}
    scores = read_results([write(tmp_path / "s.csv", frame(levels))])
    (own,) = directions(scores, EXACT, Sampled(None, None))
    assert (own.gain, own.error) == (pytest.approx(gain), 1.0)
    assert (own.independent, own.value) == (50.0, 50.0 + effect)
    assert direction_words(scores, EXACT, Sampled(None, None)).startswith(words)
    (untested,) = directions(scores, EXACT, None)
    assert (untested.gain, untested.error, untested.closer) == (pytest.approx(gain), None, None)
    assert direction_words(scores, EXACT, None) == untested.text
    assert direction_words(scores, MethodId("lhs"), None) == ""


@pytest.mark.parametrize(("prompts", "known"), [(3, False), (4, True)])
def test_halves_need_four_prompts(tmp_path: Path, prompts: int, known: bool) -> None:
    folder = with_features(tmp_path / "a", 0.0, 1, prompts=prompts)
    sides = Subsampling(folder, folder)
    found = sides.difference(EXACT, FD, Signature.parse(SIGNATURE), MethodId("iid"))
    assert (found is not None) is known
