"""Model folders as people have them: what is missing, renamed or saved in another form."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from eddy_bench.errors import ModelError, counted
from eddy_bench.storage.files import parse_json

INDEX = "model_index.json"
BINARY = ("*.bin", "*.pt", "*.ckpt")
FILES = {
    ".safetensors": "a checkpoint in one file",
    ".ckpt": "a checkpoint in one file",
    ".gguf": "quantised weights of one network",
}
OTHERS = "Or give exact:TASK, a folder saved by diffusers, or a hub id owner/model."


@dataclass
class FolderOptions:
    """How a folder is loaded: arguments of `from_pretrained`, and notes for the user.

    changed: entries of its index that diffusers cannot read, as it can.
    """

    changed: dict[str, Any] = field(default_factory=dict)
    arguments: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def refuse_file(path: Path) -> None:
    """Raise ModelError for a file where a folder belongs, with what makes a folder of it."""
    if not path.is_file():
        return
    what = FILES.get(path.suffix.lower(), "a file")
    cure = "Give the folder that holds model_index.json."
    if path.suffix.lower() in (".safetensors", ".ckpt"):
        cure = (
            "Save it as a folder once, with the pipeline class of its family: "
            f"diffusers.StableDiffusionXLPipeline.from_single_file({str(path)!r})"
            f".save_pretrained({path.stem!r})."
        )
    elif path.suffix.lower() == ".gguf":
        cure = "Load its pipeline in Python, and give that to eddy_bench.benchmark(pipe, ...)."
    raise ModelError(f"Expected a folder saved by diffusers, got {what}: {path}. {cure}")


def read_index(folder: Path) -> dict[str, Any]:
    """Return the model_index.json of a folder.

    Raises:
        ModelError: it is not there, or is no mapping.
    """
    try:
        index = parse_json((folder / INDEX).read_bytes())
    except OSError:
        raise ModelError(
            f"Expected a diffusers pipeline in {folder}, but it has no model_index.json."
        ) from None
    except ValueError as error:
        raise ModelError(f"{folder / INDEX} is no JSON: {error}.") from None
    if not isinstance(index, dict):
        raise ModelError(f"Expected a mapping in {folder / INDEX}, got {type(index).__name__}.")
    return index


def folder_options(folder: Path, variant: str | None, scheduler: str) -> FolderOptions:
    """Return how a folder is loaded.

    Args:
        folder: with model_index.json.
        variant: of the weights, as on the command line.
        scheduler: that is requested; `default` for the folder's own.

    Raises:
        ModelError: its weights are of a variant alone, its scheduler cannot be made here and no
            other is requested, or what quantised it is not installed.
    """
    index, options = read_index(folder), FolderOptions()
    parts = {name: entry for name, entry in index.items() if not name.startswith("_")}
    options.changed |= {name: [None, None] for name, entry in parts.items() if entry is None}
    _check_quantised(folder, parts)
    _choose_weights(folder, variant, options)
    if (reason := _missing_scheduler(parts.get("scheduler"))) is not None:
        if scheduler == "default":
            raise ModelError(
                f"The scheduler of {folder} cannot be made here: {reason}. Name another one: "
                "--scheduler euler; eddy-bench list schedulers has all."
            )
        options.arguments["scheduler"] = own = _stand_in(folder)
        options.changed["scheduler"] = ["diffusers", type(own).__name__]
        options.notes.append(f"the folder's own scheduler is left out: {reason}")
    return options


@contextmanager
def readable(folder: Path, options: FolderOptions) -> Iterator[Path]:
    """Yield a folder that diffusers reads: the folder itself, or its files beside another index."""
    if not options.changed:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="eddy-bench-") as made:
        for path in folder.iterdir():
            if path.name != INDEX:
                (Path(made) / path.name).symlink_to(path.resolve())
        index = json.dumps({**read_index(folder), **options.changed})
        (Path(made) / INDEX).write_text(index, encoding="utf-8")
        yield Path(made)


@contextmanager
def missing_weights() -> Iterator[dict[str, set[str]]]:
    """Yield the weights that models loaded inside the block did not find, by the model's class.

    diffusers and transformers begin such weights at random and only log it.
    """
    from diffusers import ModelMixin
    from transformers import PreTrainedModel

    found: dict[str, set[str]] = {}

    def watched(function: Any) -> classmethod[Any, Any, Any]:
        def load(cls: Any, *given: Any, **named: Any) -> Any:
            if named.get("output_loading_info"):
                return function(cls, *given, **named)
            model, told = function(cls, *given, output_loading_info=True, **named)
            found.setdefault(cls.__name__, set()).update(told["missing_keys"])
            return model

        return classmethod(load)

    with ExitStack() as stack:
        for base in (ModelMixin, PreTrainedModel):
            own = vars(base)["from_pretrained"]
            stack.callback(setattr, base, "from_pretrained", own)
            base.from_pretrained = watched(own.__func__)
        yield found


def refuse_missing(source: str, missing: Mapping[str, set[str]]) -> None:
    """Raise ModelError where a model's files lack weights, which would be random."""
    for name, keys in missing.items():
        if keys:
            raise ModelError(
                f"The files of {source} lack {counted(len(keys), 'weight')} of {name} "
                f"({', '.join(sorted(keys)[:3])}), which would be random. Get the folder again."
            )


