"""What reading, checking, decoding and preparing images adds to the network that scores them.

    python benchmarks/scoring_speed.py [--images 1000] [--size 512] [--rounds 3] [--device auto]

Writes groups of four pictures as noisy as photographs into a run folder, then scores them with
open_clip's ViT-B-32 (its true architecture, random weights) and, in turn, sends tensors that were
prepared before through the same network in the same batches. Goal: a ratio of at most 1.15.
On a machine that others use too the ratio of processor seconds says more than that of seconds.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import open_clip
import torch
from PIL import Image
from safetensors.torch import save_model

from eddy_bench.models.base import Cost
from eddy_bench.models.devices import resolve_device
from eddy_bench.scoring.forward import BATCH
from eddy_bench.scoring.scorer import Scorer
from eddy_bench.storage.group import FinishedGroup
from eddy_bench.storage.records import Group, RunSettings
from eddy_bench.storage.run_folder import RunFolder

MODEL, TAG = "ViT-B-32", "laion2b_s34b_b79k"
PARTICLES = 4
DISTINCT = 32  # patterns; each picture is one of them, moved and tinted
SETTINGS = RunSettings(
    model="pictures",
    revision=None,
    variant=None,
    weights_fingerprint="0",
    scheduler="DDIM",
    steps=1,
    guidance_scale=1.0,
    negative_prompt="",
    particles=PARTICLES,
    size=None,
    dtype="float32",
)


def patterns(size: int, rng: np.random.Generator) -> np.ndarray:
    """Return (n, size, size, 3) with the spectrum of photographs, 1 / f, and a little grain."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    amplitude = 1 / np.maximum(frequency, 1 / size)
    shape = (DISTINCT, 3, *amplitude.shape)
    noise = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    fields = np.fft.irfft2(noise * amplitude, s=(size, size))
    fields = 0.8 * fields[:, :1] + 0.2 * fields  # colours go together
    fields = 128 + 50 * fields / fields.std((1, 2, 3), keepdims=True)
    return (fields + rng.standard_normal(fields.shape)).transpose(0, 2, 3, 1)


def write_groups(folder: RunFolder, count: int, size: int) -> list[FinishedGroup]:
    rng = np.random.default_rng(0)
    fields = patterns(size, rng)
    groups = []
    for start in range(0, count, PARTICLES):
        images = []
        for _ in range(PARTICLES):
            moved = np.roll(fields[rng.integers(DISTINCT)], rng.integers(size, size=2), (0, 1))
            tinted = moved + rng.normal(0, 15, 3)
            images.append(Image.fromarray(tinted.clip(0, 255).astype(np.uint8)))
        key = f"{start:08d}"
        group = Group("iid", "iid", "", "", f"p{key}", "a dress", 0, PARTICLES, key)
        groups.append(folder.write_group(group, images, asdict(Cost()), {}))
    return groups


def prepared_batches(groups: Sequence[FinishedGroup]) -> list[torch.Tensor]:
    *_, prepare = open_clip.create_model_and_transforms(MODEL)
    images = (image for group in groups for image in group.images())
    batches = []
    while part := list(itertools.islice(images, BATCH)):
        batches.append(torch.stack([prepare(image) for image in part]))
    return batches


def seconds(call: Callable[[], object]) -> np.ndarray:
    """Return seconds, and processor seconds of this process."""
    clocks = (time.perf_counter, time.process_time)
    start = [clock() for clock in clocks]
    call()
    return np.array([clock() - begun for clock, begun in zip(clocks, start, strict=True)])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    device = resolve_device(options.device)
    with tempfile.TemporaryDirectory() as scratch:
        folder = RunFolder.prepare(Path(scratch) / "run", SETTINGS)
        groups = write_groups(folder, options.images, options.size)
        sizes = [info.size for group in groups for info in group.files.values()]
        print(f"{len(sizes)} images, {statistics.mean(sizes) / 1024:.0f} KiB each, on {device}")
        model = open_clip.create_model(MODEL).eval().requires_grad_(False)
        save_model(model, Path(scratch) / f"{MODEL}-{TAG}.safetensors")
        model.to(device)
        batches = prepared_batches(groups)

        def bare() -> None:
            with torch.inference_mode():
                for batch in batches:
                    model.encode_image(batch.to(device)).cpu()

        def scored() -> None:
            shutil.rmtree(folder.path / "features", ignore_errors=True)
            scorer.kept.clear()
            scorer.features(name, groups)

        name = f"open_clip:{MODEL}/{TAG}"
        scorer = Scorer(folder, Path(scratch), None, lambda count, label: None, device)
        scorer.features(name, groups[:PARTICLES])  # loads the network
        ratios: list[np.ndarray] = []
        for _ in range(options.rounds):
            alone, whole = seconds(bare), seconds(scored)
            ratios.append(whole / alone)
            print(
                f"network {alone[0]:7.2f} s   scoring {whole[0]:7.2f} s   {ratios[-1][0]:.3f}   "
                f"of processor seconds {ratios[-1][1]:.3f}",
                flush=True,
            )
    for name, values in zip(("seconds", "processor seconds"), np.transpose(ratios), strict=True):
        low, high = values.min(), values.max()
        print(f"ratio of {name}: {np.median(values):.3f} ({low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()
