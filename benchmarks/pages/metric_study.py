"""Do the metrics measure diversity? Sets of known diversity, artefacts, noise: docs/metrics.md.

    python benchmarks/pages/metric_study.py [--groups 60] [--pairs]

Groups of real garments (held-out images of the embedded model's reference, classes known) with k
of N classes, repeated, noisy, blurred and mixed images, and points on a ring with k of 8 modes. The
tables between the markers of the page are written anew; the text around them stays.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter
from scipy.stats import spearmanr

from eddy_bench.models.scoring_defaults import scoring_defaults
from eddy_bench.models.tasks import load_task
from eddy_bench.scoring.extractors import load_extractor
from eddy_bench.scoring.metric import Metric, mean_of
from eddy_bench.scoring.metrics import METRICS
from eddy_bench.storage.files import write_text

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
BEGIN, END = "<!-- study begins -->", "<!-- study ends -->"
EXTRACTORS = ("fmnist-clip", "efficientnet-lite0", "pixels")
SIZES = (4, 8, 16)
N = 8  # of the tables on artefacts
EFFECT, QUANTILES = 0.05, 1.96 + 0.84  # shown at 5%, 4 times in 5

Images = list[Image.Image]
Score = Callable[[Images], float]


def scores(pairs: bool) -> dict[str, Score]:
    """Every diversity metric of groups that needs no download, under every extractor."""
    found: dict[str, Score] = {}
    for name in EXTRACTORS:
        see = Cached(load_extractor(name).images)
        for metric in METRICS.values():
            if (
                metric.needs == "features" and metric.judges == "diversity"
            ) or metric.name == "mss":
                found[f"{metric.name}[{name}]"] = of_features(metric, see)
    for metric in METRICS.values():
        if pairs and metric.name == "ms-ssim":
            judge = metric.load(None, torch.device("cpu"))
            found[metric.name] = of_pairs(judge)
    return found


def of_features(metric: Metric, see: Callable[[Images], np.ndarray]) -> Score:
    sign = 1.0 if metric.higher_is_better else -1.0
    return lambda images: sign * metric(see(images))


def of_pairs(judge) -> Score:
    def score(images: Images) -> float:
        rows = [judge.prepare(image.convert("RGB")) for image in images]
        i, j = np.triu_indices(len(rows), 1)
        pairs = [(rows[a], rows[b]) for a, b in zip(i, j, strict=True)]
        return mean_of(np.asarray(list(judge.values(pairs)), float))

    return score


class Cached:
    """Features of images once: an image is known by its object."""

    def __init__(self, see: Callable[[Images], np.ndarray]) -> None:
        self.see, self.known = see, {}

    def __call__(self, images: Images) -> np.ndarray:
        new = [image for image in images if id(image) not in self.known]
        if new:
            for image, row in zip(new, self.see(new), strict=True):
                self.known[id(image)] = (image, row)
        return np.stack([self.known[id(image)][1] for image in images])


class Garments:
    """Real images by class."""

    def __init__(self, rng: np.random.Generator) -> None:
        archive = np.load(scoring_defaults("fashion").reference)
        padded = np.pad(archive["images"], ((0, 0), (2, 2), (2, 2)))
        images = [Image.fromarray(image) for image in padded]
        labels = archive["attributes"][:, 0]
        self.rng = rng
        self.by_class = [
            [image for image, label in zip(images, labels, strict=True) if label == k]
            for k in range(10)
        ]

    def draw(self, size: int, classes: int) -> Images:
        """`size` images in equal parts of some classes."""
        chosen = self.rng.choice(10, classes, replace=False)
        return [self.one(int(chosen[place % classes])) for place in range(size)]

    def one(self, garment: int) -> Image.Image:
        return self.by_class[garment][self.rng.integers(len(self.by_class[garment]))]


def noisy(image: Image.Image, amount: float, rng: np.random.Generator) -> Image.Image:
    values = np.asarray(image, float) + 255 * amount * rng.standard_normal(image.size[::-1])
    return Image.fromarray(values.round().clip(0, 255).astype(np.uint8))


def artefacts(garments: Garments, rng: np.random.Generator) -> dict[str, Callable[[], Images]]:
    def plain() -> Images:
        return garments.draw(N, 1)

    def mixed(count: int) -> Images:
        own, other = rng.choice(10, 2, replace=False)
        return [garments.one(int(other if k < count else own)) for k in range(N)]

    return {
        "one class": plain,
        "4 of 8 repeated": lambda: 2 * garments.draw(N // 2, 1),
        "all the same": lambda: N * garments.draw(1, 1),
        "noise 5%": lambda: [noisy(image, 0.05, rng) for image in plain()],
        "noise 20%": lambda: [noisy(image, 0.2, rng) for image in plain()],
        "blur 1": lambda: [image.filter(ImageFilter.GaussianBlur(1)) for image in plain()],
        "blur 2": lambda: [image.filter(ImageFilter.GaussianBlur(2)) for image in plain()],
        "1 of another class": lambda: mixed(1),
        "8 classes": lambda: garments.draw(N, 8),
    }


def ring(size: int, modes: int, rng: np.random.Generator) -> Images:
    """Pictures of points on some of the ring's 8 modes."""
    task = load_task("ring8")
    chosen = rng.choice(len(task.mixture.means), modes, replace=False)
    place = torch.as_tensor([int(chosen[k % modes]) for k in range(size)])
    scatter = task.mixture.variances[place].sqrt()[:, None]
    noise = torch.from_numpy(rng.standard_normal((size, 2)))
    return task.pictures(task.mixture.means[place] + scatter * noise)


