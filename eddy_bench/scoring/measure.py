"""Values of a metric over all methods: each kind of need reads what its metrics are given."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eddy_bench.errors import EddyError, MetricError, brief
from eddy_bench.ids import IID, SMALL_SAMPLE, MethodId, MetricId, Part, Signature
from eddy_bench.models.attributes import parse
from eddy_bench.scoring.attribute_values import values_digest
from eddy_bench.scoring.extractor import Extractor, file_digest
from eddy_bench.scoring.extractors import CLASSIFIER
from eddy_bench.scoring.metric import Judge, Metric, Needs, mean_of, read_only
from eddy_bench.scoring.metrics import METRICS, MetricSpec
from eddy_bench.scoring.reference import RealImages, SavedStatistics
from eddy_bench.scoring.scorer import Scorer, rows_of_groups
from eddy_bench.storage.group import FinishedGroup
from eddy_bench.storage.records import Group

Methods = Mapping[MethodId, Sequence[FinishedGroup]]


@dataclass(frozen=True)
class MetricValue:
    """A value of a metric: of a group, or of the method that a group belongs to."""

    group: Group
    id: MetricId
    metric: Metric
    value: float
    signature: Signature
    images: tuple[float, ...] = ()  # the values of a group's single images, where they have any


def measure(scorer: Scorer, spec: MetricSpec, methods: Methods) -> Iterator[MetricValue]:
    """Yield a metric's values, method by method; MetricError where what it needs is not there."""
    values = _READERS[spec.metric.needs](scorer, spec, methods)
    return _guarded(spec, values) if spec.metric.source else values


def _guarded(spec: MetricSpec, values: Iterator[MetricValue]) -> Iterator[MetricValue]:
    try:
        yield from values
    except EddyError as error:
        if spec.name in str(error):
            raise
        raise MetricError(f"Metric {spec.name!r} failed: {error}") from None
    except (Exception, SystemExit) as error:
        cure = ". Copy an array before you write to it: x = x.copy()."
        raise MetricError(
            f"Metric {spec.name!r} failed: {type(error).__name__}: {brief(error)}"
            + (cure if "read-only" in str(error) else "")
        ) from None


def _seen(extractor: Extractor) -> Part:
    return ("features", f"{extractor.name}@{extractor.digest}")


def _of_group(
    spec: MetricSpec,
    group: FinishedGroup,
    value: float,
    signature: Signature,
    images: tuple[float, ...],
) -> MetricValue:
    """Return the value of a group; none where an image is bad, and none of that image."""
    if group.bad:
        value = math.nan
        images = tuple(math.nan if k in group.bad else own for k, own in enumerate(images))
    size: Part = ("N", str(group.group.particles))
    return MetricValue(group.group, spec.id, spec.metric, value, signature.adding([size]), images)


def _called(
    spec: MetricSpec, group: FinishedGroup, signature: Signature, *given: Any
) -> MetricValue:
    """Call a metric with what it needs of a group."""
    metric, images = spec.metric, spec.metric.of_images(*given, **spec.values)
    mean = metric.function is None  # of what was computed of each image
    value = mean_of(np.array(images)) if mean else metric(*given, **spec.values)
    return _of_group(spec, group, value, signature, images)


def _read_features(scorer: Scorer, spec: MetricSpec, methods: Methods) -> Iterator[MetricValue]:
    extractor = scorer.extractor(spec.extractor, spec.metric.sees)
    signature = spec.signature(_seen(extractor))
    for groups in methods.values():
        features = scorer.features(extractor.name, groups)
        for group in groups:
            yield _called(spec, group, signature, features[group.group.key])


def _read_text(scorer: Scorer, spec: MetricSpec, methods: Methods) -> Iterator[MetricValue]:
    extractor, metric = with_texts(scorer, spec), spec.metric
    assert extractor.texts is not None, "checked before"
    signature = spec.signature(_seen(extractor))
    for groups in methods.values():
        features = scorer.features(extractor.name, groups)
        prompts = list(dict.fromkeys(group.group.prompt for group in groups))
        if metric.texts:
            texts = dict.fromkeys(prompts, extractor.texts(metric.texts))
        else:
            texts = dict(zip(prompts, extractor.texts(prompts), strict=True))
            scorer.note_truncated(extractor, prompts)
        for group in groups:
            own = features[group.group.key], texts[group.group.prompt]
            yield _called(spec, group, signature, *own)


