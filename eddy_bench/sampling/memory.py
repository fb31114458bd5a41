"""Memory of a device: errors that say it ran out, and giving back what a failed call held."""

from __future__ import annotations

import gc

import torch

RAN_OUT = ("can't allocate memory", "out of memory")


def out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory ran out, on a GPU or on the CPU."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error).lower()
    return any(words in text for words in RAN_OUT)


def release_memory() -> None:
    """Give back what a failed call held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
