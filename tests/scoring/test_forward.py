"""Networks of scoring get their images from threads, in batches that fit: the numbers are those of
one image at a time, errors are those of one image at a time, and no thread stays behind.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from eddy_bench.errors import MetricError, StoreError
from eddy_bench.models.devices import CPU
from eddy_bench.models.images import pixel_array, rgb_array
from eddy_bench.scoring.extractors import load_classifier, load_extractor
from eddy_bench.scoring.forward import Forward, ahead
from eddy_bench.scoring.perceptual import load_lpips
from eddy_bench.scoring.scorer import GROUPS_TOGETHER, Scorer, rows_of_groups
from eddy_bench.storage.group import FinishedGroup
from tests.conftest import Result
from tests.makers.groups import COST, make_folder, make_group
from tests.makers.networks import save_random_alexnet
from tests.makers.runs import change_a_byte

Cli = Callable[..., Result]
PARTICLES = 3


@pytest.fixture(scope="module")
def groups(tmp_path_factory: pytest.TempPathFactory) -> list[FinishedGroup]:
    """More groups than share a batch, three pictures each."""
    folder = make_folder(tmp_path_factory.mktemp("groups") / "run", particles=PARTICLES)
    rng = np.random.default_rng(0)
    return [
        folder.write_group(
            make_group(prompt_id=f"p{k}", key=f"{k}", particles=PARTICLES),
            [
                Image.fromarray(rng.integers(0, 256, (40, 48, 3), dtype=np.uint8))
                for _ in range(PARTICLES)
            ],
            COST,
            {},
        )
        for k in range(GROUPS_TOGETHER + 3)
    ]


@pytest.fixture(autouse=True)
def _no_thread_stays_behind() -> Iterator[None]:
    yield
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]


@pytest.mark.parametrize("name", ["fmnist-clip", "efficientnet-lite0", "pixels"])
def test_features_are_those_of_one_image_at_a_time(name: str, groups: list[FinishedGroup]) -> None:
    extractor = load_extractor(name)
    rows = list(rows_of_groups(extractor.forward, extractor.prepare, groups))
    assert [group for group, _ in rows] == groups
    for group, features in rows:
        alone = np.concatenate([extractor.images([image]) for image in group.images()])
        assert features.dtype == alone.dtype == np.float32
        assert np.abs(features - alone).max() <= 1e-4 * np.abs(alone).max()


def test_attributes_are_those_of_one_image_at_a_time(groups: list[FinishedGroup]) -> None:
    classifier = load_classifier(CPU)
    for group, predicted in rows_of_groups(classifier, pixel_array, groups):
        alone = [next(classifier([(pixel_array(image),)])) for image in group.images()]
        assert predicted.shape == (PARTICLES, 3)
        assert np.array_equal(predicted, alone)


def test_distances_are_those_of_one_pair_at_a_time(
    groups: list[FinishedGroup], tmp_path: Path
) -> None:
    save_random_alexnet(tmp_path)
    judge = load_lpips(tmp_path).values
    for group, distances in rows_of_groups(judge, rgb_array, groups, together=2):
        pairs = list(combinations([rgb_array(image) for image in group.images()], 2))
        assert np.allclose(distances, [next(judge([pair])) for pair in pairs], rtol=1e-4)
    single = make_folder(tmp_path / "run", particles=1).write_group(
        make_group(particles=1), [Image.new("RGB", (8, 8))], COST, {}
    )
    ((_, none),) = rows_of_groups(judge, rgb_array, [single], together=2)
    assert none.shape == (0,)


def test_large_pictures_go_in_smaller_batches(tmp_path: Path) -> None:
    save_random_alexnet(tmp_path)
    judge = load_lpips(tmp_path).values
    seen = seen_by(judge)
    small, large = (np.zeros((side, side, 3), np.uint8) for side in (64, 512))
    judge.network = lambda pixels, first, second: torch.zeros(len(first))
    list(judge([(small, small)] * 10 + [(large, large)] * 10 + [(small, small)] * 3))
    assert seen == [10, 8, 2, 3]


def seen_by(forward: Forward) -> list[int]:
    """Return how many rows go at once, filled as they go."""
    seen: list[int] = []
    collate = forward.collate

    def counted(rows: object) -> tuple[torch.Tensor, ...]:
        seen.append(len(rows))  # type: ignore[arg-type]
        return collate(rows)  # type: ignore[arg-type]

    forward.collate = counted
    return seen


def fits(most: int, error: type[Exception]) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a network that runs out of memory above so many rows."""

    def network(batch: torch.Tensor) -> torch.Tensor:
        if len(batch) > most:
            raise error("DefaultCPUAllocator: can't allocate memory: you tried to allocate much")
        return 2.0 * batch

    return network