def with_texts(scorer: Scorer, spec: MetricSpec) -> Extractor:
    """Return a metric's extractor, which must have a text tower."""
    extractor = scorer.extractor(spec.extractor, spec.metric.sees)
    if extractor.texts is None:
        raise MetricError(
            f"Metric {spec.name!r} needs an extractor with a text tower, got {extractor.name!r}. "
            "Use fmnist-clip or open_clip:MODEL/WEIGHTS."
        )
    if spec.metric.texts and extractor.name == "fmnist-clip":  # it knows words of garments alone
        raise MetricError(
            f"Metric {spec.name!r} asks for words that fmnist-clip was not taught. Name a CLIP of "
            f"photographs: {spec.name}[open_clip:ViT-B-32-quickgelu/openai]."
        )
    return extractor


def _read_values(scorer: Scorer, spec: MetricSpec, methods: Methods) -> Iterator[MetricValue]:
    extractor = with_texts(scorer, spec)
    assert extractor.texts is not None, "checked before"
    signature = spec.signature(("values", values_digest(scorer.values)), _seen(extractor))
    for groups in methods.values():
        features = scorer.features(extractor.name, groups)
        for group in groups:
            prompt = group.group.prompt
            texts = [
                extractor.texts([f"{prompt}, {value}" for value in listed])
                for listed in scorer.values.get(group.group.prompt_id, ())
            ]
            yield _called(spec, group, signature, features[group.group.key], texts)


def _read_attributes(scorer: Scorer, spec: MetricSpec, methods: Methods) -> Iterator[MetricValue]:
    signature = spec.signature(f"classifier@{file_digest(CLASSIFIER)}")
    for groups in methods.values():
        predicted = scorer.attributes(groups)
        for group in groups:
            own = predicted[group.group.key], parse(group.group.prompt)
            yield _called(spec, group, signature, *own)


def _read_judged(scorer: Scorer, spec: MetricSpec, methods: Methods) -> Iterator[MetricValue]:
    """Judge images, images with their prompts, or pairs of images, one after another."""
    metric = spec.metric
    if metric.load is not None:
        judge = metric.load(scorer.weights, scorer.device)
    else:
        judge = Judge(lambda rows: (metric(*row, **spec.values) for row in rows), "")
    scorer.networks[str(spec.id)] = judge.values
    net: list[Part] = [("net", f"{spec.extractor}@{judge.digest}")] if judge.digest else []
    signature = spec.signature(*net)
    together = 2 if metric.needs == "pairs" else 1
    beside = judge.read if metric.needs == "image and text" else None
    for groups in methods.values():
        values = rows_of_groups(judge.values, judge.prepare, groups, together, beside)
        with closing(values) as rows:
            for group, judged in rows:
                if judged.ndim != 1:
                    raise MetricError(
                        f"Expected a number for each image or pair from {spec.name!r}, got arrays "
                        f"of shape {judged.shape[1:]}."
                    )
                value = metric(judged) if metric.load else mean_of(judged)
                scorer.advance(1, f"{group.group.name} {spec.name}")
                images = metric.of_images(judged)
                if metric.judges_images and not images:
                    images = tuple(judged.astype(np.float64).tolist())
                yield _of_group(spec, group, value, signature, images)


def _small(spec: MetricSpec, extractor: Extractor, count: int, width: int) -> list[Part]:
    small = spec.metric.flags_small_sample and count < max(extractor.minimum, width)
    return [SMALL_SAMPLE] if small else []


