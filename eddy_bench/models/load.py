"""Load a model by name: the embedded one, an exact task, a local folder, or a hub id."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from eddy_bench.errors import ModelError, UnknownName, brief, unknown
from eddy_bench.models.backbones import load_backbone, weights_digest
from eddy_bench.models.base import Model
from eddy_bench.models.decoding import guide_decoder, load_decoder
from eddy_bench.models.defaults import EXACT
from eddy_bench.models.devices import keep_pages, resolve_device
from eddy_bench.models.embedded import (
    ASSETS,
    BASE,
    EMBEDDED,
    GuideNetwork,
    embedded_warning,
    load_network,
    to_gray,
)
from eddy_bench.models.exact import ExactDenoiser, ExactPipeline, exact_scheduler
from eddy_bench.models.folders import (
    OTHERS,
    FolderOptions,
    folder_options,
    missing_weights,
    read_index,
    readable,
    refuse_file,
    refuse_missing,
)
from eddy_bench.models.identity import digest_of, model_fingerprint, parts_of, unknown_weights
from eddy_bench.models.lora import fuse_lora
from eddy_bench.models.network_features import RowLimit
from eddy_bench.models.pipeline_class import check_steerable, pipeline_class
from eddy_bench.models.prompts import remember_prompts
from eddy_bench.models.tasks import load_task
from eddy_bench.sampling.families import denoiser, family_of
from eddy_bench.storage.files import parse_json
from eddy_bench.storage.paths import read_many

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def load_model(
    name: str,
    *,
    revision: str | None = None,
    variant: str | None = None,
    dtype: str = "float32",
    device: str = "auto",
    guide: str | None = None,
    decoder: str | None = None,
    weights: Path | None = None,
    feature_batch: int | str = "auto",
    offload: bool = False,
    compiled: bool = False,
    scheduler: str = "default",
    lora: Sequence[str] = (),
) -> Model:
    """Load a text-to-image pipeline with safetensors weights.

    Args:
        name: `fashion`, `fashion-4step`, `exact:TASK`, a folder saved by diffusers, or a hub id
            `owner/model`.
        revision: of a hub id.
        variant: of a hub id.
        dtype: of the weights.
        device: `auto` or a torch device.
        guide: backbone of feature kernels (`auto`, `dinov2`, `timm:MODEL[@SIZE]`,
            `open_clip:MODEL/WEIGHTS`); None is the embedded model's own and none for others.
        decoder: an `AutoencoderTiny` that decodes for the guide, by folder or hub id.
        weights: a folder with weights of the guide, and of what judges.
        feature_batch: rows that go through decoder and guide at once; `auto` is as many as fit.
        offload: keep only the part at work on the device, and decode in slices.
        compiled: compile the denoiser.
        lora: files of LoRA weights, `FILE` or `FILE:SCALE`, which are fused.
        scheduler: that is put in later; `default` for the folder's own, which must load then.

    Raises:
        UnknownName: no such model.
        ModelError: it cannot be loaded.
        ParameterError: no such device.
    """
    target = resolve_device(device)
    if target.type == "cpu":
        keep_pages()
    if name.startswith(EXACT):
        return _exact_model(name, sees_features=bool(guide or decoder), compiled=compiled)
    folder = _model_folder(name)
    if decoder and not (guide or name in EMBEDDED):
        raise ModelError(
            "--decoder decodes for a guide network, and there is none. "
            "Add --guide, for instance --guide auto."
        )
    options = folder_options(folder, variant, scheduler) if folder.exists() else FolderOptions()
    pipe = _open_pipeline(name, folder, revision, variant, DTYPES[dtype], options)
    if name in EMBEDDED:
        EMBEDDED[name].finish(pipe.unet)
    saved = read_index(folder).get("_class_name") if folder.exists() else None
    if saved not in (None, type(pipe).__name__):
        options.notes.append(f"{saved} is loaded as {type(pipe).__name__}, from text to images")
    rows = RowLimit.of(feature_batch)
    adapters = fuse_lora(pipe, lora)
    model = Model(name, pipe, lora=adapters, row_limit=rows, device=target, weights=weights)
    model.notes += options.notes
    if guide or decoder:
        _give_decoder(model, decoder, offload)
    _put_on(pipe, target, offload)
    for part in _networks(pipe):
        part.requires_grad_(False)
    model.texts = remember_prompts(pipe)
    if compiled:
        compile_denoiser(pipe)
    if name in EMBEDDED:
        model.fingerprint = EMBEDDED[name].fingerprint()
        model.check_prompt = partial(embedded_warning, name)
    else:
        model.fingerprint = model_fingerprint(name, folder, revision)
    _give_guide(model, guide, weights)
    return model


def wrap_pipeline(pipe: Any, name: str = "") -> Model:
    """Return a pipeline that is already loaded as a model, on the device where it is.

    A digest of its parts stands for its weights; it has no guide network, so feature kernels are
    refused.

    Args:
        pipe: a diffusers text-to-image pipeline.
        name: of the model in score files; its class's by default.
    """
    check_steerable(type(pipe).__name__)
    pipe.set_progress_bar_config(disable=True)
    parts = parts_of(pipe)
    model = Model(name or type(pipe).__name__, pipe, digest_of(parts), parts=parts)
    model.device = torch.device(getattr(pipe, "_execution_device", pipe.device))
    model.texts = remember_prompts(pipe)
    model.notes += unknown_weights(parts)
    return model


@contextmanager
def borrowed(pipe: Any) -> Iterator[None]:
    """Leave a pipeline as it was found: scheduler, prompt encoding, progress bar, and the rest.

    All that is set on the object inside the block is undone after it, and so are slicing and tiling
    of its autoencoder.
    """
    before, vae = dict(vars(pipe)), getattr(pipe, "vae", None)
    flags = {
        name: getattr(vae, name) for name in ("use_slicing", "use_tiling") if hasattr(vae, name)
    }
    try:
        yield
    finally:
        vars(pipe).clear()
        vars(pipe).update(before)
        for name, value in flags.items():
            setattr(vae, name, value)


def _model_folder(name: str) -> Path:
    """Return the folder of a model; that of a hub id does not exist."""
    folder = BASE if name in EMBEDDED else Path(name)
    if name not in EMBEDDED and not folder.exists() and not _HUB_ID.fullmatch(name):
        raise UnknownName(f"{unknown('model', name, EMBEDDED)} {OTHERS}")
    refuse_file(folder)
    if folder.exists():
        read_index(folder)
    return folder


def _open_pipeline(
    name: str,
    folder: Path,
    revision: str | None,
    variant: str | None,
    dtype: torch.dtype,
    options: FolderOptions,
) -> Any:
    """Return a pipeline that can be steered, all of it in the given precision."""
    if folder.exists():
        with readable(folder, options) as source:
            pipe = _load_pipeline(str(source), revision, variant, dtype, options.arguments)
    else:
        pipe = _load_pipeline(name, revision, variant, dtype, options.arguments)
    check_steerable(type(pipe).__name__)
    pipe.set_progress_bar_config(disable=True)
    for part in _networks(pipe):
        # The loader leaves some parts in float32 although it was asked for half precision.
        if {value.dtype for value in part.parameters()} == {torch.float32}:
            part.to(dtype)
    return pipe


def _networks(pipe: Any) -> list[torch.nn.Module]:
    return [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]


def _give_decoder(model: Model, source: str | None, offload: bool) -> None:
    """Set what decodes for the guide network; None is the pipeline's own autoencoder."""
    pipe = model.pipe
    if family_of(pipe).decoding == "unknown":
        raise ModelError(
            f"How {type(pipe).__name__} decodes its latents is not known here, "
            "so --guide cannot be used. Leave it out."
        )
    network: Any = load_decoder(source) if source else guide_decoder(pipe, offload)
    given, own = (getattr(part.config, "latent_channels", None) for part in (network, pipe.vae))
    if source and None not in (given, own) and given != own:
        raise ModelError(
            f"The decoder {source!r} takes latents of {given} channels; "
            f"{type(pipe).__name__} has {own}. Give one made for this family."
        )
    if network is not pipe.vae:
        model.decoder = network.to(model.device)
    if source:
        model.decoder_name = f"{source}@{weights_digest(network)}"