@pytest.mark.parametrize("error", [RuntimeError, MemoryError, torch.OutOfMemoryError])
def test_batches_halve_when_memory_runs_out_and_stay_small(error: type[Exception]) -> None:
    forward = Forward("network", fits(5, error), CPU)
    seen = seen_by(forward)
    rows = [(np.array([k]),) for k in range(70)]
    assert forward.note == ""
    assert np.array_equal(list(forward(rows)), 2 * np.arange(70)[:, None])
    said = "memory ran out 4 times in network, which takes 4 images at once now"
    assert forward.note == said
    assert seen[:5] == [64, 32, 16, 8, 4]
    assert set(seen[5:]) == {4, 2}
    seen.clear()
    assert len(list(forward(rows[:8]))) == 8
    assert seen == [4, 4], "remembered"


def test_where_not_even_one_image_fits_the_metric_says_so() -> None:
    forward = Forward("inception", fits(0, RuntimeError), CPU)
    with pytest.raises(MetricError, match=r"fits into the memory of cpu with inception.*--device"):
        list(forward([(np.zeros(3),)] * 5))


def test_other_errors_of_a_network_are_not_taken_for_memory() -> None:
    def broken(batch: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        list(Forward("network", broken, CPU)([(np.zeros(3),)]))


def test_features_survive_a_network_that_runs_out_of_memory(
    groups: list[FinishedGroup], tmp_path: Path
) -> None:
    folder = make_folder(tmp_path / "run", particles=PARTICLES)
    scorer = Scorer(folder, None, None, lambda count, label: None)
    expected = scorer.features("fmnist-clip", groups)
    shutil.rmtree(folder.path / "features")
    again = Scorer(folder, None, None, lambda count, label: None)
    forward = again.extractor("fmnist-clip").forward
    network = forward.network

    def small(batch: torch.Tensor) -> torch.Tensor:
        fits(4, MemoryError)(batch)
        return network(batch)

    forward.network = small
    features = again.features("fmnist-clip", groups)
    (said,) = again.memory_notes
    assert "fmnist-clip" in said
    assert scorer.memory_notes == []
    for key, value in expected.items():
        assert np.abs(features[key] - value).max() <= 1e-4 * np.abs(value).max()


def test_progress_counts_every_group_once(groups: list[FinishedGroup], tmp_path: Path) -> None:
    told: list[int] = []
    folder = make_folder(tmp_path / "run", particles=PARTICLES)
    scorer = Scorer(folder, None, None, lambda count, label: told.append(count))
    scorer.features("fmnist-clip", groups)
    assert told == [GROUPS_TOGETHER, 3]
    scorer.attributes(groups)
    assert sum(told) == 2 * len(groups)


@pytest.mark.parametrize("damage", ["changed", "missing", "no picture"])
def test_an_error_in_a_thread_is_the_one_that_reading_gives(damage: str, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "run")
    written = []
    for k in range(6):
        images = [Image.new("L", (8, 8), 10 * k + j) for j in range(2)]
        images = [b"junk"] * 2 if (damage, k) == ("no picture", 3) else images  # type: ignore[list-item]
        written.append(
            folder.write_group(make_group(prompt_id=f"p{k}", key=f"{k}"), images, COST, {})
        )
    for group in written[3:5]:  # the first one that is wrong is told of
        if damage == "changed":
            change_a_byte(group.folder / "1.png")
        if damage == "missing":
            (group.folder / "0.png").unlink()
    with pytest.raises(StoreError) as alone:
        written[3].images()
    scorer = Scorer(folder, None, None, lambda count, label: None)
    with pytest.raises(StoreError) as threaded:
        scorer.features("pixels", written)
    assert str(threaded.value) == str(alone.value)
    assert not (folder.path / "features").exists()


def test_threads_work_no_further_ahead_than_the_limit() -> None:
    begun: list[int] = []
    with ahead(lambda k: begun.append(k) or k, range(100), 5) as results:
        for taken, result in enumerate(results):
            time.sleep(0.002)
            assert result == taken
            assert len(begun) <= taken + 7
    assert sorted(begun) == list(range(100))


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_interruption_drops_what_was_not_begun(error: type[BaseException]) -> None:
    begun: list[int] = []

    def slow(k: int) -> int:
        begun.append(k)
        time.sleep(0.01)
        return k

    def interrupted() -> None:
        with ahead(slow, range(1000), 500) as results:
            assert next(results) == 0
            raise error

    with pytest.raises(error):
        interrupted()
    assert len(begun) < 500


SLOW_NETWORK = """
import time
from pathlib import Path
from eddy_bench.scoring.forward import Forward
inner = Forward._results
def slow(self, batch):
    Path({marker!r}).touch()
    time.sleep(0.5)
    return inner(self, batch)
Forward._results = slow
from eddy_bench.cli import main; main()
"""


def test_ctrl_c_during_scoring_ends_at_once_in_one_line(undisturbed: Path, tmp_path: Path) -> None:
    run, marker = tmp_path / "run", tmp_path / "began"
    shutil.copytree(undisturbed, run)
    shutil.rmtree(run / "features")
    before = (run / "scores.csv").read_bytes()
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW_NETWORK.format(marker=str(marker)), "score", str(run)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for _ in range(1200):
        if marker.exists() or process.poll() is not None:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Interrupted." in said
    assert "Traceback" not in said
    assert (run / "scores.csv").read_bytes() == before


OLDER = "torch.set_float32_matmul_precision('high')"
NEWER = "torch.backends.cuda.matmul.fp32_precision = 'tf32'; "
NEWER += "torch.backends.cudnn.conv.fp32_precision = 'ieee'"
PRECISION = """
import torch
from eddy_bench.models.devices import whole_float32
def state():
    b = torch.backends
    if hasattr(b, "fp32_precision"):
        own = [b.cuda.matmul, b.cudnn.conv, b.cudnn.rnn]
        return [x.fp32_precision for x in own] + [b.cudnn.deterministic]
    return [b.cuda.matmul.allow_tf32, b.cudnn.allow_tf32, b.cudnn.deterministic]
{set}
before = state()
with whole_float32(torch.device("cuda")):
    assert state()[:-1] in (["ieee"] * 3, [False] * 2), state()
    assert state()[-1]
assert state() == before
{after}
"""


@pytest.mark.parametrize(
    ("given", "after"),
    [
        ("", "assert torch.get_float32_matmul_precision() == 'highest'"),
        (OLDER, "assert torch.get_float32_matmul_precision() == 'high'"),
        (f"if hasattr(torch.backends, 'fp32_precision'): {NEWER}", ""),
    ],
)
def test_networks_multiply_in_whole_float32_on_a_gpu_whichever_way_was_set_before(
    given: str, after: str
) -> None:
    call = [sys.executable, "-c", PRECISION.format(set=given, after=after)]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
