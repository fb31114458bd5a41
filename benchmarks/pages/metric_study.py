"""Do the metrics measure diversity? Sets of known diversity, artefacts, noise: docs/metrics.md.

    python benchmarks/pages/metric_study.py [--groups 60]

Groups of real garments (held-out images of the embedded model's reference, classes known) with k
of N classes, the same of garments that the embedded model draws, repeated, noisy, blurred and mixed
images, and points on a ring with k of 8 modes. The tables between the markers of the page are
written anew; the text around them stays. It takes about 15 minutes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter
from scipy.stats import spearmanr

from benchmarks.embedded.garments import caption, predict_attributes
from benchmarks.pages.marked import put
from eddy_bench import Iid
from eddy_bench.models.attributes import Attributes
from eddy_bench.models.defaults import scoring_defaults
from eddy_bench.models.devices import CPU
from eddy_bench.models.load import load_model
from eddy_bench.models.tasks import load_task
from eddy_bench.sampling.schedulers import set_scheduler
from eddy_bench.scoring.attribute_values import values_seen
from eddy_bench.scoring.diversity import distinct_attributes
from eddy_bench.scoring.extractor import Extractor
from eddy_bench.scoring.extractors import load_classifier, load_extractor
from eddy_bench.scoring.metric import Judge, Metric
from eddy_bench.scoring.metrics import METRICS

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
BEGIN, END = "<!-- study begins -->", "<!-- study ends -->"
EXTRACTORS = ("fmnist-clip", "efficientnet-lite0", "pixels")
SIZES = (4, 8, 16)
N = 8  # of the tables on artefacts
CLASSES = [caption(Attributes(garment=k)) for k in range(10)]
DRAWN = 48  # images of each class by the embedded model
EFFECT, QUANTILES = 0.05, 1.96 + 0.84  # shown at 5%, 4 times in 5

Images = list[Image.Image]
Score = Callable[[Images], float]


def scores() -> dict[str, Score]:
    """Every diversity metric of groups whose weights are at hand, under every extractor."""
    found: dict[str, Score] = {}
    for name in EXTRACTORS:
        extractor = load_extractor(name)
        see = Cached(extractor.images)
        for metric in METRICS.values():
            if metric.takes_extractor and (metric.aspect == "diversity" or metric.name == "mss"):
                if metric.needs == "features":
                    found[f"{metric.name}[{name}]"] = of_features(metric, see)
                elif extractor.texts is not None and metric.needs == "values":
                    found[f"{metric.name}[{name}]"] = of_classes(extractor, see)
    found["attributes"] = of_attributes()
    judge = METRICS["ms-ssim"].load
    assert judge is not None
    found["ms-ssim"] = OfPairs(judge(None, CPU))
    return found


def of_features(metric: Metric, see: Callable[[Images], np.ndarray]) -> Score:
    sign = 1.0 if metric.higher_is_better else -1.0
    return lambda images: sign * metric(see(images))


def of_classes(extractor: Extractor, see: Callable[[Images], np.ndarray]) -> Score:
    """How many of the ten classes are seen, by their names."""
    assert extractor.texts is not None
    names = extractor.texts(CLASSES)
    return lambda images: values_seen(see(images), [names])


def of_attributes() -> Score:
    """Distinct combinations of class, tone and shape, by the classifier."""
    classifier = load_classifier(CPU)
    see = Cached(lambda images: predict_attributes(classifier, images))
    return lambda images: distinct_attributes(see(images), Attributes())


class Cached:
    """What images are seen as, once: an image is known by its object."""

    def __init__(self, see: Callable[[Images], np.ndarray]) -> None:
        self.see, self.known = see, {}

    def __call__(self, images: Images) -> np.ndarray:
        new = list({id(image): image for image in images if id(image) not in self.known}.values())
        if new:
            for image, row in zip(new, self.see(new), strict=True):
                self.known[id(image)] = (image, row)
        return np.stack([self.known[id(image)][1] for image in images])


class OfPairs:
    """The mean over a group's pairs; pairs of images that were seen are known."""

    def __init__(self, judge: Judge) -> None:
        self.judge = judge
        self.known: dict[tuple[int, int], float] = {}
        self.seen: dict[int, Any] = {}  # keeps the images, so that no other gets their number

    def __call__(self, images: Images) -> float:
        pairs = [(a, b) for k, a in enumerate(images) for b in images[k + 1 :]]
        keys = [(min(id(a), id(b)), max(id(a), id(b))) for a, b in pairs]
        new = {key: pair for key, pair in zip(keys, pairs, strict=True) if key not in self.known}
        self.seen.update((id(image), image) for image in images)
        rows = [tuple(map(self.prepared, pair)) for pair in new.values()]
        self.known.update(zip(new, map(float, self.judge.values(rows)), strict=True))
        return float(np.mean([self.known[key] for key in keys]))

    def prepared(self, image: Image.Image) -> np.ndarray:
        return self.judge.prepare(image.convert("RGB"))


