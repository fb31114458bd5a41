"""Distil the embedded model to four steps, its guidance included, with a fixed seed.

    python benchmarks/embedded/distil.py --data DIR --work DIR [--trajectories N] [--minutes M]

Progressive distillation (Salimans & Ho, arXiv 2202.00512) in one leap, of a guided teacher (Meng
et al., arXiv 2210.03142) at one guidance scale: the teacher draws trajectories of 20 DDIM steps
from noise, and one DDIM step of the student learns to do what five of the teacher's do. The
student meets the states that it will meet when it draws, so no real image is needed; captions are
those of random training images. Trajectories and weights are checkpointed in WORK.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler
from torch import Tensor, nn
from train import SEED, Captions, load_split

from benchmarks.embedded.garments import save_difference
from eddy_bench.models.embedded import DIFFERENCE, EMBEDDED
from eddy_bench.models.load import load_model

TEACHER_STEPS = 20
STUDENT_STEPS = 4
GUIDANCE_SCALE = 4.0
CHUNK = 250
FOLDER = EMBEDDED["fashion-4step"].folder


def timesteps(scheduler: DDIMScheduler, steps: int) -> list[int]:
    scheduler.set_timesteps(steps)
    return [int(value) for value in scheduler.timesteps]


@torch.no_grad()
def trajectory(pipe, hidden: Tensor, null: Tensor, generator: torch.Generator) -> Tensor:
    """(n, 5, 4, 8, 8): the teacher's latents at the start, at the student's levels and the end."""
    scheduler = pipe.scheduler
    latents = torch.randn(len(hidden), 4, 8, 8, generator=generator)
    both, kept = torch.cat([null.expand_as(hidden), hidden]), [latents]
    for step, t in enumerate(timesteps(scheduler, TEACHER_STEPS)):
        twice = torch.cat([latents, latents]).to(memory_format=torch.channels_last)
        without, given = pipe.unet(twice, t, both).sample.chunk(2)
        eps = without + GUIDANCE_SCALE * (given - without)
        latents = scheduler.step(eps, t, latents).prev_sample
        if (step + 1) % (TEACHER_STEPS // STUDENT_STEPS) == 0:
            kept.append(latents)
    return torch.stack(kept, 1).contiguous()


@torch.no_grad()
def encode(pipe, tokens: Tensor) -> Tensor:
    return pipe.text_encoder(tokens).last_hidden_state


def trajectories(pipe, captions: Captions, count: int, path: Path) -> dict[str, Tensor]:
    """All trajectories and the tokens of their captions; goes on from what WORK has."""
    made = torch.load(path, weights_only=True) if path.exists() else {}
    latents, tokens = made.get("latents", torch.empty(0)), made.get("tokens", torch.empty(0))
    null, start, drawn = encode(pipe, captions.tokens([""])), time.time(), 0
    while len(latents) < count:
        rng = np.random.default_rng(SEED + 10 + len(latents))
        generator = torch.Generator().manual_seed(SEED + 10 + len(latents))
        rows = rng.integers(len(captions.attributes), size=CHUNK)
        new = captions.tokens([captions.text(int(row), rng) for row in rows])
        part = trajectory(pipe, encode(pipe, new), null, generator)
        latents = torch.cat([latents, part]) if len(latents) else part
        tokens = torch.cat([tokens, new]) if len(tokens) else new
        torch.save({"latents": latents, "tokens": tokens}, path)
        drawn += CHUNK
        each = (time.time() - start) / drawn
        print(f"trajectories {len(latents)}/{count} {each * (count - len(latents)):.0f}s left")
    return {"latents": latents[:count], "tokens": tokens[:count]}


def levels(scheduler: DDIMScheduler) -> tuple[Tensor, Tensor, Tensor]:
    """The student's timesteps, and a step's move x' = keep x + change eps at each."""
    steps = timesteps(scheduler, STUDENT_STEPS)
    after = [*steps[1:], None]
    bars = scheduler.alphas_cumprod
    here = torch.stack([bars[t] for t in steps])
    there = torch.stack([scheduler.final_alpha_cumprod if t is None else bars[t] for t in after])
    keep = (there / here).sqrt()
    return torch.tensor(steps), keep, (1 - there).sqrt() - keep * (1 - here).sqrt()


def train(pipe, data: dict[str, Tensor], work: Path, minutes: float) -> nn.Module:
    """The student after `minutes` of training: squared error of where its step arrives.

    An average of the weights is kept; the rate falls with the share of time used.
    """
    student = copy.deepcopy(pipe.unet).requires_grad_(True)
    average = [p.detach().clone() for p in student.parameters()]
    optimiser = torch.optim.AdamW(
        student.parameters(), lr=5e-4, weight_decay=0.0, betas=(0.9, 0.99)
    )
    steps, keep, change = levels(pipe.scheduler)
    hidden = torch.cat([encode(pipe, part) for part in data["tokens"].split(500)])
    checkpoint, step, used, losses = work / "student-checkpoint.pt", 0, 0.0, []
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        student.load_state_dict(state["student"])
        optimiser.load_state_dict(state["optimiser"])
        average, step, used = state["average"], state["step"], state["used"]
    rng, saved = np.random.default_rng(SEED + step), used
    while used < 60 * minutes:
        start, share = time.time(), used / (60 * minutes)
        for group in optimiser.param_groups:
            group["lr"] = 5e-4 * min((step + 1) / 100, 1) * (1 + math.cos(math.pi * share)) / 2
        rows = torch.from_numpy(rng.integers(len(hidden), size=256))
        level = torch.from_numpy(rng.integers(STUDENT_STEPS, size=256))
        before, target = data["latents"][rows, level], data["latents"][rows, level + 1]
        with torch.autocast("cpu", torch.bfloat16):
            noisy = before.to(memory_format=torch.channels_last)
            eps = student(noisy, steps[level], hidden[rows]).sample
        arrived = keep[level, None, None, None] * before + (
            change[level, None, None, None] * eps.float()
        )
        loss = (arrived - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimiser.step()
        decay = min(0.998, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(average, [p.detach() for p in student.parameters()], 1 - decay)
        step, used = step + 1, used + time.time() - start
        losses.append(loss.item())
        if step % 50 == 0:
            print(f"student {step} loss {np.mean(losses[-50:]):.5f} {used:.0f}s", flush=True)
        if used - saved > 120:
            state = {"student": student.state_dict(), "optimiser": optimiser.state_dict()}
            torch.save({**state, "average": average, "step": step, "used": used}, checkpoint)
            saved = used
    with torch.no_grad():
        torch._foreach_copy_(list(student.parameters()), average)
    return student.eval()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("build/embedded"))
    parser.add_argument("--trajectories", type=int, default=6000)
    parser.add_argument("--minutes", type=float, default=24.0)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    pipe = load_model("fashion").pipe
    pipe.unet.to(memory_format=torch.channels_last)
    _, attributes = load_split(args.data, "train")
    captions = Captions(pipe.tokenizer, attributes)
    path = args.work / "trajectories.pt"
    data = trajectories(pipe, captions, args.trajectories, path)
    student = train(pipe, data, args.work, args.minutes)
    save_difference(load_model("fashion").pipe.unet, student, FOLDER / DIFFERENCE)


if __name__ == "__main__":
    main()