def _read_real(scorer: Scorer, spec: MetricSpec, methods: Methods) -> Iterator[MetricValue]:
    if scorer.real is None:
        raise MetricError(
            f"Metric {spec.name!r} needs real images to compare with. Give --reference DIR."
        )
    extractor = scorer.extractor(spec.extractor, spec.metric.sees)
    distance, count = _to_real(scorer, scorer.real, spec, extractor)
    for groups in methods.values():
        features = scorer.features(extractor.name, groups)
        good = [k not in group.bad for group in groups for k in range(group.group.particles)]
        images = np.concatenate([features[group.group.key] for group in groups])[good]
        signature = spec.signature(
            _seen(extractor),
            ("n", str(len(good))),  # of images drawn: bad ones are counted beside
            ("ref", f"{scorer.real.name}:{count}"),
            *_small(spec, extractor, min(len(images), count), images.shape[1]),
        )
        value = distance(images) if len(images) else math.nan
        yield MetricValue(groups[0].group, spec.id, spec.metric, value, signature)


def _to_real(
    scorer: Scorer, real: RealImages | SavedStatistics, spec: MetricSpec, extractor: Extractor
) -> tuple[Callable[[NDArray[np.float32]], float], int]:
    """Return what compares features with those of real images, and how many those are."""
    moments = spec.metric.moments if isinstance(real, SavedStatistics) else None
    given: list[NDArray[np.floating]]
    if isinstance(real, SavedStatistics):
        real.check(extractor)
    if isinstance(real, SavedStatistics) and moments is not None:
        given, count = [real.mean, real.covariance], real.count
    else:
        given = [scorer.real_features(extractor)]
        count = len(given[0])

    def distance(images: NDArray[np.float32]) -> float:
        if images.shape[1] != (width := given[0].shape[-1]):
            raise MetricError(
                f"Expected {images.shape[1]} features of {extractor.name} for each image of "
                f"{real.name}, got {width}. Give --reference images of the run's size, or their "
                "statistics written anew: eddy-bench reference."
            )
        if moments is not None:
            return moments(*map(read_only, (images, *given)))
        return spec.metric(images, *given, **spec.values)

    return distance, count


def _read_iid(scorer: Scorer, spec: MetricSpec, methods: Methods) -> Iterator[MetricValue]:
    """Compare each slot of each method with disjoint i.i.d. images of the same prompts."""
    drawn = {group.place: group for group in scorer.hold_out() if not group.bad}
    if not drawn:
        raise MetricError(
            f"Metric {spec.name!r} needs groups of the method iid in the run. Add --method iid."
        )
    extractor = scorer.extractor(spec.extractor, spec.metric.sees)
    features = scorer.features(extractor.name, list(drawn.values()))
    for method, groups in methods.items():
        both = [group for group in groups if group.place in drawn]
        good = [group for group in both if not group.bad]
        if len(both) < 2:
            raise MetricError(
                f"Metric {spec.name!r} needs at least 2 groups of {method} that iid has too, "
                f"got {len(both)}."
            )
        if len(good) < 2:
            continue  # the others hold bad images, which are counted beside
        seen = scorer.features(extractor.name, good)
        slots = np.stack([seen[group.group.key] for group in good])
        base = np.stack([features[drawn[group.place].group.key][0] for group in good])
        parts = (
            _seen(extractor),
            ("n", str(len(both))),
            ("slots", str(slots.shape[1])),
            *_small(spec, extractor, len(base), base.shape[1]),
        )
        value = spec.metric(slots, base, **spec.values)
        # the baseline's own value goes by the name of the floor too
        floors = [
            MetricSpec(metric, spec.extractor)
            for metric in METRICS.values()
            if metric.implied and metric.function is spec.metric.function and method == IID
        ]
        for own in [spec, *floors]:
            yield MetricValue(groups[0].group, own.id, own.metric, value, own.signature(*parts))


_READERS: dict[Needs, Callable[[Scorer, MetricSpec, Methods], Iterator[MetricValue]]] = {
    "features": _read_features,
    "text": _read_text,
    "values": _read_values,
    "attributes": _read_attributes,
    "image": _read_judged,
    "image and text": _read_judged,
    "pairs": _read_judged,
    "real": _read_real,
    "iid": _read_iid,
}
