"""Rows through decoder and guide: as many as memory takes, and the same values whatever that is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from eddy_bench.models import devices
from eddy_bench.models.devices import free_bytes, out_of_memory, peak_taken
from eddy_bench.models.network_features import NetworkFeatures, RowLimit, blocks_of, checkpointed


class Small(torch.nn.Module):
    """A decoder that runs out of memory above some rows, fewer where a graph is kept."""

    def __init__(self, forward: int, backward: int) -> None:
        super().__init__()
        self.most = (forward, backward)
        self.seen: list[tuple[int, bool]] = []
        self.layer = torch.nn.Linear(6, 5, dtype=torch.float64).requires_grad_(False)

    def forward(self, points: Tensor) -> Tensor:
        self.seen.append((len(points), torch.is_grad_enabled()))
        if len(points) > self.most[torch.is_grad_enabled()]:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return torch.tanh(self.layer(points))


def feature_map(forward: int = 99, backward: int = 99, limit: RowLimit | None = None) -> Any:
    torch.manual_seed(0)
    return NetworkFeatures(
        Small(forward, backward), lambda images: images * 2, (6,), limit or RowLimit()
    )


def centred(values: Tensor) -> Tensor:
    return values - values.mean(1, keepdim=True)


POINTS = torch.randn(5, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("backward", [64, 7, 3, 1])
def test_features_and_their_pull_backs_do_not_hang_on_the_memory(backward: int) -> None:
    wide, narrow = feature_map(), feature_map(2 * backward, backward)
    assert torch.allclose(narrow.values(POINTS.flatten(0, 1)), wide.values(POINTS.flatten(0, 1)))
    assert torch.allclose(narrow.pull_groups(POINTS, centred), wide.pull_groups(POINTS, centred))
    assert narrow.limit.backward <= backward < 2 * narrow.limit.backward or backward == 64


def test_what_did_not_fit_is_remembered_and_not_tried_again() -> None:
    features = feature_map(6, 3)
    features.pull_groups(POINTS, centred)
    features.decode.seen.clear()
    features.pull_groups(POINTS, centred)
    assert max(rows for rows, graph in features.decode.seen if graph) <= 3
    assert max(rows for rows, _ in features.decode.seen) <= 6


def test_only_passes_that_were_needed_are_counted() -> None:
    """Neither the row that is measured nor the tries that failed."""
    features = feature_map(16, 8)
    features.pull_groups(POINTS, centred)
    assert (features.cost.feature_forwards, features.cost.feature_backwards) == (20, 20)
    features.values(POINTS.flatten(0, 1))
    assert features.cost.decoder_calls == 40


def test_a_number_that_the_user_set_stays_and_memory_errors_come_out() -> None:
    features = feature_map(99, 3, RowLimit.of(4))
    with pytest.raises(RuntimeError, match="allocate memory"):
        features.pull_groups(POINTS, centred)
    assert features.limit == RowLimit(4, 4, fixed=True)


def test_other_errors_of_a_network_are_not_taken_for_memory() -> None:
    features = feature_map()
    features.network = lambda images: images @ torch.ones(3, 3, dtype=torch.float64)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        features.values(POINTS.flatten(0, 1))
    assert features.limit.forward == 64


def test_not_even_one_row_fits() -> None:
    """It is checkpointed at last, and then the error comes out, for fewer prompts to be tried."""
    features = feature_map(9, 0)
    with pytest.raises(RuntimeError, match="allocate memory"):
        features.pull_groups(POINTS, centred)
    assert (features.limit.backward, features.limit.checkpointed) == (1, True)


@pytest.mark.parametrize(
    ("taken", "free", "rows"), [(1e9, 24e9, 16), (1e9, 1e9, 1), (1e6, 24e9, 64), (0.0, 1e9, 64)]
)
def test_rows_follow_from_what_one_takes(taken: float, free: float, rows: int) -> None:
    limit = RowLimit()
    limit.settle("backward", taken, free)
    assert (limit.backward, limit.forward) == (rows, 64)
    assert bool(limit.note) == (rows < 64)


def test_graphs_that_cannot_fit_are_checkpointed_before_they_are_tried() -> None:
    limit = RowLimit(taken={"forward": 1e9})
    limit.foresee(free=7e9)
    assert not limit.checkpointed
    limit.foresee(free=5e9)
    assert limit.checkpointed
    assert "compute their blocks again" in limit.note


def test_checkpointed_gradients_are_bit_for_bit_the_plain_ones() -> None:
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    decoder = AutoencoderKL(
        block_out_channels=(32, 32),
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 2,
    ).requires_grad_(False)
    latents = torch.randn(2, 4, 8, 8, requires_grad=True)

    def gradient(modules: list[torch.nn.Module]) -> Tensor:
        with checkpointed(modules):
            images = decoder.decode(latents).sample
            (pulled,) = torch.autograd.grad(images.square().sum(), latents)
        return pulled

    assert torch.equal(gradient([decoder]), gradient([]))
    names = {type(block).__name__ for block in blocks_of(decoder)}
    assert {"UpDecoderBlock2D", "ResnetBlock2D"} <= names
    assert all("forward" not in vars(block) for block in decoder.modules())


def test_free_memory_heeds_the_limit_of_a_control_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "CGROUPS", tmp_path)
    before = free_bytes(torch.device("cpu"))
    for folder, names in (
        (tmp_path, ("memory.max", "memory.current")),
        (tmp_path / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes")),
    ):
        folder.mkdir(exist_ok=True)
        for name, value in zip(
            (*names, "memory.stat"), (9000, 5000, "inactive_file 500"), strict=True
        ):
            (folder / name).write_text(f"{value}\n")
    assert free_bytes(torch.device("cpu")) == 4500 < before
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        (tmp_path / name).write_text("max\n")
    assert free_bytes(torch.device("cpu")) > 4500


def test_the_peak_of_a_block_is_its_own() -> None:
    """Memory that was taken and given back before does not count."""
    del [torch.ones(2**26)][:]
    with peak_taken(torch.device("cpu")) as taken:
        torch.ones(2**24)  # 64 MiB
        peak = taken()
    assert peak == 0 or 0.9 * 2**26 < peak < 1.5 * 2**26


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: not enough memory"),
        RuntimeError("MPS backend out of memory"),
        RuntimeError("std::bad_alloc"),
    ],
)
def test_errors_that_say_memory_ran_out_are_told(error: Exception) -> None:
    assert out_of_memory(error)
    assert not out_of_memory(RuntimeError("shapes cannot be multiplied"))


LIMITED = """
import resource, sys, psutil, torch
from diffusers import AutoencoderKL, AutoencoderTiny
from eddy_bench.models.decoding import make_decode
from eddy_bench.models.network_features import NetworkFeatures
from eddy_bench.models.network_features import RowLimit

