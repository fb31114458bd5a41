"""Fair selection on previews: how much of what is free M candidates and a cheap look at them buy.

    python benchmarks/embedded/ceiling_previews.py [--report]

Draws 16 candidates of each prompt of `fashion-tune` under DDIM, independent ones and opposite
pairs, with the denoised estimates after 1, 2 and 4 of 20 steps and the ends of coarse runs of 2 and
4 steps. Candidates are split into groups of 4 that are each as different as possible, of which one
is kept at random: every candidate is kept with probability 4 / M, so each image keeps its law. A
row of ceiling_previews.csv is the mean squared distance of pairs over all groups of a prompt.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from eddy_bench import Iid
from eddy_bench.methods.best_of_m import diverse_groups
from eddy_bench.models.load import load_model
from eddy_bench.results.headroom import headroom
from eddy_bench.sampling.noise import particle_generators
from eddy_bench.sampling.schedulers import set_scheduler
from eddy_bench.scoring.extractors import load_extractor
from eddy_bench.suites.prompts import load_prompts

CSV = Path(__file__).with_name("ceiling_previews.csv")
ALL, KEPT, SCALE, SEED = 16, 4, 4.0, 7
LOOKS = {"1 of 20": (20, 1), "2 of 20": (20, 2), "4 of 20": (20, 4), "2 of 2": (2, 2)}
LOOKS["4 of 4"] = (4, 4)


def candidates(prompt: str, kind: str) -> Tensor:
    """Return 16 starts, (16, 4, 8, 8); of pairs the k-th and the (k + 8)-th are opposite."""
    rows = [torch.randn((4, 8, 8), generator=g) for g in particle_generators(SEED, prompt, ALL)]
    half = ALL // 2
    return torch.stack(rows[:half] + [-row for row in rows[:half]] if kind == "pairs" else rows)


@torch.inference_mode()
def denoised(pipe: Any, prompt: str, start: Tensor, steps: int, done: int) -> Tensor:
    """Return the denoised estimates after `done` of `steps` DDIM steps, of `start`'s shape."""
    words, empty = pipe.encode_prompt([prompt], "cpu", len(start), True)
    scheduler, x = DDIMScheduler.from_config(pipe.scheduler.config), start
    scheduler.set_timesteps(steps)
    for timestep in scheduler.timesteps[:done]:
        both = torch.cat([empty, words])
        eps = pipe.unet(torch.cat([x, x]), timestep, encoder_hidden_states=both).sample
        free, given = eps.chunk(2)
        stepped = scheduler.step(free + SCALE * (given - free), timestep, x)
        x = stepped.prev_sample
    return stepped.pred_original_sample


def draw(kind: str) -> dict[str, Tensor]:
    """Return the scored features and the previews by name, (prompts, 16, F)."""
    model, clip = load_model("fashion", device="cpu"), load_extractor("fmnist-clip")
    model.call |= set_scheduler(model.pipe, "ddim", {})
    looks = model.feature_map((4, 8, 8))
    seen: dict[str, list[Tensor]] = {}
    call = {"num_inference_steps": 20, "guidance_scale": SCALE, "output_type": "pil"}
    for prompt in [prompt.text for prompt in load_prompts("fashion-tune").prompts]:
        start = candidates(prompt, kind)
        (group,), _ = model.draw([prompt], [SEED], ALL, Iid(), call | {"latents": start})
        seen.setdefault("scored features", []).append(torch.as_tensor(clip.images(group)))
        for name, (steps, done) in LOOKS.items():
            flat = denoised(model.pipe, prompt, start, steps, done).flatten(1)
            seen.setdefault(f"{name}, latents", []).append(flat - flat.mean(0))
            seen.setdefault(f"{name}, guide", []).append(looks.values(flat))
    return {name: torch.stack(rows) for name, rows in seen.items()}


def couples(features: Tensor, generator: torch.Generator) -> Tensor:
    """Return groups of two opposite pairs each, whose means are as different as possible."""
    half = len(features) // 2
    middle = features[:half] + features[half:]
    two = diverse_groups(middle - middle.mean(0), 2, generator)
    return torch.cat([two, two + half], 1)


def mean_distance(features: Tensor, groups: Tensor) -> float:
    """Return the mean squared distance of pairs within groups of unit features."""
    unit = torch.nn.functional.normalize(features.double(), dim=-1)[groups]
    count = groups.shape[1]
    return float((1 - unit.mean(1).square().sum(-1)).mean()) * 2 * count / (count - 1)


def split(scored: Tensor, seen: Tensor, total: int, rule: str) -> float:
    """Return the mean distance over the groups of all blocks of `total` candidates."""
    half, values = ALL // 2, []
    for block in range(ALL // total):
        first = torch.arange(block * total // 2, (block + 1) * total // 2)
        rows = torch.cat([first, first + half])
        generator = torch.Generator().manual_seed(block)
        if rule == "candidates":
            groups = diverse_groups(seen[rows], KEPT, generator)
        elif rule == "pairs":
            groups = couples(seen[rows], generator)
        else:
            groups = torch.arange(total).reshape(2, -1, KEPT // 2).transpose(0, 1).flatten(1)
        values.append(mean_distance(scored, rows[groups]))
    return float(np.mean(values))


def measure(kind: str, seen: dict[str, Tensor]) -> list[dict[str, Any]]:
    scored = seen["scored features"]
    rules = ("candidates", "pairs") if kind == "pairs" else ("candidates",)
    plans = [(total, rule, name) for total in (8, ALL) for rule in rules for name in seen]
    plans += [(ALL, "none", "nothing")]
    return [
        {"kind": kind, "candidates": total, "split": rule, "seen": name, "prompt": k}
        | {"distance": split(scored[k], seen.get(name, scored)[k], total, rule)}
        for total, rule, name in plans
        for k in range(len(scored))
    ]


def report(table: pd.DataFrame) -> None:
    """Print the share of every plan; i.i.d. sampling is all pairs of independent candidates."""
    iid = table[table.split == "all"].distance.to_numpy()
    for plan, part in table[table.split != "all"].groupby(["kind", "candidates", "split", "seen"]):
        value, low, high, _ = headroom(part.distance.to_numpy(), iid, KEPT)
        print(*plan, f"{value:.2f} [{low:.2f}, {high:.2f}]", sep=" | ")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--report", action="store_true")
    if not parser.parse_args().report:
        rows: list[dict[str, Any]] = []
        for kind in ("iid", "pairs"):
            seen = draw(kind)
            rows += measure(kind, seen)
            if kind == "iid":
                whole = [mean_distance(x, torch.arange(ALL)[None]) for x in seen["scored features"]]
                rows += [
                    {"kind": kind, "candidates": ALL, "split": "all", "seen": "", "prompt": k}
                    | {"distance": value}
                    for k, value in enumerate(whole)
                ]
        pd.DataFrame(rows).to_csv(CSV, index=False, float_format="%.6f")
    report(pd.read_csv(CSV, keep_default_na=False))


if __name__ == "__main__":
    main()
