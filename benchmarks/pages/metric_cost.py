"""What each metric takes: memory, and seconds per 1,000 images, on networks of true size.

    python benchmarks/pages/metric_cost.py [NAME ...] [--threads 2]

Each network is made with random weights, loaded as a score would load it, and sees 512-pixel
images, in a process of its own. Functions of features are timed on groups of 4, or on all images
at once, with 512 features. Writes `eddy_bench/data/metric_costs.yaml`, which `list metrics` and the
table of docs/metrics.md read; names that are not asked for keep their figures.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from benchmarks.pages.marked import put
from eddy_bench.models.devices import CPU
from eddy_bench.scoring import dreamsim, inception, perceptual, preference
from eddy_bench.scoring.cost import FILE
from eddy_bench.scoring.extractors import ASSETS, load_classifier, load_extractor
from eddy_bench.scoring.metrics import METRICS
from eddy_bench.storage.files import write_text

SIDE, GROUP, WIDTH = 512, 4, 512
LONG = 15.0  # seconds of seeing images that are enough
MOST = 64  # images: a whole batch of scoring
PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
BEGIN, END = "<!-- costs begin -->", "<!-- costs end -->"


# random weights of the true shape, as files where each loader looks for them


def save(state: dict[str, torch.Tensor], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.contiguous() for name, value in state.items()}
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path)


def make_open_clip(model: str, file: str, folder: Path) -> None:
    import open_clip

    save(open_clip.create_model(model).state_dict(), folder / file)


def make_aesthetic(file: str, folder: Path) -> None:
    save(preference.aesthetic_head(file).state_dict(), folder / file)
    make_open_clip("ViT-L-14-quickgelu", "ViT-L-14-quickgelu-openai.safetensors", folder)


def make_timm(model: str, folder: Path) -> None:
    import timm

    save(timm.create_model(model).state_dict(), folder / f"{model}.safetensors")


def make_lpips(net: str, folder: Path) -> None:
    import torchvision

    kind = {"alex": "alexnet", "vgg": "vgg16", "squeeze": "squeezenet1_1"}[net]
    network = getattr(torchvision.models, kind)(weights=None)
    save(network.state_dict(), folder / perceptual.BACKBONES[net])


def make_inception(folder: Path) -> None:
    from tests.makers.networks import save_random_inception

    save_random_inception(folder / inception.INCEPTION)


def make_pickscore(folder: Path) -> None:
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor
    from transformers import CLIPTokenizerFast as Tokenizer

    text = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24}
    vision = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32}
    text["num_attention_heads"] = vision["num_attention_heads"] = 16
    vision["patch_size"] = 14
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=1024)
    CLIPModel(config).save_pretrained(folder / preference.PICKSCORE_FOLDER)
    tokenizer = Tokenizer.from_pretrained(ASSETS / "fmnist-clip")
    CLIPProcessor(CLIPImageProcessor(), tokenizer).save_pretrained(
        folder / preference.PICKSCORE_FOLDER
    )


def make_dreamsim(folder: Path) -> None:
    at = folder / dreamsim.NAME
    dino, *clips = dreamsim.Ensemble().towers
    ones = {"norm.weight": torch.ones(768), "norm.bias": torch.zeros(768)}
    save({**dino.state_dict(), **ones}, at / dreamsim.DINO_FILE)
    for name, clip in zip(dreamsim.CLIP_FILES, clips, strict=True):
        state = {key.replace("norm_pre", "pos_drop"): v for key, v in clip.state_dict().items()}
        state["proj"] = state.pop("head.weight").T
        save(state, at / name)
    update = {}
    for tower in range(3):
        for k in range(12):
            layer = f"base_model.model.extractor_list.{tower}.model.blocks.{k}.attn.qkv"
            update[f"{layer}.lora_A.weight"] = torch.ones(16, 768)
            update[f"{layer}.lora_B.weight"] = torch.ones(2304, 16)
    save(update, at / dreamsim.LORA / dreamsim.ADAPTERS[0])
    (at / dreamsim.LORA / dreamsim.CONFIG).write_text('{"r": 16, "lora_alpha": 0.5}')


# what sees images


def through(load: Callable[[Path], Any]) -> Callable[[Path], Callable[[list[Image.Image]], Any]]:
    return lambda folder: load(folder).images


def named(name: str) -> Callable[[Path], Callable[[list[Image.Image]], Any]]:
    return through(lambda folder: load_extractor(name, folder))


def judge(name: str) -> Callable[[Path], Callable[[list[Image.Image]], Any]]:
    """A metric of pairs, on groups of 4."""

    def loaded(folder: Path) -> Callable[[list[Image.Image]], Any]:
        load = METRICS[name].load
        assert load is not None
        ready = load(folder, CPU)

        def see(images: list[Image.Image]) -> list[Any]:
            rows = [ready.prepare(image) for image in images]
            groups = [rows[start : start + GROUP] for start in range(0, len(rows), GROUP)]
            return list(ready.values(pair for group in groups for pair in combinations(group, 2)))

        return see

    return loaded


def classify(folder: Path) -> Callable[[list[Image.Image]], Any]:
    network = load_classifier(CPU)
    return lambda images: list(
        network((np.asarray(image.resize((32, 32)).convert("RGB")),) for image in images)
    )


def nothing(folder: Path) -> None:
    """Make no weights: they ship with the package, or there are none."""


OPENAI_B = ("ViT-B-32-quickgelu", "ViT-B-32-quickgelu-openai.safetensors")
NETWORKS: dict[str, tuple[Callable[[Path], None], Callable[[Path], Any]]] = {
    "[fmnist-clip]": (nothing, named("fmnist-clip")),
    "[efficientnet-lite0]": (nothing, named("efficientnet-lite0")),
    "[efficientnet-lite2]": (nothing, named("efficientnet-lite2")),
    "[pixels]": (nothing, named("pixels")),
    **{f"[{name}]": (make_inception, named(name)) for name in inception.CONVENTIONS},
    "[dinov2]": (partial(make_timm, "vit_large_patch14_dinov2.lvd142m"), named("dinov2")),
    "[open_clip:ViT-B-32-quickgelu/openai]": (
        partial(make_open_clip, *OPENAI_B),
        named("open_clip:ViT-B-32-quickgelu/openai"),
    ),
    "[classifier]": (nothing, classify),
    "ms-ssim": (nothing, judge("ms-ssim")),
    **{
        name: (partial(make_lpips, net), judge(name))
        for name, net in (("lpips", "alex"), ("lpips-vgg", "vgg"), ("lpips-squeeze", "squeeze"))
    },
    **{
        name: (
            partial(make_aesthetic, file),
            through(partial(preference.load_aesthetic, file, device=CPU)),
        )
        for name, file in (("aesthetic", preference.LINEAR), ("aesthetic-mlp", preference.MLP))
    },
    "hps": (
        partial(make_open_clip, preference.HPS_TOWER, preference.HPS_FILE),
        through(partial(preference.load_hps, device=CPU)),
    ),
    "pickscore": (make_pickscore, through(partial(preference.load_pickscore, device=CPU))),
    "[dreamsim]": (make_dreamsim, through(partial(dreamsim.load_dreamsim, device=CPU))),
}


def pictures(count: int) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (count, 16, 16, 3)).astype(np.uint8)
    return [Image.fromarray(image).resize((SIDE, SIDE)) for image in small]


def resident() -> float:
    """Peak memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def see(name: str, folder: Path) -> dict[str, float]:
    """Load and time one network in this process."""
    images = pictures(MOST)
    before = resident()
    network = NETWORKS[name][1](folder)
    started = time.perf_counter()
    network(images[:GROUP])
    each = (time.perf_counter() - started) / GROUP
    passes = int(np.clip(LONG / each / MOST, 1, 20))
    started = time.perf_counter()
    for _ in range(passes):
        network(images)
    seconds = (time.perf_counter() - started) / (passes * MOST)
    return {"memory_mb": resident() - before, "seconds": 1000 * seconds}


