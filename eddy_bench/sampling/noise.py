"""Random numbers that belong to a particle, not to a method, a batch or a machine."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch


def stream_seed(seed: int, prompt: str, *stream: object) -> int:
    """Return a 63-bit seed from sha256 of (seed, prompt text, stream)."""
    text = "\x1f".join([str(seed), prompt, *map(str, stream)])
    return (
        int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big")
        >> 1
    )


def particle_generators(seed: int, prompt: str, count: int) -> list[torch.Generator]:
    """Return a CPU generator per particle.

    Initial noise and step noise of particle k come from the k-th.
    """
    return [torch.Generator().manual_seed(stream_seed(seed, prompt, k)) for k in range(count)]


def selection_generator(seed: int, prompt: str) -> torch.Generator:
    """Return the generator of a group's selection, apart from every particle's and the probes'."""
    return torch.Generator().manual_seed(stream_seed(seed, prompt, "selection"))


def probe_generator(seed: int, prompt: str) -> torch.Generator:
    """Return the generator of a group's probes, apart from every particle's."""
    return torch.Generator().manual_seed(stream_seed(seed, prompt, "probes"))


def condition_generators(seed: int, prompt: str, slots: Sequence[int]) -> list[torch.Generator]:
    """Return a generator per particle for noise on its condition, apart from its own noise."""
    return [
        torch.Generator().manual_seed(stream_seed(seed, prompt, slot, "condition"))
        for slot in slots
    ]
