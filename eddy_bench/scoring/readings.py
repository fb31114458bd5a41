"""Values of a metric over all methods: each kind of need reads what its metrics are given."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eddy_bench.errors import EddyError, MetricError, brief
from eddy_bench.models.attributes import parse
from eddy_bench.scoring.attribute_values import values_digest
from eddy_bench.scoring.classifier import WEIGHTS
from eddy_bench.scoring.extractor import Extractor, file_digest
from eddy_bench.scoring.feature_cache import Scorer
from eddy_bench.scoring.group_rows import rows_of_groups
from eddy_bench.scoring.metric import Judge, Needs, mean_of
from eddy_bench.scoring.metrics import METRICS, MetricSpec
from eddy_bench.scoring.real_distance import to_real
from eddy_bench.scoring.signature import SMALL_SAMPLE, Part, Signature
from eddy_bench.scoring.spec_signature import signature_of
from eddy_bench.scoring.text_features import texts_of, with_texts
from eddy_bench.storage.group import FinishedGroup
from eddy_bench.storage.records import Group

Methods = Mapping[str, Sequence[FinishedGroup]]  # groups by the method's label
BASELINE = "iid"


@dataclass(frozen=True)
class Measured:
    """Hold a value of a metric: of a group, or of the method that a group belongs to.

    images: the values of a group's single images, where they have any.
    """

    group: Group
    metric: str
    extractor: str
    value: float
    signature: Signature
    images: tuple[float, ...] = ()


def measure(scorer: Scorer, spec: MetricSpec, methods: Methods) -> Iterator[Measured]:
    """Yield the values of a metric, method by method.

    Raises:
        MetricError: what the metric needs is not there.

    """
    values = _READERS[spec.metric.needs](scorer, spec, methods)
    return _guarded(spec, values) if spec.metric.source else values


def _guarded(spec: MetricSpec, values: Iterator[Measured]) -> Iterator[Measured]:
    """Yield values of a plug-in, whose code may raise anything."""
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
    images: tuple[float, ...] = (),
) -> Measured:
    """Return the value of a group; none where an image is bad, and none of that image."""
    mean = mean_of(np.array(images))
    if images and not (np.isnan(value) or np.isclose(mean, value, rtol=1e-4, atol=1e-6)):
        raise MetricError(
            f"Expected the mean of `each` of {spec.name!r} to be what its function gives, "
            f"{value:g}, got {mean:g} of {group.group.name}. Return the mean of `each` there."
        )
    if group.bad:
        value = math.nan
        images = tuple(math.nan if k in group.bad else own for k, own in enumerate(images))
    size: Part = ("N", str(group.group.particles))
    return Measured(group.group, spec.name, spec.extractor, value, signature.adding([size]), images)


def _read_features(scorer: Scorer, spec: MetricSpec, methods: Methods) -> Iterator[Measured]:
    extractor = scorer.extractor(spec.extractor, spec.metric.sees)
    signature = signature_of(spec, *spec.metric.marks, _seen(extractor))
    for groups in methods.values():
        features = scorer.features(extractor.name, groups)
        for group in groups:
            own = features[group.group.key]
            value = spec.metric(own, **spec.values)
            images = spec.metric.of_images(own, **spec.values)
            yield _of_group(spec, group, value, signature, images)


def _read_text(scorer: Scorer, spec: MetricSpec, methods: Methods) -> Iterator[Measured]:
    extractor = with_texts(scorer, spec)
    signature = signature_of(spec, *spec.metric.marks, _seen(extractor))
    for groups in methods.values():
        features = scorer.features(extractor.name, groups)
        prompts = list(dict.fromkeys(group.group.prompt for group in groups))
        texts = texts_of(extractor, spec, prompts)
        scorer.note_truncated(extractor, [] if spec.metric.texts else prompts)
        for group in groups:
            own = features[group.group.key], texts[group.group.prompt]
            value = spec.metric(*own, **spec.values)
            images = spec.metric.of_images(*own, **spec.values)
            yield _of_group(spec, group, value, signature, images)


def _read_values(scorer: Scorer, spec: MetricSpec, methods: Methods) -> Iterator[Measured]:
    extractor = with_texts(scorer, spec)
    assert extractor.texts is not None, "checked before"
    listed_digest: Part = ("values", values_digest(scorer.values))
    signature = signature_of(spec, *spec.metric.marks, listed_digest, _seen(extractor))
    for groups in methods.values():
        features = scorer.features(extractor.name, groups)
        for group in groups:
            prompt = group.group.prompt
            texts = [
                extractor.texts([f"{prompt}, {value}" for value in listed])
                for listed in scorer.values.get(group.group.prompt_id, ())
            ]
            value = spec.metric(features[group.group.key], texts, **spec.values)
            yield _of_group(spec, group, value, signature)


def _read_attributes(scorer: Scorer, spec: MetricSpec, methods: Methods) -> Iterator[Measured]:
    digest = file_digest(WEIGHTS)
    signature = signature_of(spec, *spec.metric.marks, f"classifier@{digest}")
    for groups in methods.values():
        predicted = scorer.attributes(groups)
        for group in groups:
            value = spec.metric(predicted[group.group.key], parse(group.group.prompt))
            yield _of_group(spec, group, value, signature)


def _read_judged(scorer: Scorer, spec: MetricSpec, methods: Methods) -> Iterator[Measured]:
    """Judge images, images with their prompts, or pairs of images, one after another."""
    judge = _judge(scorer, spec)
    net: list[Part] = [("net", f"{spec.extractor}@{judge.digest}")] if judge.digest else []
    signature = signature_of(spec, *net, *spec.metric.marks)
    together = 2 if spec.metric.needs == "pairs" else 1
    beside = judge.read if spec.metric.needs == "image and text" else None
    for groups in methods.values():
        values = rows_of_groups(judge.values, judge.prepare, groups, together, beside)
        with closing(values) as rows:
            for group, judged in rows:
                if judged.ndim != 1:
                    raise MetricError(
                        f"Expected a number for each image or pair from {spec.name!r}, got arrays "
                        f"of shape {judged.shape[1:]}."
                    )
                value = spec.metric(judged) if spec.metric.load else mean_of(judged)
                scorer.advance(1, f"{group.group.name} {spec.name}")
                images = spec.metric.of_images(judged)
                if spec.metric.judges_images and not images:
                    images = tuple(judged.astype(np.float64).tolist())
                yield _of_group(spec, group, value, signature, images)


def _judge(scorer: Scorer, spec: MetricSpec) -> Judge:
    """Load what judges, or take the metric's function itself."""
    metric = spec.metric
    if metric.load is not None:
        return metric.load(scorer.weights, scorer.device)
    return Judge(lambda rows: (metric(*row, **spec.values) for row in rows), "")