kind, side, feature_batch, limit = sys.argv[1], int(sys.argv[2]), sys.argv[3], float(sys.argv[4])
torch.manual_seed(0)
decoder = AutoencoderTiny() if kind == "tiny" else AutoencoderKL(
    down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4)
decoder.requires_grad_(False)
pipe = type("StableDiffusionPipeline", (), {"vae": decoder})()
features = NetworkFeatures(
    make_decode(pipe, decoder), lambda x: torch.nn.functional.adaptive_avg_pool2d(x, 4).flatten(1),
    (4, side // 8, side // 8), RowLimit.of(feature_batch), [decoder])
points = torch.randn(1, 2, 4 * (side // 8) ** 2)
size = int(psutil.Process().memory_info().vms + limit * 2**30)
resource.setrlimit(resource.RLIMIT_AS, (size, size))
pulled = features.pull_groups(points, lambda values: values - values.mean(1, keepdim=True))
print(bool(torch.isfinite(pulled).all()), features.limit.backward, features.limit.checkpointed)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a limit of address space")
@pytest.mark.parametrize(
    ("kind", "side", "gib", "ends"),
    [
        ("stable-diffusion", 256, 1.0, ("True 1 True",)),
        ("tiny", 512, 0.9, ("True 1 True", "True 1 False")),
    ],
)
def test_true_decoders_pull_back_under_a_real_limit_of_memory(
    kind: str, side: int, gib: float, ends: tuple[str, ...]
) -> None:
    """In a process of its own with that much address space left; a fixed batch fails there.

    The tiny decoder's pull-back of one image just fits, checkpointed or not.
    """
    for feature_batch, code, expected in (("2", 1, ("",)), ("auto", 0, ends)):
        done = subprocess.run(
            [sys.executable, "-c", LIMITED, kind, str(side), feature_batch, str(gib)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stdout.strip() in expected) == (code, True), done
        assert bool(done.stderr) == bool(code) or "allocate" not in done.stderr