def _give_guide(model: Model, guide: str | None, weights: Path | None) -> None:
    """Set the network of feature kernels: the one asked for, or the embedded model's own."""
    assert model.device is not None
    if guide:
        backbone = load_backbone(guide, weights, model.device)
        model.guide, model.guide_name = backbone, f"{backbone.name}@{backbone.digest}"
    elif model.name in EMBEDDED:
        network = load_network(GuideNetwork(), ASSETS / "guide" / "model.safetensors")
        own = network.to(model.device)
        model.guide = lambda images: own(to_gray(images))


def _put_on(pipe: Any, target: torch.device, offload: bool) -> None:
    """Put a pipeline on a device, whole, or part by part as it is needed."""
    if not offload:
        pipe.to(target)
        return
    if target.type == "cpu":
        raise ModelError(
            "--offload moves a model between the CPU and a GPU, and there is none here. "
            "Leave it out."
        )
    try:
        pipe.enable_model_cpu_offload(device=target)
    except ImportError:
        raise ModelError(
            "--offload needs the package accelerate. Install eddy-bench[offload]."
        ) from None
    if hasattr(getattr(pipe, "vae", None), "enable_slicing"):
        pipe.vae.enable_slicing()  # never in tiles, which change images


def _exact_model(name: str, sees_features: bool, compiled: bool) -> Model:
    """Return a distribution whose score is known, computed in float64 on the CPU."""
    if sees_features:
        raise ModelError(
            f"{name} draws points, which no guide network sees. Leave --guide and --decoder out."
        )
    if compiled:
        raise ModelError(f"{name} has no network to compile. Leave --compile out.")
    task = load_task(name.removeprefix(EXACT))
    pipe = ExactPipeline(
        ExactDenoiser(task.of_prompt or task.mixture, task.classes),
        exact_scheduler(),
        task.pictures,
    )
    return Model(name, pipe, task.digest)


