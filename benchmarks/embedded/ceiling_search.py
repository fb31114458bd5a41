"""How far an exact method goes: couplings of start and steps on the embedded model.

    python benchmarks/embedded/ceiling_search.py [--prompts fashion-tune] [--solver ddim:eta=0.5]
        [--particles 4] [--seeds 2] [--variant NAME ...] [--report]

A row of ceiling_search.csv is a group: its mean squared distance of pairs under `fmnist-clip` and
its seconds per image. What the file has is not drawn again; `--report` only prints. Variants are
`iid`, a registered method, or `START/STEPS` of the lists below; all keep each particle's law.
Choose on `fashion-tune`, report on `fashion`.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from eddy_bench import Method, State
from eddy_bench.kernels import group_median_bandwidth, squared_distances
from eddy_bench.methods.coupled import laplacian_root, maxcut_rows
from eddy_bench.methods.couplings import antithetic, lhs
from eddy_bench.methods.registry import build_method
from eddy_bench.models.load import load_model
from eddy_bench.results.headroom import headroom
from eddy_bench.results.statistics import mean_interval
from eddy_bench.sampling.schedulers import set_scheduler
from eddy_bench.scoring.diversity import mean_similarity
from eddy_bench.scoring.extractors import load_extractor
from eddy_bench.suites.method_spec import MethodSpec
from eddy_bench.suites.prompts import load_prompts

CSV = Path(__file__).with_name("ceiling_search.csv")
KEYS = ["prompts", "solver", "particles", "variant", "seed"]
BANDS = torch.tensor([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])  # Hadamard signs, N = 4


def pairs(noise: Tensor, dim: int) -> Tensor:
    """Return opposite pairs (z_1 .. z_h, -z_1 .. -z_h); N is even."""
    half = noise.narrow(dim, 0, noise.shape[dim] // 2)
    return torch.cat([half, -half], dim)


def signed(noise: Tensor, bands: Tensor) -> Tensor:
    """Return one normal draw under a sign per particle and band: rows orthogonal in expectation."""
    return BANDS[:, bands].to(noise.dtype) * noise[0]


def correlated(noise: Tensor, correlation: float) -> Tensor:
    """Return two rows of one correlation, from (2, d)."""
    second = correlation * noise[0] + (1 - correlation**2) ** 0.5 * noise[1]
    return torch.stack([noise[0], second])


def by_row(noise: Tensor) -> Tensor:
    """Return sum-zero noise over dim 1 of (G, N, d)."""
    count = noise.shape[1]
    return (count / (count - 1)) ** 0.5 * (noise - noise.mean(1, keepdim=True))


def turned(noise: Tensor, onto: Tensor) -> Tensor:
    """Return noise turned in each particle's own frame.

    The rotation takes the mean direction of `onto`, (G, N, d), to the particle's own.
    """
    own = torch.nn.functional.normalize(onto, dim=-1)
    mean = torch.nn.functional.normalize(own.mean(1, keepdim=True), dim=-1)
    between = torch.nn.functional.normalize(own + mean, dim=-1)
    for axis in (mean, between):
        noise = noise - 2 * axis * (axis * noise).sum(-1, keepdim=True)
    return noise


@dataclass(frozen=True)
class Variant(Method):
    """Start and steps coupled by rules that see the past alone, so that every row is normal."""

    start: str = "iid"
    steps: str = "iid"

    @property
    def acting(self) -> frozenset[str]:
        return super().acting - ({"step_noise"} if self.steps == "iid" else set())

    def initial_noise(self, noise: Tensor, generator: torch.Generator) -> Tensor:
        rules: dict[str, Any] = {
            "iid": lambda: noise,
            "simplex": lambda: antithetic(noise, generator),
            "lhs": lambda: lhs(noise, generator),
            "pairs": lambda: pairs(noise, 0),
            "bands": lambda: signed(noise, torch.arange(noise.shape[1]) % 3),
            "channels": lambda: signed(noise, (torch.arange(noise.shape[1]) // 64).clamp_max(2)),
        }
        if self.start.startswith("r="):  # at N = 2: how the share falls with the order of features
            return correlated(noise, float(self.start[2:]))
        coupled: Tensor = rules[self.start]()
        return coupled

    def step_noise(self, noise: Tensor, state: State) -> Tensor:
        square = squared_distances(state.denoised.double())
        logs = -square / group_median_bandwidth(square)
        rules: dict[str, Any] = {
            "simplex": lambda: by_row(noise),
            "pairs": lambda: pairs(noise, 1),
            "laplacian": lambda: laplacian_root(logs, 1.0).to(noise.dtype) @ noise,
            "narrow": lambda: laplacian_root(logs / 0.3, 1.0).to(noise.dtype) @ noise,
            "maxcut": lambda: maxcut_rows(logs).to(noise.dtype) @ noise,
            "narrow-maxcut": lambda: maxcut_rows(logs / 0.3).to(noise.dtype) @ noise,
            "turned": lambda: turned(by_row(noise).double(), state.denoised.double()).to(noise),
        }
        coupled: Tensor = rules[self.steps]()
        return coupled


def method_of(text: str) -> Method:
    start, slash, steps = text.partition("/")
    return Variant(start, steps) if slash else build_method(MethodSpec.parse(text))


class Search:
    """Draws groups and measures their distances."""

    def __init__(self, prompts: str, solver: str, particles: int) -> None:
        self.prompts = [prompt.text for prompt in load_prompts(prompts).prompts]
        self.particles, self.model = particles, load_model("fashion", device="cpu")
        spec = MethodSpec.parse(solver)
        self.model.call |= set_scheduler(self.model.pipe, spec.name, spec.parameters)
        self.clip = load_extractor("fmnist-clip")

    def measure(self, variant: str, seed: int) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        arguments = {"num_inference_steps": 20, "guidance_scale": 4.0, "output_type": "pil"}
        for start in range(0, len(self.prompts), 16):
            part = self.prompts[start : start + 16]
            begun = time.perf_counter()
            groups, _ = self.model.draw(
                part, [seed] * len(part), self.particles, method_of(variant), arguments
            )
            seconds = (time.perf_counter() - begun) / len(part) / self.particles
            rows += [
                {
                    "prompt": prompt,
                    "distance": round(2 * (1 - mean_similarity(self.clip.images(group))), 6),
                    "seconds": round(seconds, 4),
                }
                for prompt, group in zip(part, groups, strict=True)
            ]
        return rows


def report(table: pd.DataFrame) -> None:
    """Print shares against iid on the same seeds, and gains over the best one known before."""
    for (prompts, solver, count), part in table.groupby(KEYS[:3]):
        wide = part.pivot_table("distance", ["seed", "prompt"], "variant")
        if "iid" not in wide:
            continue
        print(f"\n{prompts}, {solver}, N = {count}")
        seconds = part.groupby("variant").seconds.median()
        best = "coupled:init=antithetic" if "coupled:init=antithetic" in wide else "antithetic"
        for name in wide.columns.drop("iid"):
            own = wide[[name, "iid"]].dropna()
            both, seeds = own.groupby("prompt").mean(), own.index.unique("seed")
            values = both[name].to_numpy(), both["iid"].to_numpy()
            value, low, high, _ = headroom(*values, int(count))
            line = (
                f"{name:24} seeds {len(seeds)}  headroom {value:.2f} "
                f"[{low:.2f}, {high:.2f}]  seconds x{seconds[name] / seconds['iid']:.2f}"
            )
            if best in wide and name != best:
                rest = wide[[name, best]].dropna().groupby("prompt").mean()
                gain = (rest[name] - rest[best]) / wide["iid"].mean() * (int(count) - 1)
                middle, low, high = mean_interval(gain.to_numpy())
                line += f"  against {best} {middle:+.2f} [{low:+.2f}, {high:+.2f}]"
            print(line)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prompts", default="fashion-tune")
    parser.add_argument("--solver", default="ddim:eta=0.5")
    parser.add_argument("--particles", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--variant", action="append", default=[])
    parser.add_argument("--report", action="store_true")
    asked = parser.parse_args()
    rows = pd.read_csv(CSV).to_dict("records") if CSV.is_file() else []
    there = {tuple(row[key] for key in KEYS) for row in rows}
    search = None if asked.report else Search(asked.prompts, asked.solver, asked.particles)
    for seed in range(asked.seeds):
        for name in ["iid", *asked.variant]:
            key = (asked.prompts, asked.solver, asked.particles, name, seed)
            if search is None or key in there:
                continue
            rows += [dict(zip(KEYS, key, strict=True)) | row for row in search.measure(name, seed)]
            pd.DataFrame(rows).to_csv(CSV, index=False)
            print(*key, flush=True)
    report(pd.DataFrame(rows))


if __name__ == "__main__":
    main()
