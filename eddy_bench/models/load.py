"""Loading a model by name: the embedded one, a local folder, or a hub id, all through the same diffusers loader."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import warnings
from pathlib import Path
from typing import Any

import torch

from eddy_bench.errors import ModelError, ParameterError, UnknownName, brief, unknown
from eddy_bench.models.attributes import unknown_words
from eddy_bench.models.backbones import load_backbone, weights_digest
from eddy_bench.models.base import Model
from eddy_bench.models.decoding import KNOWN as DECODED
from eddy_bench.models.decoding import guide_decoder, load_decoder
from eddy_bench.models.exact import ExactDenoiser, ExactPipeline, exact_scheduler
from eddy_bench.models.networks import GuideNetwork, load_network, to_gray
from eddy_bench.models.tasks import load_task
from eddy_bench.sampling.steer import REFUSED

ASSETS = Path(__file__).parents[1] / "assets"
EMBEDDED = {
    "fashion": "small latent diffusion model of Fashion-MNIST garments, 32 x 32, ships with the package"
}
EXACT = "exact:"
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def resolve_device(name: str) -> torch.device:
    """`auto` is CUDA, then MPS, then the CPU.

    Raises:
        ParameterError: no such device here.

    """
    if name == "auto":
        name = (
            "cuda"
            if torch.cuda.is_available()
            else "mps"
            if torch.backends.mps.is_available()
            else "cpu"
        )
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ParameterError(f"Device {name!r} cannot be used here: {brief(error, 120)}") from None
    return device


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
    feature_batch: int = 64,
    offload: bool = False,
) -> Model:
    """Load a text-to-image pipeline with safetensors weights.

    Args:
        name: `fashion`, `exact:TASK`, a folder saved by diffusers, or a hub id `owner/model`.
        revision, variant: of a hub id. dtype: of the weights. device: `auto` or a torch device.
        guide: backbone of feature kernels (`auto`, `dinov2`, `timm:MODEL[@SIZE]`, `open_clip:MODEL/WEIGHTS`); None is the embedded model's own
            and none for others. decoder: an `AutoencoderTiny` that decodes for it, by folder or hub id. weights: a folder with weights of the
            guide. feature_batch: rows that go through both at once. offload: keep only the part at work on the device, and decode in slices.

    Raises:
        UnknownName: no such model. ModelError: it cannot be loaded. ParameterError: no such device.

    """
    where = resolve_device(device)
    if name.startswith(EXACT):
        if guide or decoder:
            raise ModelError(
                f"{name} draws points, which no guide network sees. Leave --guide and --decoder out."
            )
        return _exact_model(name)
    embedded = name in EMBEDDED
    folder = ASSETS / name if embedded else Path(name)
    if not embedded and not folder.exists() and not _HUB_ID.fullmatch(name):
        raise UnknownName(
            unknown("model", name, EMBEDDED)
            + " Or give exact:TASK, a folder saved by diffusers, or a hub id owner/model."
        )
    if folder.exists() and not (folder / "model_index.json").is_file():
        raise ModelError(
            f"Expected a diffusers pipeline in {folder}, but it has no model_index.json."
        )
    if decoder and not (guide or embedded):
        raise ModelError(
            "--decoder decodes for a guide network, and there is none. Add --guide, for instance --guide auto."
        )
    if folder.exists():
        _check_family(_class_name(folder))
    pipe = _load_pipeline(
        str(folder) if folder.exists() else name, revision, variant, DTYPES[dtype]
    )
    _check_family(type(pipe).__name__)
    pipe.set_progress_bar_config(disable=True)
    for part in (
        pipe.components.values()
    ):  # what the loader left in float32 although it was asked for half precision
        if isinstance(part, torch.nn.Module) and {value.dtype for value in part.parameters()} == {
            torch.float32
        }:
            part.to(DTYPES[dtype])
    network = (
        _own_decoder(pipe, decoder, DTYPES[dtype], offload, where) if guide or decoder else None
    )
    _place(pipe, where, offload)
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.requires_grad_(False)
    model = Model(
        name, pipe, _fingerprint(folder) if folder.exists() else f"{name}@{_commit(name, revision)}"
    )
    model.decoder, model.feature_batch, model.device = network, feature_batch, where
    if decoder and network is not None:
        model.decoder_name = f"{decoder}@{weights_digest(network)}"
    if guide:
        backbone = load_backbone(guide, weights, where)
        model.guide, model.guide_name = backbone, f"{backbone.name}@{backbone.digest}"
    elif embedded:
        own = load_network(GuideNetwork(), ASSETS / "guide" / "model.safetensors").to(where)
        model.guide = lambda images: own(to_gray(images))
    if embedded:
        model.check_prompt = _embedded_warning
    return model


def _class_name(folder: Path) -> str:
    """The pipeline's class as a folder names it; empty where that cannot be read."""
    try:
        return str(
            json.loads((folder / "model_index.json").read_text(encoding="utf-8")).get(
                "_class_name", ""
            )
        )
    except (OSError, ValueError, AttributeError):
        return ""