def of_functions() -> dict[str, dict[str, float]]:
    """Time the functions of features on 1,000 images, and as many real ones."""
    rng = np.random.default_rng(0)
    groups = rng.standard_normal((1000 // GROUP, GROUP, WIDTH)).astype(np.float32)
    real = rng.standard_normal((1000, WIDTH)).astype(np.float32)
    text = rng.standard_normal((4, WIDTH)).astype(np.float32)
    found = {}
    for name, metric in METRICS.items():
        if metric.extractor or metric.function is None:  # its only extractor's cost is its own
            continue
        calls: dict[str, Callable[[], Any]] = {
            "features": lambda m=metric: [m(group) for group in groups],
            "text": lambda m=metric: [m(g, text[:2] if m.texts else text[0]) for g in groups],
            "values": lambda m=metric: [m(group, [text]) for group in groups],
            "real": lambda m=metric: m(groups.reshape(-1, WIDTH), real),
            "iid": lambda m=metric: m(groups, groups[:, 0]),
        }
        if metric.needs in calls:
            calls[metric.needs]()  # what is imported at the first call
            started = time.perf_counter()
            calls[metric.needs]()
            found[name] = {"seconds": time.perf_counter() - started}
    return found


def measure(names: Iterable[str], threads: int) -> dict[str, dict[str, float]]:
    """Measure networks, each made and seen in processes of their own."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    found = {}
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            call = [sys.executable, "-m", "benchmarks.pages.metric_cost", name, "--folder", folder]
            subprocess.run([*call, "--make"], check=True)
            done = subprocess.run(call, check=True, stdout=subprocess.PIPE, env=environment)
        found[name] = json.loads(done.stdout.splitlines()[-1])
        print(f"{name:40} {found[name]}", flush=True)
    return found


def rounded(figures: dict[str, float]) -> dict[str, float]:
    two = {key: float(f"{value:.2g}") for key, value in figures.items()}
    return {key: int(value) if value.is_integer() else value for key, value in two.items()}


def table(costs: dict[str, dict[str, float]]) -> str:
    lines = ["| metric or extractor | memory | seconds per 1,000 images |", "| --- | --- | --- |"]
    for name, own in costs.items():
        memory = f"{own['memory_mb'] / 1000:g} GB" if "memory_mb" in own else ""
        lines.append(f"| `{name}` | {memory} | {own['seconds']:g} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help=f"{', '.join(NETWORKS)}, functions; all of them")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--make", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.folder is not None:
        (name,) = asked.names
        if asked.make:
            NETWORKS[name][0](asked.folder)
        else:
            print(json.dumps(see(name, asked.folder)))
        return
    names = asked.names or [*NETWORKS, "functions"]
    costs = yaml.safe_load(FILE.read_text()) if FILE.exists() else {}
    costs |= measure([name for name in names if name != "functions"], asked.threads)
    if "functions" in names:
        costs |= of_functions()
    costs = {name: rounded(own) for name, own in costs.items()}
    write_text(FILE, yaml.safe_dump(costs, sort_keys=False))
    put(PAGE, BEGIN, END, table(costs))


if __name__ == "__main__":
    main()
