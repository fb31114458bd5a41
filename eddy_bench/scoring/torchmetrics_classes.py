"""Classes of torchmetrics as metrics, by what their `update` takes and what they say of themselves.

Images come as bytes, 0 to 255, where a multimodal class has no `data_range`, else as floats from 0
to 1 with `normalize=True` or `data_range=1` where a class has them. Distances between sets see the
features of an extractor in the place of their own network.
"""

from __future__ import annotations

import importlib
import inspect
import math
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch

from eddy_bench.errors import MetricError, UnknownName, brief, unknown
from eddy_bench.scoring.fidelity import Given
from eddy_bench.scoring.metric import Aspect, Metric, Needs, Parameter

# arguments of `update` to what a metric needs
_NEEDS: dict[tuple[str, ...], Needs] = {
    ("img",): "image",
    ("images",): "image",
    ("source", "target"): "image and text",
    ("images", "text"): "image and text",
    ("img1", "img2"): "pairs",
    ("preds", "target"): "pairs",
    ("imgs", "real"): "real",
}


# of single images a class may judge anything: total variation falls with blur
_ASPECTS: dict[Needs, Aspect] = {"pairs": "diversity", "image and text": "fidelity"}


def metric_of_class(path: str) -> Metric:
    """Return the metric of `image.ssim.StructuralSimilarityIndexMeasure`, or of `image.tv`.

    Numbers among a class's arguments are parameters. A group's value is the mean over its images,
    or over its pairs; what makes two images of a group alike counts as less diverse.

    Raises:
        UnknownName: torchmetrics has no such module or class.
        MetricError: it takes something else, or does not say in which direction it is better.
    """
    cls = _find(path)
    inputs = tuple(inspect.signature(cls.update).parameters)[1:]
    needs = _NEEDS.get(inputs)
    if needs is None or cls.__module__.split(".")[1] not in ("image", "multimodal"):
        raise MetricError(
            "Expected a class of torchmetrics that takes images, images and texts, pairs of images "
            f"or images and whether they are real, got {cls.__name__}.update({', '.join(inputs)})."
        )
    if cls.higher_is_better is None:
        raise MetricError(
            f"{cls.__name__} of torchmetrics does not say whether higher is better. "
            "Wrap it in a file: --metric ./mine.py:name."
        )
    low, high = cls.plot_lower_bound, cls.plot_upper_bound
    bounds = (-math.inf if low is None else low, math.inf if high is None else high)
    if needs == "real":  # distances between sets of features go beyond a class's own
        bounds = (-math.inf, math.inf)
    return Metric(
        f"torchmetrics.{cls.__name__}",
        needs,
        cls.higher_is_better != (needs == "pairs"),
        f"{cls.__name__} of torchmetrics",
        "torchmetrics",
        "torchmetrics",
        function=_between_sets(cls) if needs == "real" else _of_images(cls),
        parameters=_parameters(cls),
        flags_small_sample=needs == "real" and "subset_size" not in _arguments(cls),  # not KID's
        aspect=_ASPECTS.get(needs, ""),
        range=bounds,
        source=f"torchmetrics=={importlib.import_module('torchmetrics').__version__}",
    )


def _find(path: str) -> Any:
    """Return a class by its module and name; the name may be left out where there is one."""
    module_name, _, name = path.rpartition(".")
    for parent, wanted in ((path, ""), (module_name, name)):
        try:
            classes = _classes(importlib.import_module(f"torchmetrics.{parent}"))
        except (ImportError, ValueError):
            continue
        if not wanted and len(classes) == 1:
            return next(iter(classes.values()))
        if wanted in classes:
            return classes[wanted]
        if classes and not wanted:
            raise UnknownName(
                f"Expected a class of torchmetrics.{parent} ({', '.join(sorted(classes))}), as "
                f"torchmetrics:{parent}.{min(classes)}, got none."
            )
        if classes:
            raise UnknownName(unknown(f"class in torchmetrics.{parent}", wanted, classes))
    raise UnknownName(
        f"torchmetrics has no such class of images or texts: {path!r}. For instance "
        "torchmetrics:image.ssim.StructuralSimilarityIndexMeasure, torchmetrics:image.tv, "
        "torchmetrics:image.kid."
    )


def _classes(module: Any) -> dict[str, Any]:
    from torchmetrics import Metric as Base

    own = inspect.getmembers(module, lambda it: inspect.isclass(it) and issubclass(it, Base))
    return {
        name: value
        for name, value in own
        if value.__module__ == module.__name__ and not name.startswith("_")
    }


def _arguments(cls: Any) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(cls.__init__).parameters)


def _parameters(cls: Any) -> tuple[Parameter, ...]:
    return tuple(
        Parameter(name, float(item.default), -math.inf, math.inf, _is_whole(item))
        for name, item in _arguments(cls).items()
        if type(item.default) in (int, float) and name not in ("feature", "data_range")
    )


def _is_whole(argument: inspect.Parameter) -> bool:
    return type(argument.default) is int and "float" not in str(argument.annotation)


def _made(cls: Any, parameters: dict[str, float], **fixed: Any) -> Any:
    known = _arguments(cls)
    values = {
        name: int(value) if _is_whole(known[name]) else value for name, value in parameters.items()
    }
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the memory that stored features take
            return cls(**values, **fixed)
    except Exception as error:
        raise MetricError(
            f"{cls.__name__} of torchmetrics cannot be made: {type(error).__name__}: "
            f"{brief(error, 160)}"
        ) from None


def _of_images(cls: Any) -> Callable[..., float]:
    """Return the value of one image, one image and its prompt, or two images."""
    known = _arguments(cls)
    as_bytes = ".multimodal." in cls.__module__ and "data_range" not in known
    fixed: dict[str, Any] = {}
    if not as_bytes and "data_range" in known:
        fixed["data_range"] = 1.0
    if not as_bytes and "normalize" in known and type(known["normalize"].default) is bool:
        fixed["normalize"] = True

    @cache
    def instance(parameters: tuple[tuple[str, float], ...]) -> Any:
        return _made(cls, dict(parameters), **fixed)

    def value(*given: Any, **parameters: float) -> float:
        metric = instance(tuple(parameters.items()))
        metric.reset()
        metric.update(*(item if isinstance(item, str) else tensor(item) for item in given))
        return float(metric.compute())

    def tensor(pixels: Any) -> torch.Tensor:
        image = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None]
        return image if as_bytes else image.float() / 255

    return value


def _between_sets(cls: Any) -> Callable[..., float]:
    """Return the distance of features of a method's images to those of real ones."""

    def value(candidate: Any, reference: Any, **parameters: float) -> float:
        if "subset_size" in parameters:
            size = min(parameters["subset_size"], len(candidate), len(reference))
            parameters = {**parameters, "subset_size": size}
        metric = _made(cls, parameters, feature=Given(candidate.shape[1]))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # of subsets
            metric.update(torch.from_numpy(np.array(reference, np.float32)), real=True)
            metric.update(torch.from_numpy(np.array(candidate, np.float32)), real=False)
            result = metric.compute()
        return float(result[0] if isinstance(result, tuple) else result)

    return value
