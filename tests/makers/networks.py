"""Files of random weights that stand in for those that must be downloaded."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch

from eddy_bench.scoring.perceptual import ALEXNET


def save_random_alexnet(folder: Path) -> None:
    """Save random weights under the name of LPIPS' backbone."""
    from torchvision.models import alexnet

    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(alexnet(weights=None).state_dict(), folder / ALEXNET)


def save_random_inception(path: Path) -> None:
    """Save random weights with the layout of the FID weights: the extractor's own, caught before it
    loads a file.
    """
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    caught: list[dict[str, torch.Tensor]] = []

    class Random(FeatureExtractorInceptionV3):  # type: ignore[misc]
        def load_state_dict(self, *args: object, **kwargs: object) -> None:
            caught.append(self.state_dict())

    torch.save({}, path)
    Random("random", ["2048"], feature_extractor_weights_path=str(path))
    torch.save(caught[0], path)


def save_random_timm(folder: Path) -> str:
    """Save random weights of a small backbone of timm, and return the extractor's name."""
    import timm
    from safetensors.torch import save_file

    model = "vit_tiny_patch16_224.augreg_in21k"
    network = timm.create_model(model, num_classes=0)
    save_file(network.state_dict(), folder / f"{model}.safetensors")
    return f"timm:{model}"
