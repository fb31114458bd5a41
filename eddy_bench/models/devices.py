"""Where networks run."""

from __future__ import annotations

import torch

from eddy_bench.errors import ParameterError, brief

CPU = torch.device("cpu")


def resolve_device(name: str) -> torch.device:
    """Return a torch device; `auto` is CUDA, then MPS, then the CPU.

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