def _check_family(name: str) -> None:
    """Raise ModelError for a pipeline that cannot be steered, before its weights are loaded where that can be."""
    if name.startswith(REFUSED):
        raise ModelError(
            f"{name} draws its samples outside one scheduler loop and cannot be steered. Use another pipeline."
        )


def _own_decoder(
    pipe: Any, source: str | None, dtype: torch.dtype, offload: bool, where: torch.device
) -> torch.nn.Module | None:
    """What decodes for the guide network; None for the pipeline's own autoencoder."""
    if type(pipe).__name__ not in DECODED:
        raise ModelError(
            f"How {type(pipe).__name__} decodes its latents is not known here, so --guide cannot be used. Leave it out."
        )
    network: Any = load_decoder(source, dtype) if source else guide_decoder(pipe, offload)
    channels = [getattr(one.config, "latent_channels", None) for one in (network, pipe.vae)]
    if source and None not in channels and channels[0] != channels[1]:
        raise ModelError(
            f"The decoder {source!r} takes latents of {channels[0]} channels; {type(pipe).__name__} has {channels[1]}. Give one made for this family."
        )
    return network.to(where) if network is not pipe.vae else None


def _place(pipe: Any, where: torch.device, offload: bool) -> None:
    """Put a pipeline on a device, whole, or part by part as it is needed."""
    if not offload:
        pipe.to(where)
        return
    if where.type == "cpu":
        raise ModelError(
            "--offload moves a model between the CPU and a GPU, and there is none here. Leave it out."
        )
    try:
        pipe.enable_model_cpu_offload(device=where)
    except ImportError:
        raise ModelError(
            "--offload needs the package accelerate. Install eddy-bench[offload]."
        ) from None
    for name in ("enable_slicing", "enable_tiling"):
        if hasattr(getattr(pipe, "vae", None), name):
            getattr(pipe.vae, name)()


def _exact_model(name: str) -> Model:
    """A distribution whose score is known, by the name of a task or its YAML file; computed in float64 on the CPU."""
    task = load_task(name.removeprefix(EXACT))
    pipe = ExactPipeline(
        ExactDenoiser(task.of_prompt or task.mixture), exact_scheduler(), task.pictures
    )
    return Model(name, pipe, task.digest)


def _load_pipeline(
    source: str, revision: str | None, variant: str | None, dtype: torch.dtype
) -> Any:
    from diffusers import AutoPipelineForText2Image
    from diffusers.utils import logging as diffusers_logging

    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    _quiet_transformers()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return AutoPipelineForText2Image.from_pretrained(
                source, revision=revision, variant=variant, torch_dtype=dtype, use_safetensors=True
            )
    except Exception as error:
        hint = (
            " A hub id needs network access or a local copy: --model FOLDER."
            if not Path(source).exists()
            else ""
        )
        raise ModelError(
            f"Model {source!r} cannot be loaded: {type(error).__name__}: {brief(error, 200)}{hint}"
        ) from None


def _quiet_transformers() -> None:
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def _commit(name: str, revision: str | None) -> str:
    """The commit of a hub id's snapshot in the local cache."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(name, "model_index.json", revision=revision)
    match = re.search(r"snapshots/([0-9a-f]{40})", str(path))
    return match[1] if match else "unknown"


def _fingerprint(folder: Path) -> str:
    """sha256 over names, sizes and contents; of files beyond 256 MiB, 256 blocks of 1 MiB spread evenly."""
    digest = hashlib.sha256()
    for path in sorted(file for file in folder.rglob("*") if file.is_file()):
        size = path.stat().st_size
        digest.update(f"{path.relative_to(folder).as_posix()}\x1f{size}\x1f".encode())
        blocks = -(-size // 2**20)
        with path.open("rb") as file:
            for block in (
                range(blocks) if blocks <= 256 else (k * (blocks - 1) // 255 for k in range(256))
            ):
                file.seek(block * 2**20)
                digest.update(file.read(2**20))
    return digest.hexdigest()[:16]


def _embedded_warning(prompt: str) -> str | None:
    words = unknown_words(prompt)
    if not words:
        return None
    shown = ", ".join(dict.fromkeys(words[:5]))
    return f"the model 'fashion' was never trained on: {shown}{', ...' if len(words) > 5 else ''} (see eddy_bench/assets/MODEL_CARD.md)"
