"""Metrics as records: each carries its function and says what the function needs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from eddy_bench.errors import MetricError
from eddy_bench.ids import Part
from eddy_bench.models.images import rgb_array
from eddy_bench.scoring.extractor import Extractor
from eddy_bench.scoring.forward import Row

Scope = Literal["group", "pooled", "cost"]
Needs = Literal[
    "features",
    "text",
    "image",
    "image and text",
    "pairs",
    "values",
    "attributes",
    "real",
    "iid",
    "scores",
    "cost",
]
Aspect = Literal["diversity", "fidelity", ""]
# seconds, network evaluations and memory among the costs; distances to the real images, and how
# many of them are reached; the distance to the hold-out and its floor; similarity of pairs, from
# which headroom follows
Role = Literal[
    "seconds",
    "nfe",
    "memory",
    "reference-distance",
    "hold-out",
    "hold-out floor",
    "similarity",
    "headroom",
    "",
]
_SEEN = ("features", "text", "values", "real", "iid")  # through any extractor
_SCOPES: dict[str, Scope] = {"real": "pooled", "iid": "pooled", "scores": "pooled", "cost": "cost"}


def mean_of(values: NDArray[Any]) -> float:
    """Return the mean of numbers, in float64; NaN where there are none."""
    return float(np.mean(values, dtype=np.float64)) if len(values) else math.nan


def read_only(argument: Any) -> Any:
    """Return a view of an array that cannot be written to; all else as it is."""
    if not isinstance(argument, np.ndarray):
        return argument
    view = argument.view()
    view.flags.writeable = False
    return view


@dataclass(frozen=True)
class Judge:
    """What gives each image, image with its prompt, or pair of images a number.

    values: rows of prepared images, with a read prompt behind, to a number each, in order.
    digest: of the weights.
    prepare: an image to what stands in a row; called in threads.
    read: a prompt to what stands in a row.
    """

    values: Callable[[Iterable[Row]], Iterator[Any]]
    digest: str
    prepare: Callable[[Image.Image], NDArray[Any]] = rgb_array
    read: Callable[[str], Any] = str


@dataclass(frozen=True)
class Parameter:
    """A number that a metric takes as `:name=value`, between `above` and `below`.

    whole: a number with a fraction is refused.
    """

    name: str
    default: float
    above: float
    below: float
    whole: bool = False


@dataclass(frozen=True)
class Metric:
    """A metric: everything that scoring, tables, comparisons and gates know of it.

    name: as in `scores.csv`.
    needs: what `function` or `each` is called with, whose arrays a plug-in can read and not write:
        `features`: (N, F) of one group, and the parameters by name;
        `text`: features (N, F) of one group and (F,) of its prompt, or (T, F) of `texts`;
        `values`: features (N, F) of one group, and (V, F) of the texts of each open attribute's
            values;
        `attributes`: predicted (N, 3) of one group and what its prompt fixes;
        `image`: one image, uint8 (h, w, 3); with `load`, what that gives of the N images of one
            group, (N,);
        `image and text`: one image and the text of its prompt; with `load`, the same as above;
        `pairs`: two images; with `load`, what that gives of the pairs i < j of one group,
            (N (N - 1) / 2,);
        `real`: features (n, F) of a method's images and (m, F) of real ones;
        `iid`: features (G, N, F) of a method's groups and (G, F) of disjoint i.i.d. images;
        `scores`: nothing; the value follows from other scores when a run is summarised;
        `cost`: nothing; the value is counted while drawing.
    higher_is_better: the direction.
    summary, citation, cost: for `list metrics`.
    function: returns a float; NaN where the metric is not defined. A group's value is the mean
        where it is called with single images or pairs.
    each: a group's single images to their values (N,), whose mean is the group's value.
    moments: of `real`: the same from features (n, F) of a method's images, and the mean (F,) and
        covariance (F, F) of those of real ones, which saved statistics hold.
    load: from a folder of weights, or None, and a device to what judges images or pairs of them.
    sees: the same to the metric's own extractor, called `extractor`, which nothing else uses: a
        plug-in's features are kept under its metric's name.
    extractor: the only one that the metric sees images through; empty where any can be named.
    parameters: that can be given.
    marks: parts of the signature that name the convention followed.
    flags_small_sample: fewer images than features flag the value and keep it out of verdicts.
    implied: computed beside another metric, never requested.
    aspect: `diversity` or `fidelity`, which verdicts and fronts weigh: the first that is there, a
        plug-in's after ours. Only of groups; of what needs `real`, `check-metric` alone asks.
    role: what the metric is for comparisons, beside its aspect; see `Role`.
    rank: place among the columns of the usual table, the lowest are kept where it is narrow;
        None is shown where it was requested.
    title, digits: of its column there, where they are not the name and the usual ones.
    takes_highest: a method's value is its groups' highest, not their mean.
    texts: in the place of the prompt, the same for all images.
    range: the least and the largest value.
    licence: of the weights; empty without any. download: their size.
    source: a digest of the plug-in that it comes from; empty for ours.
    """

    name: str
    needs: Needs
    higher_is_better: bool
    summary: str
    citation: str = ""
    cost: str = "features only"
    function: Callable[..., float] | None = None
    each: Callable[..., NDArray[Any]] | None = None
    moments: Callable[..., float] | None = None
    load: Callable[[Path | None, torch.device], Judge] | None = None
    sees: Callable[[Path | None, torch.device], Extractor] | None = None
    extractor: str = ""
    parameters: tuple[Parameter, ...] = ()
    marks: tuple[Part, ...] = ()
    flags_small_sample: bool = False
    implied: bool = False
    aspect: Aspect = ""
    role: Role = ""
    rank: int | None = None
    title: str = ""
    digits: int | None = None
    takes_highest: bool = False
    texts: tuple[str, ...] = ()
    range: tuple[float, float] = (-math.inf, math.inf)
    licence: str = ""
    download: str = ""
    source: str = ""

    @property
    def scope(self) -> Scope:
        """`group` (a value per group), `pooled` (per method) or `cost` (counted per group)."""
        return _SCOPES.get(self.needs, "group")

    @property
    def takes_extractor(self) -> bool:
        """Whether `[extractor]` can be named."""
        return not self.extractor and self.needs in _SEEN

    @property
    def judges_images(self) -> bool:
        """Whether every single image has a value, and a group's is their mean."""
        alone = self.needs in ("image", "image and text")
        return self.each is not None or (alone and self.load is None)

    def of_images(self, *arguments: Any, **parameters: float) -> tuple[float, ...]:
        """Return the value of each image of a group; none where they have no values of their own.

        Raises:
            MetricError: another number of values than of images.
        """
        if self.each is None:
            return ()
        given = map(read_only, arguments) if self.source else arguments
        values = np.asarray(self.each(*given, **parameters), np.float64)
        if values.shape != (len(arguments[0]),):
            raise MetricError(
                f"Expected {len(arguments[0])} numbers from `each` of {self.name!r}, one for each "
                f"image, got {values.tolist()!r}."[:300]
            )
        return tuple(values.tolist())

    def __call__(self, *arguments: Any, **parameters: float) -> float:
        """Return the value of what the metric needs."""
        if self.function is None:
            return mean_of(np.array(self.of_images(*arguments, **parameters)))
        if not self.source:
            return self.function(*arguments, **parameters)
        # others' code may write to what other metrics are given too, and return anything
        return float(self.function(*map(read_only, arguments), **parameters))
