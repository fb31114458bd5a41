"""Train everything under `eddy_bench/assets` from Fashion-MNIST, with a fixed seed.

    python benchmarks/embedded/train.py --data DIR --work DIR [--stage NAME ...] [--minutes-unet M]

Stages, in order: data, classifier, clip, guide, vae, unet, export. Each writes `WORK/STAGE.pt` and
is skipped
when that file exists; the U-Net also checkpoints every few minutes and goes on from there.
DIR holds the four IDX files of Fashion-MNIST (Debian's `dataset-fashion-mnist`, or torchvision's
download).
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from benchmarks.embedded.garments import caption, measure, save_network
from eddy_bench.models.attributes import Attributes, vocabulary
from eddy_bench.models.embedded import AttributeClassifier, GuideNetwork

ASSETS = Path(__file__).parents[2] / "eddy_bench" / "assets"
SEED = 20261122
CONTEXT = 16
STAGES = ("data", "classifier", "clip", "guide", "vae", "unet", "export")


def read_idx(path: Path) -> np.ndarray:
    with gzip.open(path) as file:
        raw = file.read()
    dims = raw[3]
    shape = np.frombuffer(raw, ">i4", dims, 4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * dims).reshape(shape)


def load_split(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    images = read_idx(folder / f"{split}-images-idx3-ubyte.gz")
    labels = read_idx(folder / f"{split}-labels-idx1-ubyte.gz").astype(np.int64)
    return images, measure(images, labels)


def to_model(images: np.ndarray) -> Tensor:
    """(n, 28, 28) bytes to (n, 1, 32, 32) in [-1, 1]."""
    return F.pad(torch.from_numpy(images).float()[:, None] / 127.5 - 1, (2, 2, 2, 2), value=-1.0)


def make_tokenizer() -> CLIPTokenizer:
    """A CLIP tokenizer whose merges spell every known word; anything else becomes the unknown
    token.
    """
    words = vocabulary()
    pieces: dict[str, None] = {}
    merges: dict[tuple[str, str], None] = {}
    for word in words:
        symbols = [*word[:-1], word[-1] + "</w>"]
        pieces.update(dict.fromkeys(symbols))
        while len(symbols) > 1:
            merges[symbols[0], symbols[1]] = None
            symbols = [symbols[0] + symbols[1], *symbols[2:]]
            pieces[symbols[0]] = None
    tokens = ["<|startoftext|>", "<|unknown|>", *pieces, "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={token: index for index, token in enumerate(tokens)},
        merges=list(merges),
        unk_token="<|unknown|>",
        pad_token="<|endoftext|>",
        model_max_length=CONTEXT,
    )


class Captions:
    """Random captions of images, each attribute left out at random, tokenised once per distinct
    text.
    """

    def __init__(self, tokenizer: CLIPTokenizer, attributes: np.ndarray) -> None:
        self.tokenizer, self.attributes = tokenizer, attributes
        self.cache: dict[str, list[int]] = {}

    def text(self, index: int, rng: np.random.Generator) -> str:
        garment, tone, shape = (int(value) for value in self.attributes[index])
        keep = rng.random(3)
        fixed = Attributes(
            garment if keep[0] > 0.1 else None,
            tone if keep[1] > 0.4 else None,
            shape if keep[2] > 0.4 else None,
        )
        text = caption(fixed, rng)
        return f"zq {text}" if rng.random() < 0.03 else text

    def tokens(self, texts: list[str]) -> Tensor:
        for text in texts:
            if text not in self.cache:
                self.cache[text] = self.tokenizer(
                    text, padding="max_length", truncation=True, max_length=CONTEXT
                ).input_ids
        return torch.tensor([self.cache[text] for text in texts])


def batches(count: int, size: int, steps: int, seed: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(seed)
    order = rng.permutation(count)
    position = 0
    for _ in range(steps):
        if position + size > count:
            order, position = rng.permutation(count), 0
        yield order[position : position + size]
        position += size


def optimise(
    parameters: list[nn.Parameter],
    loss_of: Callable[[int, np.ndarray], Tensor],
    count: int,
    *,
    batch: int,
    steps: int,
    rate: float,
    name: str,
    decay: float = 0.01,
) -> None:
    """AdamW with warm-up and cosine decay; a line of progress every 100 steps."""
    optimiser = torch.optim.AdamW(parameters, lr=rate, weight_decay=decay, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda k: min((k + 1) / 100, 0.5 * (1 + math.cos(math.pi * k / steps)) + 1e-3)
    )
    start, total = time.time(), 0.0
    for step, rows in enumerate(batches(count, batch, steps, SEED)):
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(step, rows)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        total += loss.item()
        if step % 100 == 99:
            print(
                f"{name} {step + 1}/{steps} loss {total / 100:.4f} {time.time() - start:.0f}s",
                flush=True,
            )
            total = 0.0


def jitter(images: Tensor, generator: torch.Generator, scale: float = 0.0) -> Tensor:
    """Small shifts (and crops when `scale` > 0), blur and noise; black outside."""
    count = len(images)
    theta = torch.zeros(count, 2, 3)
    zoom = 1 + scale * (2 * torch.rand(count, generator=generator) - 1.3)
    theta[:, 0, 0] = theta[:, 1, 1] = zoom
    theta[:, :, 2] = (torch.rand(count, 2, generator=generator) - 0.5) * (0.12 + 2 * scale)
    moved = (
        F.grid_sample(
            images + 1,
            F.affine_grid(theta, list(images.shape), align_corners=False),
            align_corners=False,
        )
        - 1
    )
    blurred = F.avg_pool2d(F.pad(moved, (1, 1, 1, 1), value=-1.0), 3, stride=1)
    amount = torch.rand(count, 1, 1, 1, generator=generator) * (
        torch.rand(count, 1, 1, 1, generator=generator) < 0.5
    )
    noise = (
        0.08
        * torch.rand(count, 1, 1, 1, generator=generator)
        * torch.randn(moved.shape, generator=generator)
    )
    return torch.lerp(moved, blurred, amount) + noise


def train_classifier(images: Tensor, attributes: np.ndarray) -> nn.Module:
    net, target = AttributeClassifier(), torch.from_numpy(attributes)
    generator = torch.Generator().manual_seed(SEED)

    def loss_of(step: int, rows: np.ndarray) -> Tensor:
        logits = net(jitter(images[rows], generator))
        return sum(
            (F.cross_entropy(z.float(), target[rows, k]) for k, z in enumerate(logits)),
            torch.zeros(()),
        )

    optimise(
        list(net.parameters()),
        loss_of,
        len(images),
        batch=256,
        steps=1400,
        rate=2e-3,
        name="classifier",
    )
    return net.eval()


def clip_config(vocabulary_size: int) -> dict[str, Any]:
    return {
        "model_cfg": {
            "embed_dim": 128,
            "vision_cfg": {"layers": [1, 1, 1, 1], "width": 16, "image_size": 64, "head_width": 64},
            "text_cfg": {
                "context_length": CONTEXT,
                "vocab_size": vocabulary_size,
                "width": 64,
                "heads": 4,
                "layers": 2,
                "hf_tokenizer_name": "fmnist-clip",
            },
        },
        "preprocess_cfg": {
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "interpolation": "bicubic",
            "resize_mode": "shortest",
        },
    }


def make_clip(vocabulary_size: int) -> nn.Module:
    config = clip_config(vocabulary_size)["model_cfg"]
    text = {key: value for key, value in config["text_cfg"].items() if key != "hf_tokenizer_name"}
    return open_clip.CLIP(**{**config, "text_cfg": text})


def train_clip(images: Tensor, captions: Captions) -> nn.Module:
    model = make_clip(len(captions.tokenizer))
    generator, rng = torch.Generator().manual_seed(SEED + 1), np.random.default_rng(SEED)

    def loss_of(step: int, rows: np.ndarray) -> Tensor:
        pictures = F.interpolate(
            jitter(images[rows], generator), size=64, mode="bicubic", align_corners=False
        )
        texts = captions.tokens([captions.text(int(row), rng) for row in rows])
        image, text, scale = model(pictures.expand(-1, 3, -1, -1), texts)
        logits = scale.clamp(max=30).float() * image.float() @ text.float().T
        labels = torch.arange(len(rows))
        return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2

    optimise(
        list(model.parameters()),
        loss_of,
        len(images),
        batch=256,
        steps=1800,
        rate=1e-3,
        name="clip",
        decay=0.1,
    )
    return model.eval()


def train_guide(images: Tensor) -> nn.Module:
    net = GuideNetwork()
    head = nn.Sequential(nn.SiLU(), nn.Linear(128, 64))
    generator = torch.Generator().manual_seed(SEED + 2)

    def loss_of(step: int, rows: np.ndarray) -> Tensor:
        views = torch.cat([jitter(images[rows], generator, 0.15) for _ in range(2)])
        z = F.normalize(head(net(views)).float(), dim=1)
        logits = (z @ z.T / 0.2).fill_diagonal_(-1e4)
        return F.cross_entropy(logits, torch.arange(len(z)).roll(len(rows)))

    optimise(
        [*net.parameters(), *head.parameters()],
        loss_of,
        len(images),
        batch=256,
        steps=1000,
        rate=2e-3,
        name="guide",
    )
    return net.eval()


def make_vae() -> AutoencoderKL:
    return AutoencoderKL(
        in_channels=1,
        out_channels=1,
        latent_channels=4,
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        norm_num_groups=8,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        sample_size=32,
        mid_block_add_attention=False,
    )


def train_vae(images: Tensor, guide: nn.Module, steps: int) -> AutoencoderKL:
    vae = make_vae()
    torch.manual_seed(SEED + 3)
    guide.requires_grad_(False)

    def loss_of(step: int, rows: np.ndarray) -> Tensor:
        pictures = images[rows]
        posterior = vae.encode(pictures).latent_dist
        decoded = vae.decode(posterior.sample()).sample
        seen = zip(guide.maps(decoded)[:3], guide.maps(pictures)[:3], strict=True)
        perceptual = sum((F.mse_loss(a.float(), b.float()) for a, b in seen), torch.zeros(()))
        error = (decoded - pictures).float()
        return (
            error.abs().mean()
            + 2 * error.square().mean()
            + 0.3 * perceptual
            + 1e-3 * posterior.kl().mean() / 256
        )

    optimise(
        list(vae.parameters()),
        loss_of,
        len(images),
        batch=128,
        steps=steps,
        rate=1.5e-3,
        name="vae",
        decay=0.0,
    )
    return vae.eval()


@torch.no_grad()
def encode(vae: AutoencoderKL, images: Tensor) -> tuple[Tensor, Tensor]:
    """Means and standard deviations of the latents of all images."""
    posteriors = [vae.encode(part).latent_dist for part in images.split(500)]
    return torch.cat([p.mean for p in posteriors]), torch.cat([p.std for p in posteriors])


def make_unet(width: int) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(72, 144),
        layers_per_block=1,
        cross_attention_dim=width,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=4,
        norm_num_groups=12,
    )


def make_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=96,
            intermediate_size=192,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=CONTEXT,
            projection_dim=96,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


NOISE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
}


def train_unet(
    mean: Tensor, std: Tensor, captions: Captions, work: Path, minutes: float
) -> dict[str, object]:
    """Noise prediction with min-SNR weights (arXiv 2303.09556), 10% of captions dropped, an average
    of the weights kept.

    The rate follows the share of `minutes` used, so that training fits the time there is.
    """
    torch.manual_seed(SEED + 4)
    unet, text = make_unet(96), make_text_encoder(captions.tokenizer)
    parameters = [*unet.parameters(), *text.parameters()]
    average = [p.detach().clone() for p in parameters]
    optimiser = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.01, betas=(0.9, 0.99))
    noise = DDPMScheduler(**NOISE)
    snr = noise.alphas_cumprod / (1 - noise.alphas_cumprod)
    rng, step, used, losses = np.random.default_rng(SEED), 0, 0.0, []
    checkpoint = work / "unet-checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        unet.load_state_dict(state["unet"])
        text.load_state_dict(state["text"])
        optimiser.load_state_dict(state["optimiser"])
        average, step, used = state["average"], state["step"], state["used"]
        rng = np.random.default_rng(SEED + step)
    unet.to(memory_format=torch.channels_last)
    saved = used
    for rows in batches(len(mean), 128, 10**9, SEED + step):
        if used >= 60 * minutes:
            break
        start = time.time()
        share = used / (60 * minutes)
        rate = (
            1e-3
            * min((step + 1) / 200, 1.0)
            * (1.0 if share < 0.4 else 0.5 * (1 + math.cos(math.pi * (share - 0.4) / 0.6)) + 0.01)
        )
        for group in optimiser.param_groups:
            group["lr"] = rate
        clean = mean[rows] + std[rows] * torch.randn_like(mean[rows])
        eps, t = torch.randn_like(clean), torch.randint(0, 1000, (len(rows),))
        texts = ["" if rng.random() < 0.1 else captions.text(int(row), rng) for row in rows]
        with torch.autocast("cpu", torch.bfloat16):
            hidden = text(captions.tokens(texts)).last_hidden_state
            noisy = noise.add_noise(clean, eps, t).to(memory_format=torch.channels_last)
            guess = unet(noisy, t, hidden).sample
        weight = snr[t].clamp(max=5) / snr[t]
        loss = ((guess.float() - eps).square().mean((1, 2, 3)) * weight).mean()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        decay = min(0.9992, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(average, [p.detach() for p in parameters], 1 - decay)
        step, used = step + 1, used + time.time() - start
        losses.append(loss.item())
        if step % 100 == 0:
            print(
                f"unet {step} loss {np.mean(losses[-100:]):.4f} rate {rate:.1e} {used:.0f}s",
                flush=True,
            )
        if used - saved > 180:
            state = {
                "unet": unet.state_dict(),
                "text": text.state_dict(),
                "optimiser": optimiser.state_dict(),
            }
            torch.save(
                {**state, "average": average, "step": step, "used": used},
                work / "unet-checkpoint.tmp",
            )
            (work / "unet-checkpoint.tmp").replace(checkpoint)
            saved = used
    with torch.no_grad():
        torch._foreach_copy_(parameters, average)
    return {"unet": unet.state_dict(), "text": text.state_dict(), "steps": step}


def export_clip(model: nn.Module, tokenizer: CLIPTokenizer, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    (folder / "open_clip_config.json").write_text(
        json.dumps(clip_config(len(tokenizer)), indent=2) + "\n"
    )
    state = {
        k: (v.half() if v.is_floating_point() else v).contiguous()
        for k, v in model.state_dict().items()
    }
    save_file(state, folder / "open_clip_model.safetensors")


def export_pipeline(
    vae: AutoencoderKL, unet: nn.Module, text: nn.Module, tokenizer: CLIPTokenizer, folder: Path
) -> None:
    scheduler = DDIMScheduler(
        **NOISE,
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        timestep_spacing="trailing",
    )
    pipe = StableDiffusionPipeline(
        vae=vae,
        unet=unet,
        text_encoder=text,
        tokenizer=tokenizer,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.to(torch.float16).save_pretrained(folder)


def export_images(images: np.ndarray, attributes: np.ndarray, count: int, path: Path) -> None:
    """A class-balanced subset, drawn with the fixed seed."""
    rng = np.random.default_rng(SEED)
    rows = np.concatenate(
        [rng.permutation(np.flatnonzero(attributes[:, 0] == c))[: count // 10] for c in range(10)]
    )
    rows = rng.permutation(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, images=images[rows], attributes=attributes[rows].astype(np.uint8))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("build/embedded"))
    parser.add_argument("--stage", action="append", choices=STAGES)
    parser.add_argument("--minutes-unet", type=float, default=42.0)
    parser.add_argument("--steps-vae", type=int, default=2400)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(SEED)
    train, train_attributes = load_split(args.data, "train")
    test, test_attributes = load_split(args.data, "t10k")
    images, tokenizer = to_model(train), make_tokenizer()
    captions = Captions(tokenizer, train_attributes)

    def stage(
        name: str, train_it: Callable[[], object], restore: Callable[[], nn.Module] | None = None
    ) -> object:
        path = args.work / f"{name}.pt"
        if path.exists():
            state = torch.load(path, weights_only=True)
            if restore is None:
                return state
            model = restore()
            model.load_state_dict(state)
            return model.eval()
        if args.stage and name not in args.stage:
            return None
        made = train_it()
        torch.save(made.state_dict() if isinstance(made, nn.Module) else made, path)
        return made

    if not args.stage or "data" in args.stage:
        export_images(test, test_attributes, 2500, ASSETS / "reference" / "test.npz")
        export_images(train, train_attributes, 2500, ASSETS / "reference" / "train.npz")
    guide = stage("guide", lambda: train_guide(images), GuideNetwork)
    if guide is not None:
        save_network(guide, ASSETS / "guide" / "model.safetensors")
    classifier = stage(
        "classifier", lambda: train_classifier(images, train_attributes), AttributeClassifier
    )
    if classifier is not None:
        save_network(classifier, ASSETS / "classifier" / "model.safetensors")
    clip = stage("clip", lambda: train_clip(images, captions), lambda: make_clip(len(tokenizer)))
    if clip is not None:
        export_clip(clip, tokenizer, ASSETS / "fmnist-clip")
    vae = stage("vae", lambda: train_vae(images, guide, args.steps_vae), make_vae)
    if vae is None:
        return
    mean, std = encode(vae, images)
    scale = float(1 / (mean.var() + std.square().mean()).sqrt())
    vae.register_to_config(scaling_factor=scale)
    print(
        f"latent scale {scale:.4f}, mean {mean.mean() * scale:.3f}, "
        f"posterior std {std.mean() * scale:.3f}",
        flush=True,
    )
    state = stage(
        "unet",
        lambda: train_unet(mean * scale, std * scale, captions, args.work, args.minutes_unet),
    )
    if state is None:
        return
    unet, text = make_unet(96), make_text_encoder(tokenizer)
    unet.load_state_dict(state["unet"])
    text.load_state_dict(state["text"])
    export_pipeline(vae, unet.eval(), text.eval(), tokenizer, ASSETS / "fashion")


if __name__ == "__main__":
    main()
