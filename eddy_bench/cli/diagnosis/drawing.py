"""Whether every device draws the pictures that the CPU draws."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from eddy_bench.cli.diagnosis.devices import device_names
from eddy_bench.cli.diagnosis.finding import Finding
from eddy_bench.errors import brief
from eddy_bench.methods.iid import Iid
from eddy_bench.models.devices import whole_float32
from eddy_bench.models.load import load_model

SECTION = "drawing"
MODEL, PROMPT, PARTICLES, STEPS = "fashion", "a photo of a dress", 4, 5
TOLERANCE = 2  # of 255 per pixel, as docs/reliability.md has it for other kinds of machines
PICTURES = NDArray[np.int16]


def examine_drawing() -> Iterator[Finding]:
    """Yield whether the CPU draws pictures, and whether every other device draws the same."""
    names = device_names()
    reference, finding = _drawn_on_cpu()
    yield finding
    if reference is not None:
        for name in names[1:]:
            yield _compared(name, reference)


def _drawn_on_cpu() -> tuple[PICTURES | None, Finding]:
    cure = "pip install --force-reinstall eddy-bench torch diffusers transformers"
    start = time.perf_counter()
    try:
        pictures = drawn_on("cpu")
    except Exception as error:  # nothing can be drawn, for whatever reason
        detail = f"the embedded model cannot draw: {brief(error, 200)}"
        return None, Finding(SECTION, "cpu", "problem", detail, cure)
    if pictures.std() == 0:
        flat = "the embedded model draws pictures of one colour"
        return None, Finding(SECTION, "cpu", "problem", flat, cure)
    seconds = time.perf_counter() - start
    detail = f"{PARTICLES} images of the embedded model in {seconds:.1f} s, loading included"
    return pictures, Finding(SECTION, "cpu", "ok", detail)


def _compared(device: str, reference: PICTURES) -> Finding:
    """Return whether a device's pictures are the CPU's within the tolerance."""
    cure = f"leave {device} out (--device cpu), or install a build of torch for its driver"
    try:
        farthest = int(np.abs(drawn_on(device) - reference).max())
    except Exception as error:  # of the device's driver, its memory or a missing operation
        detail = f"cannot draw: {brief(error, 200)}"
        return Finding(SECTION, device, "problem", detail, cure)
    detail = f"images differ from the CPU's by {farthest} of 255, {TOLERANCE} are allowed"
    if farthest > TOLERANCE:
        return Finding(SECTION, device, "problem", detail, cure)
    return Finding(SECTION, device, "ok", detail)


def drawn_on(device: str) -> PICTURES:
    """Return a few pictures of the embedded model, (n, height, width, 3)."""
    model = load_model(MODEL, device=device)
    arguments = {"num_inference_steps": STEPS, "guidance_scale": 4.0}
    with whole_float32(torch.device(device)):  # rounding further is allowed, and no fault
        groups, _ = model.draw([PROMPT], [0], PARTICLES, Iid(), arguments)
    return np.stack([np.asarray(image.convert("RGB"), np.int16) for image in groups[0]])
