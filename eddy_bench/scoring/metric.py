"""Metrics as records: each carries its function and says what the function needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from eddy_bench.scoring.forward import Forward
from eddy_bench.scoring.signature import Part

Scope = Literal["group", "pooled", "cost"]
Needs = Literal["features", "text", "attributes", "pairs", "real", "iid", "scores", "cost"]
Aspect = Literal["diversity", "fidelity", ""]
_SCOPES: dict[str, Scope] = {"real": "pooled", "iid": "pooled", "scores": "pooled", "cost": "cost"}


@dataclass(frozen=True)
class Parameter:
    """Hold a number that a metric takes as `:name=value`, between `above` and `below`."""

    name: str
    default: float
    above: float
    below: float


@dataclass(frozen=True)
class Metric:
    """Register a metric: everything that scoring, tables, comparisons and gates know of it.

    name: as in `scores.csv`.
    needs: what `function` is called with:
        `features`: (N, F) of one group, and the parameters by name;
        `text`: features (N, F) of one group and (F,) of its prompt;
        `attributes`: predicted (N, 3) of one group and what its prompt fixes;
        `pairs`: (N (N - 1) / 2,), what `load` returned gives of the pairs i < j of one group;
        `real`: features (n, F) of a method's images and (m, F) of real ones;
        `iid`: features (G, N, F) of a method's groups and (G, F) of disjoint i.i.d. images;
        `scores`: nothing; the value follows from other scores when a run is summarised;
        `cost`: nothing; the value is counted while drawing.
    higher_is_better: the direction.
    summary, citation, cost: for `list metrics`.
    function: returns a float; NaN where the metric is not defined.
    load: from a folder of weights, or None, and a device to what judges `pairs` of RGB images, and
        its digest.
    extractor: the only one that the metric sees images through; empty where any can be named.
    parameters: that can be given.
    marks: parts of the signature that name the convention followed.
    flags_small_sample: fewer images than features flag the value and keep it out of verdicts.
    implied: computed beside another metric, never asked for.
    judges: `diversity` or `fidelity`, which verdicts and fronts weigh; the first that is there.
    rank: place among the columns of the usual table, the lowest are kept where it is narrow;
        None is shown where it was asked for.
    takes_highest: a method's value is its groups' highest, not their mean.
    """

    name: str
    needs: Needs
    higher_is_better: bool
    summary: str
    citation: str = ""
    cost: str = "features only"
    function: Callable[..., float] | None = None
    load: Callable[[Path | None, torch.device], tuple[Forward, str]] | None = None
    extractor: str = ""
    parameters: tuple[Parameter, ...] = ()
    marks: tuple[Part, ...] = ()
    flags_small_sample: bool = False
    implied: bool = False
    judges: Aspect = ""
    rank: int | None = None
    takes_highest: bool = False

    @property
    def scope(self) -> Scope:
        """`group` (a value per group), `pooled` (per method) or `cost` (counted per group)."""
        return _SCOPES.get(self.needs, "group")

    @property
    def takes_extractor(self) -> bool:
        """Whether `[extractor]` can be named."""
        return not self.extractor and self.needs in ("features", "text", "real", "iid")

    def __call__(self, *arguments: Any, **parameters: float) -> float:
        """Return the value of what the metric needs."""
        assert self.function is not None, f"{self.name} is counted, not computed"
        return self.function(*arguments, **parameters)
