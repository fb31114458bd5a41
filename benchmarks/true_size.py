"""Full architectures with random weights: seconds and memory of methods against what they need.

    python benchmarks/true_size.py [--model sd15 pixart] [--dtype float32 bfloat16] [--csv FILE]

Each figure is one run (they take minutes on a CPU): the bare pipeline, `iid` through this package,
the latent kernel and feature kernels with few probes. `guidance / passes` divides the seconds that
a feature kernel adds by those of the decoder and guide passes that it counted, made bare.
The text encoders are the true ones of Stable Diffusion; PixArt's T5 is cut to one layer.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import pandas as pd
import timm
import torch
import transformers

from eddy_bench.experiment.setup import Setup
from eddy_bench.methods.base import Method
from eddy_bench.methods.iid import Iid
from eddy_bench.methods.registry import build_method
from eddy_bench.models.base import Model, rows_of
from eddy_bench.models.devices import peak_bytes, reset_peak
from eddy_bench.models.load import ASSETS, DTYPES
from eddy_bench.models.prompts import remember_prompts
from eddy_bench.sampling.noise import particle_generators
from eddy_bench.suites.method_spec import MethodSpec
from eddy_bench.suites.suite import Suite

SIDE, PARTICLES, STEPS = 256, 4, 2
PROMPT = "a red bicycle"
METHODS = (
    "pg:kernel=latent,strength=1,window=0..",
    "eddy-exact:strength=1",
    "pg:kernel=features,strength=1,window=0%..50%",
    "eddy-hutch:strength=0.1,window=0%..50%,probes=2",
)


def tokenizer(length: int) -> Any:
    loaded = transformers.CLIPTokenizer.from_pretrained(ASSETS / "fashion" / "tokenizer")
    loaded.model_max_length = length
    return loaded


def sd15() -> Any:
    """Stable Diffusion 1.5: an 860 M U-Net, CLIP ViT-L's text tower, its autoencoder."""
    unet = diffusers.UNet2DConditionModel(
        sample_size=64,
        block_out_channels=(320, 640, 1280, 1280),
        cross_attention_dim=768,
        attention_head_dim=8,
    )
    text = transformers.CLIPTextConfig(
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        projection_dim=768,
    )
    return diffusers.StableDiffusionPipeline(
        vae=_autoencoder(0.18215),
        unet=unet,
        text_encoder=transformers.CLIPTextModel(text),
        tokenizer=tokenizer(77),
        scheduler=diffusers.DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def pixart() -> Any:
    """PixArt-Sigma XL/2: a 610 M transformer over 256 tokens at 256 pixels."""
    text = transformers.T5Config(
        vocab_size=32128, d_model=4096, d_kv=64, d_ff=10240, num_layers=1, num_heads=64
    )
    return diffusers.PixArtSigmaPipeline(
        vae=_autoencoder(0.13025),
        transformer=diffusers.PixArtTransformer2DModel(
            sample_size=32,
            num_layers=28,
            num_attention_heads=16,
            attention_head_dim=72,
            in_channels=4,
            out_channels=8,
            cross_attention_dim=1152,
            caption_channels=4096,
            use_additional_conditions=False,
        ),
        text_encoder=transformers.T5EncoderModel(text),
        tokenizer=tokenizer(300),
        scheduler=diffusers.DPMSolverMultistepScheduler(),
    )


def _autoencoder(scaling: float) -> Any:
    return diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        latent_channels=4,
        scaling_factor=scaling,
    )


MODELS: dict[str, Callable[[], Any]] = {"sd15": sd15, "pixart": pixart}


def model_of(name: str, dtype: str) -> Model:
    """Make a model whose guide is a DINOv2-sized ViT-S/14 behind a tiny autoencoder."""
    torch.manual_seed(0)
    pipe = MODELS[name]().to(DTYPES[dtype])
    pipe.set_progress_bar_config(disable=True)
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.requires_grad_(False)
    model = Model(name, pipe, device=torch.device("cpu"))
    model.decoder = diffusers.AutoencoderTiny().to(DTYPES[dtype]).requires_grad_(False)
    vit = timm.create_model("vit_small_patch14_dinov2", num_classes=0, img_size=224)
    vit = vit.eval().requires_grad_(False)
    model.guide = lambda images: vit(torch.nn.functional.interpolate(images, (224, 224)))
    model.texts = remember_prompts(pipe)
    return model


@dataclass
class Run:
    """Seconds and peak memory of one call."""

    seconds: float
    peak_mb: float


def timed(call: Callable[[], Any]) -> Run:
    gc.collect()
    reset_peak(torch.device("cpu"))
    start = time.perf_counter()
    call()
    return Run(time.perf_counter() - start, peak_bytes(torch.device("cpu")) / 2**20)


def bare_passes(model: Model) -> tuple[float, float]:
    """Return the seconds of a row forward, and of a row forward and backward."""
    features = model.feature_map((4, SIDE // 8, SIDE // 8))
    points = torch.randn(PARTICLES, 4 * (SIDE // 8) ** 2)
    features.values(points[:1])

    def backward() -> None:
        leaf = points.clone().requires_grad_()
        torch.autograd.grad(features.differentiable(leaf).sum(), leaf)

    with torch.no_grad():
        forward = timed(lambda: features.differentiable(points)).seconds
    return forward / PARTICLES, timed(backward).seconds / PARTICLES


def measure(name: str, dtype: str) -> list[dict[str, Any]]:
    model = model_of(name, dtype)
    setup = Setup(Suite(steps=STEPS, size=SIDE, guidance_scale=4.0), model)
    arguments = setup.call_arguments(1)
    passes: dict[str, float] = {}
    table = []

    def add(label: str, run: Run) -> None:
        row = {"model": name, "dtype": dtype, "what": label, **vars(run), **passes}
        table.append(row)
        print(
            f"{name:8}{dtype:10}{label:52}{run.seconds:8.1f} s {run.peak_mb:8.0f} MiB  "
            + "  ".join(f"{key} {value:.3f}" for key, value in passes.items()),
            flush=True,
        )

    def bare() -> None:
        call = rows_of(model.pipe, [PROMPT], PARTICLES, arguments)
        model.pipe(**call, generator=particle_generators(0, PROMPT, PARTICLES))

    def draw(method: Method) -> Any:
        return model.draw([PROMPT], [0], PARTICLES, method, arguments)[1]

    bare()  # first calls allocate and choose kernels
    plain = timed(bare)
    add("bare pipeline", plain)
    iid = timed(lambda: draw(Iid()))
    passes = {"to bare": iid.seconds / plain.seconds}
    add("iid", iid)
    forward, backward = bare_passes(model)
    for text in METHODS:
        costs: list[Any] = []
        method = build_method(MethodSpec.parse(text))
        run = timed(lambda method=method, costs=costs: costs.append(draw(method)))
        passes = {"to iid": run.seconds / iid.seconds}
        if costs[0].decoder_calls:
            rows = PARTICLES * (costs[0].feature_forwards - costs[0].feature_backwards)
            needed = rows * forward + PARTICLES * costs[0].feature_backwards * backward
            passes["guidance / passes"] = (run.seconds - iid.seconds) / needed
        add(text, run)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, default=["float32", "bfloat16"])
    parser.add_argument("--csv", type=Path)
    asked = parser.parse_args()
    rows = [row for name in asked.model for dtype in asked.dtype for row in measure(name, dtype)]
    if asked.csv:
        pd.DataFrame(rows).to_csv(asked.csv, index=False)


if __name__ == "__main__":
    main()
