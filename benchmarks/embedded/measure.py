"""Quality of the embedded model, for its model card: python benchmarks/embedded/measure.py --data
DIR [--quick]

Prints one `name value` pair a line: classifier accuracy, CLIP retrieval, reconstruction error, the
Frechet floor,
reconstructions and samples against it, `align` and the diversity curve over guidance scales.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from train import load_split, to_model

from benchmarks.embedded.garments import caption, predict_attributes
from eddy_bench import Iid
from eddy_bench.models.attributes import Attributes, parse
from eddy_bench.models.devices import CPU
from eddy_bench.models.load import load_model
from eddy_bench.sampling.schedulers import set_scheduler
from eddy_bench.scoring.diversity import pairwise_distance, vendi
from eddy_bench.scoring.extractors import load_classifier, load_extractor
from eddy_bench.scoring.fidelity import align, clip_score, frechet_distance
from eddy_bench.suites.prompts import load_prompts

COUNT = 2000


def pictures(images: np.ndarray) -> list[Image.Image]:
    return [Image.fromarray(image) for image in np.pad(images, ((0, 0), (2, 2), (2, 2)))]


def say(name: str, value: float) -> None:
    print(f"{name:42} {value:.4f}", flush=True)


def draw(
    model,
    prompts: Sequence[str],
    particles: int,
    scale: float,
    steps: int,
    seed: int = 0,
    batch: int = 64,
) -> list[list[Image.Image]]:
    groups = []
    for start in range(0, len(prompts), batch // particles):
        part = list(prompts[start : start + batch // particles])
        arguments = {"num_inference_steps": steps, "guidance_scale": scale, "output_type": "pil"}
        seeds = [seed + 1000 * (start + k) for k in range(len(part))]
        groups += model.draw(part, seeds, particles, Iid(), arguments)[0]
    return groups


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--scheduler", default="ddim")
    parser.add_argument("--quick", action="store_true", help="leave the samples out")
    args = parser.parse_args()
    torch.manual_seed(0)
    test, attributes = load_split(args.data, "t10k")
    train, _ = load_split(args.data, "train")
    classifier = load_classifier(CPU)
    predicted = np.concatenate(
        [predict_attributes(classifier, pictures(part)) for part in np.array_split(test, 20)]
    )
    for k, name in enumerate(("class", "tone", "shape")):
        say(
            f"classifier {name} accuracy, real test",
            float((predicted[:, k] == attributes[:, k]).mean()),
        )
    clip = load_extractor("fmnist-clip")
    rng = np.random.default_rng(0)
    chosen, other = rng.permutation(len(test))[:COUNT], rng.permutation(len(train))[:COUNT]
    real, seen = clip.images(pictures(test[chosen])), clip.images(pictures(train[other]))
    texts = [caption(Attributes(k)) for k in range(10)]
    guess = (real @ (t := clip.texts(texts)).T / np.linalg.norm(t, axis=1)).argmax(1)
    say("fmnist-clip zero-shot class accuracy", float((guess == attributes[chosen, 0]).mean()))
    floor = frechet_distance(seen, real)
    say(f"fd[fmnist-clip] real train to real test, n={COUNT}", floor)
    model = load_model("fashion", device="cpu")
    set_scheduler(model.pipe, args.scheduler, {})
    with torch.inference_mode():
        x = to_model(test[chosen])
        decoded = torch.cat(
            [
                model.pipe.vae.decode(model.pipe.vae.encode(part).latent_dist.mode()).sample
                for part in x.split(200)
            ]
        )
    say("autoencoder mean squared error, [-1, 1]", float((decoded - x).square().mean()))
    rebuilt = [
        Image.fromarray(image)
        for image in ((decoded.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).squeeze(1).numpy()
    ]
    say(
        "fd reconstructions to real test, over floor",
        frechet_distance(clip.images(rebuilt), real) / floor,
    )
    if args.quick:
        return
    own = [caption(Attributes(*(int(v) for v in attributes[row]))) for row in chosen]
    for scale in (1.0,):
        samples = [image for group in draw(model, own, 1, scale, args.steps) for image in group]
        features = clip.images(samples)
        say(
            f"fd samples at guidance {scale:g} to real test, over floor",
            frechet_distance(features, real) / floor,
        )
        say(
            f"align class at guidance {scale:g}, own captions",
            float((predict_attributes(classifier, samples)[:, 0] == attributes[chosen, 0]).mean()),
        )
    for scale in (1.0, 2.0, 4.0, 8.0):
        say_groups(f"guidance {scale:g}", model, scale, args.steps, clip, classifier)
    few = load_model("fashion-4step", device="cpu")
    for named, drawn, scale, steps in (
        ("fashion-4step", few, 1.0, 1),
        ("fashion-4step", few, 1.0, 2),
        ("fashion-4step", few, 1.0, 4),
        ("fashion, guidance 4", model, 4.0, 4),
        ("fashion, guidance 4", model, 4.0, 20),
    ):
        title = f"{named}, {steps} steps"
        say_groups(title, drawn, scale, steps, clip, classifier)
        samples = [image for group in draw(drawn, own, 1, scale, steps) for image in group]
        distance = frechet_distance(clip.images(samples), real)
        say(f"{title}: fd, own captions, over floor", distance / floor)


def say_groups(title: str, model, scale: float, steps: int, clip, classifier) -> None:
    """Print diversity and fidelity of groups of four for the prompts of `fashion`."""
    prompts = [prompt.text for prompt in load_prompts("fashion").prompts]
    groups = draw(model, prompts, 4, scale, steps, batch=32)
    features, words = [clip.images(group) for group in groups], clip.texts(prompts)
    predicted = [predict_attributes(classifier, group) for group in groups]
    wanted = [parse(prompt) for prompt in prompts]
    pairs = list(zip(predicted, wanted, strict=True))
    say(f"{title}: vendi", float(np.mean([vendi(f) for f in features])))
    say(f"{title}: pdist", float(np.mean([pairwise_distance(f) for f in features])))
    scores = [clip_score(f, w) for f, w in zip(features, words, strict=True)]
    say(f"{title}: clip", float(np.mean(scores)))
    of_class = [align(f, Attributes(w.garment)) for f, w in pairs]
    say(f"{title}: align, class words", float(np.nanmean(of_class)))
    say(f"{title}: align, all words", float(np.nanmean([align(f, w) for f, w in pairs])))


if __name__ == "__main__":
    main()