def _check_quantised(folder: Path, parts: Mapping[str, Any]) -> None:
    for name in parts:
        path = folder / name / "config.json"
        try:
            config = parse_json(path.read_bytes()) if path.is_file() else {}
        except ValueError:
            continue  # diffusers says what is wrong with it
        how = config.get("quantization_config") if isinstance(config, dict) else None
        method = str(how.get("quant_method", "")) if isinstance(how, dict) else ""
        if method and find_spec(method.partition("-")[0].partition("_")[0]) is None:
            raise ModelError(
                f"The {name} of {folder} is quantised by {method}, which is not installed. "
                f"Install the package {method}, or take the folder that is not quantised."
            )


def _choose_weights(folder: Path, variant: str | None, options: FolderOptions) -> None:
    """Take pickled weights, as plain tensors, where a part has no others."""
    pickled, safetensors = [], 0
    for part in sorted(path for path in folder.iterdir() if path.is_dir()):
        safe = [path.name for path in part.glob("*.safetensors")]
        safetensors += bool(safe)
        if not safe and any(file for ending in BINARY for file in part.glob(ending)):
            pickled.append(part.name)
        own = {name.split(".")[1] for name in safe if name.count(".") == 2}
        plain = any(name.count(".") == 1 for name in safe)
        if variant is None and safe and not plain and len(own) == 1:
            raise ModelError(
                f"The weights in {part} are of the variant {min(own)} alone. "
                f"Add --variant {min(own)}{' --dtype float16' if own == {'fp16'} else ''}."
            )
    if pickled:
        options.arguments["use_safetensors"] = None if safetensors else False
        options.notes.append(
            f"the weights of {', '.join(pickled)} are pickled files, read as plain tensors; "
            "nothing in them is run"
        )


def _missing_scheduler(entry: Any) -> str | None:
    """Return why a pipeline's scheduler cannot be made; None where it can, or there is none."""
    import diffusers

    if not (isinstance(entry, list) and len(entry) == 2 and all(isinstance(e, str) for e in entry)):
        return None
    library, name = entry
    if library != "diffusers":
        return f"{name} is code of its own, which is never run"
    found = getattr(diffusers, name, None)
    if found is None:
        return f"diffusers has no {name}"
    lacking = [own for own in getattr(found, "_backends", ()) if find_spec(own) is None]
    return f"{name} needs the package {' and '.join(lacking)}" if lacking else None


def _stand_in(folder: Path) -> Any:
    """Return a scheduler of the same noise levels, from which the requested one is made."""
    import diffusers

    path = folder / "scheduler" / "scheduler_config.json"
    config = json.loads(path.read_bytes()) if path.is_file() else {}
    flow = "shift" in config or "flow" in str(config.get("prediction_type", ""))
    cls = diffusers.FlowMatchEulerDiscreteScheduler if flow else diffusers.DDIMScheduler
    known = {key: value for key, value in config.items() if not key.startswith("_")}
    return cls.from_config(known)
