"""Check what every metric promises, on real garments and on what was made worse of them."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from eddy_bench.audit.conformance import Answer, Finding, run_checks
from eddy_bench.errors import EddyError, MetricError, reason_of
from eddy_bench.experiment.events import Advance
from eddy_bench.models.attributes import CLASSES
from eddy_bench.models.defaults import scoring_defaults
from eddy_bench.scoring.measure import measure, with_texts
from eddy_bench.scoring.metrics import MetricSpec
from eddy_bench.scoring.reference import RealImages, held_out
from eddy_bench.scoring.scorer import Scorer
from eddy_bench.storage.group import FinishedGroup, png_bytes
from eddy_bench.storage.records import Group, RunSettings
from eddy_bench.storage.run_folder import RunFolder

Pictures = list[Image.Image]
SIDE = 192  # pixels: enough for every window and pyramid
GROUPS, PARTICLES = 6, 4
TOLERANCE = 1e-4  # relative, of what other batches may change
OPEN = {f"p{number}": [["dark", "light"], ["wide", "narrow"]] for number in range(GROUPS)}
ORDERS = 3  # random ones, of images and of groups
PERMUTED = tuple(f"permuted-{number}" for number in range(ORDERS))
ORDINARY = ("plain", "blurred", "noisy", "two")
LABELS = (*ORDINARY, *PERMUTED, "duplicates", "blank", "single")
SETTINGS = RunSettings(
    model="fashion",
    revision=None,
    variant=None,
    weights_fingerprint="",
    scheduler="",
    steps=1,
    guidance_scale=1.0,
    negative_prompt="",
    particles=PARTICLES,
    size=SIDE,
    dtype="float32",
)


@dataclass
class Trial:
    """A metric, and groups of images that it is tried on, by what was done to them."""

    spec: MetricSpec
    scorer: Scorer
    groups: dict[str, list[FinishedGroup]]
    values: dict[str, list[float]] = field(default_factory=dict)

    def of(self, label: str) -> list[float]:
        """Return the values of groups, measured once."""
        if label not in self.values:
            self.values[label] = self.measured(self.groups[label])
        return self.values[label]

    def measured(self, groups: Sequence[FinishedGroup]) -> list[float]:
        """Return the values of groups, in their order, or one of all."""
        found = measure(self.scorer, self.spec, {groups[0].group.id: groups})
        return [value.value for value in found if value.id.name == self.spec.name]


def check_metric(
    spec: MetricSpec, weights: Path | None, advance: Advance = lambda count, label: None
) -> list[Finding]:
    """Check every promise of a metric; raises EddyError where its weights cannot be had."""
    defaults = scoring_defaults("fashion")
    own = defaults.extractor if spec.metric.takes_extractor else spec.metric.extractor
    spec = replace(spec, extractor=spec.extractor or own)
    real = held_out(defaults)
    assert real is not None, "the embedded model has held-out images"
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder.prepare(Path(folder) / "run", SETTINGS)
        scorer = Scorer(run, weights, real, lambda count, label: None, values=OPEN)
        _load(scorer, spec)
        trial = Trial(spec, scorer, _written(run, real))
        if spec.metric.source.startswith("torchmetrics=="):
            trial.of("plain")  # what cannot be made or fed here breaks no promise of ours
        return run_checks(CHECKS, trial, advance)


def _load(scorer: Scorer, spec: MetricSpec) -> None:
    """Load a metric's network first: what it lacks is no broken promise."""
    try:
        if spec.extractor and spec.metric.load is None and spec.metric.needs != "attributes":
            scorer.extractor(spec.extractor, spec.metric.sees)
        if spec.metric.needs in ("text", "values"):
            with_texts(scorer, spec)
        if spec.metric.load is not None:
            spec.metric.load(scorer.weights, scorer.device)
    except EddyError:
        raise
    except (Exception, SystemExit) as error:
        raise MetricError(f"{spec.name} cannot be loaded: {reason_of(error)}") from None


def _written(run: RunFolder, real: RealImages) -> dict[str, list[FinishedGroup]]:
    """Write groups of held-out garments, and of what was made of them, into a run folder.

    Each group is of one class.
    """
    path = scoring_defaults("fashion").reference
    assert path is not None, "the embedded model has held-out images"
    with np.load(path) as data:
        classes = data["attributes"][:, 0]
    for number in range(GROUPS):
        chosen = np.flatnonzero(classes == number)[:PARTICLES]
        own = [
            real.images[k].convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
            for k in chosen
        ]
        for label, images in _variants(own, number).items():
            _write(run, label, number, images)
        _write(run.reference(), "reference", number, [real.images[-1 - number]])
    finished = list(run.finished())
    return {label: [group for group in finished if group.group.label == label] for label in LABELS}


def _write(run: RunFolder, label: str, number: int, images: Sequence[Image.Image]) -> None:
    prompt = CLASSES[number][0]
    group = Group(
        method=label,
        label=label,
        parameters="",
        kernel="",
        prompt_id=f"p{number}",
        prompt=prompt,
        seed=0,
        particles=len(images),
        key=f"{label}-{number}",
    )
    run.write_group(group, [png_bytes(image) for image in images], {}, {})


