"""Which devices there are, how much memory they have, and in which precisions they compute."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from eddy_bench.cli.diagnosis.finding import Finding
from eddy_bench.errors import brief
from eddy_bench.models.devices import free_bytes
from eddy_bench.models.load import DTYPES

SECTION = "devices"
# Relative error of a product and a convolution against float64; CUDA's float32 may be TF32.
LARGEST_ERRORS = {"float32": 5e-3, "float16": 2e-2, "bfloat16": 5e-2}
NO_GPU = "no CUDA or MPS device; everything runs on the CPU"


def device_names() -> list[str]:
    """Return the CPU and every GPU, as `--device` takes them."""
    cards = [f"cuda:{k}" for k in range(torch.cuda.device_count())]
    return ["cpu", *cards, *(["mps"] if torch.backends.mps.is_available() else [])]


def examine_devices() -> Iterator[Finding]:
    """Yield the memory of each device, and each precision that it is asked to compute in."""
    names = device_names()
    for name in names:
        yield Finding(SECTION, name, "ok", _memory(torch.device(name)))
        for dtype in DTYPES:
            yield examine_dtype(name, dtype)
    if len(names) == 1:
        yield Finding(SECTION, "gpu", "note", NO_GPU, _cure_without_gpu())


def _memory(device: torch.device) -> str:
    """Return what a device is called, and its memory, in words."""
    if device.type == "mps":
        return "memory shared with the CPU"
    free = f"{free_bytes(device) / 2**30:.1f} GiB free"
    if device.type == "cpu":
        import psutil

        total = psutil.virtual_memory().total
        return f"{torch.get_num_threads()} threads, {free} of {total / 2**30:.1f} GiB"
    card = torch.cuda.get_device_properties(device)
    return f"{card.name}, {free} of {card.total_memory / 2**30:.1f} GiB"


def _cure_without_gpu() -> str:
    if torch.version.cuda is None:
        return "with a card in this machine: install a build of torch for it (pytorch.org)"
    return "with a card in this machine: nvidia-smi tells whether its driver works"


def examine_dtype(device: str, dtype: str) -> Finding:
    """Return whether a device computes a product and a convolution in some precision."""
    name = f"{device} {dtype}"
    try:
        error = relative_error(torch.device(device), DTYPES[dtype])
    except Exception as problem:  # an operation that a device lacks raises what it likes
        return _failed(device, dtype, f"cannot compute: {brief(problem, 200)}")
    if not error <= LARGEST_ERRORS[dtype]:
        wrong = f"relative error {error:.1e}, at most {LARGEST_ERRORS[dtype]:.0e} is expected"
        return _failed(device, dtype, wrong)
    return Finding(SECTION, name, "ok", f"computes, relative error {error:.0e}")


def _failed(device: str, dtype: str, detail: str) -> Finding:
    """Return a problem for float32, which everything needs; half precision is optional."""
    name = f"{device} {dtype}"
    if dtype != "float32":
        return Finding(SECTION, name, "note", detail, f"--dtype float32 on {device}")
    cure = "pip install --force-reinstall torch torchvision"
    if device != "cpu":
        cure = f"leave {device} out (--device cpu), or install a build of torch for its driver"
    return Finding(SECTION, name, "problem", detail, cure)


def relative_error(device: torch.device, dtype: torch.dtype) -> float:
    """Return the largest error of a product and a convolution, of their largest value."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 4, 16, 16, generator=generator, dtype=torch.float64)
    weights = torch.randn(8, 4, 3, 3, generator=generator, dtype=torch.float64)
    here = _computed(images.to(dtype).double(), weights.to(dtype).double())
    there = _computed(images.to(device, dtype), weights.to(device, dtype))
    return max(
        float((a.cpu().double() - b).abs().max() / b.abs().max())
        for a, b in zip(there, here, strict=True)
    )


def _computed(images: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    rows = images.flatten(2)
    return rows @ rows.mT, torch.nn.functional.conv2d(images, weights, padding=1)
