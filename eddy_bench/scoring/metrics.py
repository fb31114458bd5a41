"""What a metric is: a record and a pure function; and how one is asked for."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from eddy_bench.errors import MetricError, ParameterError, UnknownName, unknown

Scope = Literal["group", "pooled", "cost"]


@dataclass(frozen=True)
class Metric:
    """A metric's record.

    Args:
        name: as in `scores.csv`. scope: `group` (one value per prompt group), `pooled` (one per method) or `cost`.
        higher_is_better: its direction. summary, citation, cost: for `list metrics`. extractors: whether it takes `[extractor]`.

    """

    name: str
    scope: Scope
    higher_is_better: bool
    summary: str
    citation: str = ""
    cost: str = "features only"
    extractors: bool = True


METRICS = {
    metric.name: metric
    for metric in (
        Metric(
            "vendi",
            "group",
            True,
            "effective number of different images in a group, 1 to N; q is the Renyi order",
            "arXiv 2210.02410",
        ),
        Metric(
            "pdist",
            "group",
            True,
            "mean distance of unit-normalised features over pairs of a group, 0 to 2",
        ),
        Metric("mss", "group", False, "mean cosine similarity over pairs of a group, -1 to 1"),
        Metric(
            "lpips",
            "group",
            True,
            "mean learned perceptual distance over pairs of a group",
            "arXiv 1801.03924",
            "AlexNet per pair",
            False,
        ),
        Metric(
            "attributes",
            "group",
            True,
            "distinct combinations of the attributes that the prompt leaves free, 1 to N",
            "",
            "classifier",
            False,
        ),
        Metric(
            "clip", "group", True, "100 cosine(image, text), mean over images", "arXiv 2104.08718"
        ),
        Metric(
            "align",
            "group",
            True,
            "share of images whose attributes match the prompt's words, 0 to 1",
            "",
            "classifier",
            False,
        ),
        Metric(
            "fd",
            "pooled",
            False,
            "Frechet distance to real images under any extractor",
            "arXiv 1706.08500",
        ),
        Metric(
            "fid",
            "pooled",
            False,
            "Frechet distance under the Inception-v3 FID weights",
            "arXiv 1706.08500",
            "Inception-v3",
            False,
        ),
        Metric(
            "kid",
            "pooled",
            False,
            "unbiased squared MMD, cubic kernel, to real images",
            "arXiv 1801.01401",
        ),
        Metric(
            "precision",
            "pooled",
            True,
            "share of images inside the real images' manifold, 0 to 1",
            "arXiv 1904.06991",
        ),
        Metric(
            "recall",
            "pooled",
            True,
            "share of real images inside the images' manifold, 0 to 1",
            "arXiv 1904.06991",
        ),
        Metric(
            "density",
            "pooled",
            True,
            "how many real images' balls hold an image, relative to k; 0 up, 1 when equal",
            "arXiv 2002.09797",
        ),
        Metric(
            "coverage",
            "pooled",
            True,
            "share of real images whose ball holds an image, 0 to 1",
            "arXiv 2002.09797",
        ),
        Metric(
            "cmmd",
            "pooled",
            False,
            "1000 times the squared MMD of unit features, Gaussian kernel of width 10, to real images",
            "arXiv 2401.09603",
        ),
        Metric(
            "drift",
            "pooled",
            False,
            "Frechet distance of one slot per group to a disjoint i.i.d. set, mean over slots",
        ),
        Metric(
            "drift_floor",
            "pooled",
            False,
            "the same for i.i.d. samples: what drift is without any",
            "",
            "features only",
        ),
        Metric(
            "seconds_per_image",
            "cost",
            False,
            "solver seconds per image, guidance and decoding included",
            "",
            "none",
            False,
        ),
        Metric(
            "nfe",
            "cost",
            False,
            "network evaluations per image, both branches of guidance counted",
            "",
            "none",
            False,
        ),
        Metric(
            "decoder_calls",
            "cost",
            False,
            "decoder rows per image inside the method",
            "",
            "none",
            False,
        ),
        Metric(
            "feature_forwards",
            "cost",
            False,
            "guide-network rows per image, forward",
            "",
            "none",
            False,
        ),
        Metric(
            "feature_backwards",
            "cost",
            False,
            "guide-network rows per image, backward",
            "",
            "none",
            False,
        ),
        Metric(
            "peak_memory_mb",
            "cost",
            False,
            "peak memory of the process or GPU so far, MiB",
            "",
            "none",
            False,
        ),
    )
}
COSTS = tuple(name for name, metric in METRICS.items() if metric.scope == "cost")


@dataclass(frozen=True)
class Request:
    """A metric that was asked for: `name[extractor]:key=value`; no extractor is the model's own."""

    metric: Metric
    extractor: str = ""
    parameters: dict[str, float] = field(default_factory=dict, hash=False)
    explicit: bool = True

    @property
    def column(self) -> str:
        """The heading in `summary.csv`."""
        extra = "".join(f"-{key}{value:g}" for key, value in self.parameters.items())
        return f"{self.metric.name}{extra}" + (f"[{self.extractor}]" if self.extractor else "")


def parse_metric(text: str, explicit: bool = True) -> Request:
    """A request from `vendi`, `vendi[fmnist-clip]` or `vendi[fmnist-clip]:q=2`.

    Raises:
        UnknownName: no such metric. ParameterError: a parameter it does not have. MetricError: an extractor where it takes none. Cost counters are always there and have no request.

    """
    match = re.fullmatch(r"([\w-]+)(?:\[([^\[\]]+)\])?(?::(.*))?", text.strip())
    names = [
        name for name, metric in METRICS.items() if metric.scope != "cost" and name != "drift_floor"
    ]
    if not match or match[1] not in names:
        raise UnknownName(unknown("metric", match[1] if match else text, names))
    metric = METRICS[match[1]]
    if match[2] and not metric.extractors:
        raise MetricError(f"Metric {metric.name!r} takes no extractor, got [{match[2]}].")
    parameters: dict[str, float] = {}
    for part in filter(None, (match[3] or "").split(",")):
        key, _, value = part.partition("=")
        if metric.name != "vendi" or key != "q":
            raise ParameterError(
                f"Metric {metric.name!r} has no parameter {key!r}."
                + (" It takes q." if metric.name == "vendi" else "")
            )
        try:
            parameters[key] = float(value)
        except ValueError:
            parameters[key] = -1.0
        if not 0 < parameters[key] < 1000:
            raise ParameterError(f"Expected q of vendi above 0, got {value!r}.")
    return Request(metric, match[2] or "", parameters, explicit)