def _variants(images: Pictures, number: int) -> dict[str, Pictures]:
    """Return what is made of a group's images, by `LABELS`."""
    noise = np.random.default_rng(number).normal(0, 80, (len(images), SIDE, SIDE, 3))
    noisy = [
        Image.fromarray(np.clip(np.asarray(image) + extra, 0, 255).astype(np.uint8))
        for image, extra in zip(images, noise, strict=True)
    ]
    return {
        "plain": images,
        "two": images[:2],
        **{label: _shuffled(images, number, order) for order, label in enumerate(PERMUTED)},
        "blurred": [image.filter(ImageFilter.GaussianBlur(SIDE / 12)) for image in images],
        "noisy": noisy,
        "duplicates": [images[0]] * len(images),
        "blank": [Image.new("RGB", (SIDE, SIDE))] * len(images),
        "single": images[:1],
    }


def _shuffled(images: Sequence[Any], *seed: int) -> list[Any]:
    return [images[k] for k in np.random.default_rng(seed).permutation(len(images))]


def _in_range(trial: Trial) -> Answer:
    low, high = trial.spec.metric.range
    values = [value for label in (*ORDINARY, "duplicates") for value in trial.of(label)]
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return False, f"expected numbers, got {trial.of('plain')}"
    slack = 1e-6 * max(1.0, *(abs(value) for value in finite))
    inside = all(low - slack <= value <= high + slack for value in finite)
    return inside, f"{min(finite):.3g} to {max(finite):.3g}, declared {low:g} to {high:g}"


def _numbers(trial: Trial) -> Answer:
    wrong = [
        f"{label} images give {value:g}"
        for label in ORDINARY
        if (value := next((v for v in trial.of(label) if not math.isfinite(v)), None)) is not None
    ]
    return not wrong, "; ".join(wrong) or f"numbers for {', '.join(ORDINARY)} images"


def _deterministic(trial: Trial) -> Answer:
    first, again = trial.of("plain"), trial.measured(trial.groups["plain"])
    return first == again, "measured twice, the same" if first == again else f"{first} and {again}"


def _permuted_images(trial: Trial) -> Answer:
    if trial.spec.metric.needs == "iid":
        return None, "it compares slots"
    return _alike(trial.of("plain"), *map(trial.of, PERMUTED))


def _permuted_groups(trial: Trial) -> Answer:
    groups, turned = trial.groups["plain"], []
    for seed in range(ORDERS):
        order = _shuffled(range(len(groups)), seed)
        values = trial.measured([groups[k] for k in order])
        back = np.argsort(order) if len(values) == len(order) else range(len(values))
        turned.append([values[k] for k in back])
    return _alike(trial.of("plain"), *turned)


def _alike(first: Sequence[float], *others: Sequence[float]) -> Answer:
    scale = max(1e-12, *(abs(value) for value in first))
    gaps = [abs(a - b) for other in others for a, b in zip(first, other, strict=True)]
    gap = max(gaps) / scale
    return gap < TOLERANCE, f"largest relative difference {gap:.1g} in {len(others)} orders"


def _single(trial: Trial) -> Answer:
    values = trial.of("single")
    shown = ", ".join(dict.fromkeys(f"{value:.3g}" for value in values[:3]))
    return not any(map(math.isinf, values)), f"one image gives {shown}"


def _blank(trial: Trial) -> Answer:
    values = trial.of("blank")
    return not any(map(math.isinf, values)), f"black images give {np.mean(values):.3g}"


def _no_gain_from(label: str, aspect: str) -> Callable[[Trial], Answer]:
    """Return the check that a degradation does not improve what a metric judges.

    A metric that compares with real images and says nothing is tried on fidelity.
    """

    def check(trial: Trial) -> Answer:
        metric = trial.spec.metric
        if (metric.aspect or ("fidelity" if metric.needs == "real" else "")) != aspect:
            return None, f"it does not say that it judges {aspect}"
        before, after = (float(np.mean(trial.of(name))) for name in ("plain", label))
        gain = (after - before) * (1 if metric.higher_is_better else -1)
        holds = gain <= TOLERANCE * max(abs(before), 1e-12)
        return holds, f"{before:.3g} before, {after:.3g} {label}"

    return check


CHECKS: Mapping[str, Callable[[Trial], Answer]] = {
    "numbers in its range": _in_range,
    "no NaN of ordinary images": _numbers,
    "deterministic": _deterministic,
    "permutation of images": _permuted_images,
    "permutation of groups": _permuted_groups,
    "one image": _single,
    "black images": _blank,
    "blur is no gain": _no_gain_from("blurred", "fidelity"),
    "noise is no gain": _no_gain_from("noisy", "fidelity"),
    "duplicates are no gain": _no_gain_from("duplicates", "diversity"),
}