def _load_pipeline(
    source: str,
    revision: str | None,
    variant: str | None,
    dtype: torch.dtype,
    arguments: dict[str, Any],
) -> Any:
    from diffusers import DiffusionPipeline
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            index = DiffusionPipeline.load_config(source, revision=revision)
            load = partial(
                pipeline_class(index.get("_class_name", "")).from_pretrained,
                source,
                revision=revision,
                variant=variant,
                torch_dtype=dtype,
                **{"use_safetensors": True, **arguments},
            )
            with missing_weights() as missing:
                pipe, read = load_across_versions(load, Path(source), variant)
            refuse_missing(source, {name: keys - read for name, keys in missing.items()})
            return pipe
    except ModelError:
        raise
    except Exception as error:
        needs = " A hub id needs network access or a local copy: --model FOLDER."
        hint = "" if Path(source).exists() else needs
        raise ModelError(
            f"Model {source!r} cannot be loaded: {type(error).__name__}: {brief(error, 200)}{hint}"
        ) from None


def compile_denoiser(pipe: Any) -> None:
    """Compile the forward pass of the network that a pipeline evaluates at every step.

    Its first call of each shape takes from seconds to minutes. The network itself stays in place,
    so that hooks on it, which count its rows, run outside of what is compiled. Images differ from
    those of the network as it was in the last digits.
    """
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    network = denoiser(pipe)
    network.forward = torch.compile(network.forward)


PREFIX = "text_model."


def load_across_versions(
    load: Callable[..., Any], folder: Path, variant: str | None
) -> tuple[Any, set[str]]:
    """Return a pipeline with what the installed transformers leaves out of it.

    Args:
        load: from components that it shall not load, as None, to the pipeline.
        folder: of the pipeline; that of a hub id does not exist.
        variant: of the weights.

    Returns:
        The pipeline, and the names of weights that were saved under others.
    """
    fast = fast_tokenizers(folder)
    pipe = load(**dict.fromkeys(fast))
    read = read_unprefixed_weights(pipe, variant)
    # made anew, since a pipeline takes lengths and the like from its tokenizers
    return (type(pipe).from_pipe(pipe, **fast, torch_dtype=None) if fast else pipe), read


def fast_tokenizers(folder: Path) -> dict[str, Any]:
    """Return the tokenizers that the classes named by a pipeline's folder cannot read, by name.

    None with transformers 5, for a folder that has the files of both, and for a hub id.
    """
    if not folder.exists():
        return {}
    index = parse_json(read_many([folder / "model_index.json"])[0])
    return {
        name: reader.from_pretrained(folder / name)
        for name, entry in index.items()
        if isinstance(entry, list) and entry[0] == "transformers"
        if (reader := _fast_reader(entry[1], folder / name)) is not None
    }


def _fast_reader(name: str, folder: Path) -> Any:
    """Return the class that reads `tokenizer.json` where the named one cannot, or None."""
    import transformers

    fast = getattr(transformers, f"{name}Fast", None)
    if fast is None or not (folder / "tokenizer.json").is_file():
        return None
    if issubclass(getattr(transformers, name), transformers.PreTrainedTokenizerFast):
        return None
    own = [file for key, file in fast.vocab_files_names.items() if key != "tokenizer_file"]
    return None if all((folder / file).is_file() for file in own) else fast


def read_unprefixed_weights(pipe: Any, variant: str | None) -> set[str]:
    """Read the weights of text encoders that were saved without the prefix of their names.

    Returns:
        Their names.
    """
    import transformers

    read: set[str] = set()
    for part in pipe.components.values():
        if isinstance(part, transformers.PreTrainedModel):
            names = f"*.{variant}*.safetensors" if variant else "*.safetensors"
            for file in sorted(Path(part.name_or_path).glob(names)):
                read |= _read_unprefixed(part, file)
    return read


def _read_unprefixed(part: Any, file: Path) -> set[str]:
    own = part.state_dict().keys()
    with safe_open(file, "pt") as tensors:
        unread = {
            name: tensors.get_tensor(key)
            for key in tensors.keys()  # noqa: SIM118 it is no mapping
            if key not in own and (name := f"{PREFIX}{key}") in own
        }
    if unread:
        part.load_state_dict(unread, strict=False)
    return set(unread)