def known_diversity(found: dict[str, Score], garments: Garments, groups: int) -> list[list[str]]:
    """Rank correlation with the number of classes, by N."""
    correlations: dict[str, list[str]] = {name: [] for name in found}
    for size in SIZES:
        levels = [k for k in (1, 2, 4, 8) if k <= size]
        made = [(k, garments.draw(size, k)) for k in levels for _ in range(groups)]
        for name, score in found.items():
            values = [score(images) for _, images in made]
            correlations[name].append(f"{spearmanr([k for k, _ in made], values).statistic:.2f}")
    rng = np.random.default_rng(1)
    points = [(k, ring(N, k, rng)) for k in (1, 2, 4, 8) for _ in range(groups)]
    for name, score in found.items():
        values = [score(images) for _, images in points]
        correlations[name].append(f"{spearmanr([k for k, _ in points], values).statistic:.2f}")
    return [[f"`{name}`", *row] for name, row in correlations.items()]


def noise_of(found: dict[str, Score], garments: Garments, groups: int) -> list[list[str]]:
    """Scatter over groups of one class, and prompts that show 5% more, by N."""
    lines = []
    sets = {
        size: [[garments.one(k) for _ in range(size)] for k in range(10) for _ in range(groups)]
        for size in SIZES
    }
    for name, score in found.items():
        cells = []
        for size in SIZES:
            values = np.asarray([score(images) for images in sets[size]]).reshape(10, groups)
            scatter = float(np.sqrt(values.var(axis=1, ddof=1).mean()))
            level = abs(float(values.mean()))
            prompts = (QUANTILES * 2**0.5 * scatter / (EFFECT * level)) ** 2
            cells.append(f"{scatter / level:.0%}, {max(2, int(np.ceil(prompts)))}")
        lines.append([f"`{name}`", *cells])
    return lines


def what_raises(found: dict[str, Score], garments: Garments, groups: int) -> list[list[str]]:
    """Values between those of one class, 0, and of eight, 1."""
    made = {
        name: [make() for _ in range(groups)]
        for name, make in artefacts(garments, garments.rng).items()
    }
    lines = []
    for name, score in found.items():
        means = {kind: float(np.mean([score(g) for g in own])) for kind, own in made.items()}
        low, high = means["one class"], means["8 classes"]
        shares = [
            f"{(means[kind] - low) / (high - low):+.2f}"
            for kind in made
            if kind not in ("one class", "8 classes")
        ]
        lines.append([f"`{name}`", *shares])
    return lines


def table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--groups", type=int, default=60)
    parser.add_argument("--pairs", action="store_true", help="also metrics of pairs of images")
    asked = parser.parse_args()
    garments, found = Garments(np.random.default_rng(0)), scores(asked.pairs)
    kinds = list(artefacts(garments, garments.rng))[1:-1]
    parts = [
        "Rank correlation with the true number of classes (1, 2, 4, 8 of N garments) and of modes "
        "(8 points on the ring); 1 orders groups as the truth does.",
        table(
            ["metric", *(f"N = {size}" for size in SIZES), "ring, N = 8"],
            known_diversity(found, garments, asked.groups),
        ),
        "Where a group of one class lands when its images are changed, N = 8: 0 is the group as it "
        "is, 1 a group of eight classes. Repeated images should lower a metric, artefacts leave "
        "it.",
        table(["metric", *kinds], what_raises(found, garments, asked.groups)),
        "Scatter between groups of the same class (standard deviation over the mean), and how many "
        "prompts show a difference of 5% 4 times in 5 between two independent groups each.",
        table(
            ["metric", *(f"N = {size}" for size in SIZES)],
            noise_of(found, garments, max(2, asked.groups // 2)),
        ),
    ]
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    study = "\n\n".join(parts)
    write_text(PAGE, f"{before}{BEGIN}\n{study}\n{END}{after}")


if __name__ == "__main__":
    main()
