"""Small feature maps in float64."""

from __future__ import annotations

import torch

from eddy_bench.models.network_features import NetworkFeatures, RowLimit


def network_features(dimension: int, outputs: int = 7, seed: int = 3) -> NetworkFeatures:
    """Return the features of a small smooth network with random weights."""
    torch.manual_seed(seed)
    net = (
        torch.nn.Sequential(
            torch.nn.Linear(dimension, 16), torch.nn.Tanh(), torch.nn.Linear(16, outputs)
        )
        .double()
        .requires_grad_(False)
    )
    return NetworkFeatures(
        decode=lambda y: y, network=net, shape=(dimension,), limit=RowLimit(50, 50, fixed=True)
    )
