"""`iid` through this package, files written, against the bare pipeline, at 1024 x 1024 pixels.

    python benchmarks/writing.py [--seconds 8] [--groups 6] [--repeats 3]

The denoiser only waits, as the processor does while a GPU works; the images are of the smoothness
and noise of photographs, so that they compress as those do. Printed are the ratio of wall times,
run in turn, and what the encoding of an image takes at the levels of compression.
"""

from __future__ import annotations

import argparse
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from PIL import Image

from eddy_bench.experiment.draw import draw_groups
from eddy_bench.experiment.manifest import record_plan
from eddy_bench.experiment.plan import make_plan
from eddy_bench.experiment.setup import Setup
from eddy_bench.models.base import Model
from eddy_bench.sampling.noise import particle_generators
from eddy_bench.storage.group import PNG_LEVEL
from eddy_bench.storage.run_folder import RunFolder
from eddy_bench.suites.method_spec import MethodSpec
from eddy_bench.suites.suite import Suite

SIDE, STEPS, PARTICLES = 1024, 4, 4


def photograph(seed: int) -> Image.Image:
    """Return smooth colours with a little noise, which compress as photographs do."""
    rng = np.random.default_rng(seed)
    coarse = np.uint8(np.clip(128 + 50 * rng.normal(size=(64, 64, 3)), 0, 255))
    smooth = np.asarray(Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    noisy = smooth + rng.normal(0, 3, smooth.shape)
    return Image.fromarray(np.uint8(np.clip(noisy, 0, 255)))


class Waiting(torch.nn.Module):
    """A denoiser that takes the time of a GPU and none of the processor's."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def forward(self, sample: torch.Tensor) -> torch.Tensor:
        time.sleep(self.seconds)
        return torch.zeros_like(sample)


class StubPipeline(diffusers.DiffusionPipeline):
    """A pipeline of a denoiser that waits; its images were made beforehand."""

    def __init__(self, unet: Waiting, images: list[Image.Image]) -> None:
        super().__init__()
        self.register_modules(unet=unet, scheduler=diffusers.DDIMScheduler(clip_sample=False))
        self.images = images

    def __call__(
        self,
        prompt: list[str],
        num_images_per_prompt: int = 1,
        num_inference_steps: int = STEPS,
        generator: Any = None,
        output_type: str = "pil",
    ) -> Any:
        self.scheduler.set_timesteps(num_inference_steps)
        rows = len(prompt) * num_images_per_prompt
        latents = torch.randn(rows, 4, SIDE // 8, SIDE // 8)
        for timestep in self.scheduler.timesteps:
            latents = self.scheduler.step(self.unet(latents), timestep, latents).prev_sample
        images = [self.images[k % len(self.images)].copy() for k in range(rows)]
        return diffusers.ImagePipelineOutput(images=images)


def encoding(images: list[Image.Image]) -> None:
    for level in (PNG_LEVEL, 6):
        start, size = time.perf_counter(), 0
        for image in images:
            buffer = io.BytesIO()
            image.save(buffer, "PNG", compress_level=level)
            size += len(buffer.getvalue())
        seconds = (time.perf_counter() - start) / len(images)
        print(f"level {level}: {seconds:.3f} s and {size / len(images) / 1e6:.2f} MB per image")


def seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--seconds", type=float, default=8.0, help="of a group, as SDXL's on an A100"
    )
    parser.add_argument("--groups", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    images = [photograph(seed) for seed in range(PARTICLES)]
    encoding(images)
    model = Model("stub", StubPipeline(Waiting(asked.seconds / STEPS), images))
    suite = Suite(
        methods=[MethodSpec(name="iid")], steps=STEPS, limit=asked.groups, batch_prompts=1
    )
    plan = make_plan(Setup(suite, model))

    def ours() -> None:
        with tempfile.TemporaryDirectory() as folder:
            store = RunFolder.prepare(Path(folder) / "run", plan.settings)
            record_plan(plan, store)
            draw_groups(plan, store, plan.groups, lambda count, label: None, warm_up=False)

    def bare() -> None:
        for group in plan.groups:
            model.pipe(
                prompt=[group.prompt],
                num_images_per_prompt=PARTICLES,
                generator=particle_generators(group.seed, group.prompt, PARTICLES),
            )

    ratios = [seconds(ours) / seconds(bare) for _ in range(asked.repeats)]
    shown = ", ".join(f"{ratio:.4f}" for ratio in ratios)
    print(f"through eddy-bench / bare: {statistics.median(ratios):.4f} ({shown}), at most 1.02")


if __name__ == "__main__":
    main()
