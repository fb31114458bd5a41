"""What the tool and its methods cost, as ratios of two things run in turn in this process.

    python benchmarks/overhead.py [--part NAME ...] [--repeats 5] [--json FILE]

Each line is a ratio A / B: the median over repeats of the ratio within a pair, with its minimum and
maximum.
Parts: run, latent, growth, hutch, paper, couplings, features, memory, help.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eddy_bench import (
    Antithetic,
    Coupled,
    EddyExact,
    EddyHutch,
    Iid,
    Lhs,
    Method,
    ParticleGuidance,
    Repulsion,
    Sobol,
    State,
)
from eddy_bench.experiment.draw import draw_groups, find_missing
from eddy_bench.experiment.manifest import record_plan
from eddy_bench.experiment.plan import make_plan
from eddy_bench.experiment.setup import Setup
from eddy_bench.kernels import group_median_bandwidth, rbf, squared_distances
from eddy_bench.methods.eddy import Pairs
from eddy_bench.models.base import Model
from eddy_bench.models.load import load_model
from eddy_bench.models.network_features import NetworkFeatures, RowLimit
from eddy_bench.sampling.noise import particle_generators
from eddy_bench.sampling.schedulers import set_scheduler
from eddy_bench.storage.run_folder import RunFolder
from eddy_bench.suites.method_spec import MethodSpec
from eddy_bench.suites.suite import Suite

PROMPTS = ["dress", "dark coat", "ankle boot", "a wide bag"]
RESULTS: dict[str, dict[str, float]] = {}


def seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def compare(
    name: str, a: Callable[[], Any], b: Callable[[], Any], repeats: int, goal: str = ""
) -> float:
    """Run a and b in turn and print the ratio a / b."""
    a(), b()
    times = [(seconds(a), seconds(b)) for _ in range(repeats)]
    ratios = [x / y for x, y in times]
    median = statistics.median(ratios)
    RESULTS[name] = {
        "ratio": median,
        "low": min(ratios),
        "high": max(ratios),
        "seconds_a": statistics.median(x for x, _ in times),
    }
    print(f"{name:66} {median:8.3f}  [{min(ratios):.3f}, {max(ratios):.3f}]  {goal}", flush=True)
    return median


def model_on(steps: int) -> tuple[Model, dict[str, Any]]:
    model = load_model("fashion", device="cpu")
    model.call |= set_scheduler(model.pipe, "ddim", {})
    return model, {"num_inference_steps": steps, "guidance_scale": 4.0, "output_type": "pil"}


def drawing(
    model: Model,
    method: Method,
    particles: int,
    arguments: dict[str, Any],
    prompts: list[str] = PROMPTS,
) -> Callable[[], Any]:
    return lambda: model.draw(prompts, [0] * len(prompts), particles, method, arguments)


def part_run(repeats: int) -> None:
    """`iid` through the runner, files written, against the bare pipeline call on the same batch."""
    model, arguments = model_on(20)
    suite = Suite(
        prompts="fashion",
        limit=8,
        methods=[MethodSpec(name="iid")],
        batch_prompts=8,
        scheduler=MethodSpec(name="ddim"),
    )
    plan = make_plan(Setup(suite, model))
    texts = [group.prompt for group in plan.groups]

    def ours() -> None:
        with tempfile.TemporaryDirectory() as folder:
            store = RunFolder.prepare(Path(folder) / "run", plan.settings)
            missing, _ = find_missing(plan.groups, store)
            record_plan(plan, store)
            draw_groups(plan, store, missing, lambda count, label: None, warm_up=False)

    def bare() -> None:
        generators = [generator for text in texts for generator in particle_generators(0, text, 4)]
        model.pipe(prompt=texts, num_images_per_prompt=4, generator=generators, **arguments)

    compare(
        "iid through eddy-bench / bare pipeline call, 8 x 4", ours, bare, repeats, "at most 1.03"
    )


def part_latent(repeats: int) -> None:
    """Latent kernels against iid at N = 8."""
    model, arguments = model_on(10)
    for method in (Repulsion(), ParticleGuidance(kernel="latent"), EddyExact()):
        compare(
            f"{method.title()} (latent) / iid, N = 8",
            drawing(model, method, 8, arguments),
            drawing(model, Iid(), 8, arguments),
            repeats,
            "at most 1.10",
        )


def part_growth(repeats: int) -> None:
    """How that ratio grows with N, on one prompt."""
    model, arguments = model_on(5)
    for count in (4, 8, 16, 32, 64):
        for method in (Repulsion(), ParticleGuidance(kernel="latent"), EddyExact()):
            a, b = (drawing(model, m, count, arguments, PROMPTS[:1]) for m in (method, Iid()))
            compare(f"{method.title()} (latent) / iid, N = {count}", a, b, repeats)


@dataclass
class Setting:
    """One step of feature EDDY on the embedded model: a state and its feature map."""

    state: State
    features: NetworkFeatures
    pairs: Pairs


def feature_setting(count: int = 8) -> Setting:
    model = load_model("fashion", device="cpu")
    features = model.feature_map((4, 8, 8))
    generator = torch.Generator().manual_seed(0)
    denoised = torch.randn(1, count, 256, generator=generator)
    sigma = 5.0
    eps = torch.randn(1, count, 256, generator=generator)
    state = State(
        denoised + sigma * eps,
        -eps / sigma,
        denoised,
        sigma,
        generators=(generator,),
        features=features,
    )
    values = features.values(denoised[0])[None]
    square = squared_distances(values.double())
    pairs = Pairs(
        denoised, features, values, square, group_median_bandwidth(square), state.score, -eps
    )
    return Setting(state, features, pairs)


def kernel_at(setting: Setting, points: Tensor, anchors: Tensor) -> Tensor:
    """k between points (n, d) and anchor features (n, F), with a graph."""
    difference = setting.features.differentiable(points) - anchors
    return rbf(difference.square().sum(-1), setting.pairs.gamma.flatten()[0].float())


def hessian_products(setting: Setting, points: Tensor, anchors: Tensor, vectors: Tensor) -> Tensor:
    """hess k v by double backward, (n, d)."""
    leaf = points.detach().requires_grad_()
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        (gradient,) = torch.autograd.grad(
            kernel_at(setting, leaf, anchors).sum(), leaf, create_graph=True
        )
        (product,) = torch.autograd.grad((gradient * vectors).sum(), leaf)
    return product


def part_hutch(repeats: int) -> None:
    """25 probes at N = 8: the Laplacian of all pairs by second differences, against Hessian-vector
    products.
    """
    count, probes = 8, 25
    setting = feature_setting(count)
    points, values = setting.pairs.points[0], setting.pairs.values[0]
    i, j = torch.nonzero(~torch.eye(count, dtype=torch.bool)).T
    signs = (
        torch.randint(0, 2, (probes, 256), generator=torch.Generator().manual_seed(1)).float() * 2
        - 1
    )
    step = 0.1 * float(points.square().mean().sqrt())

    def ours() -> Tensor:
        return setting.pairs.laplacian(signs[:, None], step)[0] / probes

    def batched() -> Tensor:
        total = torch.zeros(count, count)
        for z in signs:
            products = hessian_products(setting, points[i], values[j], z.expand(len(i), -1))
            total[i, j] += (products * z).sum(-1) / probes
        return total

    def one_by_one(used: int = 1) -> Tensor:
        total = torch.zeros(count, count)
        for z in signs[:used]:
            for a, b in zip(i.tolist(), j.tolist(), strict=True):
                total[a, b] += (
                    hessian_products(setting, points[a, None], values[b, None], z[None])[0] * z
                ).sum() / used
        return total

    exact = batched()
    for relative in (0.4, 0.2, 0.1, 0.05, 0.025, 0.0125):
        laplacian = setting.pairs.laplacian(signs[:, None], relative * step / 0.1)[0] / probes
        text = f"relative error of the second differences, same probes, step {relative}"
        print(f"{text:66} {float((laplacian - exact).norm() / exact.norm()):8.4f}", flush=True)
    compare("HVPs batched over pairs / second differences", batched, ours, repeats, "at least 15")
    single = compare(
        f"HVPs one by one, one of {probes} probes / second differences", one_by_one, ours, repeats
    )
    print(
        f"{f'HVPs one by one, all {probes} probes / second differences (x {probes})':66} "
        f"{single * probes:8.1f}  at least 40"
    )
    RESULTS["HVPs one by one / second differences"] = {"ratio": single * probes}
    whole = lambda: EddyHutch(probes=probes).guidance(setting.state)  # noqa: E731
    compare(
        "HVPs batched over pairs / the whole of eddy-hutch's guidance",
        batched,
        whole,
        max(3, repeats // 2),
    )
    part_physics(setting, count, probes, repeats)


def part_physics(setting: Setting, count: int, probes: int, repeats: int) -> None:
    """The whole guidance against the bare passes that it must make, in the same chunks."""
    pairs = count * (count - 1)
    forward, backward = 2 * probes * count + 2 * count, count + 2 * pairs
    chunk = setting.features.chunk
    plain, graded = torch.randn(forward, 256), torch.randn(backward, 256)
    method = EddyHutch(probes=probes)

    def bare() -> None:
        with torch.no_grad():
            setting.features.differentiable(setting.pairs.points[0])
            for part in plain.split(chunk):
                setting.features.differentiable(part)
        for part in graded.split(chunk):
            leaf = part.clone().requires_grad_()
            torch.autograd.grad(setting.features.differentiable(leaf).sum(), leaf)

    compare(
        f"eddy-hutch / its {forward + count} forward and {backward} forward-backward rows",
        lambda: method.guidance(setting.state),
        bare,
        repeats,
        "at most 1.25",
    )


def part_paper(repeats: int) -> None:
    """Whole runs beside the paper's table on one A100 (seconds for i.i.d. / PG / EDDY: SDXL 8.0 /
    9.0 / 23.0, FLUX 28.1 / 28.4 / 35.1).
    """
    model, arguments = model_on(20)
    hutch, pg, iid = (
        drawing(model, m, 4, arguments)
        for m in (EddyHutch(), ParticleGuidance(kernel="features"), Iid())
    )
    compare("eddy-hutch / iid, whole run, N = 4", hutch, iid, repeats, "paper: SDXL 2.9, FLUX 1.25")
    compare(
        "eddy-hutch / pg (features), whole run, N = 4",
        hutch,
        pg,
        repeats,
        "paper: SDXL 2.6, FLUX 1.24",
    )


def part_couplings(repeats: int) -> None:
    """Couplings of the initial and the step noise against iid under the same solver, N = 4."""
    model, arguments = model_on(10)
    for method in (Antithetic(), Lhs(), Sobol()):
        compare(
            f"{method.title()} / iid",
            drawing(model, method, 4, arguments),
            drawing(model, Iid(), 4, arguments),
            repeats,
            "at most 1.05",
        )
    model.call["eta"] = 1.0
    compare(
        "coupled / iid, DDIM with eta = 1",
        drawing(model, Coupled(), 4, arguments),
        drawing(model, Iid(), 4, arguments),
        repeats,
        "at most 1.05",
    )


def sdxl_setting(count: int, feature_batch: int = 64) -> State:
    """One step on latents of an SDXL-shaped pipeline of random weights: a tiny autoencoder decodes,
    a small vision transformer sees.
    """
    import diffusers
    import timm

    from eddy_bench.models.decoding import make_decode

    torch.manual_seed(0)
    pipe = type("StableDiffusionXLPipeline", (), {})()
    decoder = diffusers.AutoencoderTiny(
        latent_channels=4,
        encoder_block_out_channels=(16,) * 4,
        decoder_block_out_channels=(16,) * 4,
        num_decoder_blocks=(1, 1, 1, 1),
        num_encoder_blocks=(1, 1, 1, 1),
    ).requires_grad_(False)
    pipe.vae = decoder
    backbone = (
        timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=128)
        .eval()
        .requires_grad_(False)
    )
    features = NetworkFeatures(
        make_decode(pipe, decoder), backbone, (4, 16, 16), RowLimit.of(feature_batch)
    )
    generator = torch.Generator().manual_seed(0)
    denoised, eps = (torch.randn(1, count, 1024, generator=generator) for _ in range(2))
    return State(
        denoised + 5 * eps,
        -eps / 5,
        denoised,
        5.0,
        generators=(generator,),
        features=features,
        steps=50,
    )


def part_features(repeats: int) -> None:
    """Feature kernels on an SDXL-shaped step against the bare passes of decoder and backbone that
    they cannot do without.
    """
    for count in (4, 16):
        state = sdxl_setting(count)
        features: Any = state.features
        points = state.denoised[0]

        def passes(forward: int, backward: int, features: Any = features) -> Callable[[], None]:
            plain, graded = torch.randn(forward, 1024), torch.randn(backward, 1024)

            def bare() -> None:
                with torch.no_grad():
                    for part in plain.split(features.chunk) if forward else ():
                        features.differentiable(part)
                for part in graded.split(features.chunk):
                    leaf = part.clone().requires_grad_()
                    torch.autograd.grad(features.differentiable(leaf).sum(), leaf)

            return bare

        pg = ParticleGuidance(kernel="features")
        compare(
            f"pg / its {count} forward-backward rows, N = {count}",
            lambda pg=pg, state=state: pg.guidance(state),
            passes(0, len(points)),
            3 * repeats,
            "at most 1.15",
        )
        probes, pairs = 25, count * (count - 1)
        hutch = EddyHutch(probes=probes)
        forward, backward = 2 * probes * count + 3 * count, count + 2 * pairs
        compare(
            f"eddy-hutch / its {forward} forward and {backward} forward-backward rows, N = {count}",
            lambda hutch=hutch, state=state: hutch.guidance(state),
            passes(forward, backward),
            max(2, repeats // 2),
            "at most 1.15",
        )


def part_memory(repeats: int) -> None:
    """Peak memory of one guidance at N = 16 against N = 4 with the same feature batch, each in a
    process of its own, less what is there before.
    """
    code = (
        "import sys; sys.path.insert(0, 'benchmarks'); import overhead, resource, torch\n"
        "torch.set_num_threads(1)\n"
        "from eddy_bench import EddyHutch, ParticleGuidance\n"
        "state = overhead.sdxl_setting({count}, 4)\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak(); {method}.guidance(state); print((peak() - before) / 1024)"
    )
    for method in ("ParticleGuidance(kernel='features')", "EddyHutch()"):
        used = [
            float(
                subprocess.run(
                    [sys.executable, "-c", code.format(count=count, method=method)],
                    check=True,
                    capture_output=True,
                    text=True,
                ).stdout
            )
            for count in (4, 16)
        ]
        RESULTS[f"memory {method}"] = {"ratio": used[1] / used[0]}
        print(
            f"{f'peak memory of {method}, N = 16 / N = 4 ({used[1]:.0f} / {used[0]:.0f} MiB)':66} "
            f"{used[1] / used[0]:8.3f}  at most 2",
            flush=True,
        )


def part_help(repeats: int) -> None:
    """Start-up."""

    def ours():
        return subprocess.run(
            [sys.executable, "-m", "eddy_bench.cli", "--help"], check=True, capture_output=True
        )

    def bare():
        return subprocess.run(
            [sys.executable, "-c", "import typer, rich"], check=True, capture_output=True
        )

    compare(
        "eddy-bench --help / python -c 'import typer, rich'",
        ours,
        bare,
        max(repeats, 9),
        "at most 2",
    )


PARTS = {
    "run": part_run,
    "latent": part_latent,
    "growth": part_growth,
    "hutch": part_hutch,
    "paper": part_paper,
    "couplings": part_couplings,
    "features": part_features,
    "memory": part_memory,
    "help": part_help,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", action="append", choices=sorted(PARTS))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    for name in args.part or PARTS:
        PARTS[name](args.repeats)
    if args.json:
        args.json.write_text(json.dumps(RESULTS, indent=1) + "\n")


if __name__ == "__main__":
    main()