def _read_real(scorer: Scorer, spec: MetricSpec, methods: Methods) -> Iterator[Measured]:
    if scorer.real is None:
        raise MetricError(
            f"Metric {spec.name!r} needs real images to compare with. Give --reference DIR."
        )
    extractor = scorer.extractor(spec.extractor, spec.metric.sees)
    distance, count = to_real(scorer, scorer.real, spec, extractor)
    for groups in methods.values():
        stacked = _stack(scorer, extractor, groups)
        good = [k not in group.bad for group in groups for k in range(group.group.particles)]
        images = stacked.reshape(-1, stacked.shape[-1])[good]
        signature = signature_of(
            spec,
            *spec.metric.marks,
            _seen(extractor),
            ("n", str(len(good))),  # of images drawn: bad ones are counted beside
            ("ref", f"{scorer.real.name}:{count}"),
            *_small(spec, extractor, min(len(images), count), images.shape[1]),
        )
        value = distance(images) if len(images) else math.nan
        yield Measured(groups[0].group, spec.name, extractor.name, value, signature)


def _read_iid(scorer: Scorer, spec: MetricSpec, methods: Methods) -> Iterator[Measured]:
    """Compare each slot of each method with disjoint i.i.d. images of the same prompts."""
    drawn = {
        (group.group.prompt_id, group.group.seed): group
        for group in scorer.reference_groups()
        if not group.bad
    }
    if not drawn:
        raise MetricError(
            f"Metric {spec.name!r} needs groups of the method iid in the run. Add --method iid."
        )
    extractor = scorer.extractor(spec.extractor, spec.metric.sees)
    features = scorer.features(extractor.name, list(drawn.values()))
    for label, groups in methods.items():
        keys = [(group.group.prompt_id, group.group.seed) for group in groups]
        both = [(group, key) for group, key in zip(groups, keys, strict=True) if key in drawn]
        shared = [(group, drawn[key]) for group, key in both if not group.bad]
        if len(both) < 2:
            raise MetricError(
                f"Metric {spec.name!r} needs at least 2 groups of {label} that iid has too, "
                f"got {len(both)}."
            )
        if len(shared) < 2:
            continue  # the others hold bad images, which are counted beside
        slots = _stack(scorer, extractor, [group for group, _ in shared])
        base = np.stack([features[other.group.key][0] for _, other in shared])
        parts = (
            *spec.metric.marks,
            _seen(extractor),
            ("n", str(len(both))),
            ("slots", str(slots.shape[1])),
            *_small(spec, extractor, len(base), base.shape[1]),
        )
        value = spec.metric(slots, base, **spec.values)
        yield Measured(
            groups[0].group, spec.name, extractor.name, value, signature_of(spec, *parts)
        )
        if label == BASELINE:
            for floor in _floors(spec):
                yield Measured(
                    groups[0].group, floor.name, extractor.name, value, signature_of(floor, *parts)
                )


def _floors(spec: MetricSpec) -> list[MetricSpec]:
    """Return the metrics that the baseline's own value goes by beside its name."""
    floors = [metric for metric in METRICS.values() if metric.implied]
    return [
        MetricSpec(metric.name, spec.extractor)
        for metric in floors
        if metric.function is spec.metric.function
    ]


def _small(spec: MetricSpec, extractor: Extractor, count: int, width: int) -> list[Part]:
    small = spec.metric.flags_small_sample and count < max(extractor.minimum, width)
    return [SMALL_SAMPLE] if small else []


def _stack(
    scorer: Scorer, extractor: Extractor, groups: Sequence[FinishedGroup]
) -> NDArray[np.float32]:
    """Return the features of all groups, (groups, N, F)."""
    features = scorer.features(extractor.name, groups)
    return np.stack([features[group.group.key] for group in groups])


_READERS: dict[Needs, Callable[[Scorer, MetricSpec, Methods], Iterator[Measured]]] = {
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
