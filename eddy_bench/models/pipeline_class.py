"""The class that loads a pipeline: the auto class, or the one that `model_index.json` names."""

from __future__ import annotations

import inspect
import sys
from typing import Any

from eddy_bench.errors import ModelError
from eddy_bench.sampling.steer import REFUSED

# Words in the names of a call's arguments that speak of another task than text to image
OTHER_TASKS = ("frame", "video", "audio", "mask_image", "image_embed", "control", "gligen")
IMAGES = ("image", "images")
NETWORKS = ("unet", "transformer")
# They hand a flow's solver levels of another process, beyond 1, by the beginning of their names
OTHER_LEVELS = ("Cosmos",)


def check_steerable(name: str) -> None:
    """Raise ModelError for a pipeline that cannot be steered, by the name of its class."""
    if name.startswith(REFUSED):
        raise ModelError(
            f"{name} draws its samples outside one scheduler loop and cannot be steered. "
            "Use another pipeline."
        )


def pipeline_class(name: Any) -> Any:
    """Return the class that loads a pipeline as text to image.

    It is the auto class where that lists `name`, and else the class of that name, if it is one of
    diffusers' own, from text to images, and draws through a scheduler. Code of a repository is
    never run.

    Args:
        name: `_class_name` of `model_index.json`.
    """
    import diffusers
    from diffusers.pipelines.auto_pipeline import AUTO_TEXT2IMAGE_PIPELINES_MAPPING, _get_task_class

    if not isinstance(name, str) or not name:
        reason = "code of its own is never run" if name else "it names no class"
        raise _refused(f"{name!r}", reason)
    check_steerable(name)
    if _get_task_class(AUTO_TEXT2IMAGE_PIPELINES_MAPPING, name, throw_error_if_not_exist=False):
        return diffusers.AutoPipelineForText2Image
    found = getattr(diffusers, name, None)
    if not (
        inspect.isclass(found)
        and issubclass(found, diffusers.DiffusionPipeline)
        and found.__module__.startswith("diffusers.")
    ):
        raise _refused(name, "diffusers has no such pipeline here")
    if reason := _not_text_to_image(found):
        raise _refused(name, reason)
    return found


def _refused(name: str, reason: str) -> ModelError:
    return ModelError(
        f"Expected a text-to-image pipeline of diffusers' own in model_index.json, got {name}: "
        f"{reason}. Use another model."
    )


def _not_text_to_image(cls: Any) -> str:
    """Return why a pipeline's class does not go from text to images; empty where it does."""
    if ".deprecated." in cls.__module__:
        return "diffusers has deprecated it"
    if cls.__name__.startswith(OTHER_LEVELS):
        return "its noise levels are not those of a flow"
    return _other_call(cls) or _other_parts(cls)


def _other_call(cls: Any) -> str:
    parameters = inspect.signature(cls.__call__).parameters
    taken = [key for key in parameters if any(word in key for word in OTHER_TASKS)]
    taken += [key for key in parameters if key in IMAGES]
    if taken:
        return f"it takes {taken[0]}"
    for key in ("prompt", "num_images_per_prompt"):
        if key not in parameters:
            return f"it takes no {key}"
    several = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    needed = [
        key
        for key, value in parameters.items()
        if key not in ("self", "prompt") and value.default is value.empty
        if value.kind not in several
    ]
    return f"it needs {needed[0]}" if needed else ""


def _other_parts(cls: Any) -> str:
    parts = inspect.signature(cls.__init__).parameters
    if "scheduler" not in parts:
        return "it has no scheduler"
    if not any(name in parts for name in NETWORKS):
        return "it has no single network that is evaluated at every step"
    return "" if _returns_images(cls) else "it returns no images"


def _returns_images(cls: Any) -> bool:
    """Return whether the outputs that a pipeline's module knows of hold images alone."""
    from diffusers.utils import BaseOutput

    outputs = [
        value
        for value in vars(sys.modules[cls.__module__]).values()
        if inspect.isclass(value) and issubclass(value, BaseOutput) and value is not BaseOutput
    ]
    fields = {field for output in outputs for field in getattr(output, "__annotations__", {})}
    return bool(fields & set(IMAGES)) and not fields & {"frames", "audios"}