class Garments:
    """Images by class."""

    def __init__(self, by_class: Sequence[Images]) -> None:
        self.by_class, self.rng = by_class, np.random.default_rng(0)

    def draw(self, size: int, classes: int) -> Images:
        """`size` images in equal parts of some classes."""
        chosen = self.rng.choice(10, classes, replace=False)
        parts = [self.of(int(garment), -(-size // classes)) for garment in chosen]
        return [part[place] for place in range(-(-size // classes)) for part in parts][:size]

    def one(self, garment: int) -> Image.Image:
        return self.by_class[garment][self.rng.integers(len(self.by_class[garment]))]

    def of(self, garment: int, size: int) -> Images:
        """Different images of one class."""
        images = self.by_class[garment]
        return [images[k] for k in self.rng.choice(len(images), size, replace=False)]

    def another(self, garment: int) -> Image.Image:
        return self.one(int(garment + self.rng.integers(1, 10)) % 10)


def held_out() -> Garments:
    """Real images of the embedded model's reference."""
    reference = scoring_defaults("fashion").reference
    assert reference is not None
    archive = np.load(reference)
    padded = np.pad(archive["images"], ((0, 0), (2, 2), (2, 2)))
    images = [Image.fromarray(image) for image in padded]
    labels = archive["attributes"][:, 0].tolist()
    return Garments(
        [[i for i, label in zip(images, labels, strict=True) if label == k] for k in range(10)]
    )


def drawn() -> Garments:
    """The embedded model's own images of the ten classes, i.i.d., as its suite draws them."""
    model = load_model("fashion")
    set_scheduler(model.pipe, "ddim", {})
    arguments = {"num_inference_steps": 20, "guidance_scale": 4.0, "output_type": "pil"}
    return Garments(
        [
            model.draw([name], [1000 + k], DRAWN, Iid(), arguments)[0][0]
            for k, name in enumerate(CLASSES)
        ]
    )


def noisy(image: Image.Image, amount: float, rng: np.random.Generator) -> Image.Image:
    values = np.asarray(image, float) + 255 * amount * rng.standard_normal(image.size[::-1])
    return Image.fromarray(values.round().clip(0, 255).astype(np.uint8))


def changed(garments: Garments) -> dict[str, Callable[[Images, int], Images]]:
    """What is made of a group of N images of one class, by kind."""
    rng = garments.rng

    def each(change: Callable[[Image.Image], Image.Image]) -> Callable[[Images, int], Images]:
        return lambda group, garment: [change(image) for image in group]

    return {
        "4 of 8 repeated": lambda group, garment: 2 * group[: N // 2],
        "all the same": lambda group, garment: N * group[:1],
        "noise 5%": each(lambda image: noisy(image, 0.05, rng)),
        "noise 20%": each(lambda image: noisy(image, 0.2, rng)),
        "blur 1": each(lambda image: image.filter(ImageFilter.GaussianBlur(1))),
        "blur 2": each(lambda image: image.filter(ImageFilter.GaussianBlur(2))),
        "1 of another class": lambda group, garment: [garments.another(garment), *group[1:]],
    }


def ring(size: int, modes: int, rng: np.random.Generator) -> Images:
    """Pictures of points on some of the ring's 8 modes."""
    task = load_task("ring8")
    chosen = rng.choice(len(task.mixture.means), modes, replace=False)
    place = torch.as_tensor([int(chosen[k % modes]) for k in range(size)])
    scatter = task.mixture.variances[place].sqrt()[:, None]
    noise = torch.from_numpy(rng.standard_normal((size, 2)))
    return task.pictures(task.mixture.means[place] + scatter * noise)


def known_diversity(
    found: dict[str, Score], garments: Garments, own: Garments, groups: int
) -> list[list[str]]:
    """Rank correlation with the number of classes, by N; of drawn images and of modes at N."""
    made = [
        [(k, garments.draw(size, k)) for k in (1, 2, 4, 8) if k <= size for _ in range(groups)]
        for size in SIZES
    ]
    made.append([(k, own.draw(N, k)) for k in (1, 2, 4, 8) for _ in range(groups)])
    rng = np.random.default_rng(1)
    points = [(k, ring(N, k, rng)) for k in (1, 2, 4, 8) for _ in range(groups)]
    lines = []
    for name, score in found.items():
        judges_points = name not in ("attributes", "values-seen[fmnist-clip]")
        sets = [*made, points] if judges_points else made
        cells = [correlation([k for k, _ in own], (score(g) for _, g in own)) for own in sets]
        lines.append([f"`{name}`", *cells, *([] if judges_points else [""])])
        say(name)
    return lines


def correlation(truth: Sequence[int], values: Iterable[float]) -> str:
    return f"{spearmanr(truth, list(values)).statistic:.2f}"


def noise_of(found: dict[str, Score], garments: Garments, groups: int) -> list[list[str]]:
    """Scatter over groups of one class, and prompts that show two differences, by N.

    The differences: 5% of the value; one image of the group taken from another class.
    """
    lines = []
    plain, other = {}, {}
    for size in SIZES:
        plain[size] = [garments.of(k, size) for k in range(10) for _ in range(groups)]
        other[size] = [
            [garments.another(place // groups), *group[1:]]
            for place, group in enumerate(plain[size])
        ]
    for name, score in found.items():
        cells = []
        for size in SIZES:
            values = np.asarray([score(images) for images in plain[size]]).reshape(10, groups)
            scatter = float(np.sqrt(values.var(axis=1, ddof=1).mean()))
            level = abs(float(values.mean()))
            change = float(np.mean([score(images) for images in other[size]]) - values.mean())
            counts = (prompts(scatter, EFFECT * level), prompts(scatter, change))
            cells.append(f"{scatter / level:.0%}, {', '.join(counts)}")
        lines.append([f"`{name}`", *cells])
        say(name)
    return lines


def prompts(scatter: float, change: float) -> str:
    """How many prompts show a change between two independent groups each, 4 times in 5."""
    if change <= 0:
        return "never"
    return f"{max(2, int(np.ceil((QUANTILES * 2**0.5 * scatter / change) ** 2)))}"


def what_raises(
    found: dict[str, Score], garments: Garments, groups: int
) -> tuple[list[str], list[list[str]]]:
    """Kinds, and for each metric values between those of one class, 0, and of eight, 1."""
    kinds = changed(garments)
    plain = [(garments.of(k % 10, N), k % 10) for k in range(groups)]
    made = {
        "one class": [group for group, _ in plain],
        "8 classes": [garments.draw(N, 8) for _ in range(groups)],
        **{kind: [change(*group) for group in plain] for kind, change in kinds.items()},
    }
    lines = []
    for name, score in found.items():
        means = {kind: float(np.mean([score(g) for g in own])) for kind, own in made.items()}
        low, high = means["one class"], means["8 classes"]
        shares = [f"{(means[kind] - low) / (high - low):+.2f}" for kind in kinds]
        lines.append([f"`{name}`", *shares])
        say(name)
    return [*kinds], lines


def table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


STARTED = time.monotonic()


def say(name: str) -> None:
    print(f"{time.monotonic() - STARTED:5.0f} s  {name}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--groups", type=int, default=60)
    asked = parser.parse_args()
    garments, found = held_out(), scores()
    sizes = [f"N = {size}" for size in SIZES]
    own, half = drawn(), max(2, asked.groups // 2)
    kinds, shares = what_raises(found, garments, asked.groups)
    parts = [
        "Rank correlation with the true number of classes (1, 2, 4, 8 of N garments, 4 at most at "
        "N = 4, held out; the same of garments that the embedded model drew) and of modes (8 "
        "points on the ring); 1 orders groups as the truth does.",
        table(
            ["metric", *sizes, "drawn, N = 8", "ring, N = 8"],
            known_diversity(found, garments, own, asked.groups),
        ),
        "Where a group of one class lands when its images are changed, N = 8: 0 is the group as it "
        "is, 1 a group of eight classes. Repeated images should lower a metric, artefacts leave "
        "it.",
        table(["metric", *kinds], shares),
        "Scatter between groups of the same class (standard deviation over the mean), and how many "
        "prompts show a difference 4 times in 5, between two independent groups each: of 5% of the "
        "value, and of one image of each group taken from another class.",
        table(["metric", *sizes], noise_of(found, garments, half)),
    ]
    put(PAGE, BEGIN, END, "\n\n".join(parts))


if __name__ == "__main__":
    main()
