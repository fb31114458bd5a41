"""Compile a pipeline's denoiser with torch.compile."""

from __future__ import annotations

import logging
from typing import Any

import torch

from eddy_bench.sampling.branch_checks import denoiser


def compile_denoiser(pipe: Any) -> None:
    """Compile the forward pass of the network that a pipeline evaluates at every step.

    Its first call of each shape takes from seconds to minutes. The network itself stays in place,
    so that hooks on it, which count its rows, run outside of what is compiled. Images differ from
    those of the network as it was in the last digits.
    """
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    network = denoiser(pipe)
    network.forward = torch.compile(network.forward)
