"""Where networks run, in which arithmetic, and the memory there."""

from __future__ import annotations

import ctypes
import functools
import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from eddy_bench.errors import ParameterError, brief

CPU = torch.device("cpu")


def resolve_device(name: str) -> torch.device:
    """Return a torch device; `auto` is CUDA, then MPS, then the CPU."""
    if name == "auto":
        other = "mps" if torch.backends.mps.is_available() else "cpu"
        name = "cuda" if torch.cuda.is_available() else other
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ParameterError(f"Device {name!r} cannot be used here: {brief(error, 120)}") from None
    return device


# torch's settings of each backend's arithmetic, since 2.9; "ieee" is whole float32
BACKENDS = ("cuda.matmul", "cudnn.conv", "cudnn.rnn")


@contextmanager
def whole_float32(device: torch.device) -> Iterator[None]:
    """Multiply in float32 inside the block: GPUs round to 10 bits in convolutions by default.

    What the process had set is put back, in the older or the newer of torch's two ways.
    """
    if device.type != "cuda":
        yield
        return
    newer = hasattr(torch.backends, "fp32_precision")
    name, whole = ("fp32_precision", "ieee") if newer else ("allow_tf32", False)
    places = BACKENDS if newer else ("cuda.matmul", "cudnn")
    own = [functools.reduce(getattr, place.split("."), torch.backends) for place in places]
    settings: list[tuple[Any, str, Any]] = [(backend, name, whole) for backend in own]
    settings.append((torch.backends.cudnn, "deterministic", True))
    before = [(backend, key, getattr(backend, key)) for backend, key, _ in settings]
    for backend, key, value in settings:
        setattr(backend, key, value)
    try:
        yield
    finally:
        for backend, key, value in before:
            setattr(backend, key, value)


# of mallopt in glibc's malloc.h; the largest threshold that it takes
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
TRIM, MMAP = 2**30, 2**25
CGROUPS = Path("/sys/fs/cgroup")
UNLIMITED = 2.0**60
RAN_OUT = (
    "can't allocate memory",
    "out of memory",
    "not enough memory",
    "bad_alloc",
    "could not create a memory object",
    "could not create a primitive",
)


def out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory ran out, on a GPU or on the CPU."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error).lower()
    return any(words in text for words in RAN_OUT)


def keep_pages(trim: int = TRIM, mmap: int = MMAP) -> None:
    """Let the allocator of this process keep memory that is freed, where it can be told to.

    Drawing allocates the same tensors at every step. glibc maps large ones anew each time and the
    kernel clears their pages: a fifth of the time on a CPU (`benchmarks/allocation.py`).

    Args:
        trim: bytes that may be kept at the top of the heap.
        mmap: bytes from which an allocation is mapped on its own.
    """
    with suppress(OSError, AttributeError, TypeError):  # another C library
        library = ctypes.CDLL(None)
        library.mallopt(M_MMAP_THRESHOLD, mmap)
        library.mallopt(M_TRIM_THRESHOLD, trim)


def release_memory() -> None:
    """Give back what a failed call held, and what `keep_pages` kept."""
    gc.collect()
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


def synchronize(device: torch.device) -> None:
    """Wait for what a device has to do; the CPU has nothing."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def free_bytes(device: torch.device) -> float:
    """Return how many bytes can still be taken on a device; infinite where nothing tells."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return float(free + cached)
    if device.type == "mps":
        return float(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    if device.type != "cpu":
        return float("inf")
    import psutil

    available = float(psutil.virtual_memory().available)
    return max(0.0, min(available, _below_process_limit(), _below_control_group()))


def _below_process_limit() -> float:
    """Return the address space that `ulimit -v` leaves to this process."""
    if not sys.platform.startswith("linux"):
        return float("inf")
    import psutil

    process = psutil.Process()
    limit, _ = process.rlimit(psutil.RLIMIT_AS)
    return float("inf") if limit < 0 else float(limit - process.memory_info().vms)


def _below_control_group() -> float:
    """Return what the control group that a container or a batch system set leaves."""
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "memory" not in controllers.split(","):
                continue
            names = (
                ("memory/{}", "memory.limit_in_bytes", "memory.usage_in_bytes")
                if controllers
                else ("{}", "memory.max", "memory.current")
            )
            for inside in (path.lstrip("/"), ""):  # a container sees its own group as the root
                folder = CGROUPS / names[0].format(inside)
                if (left := _left_of(folder, *names[1:])) is not None:
                    return left
    return float("inf")


def _left_of(folder: Path, limit: str, usage: str) -> float | None:
    """Return the bytes left of a control group, cached files not counted; None without a limit."""
    try:
        most = float((folder / limit).read_text())
        used = float((folder / usage).read_text())
        lines = (folder / "memory.stat").read_text().splitlines()
        statistics = dict(line.split() for line in lines)
    except (OSError, ValueError):
        return None
    cached = float(statistics.get("inactive_file", 0))
    return most - used + cached if most < UNLIMITED else None


@contextmanager
def peak_taken(device: torch.device) -> Iterator[Callable[[], float]]:
    """Yield a function that returns the bytes taken at the peak since the block began.

    It returns 0 where the system does not tell.
    """
    release_memory()
    reset_peak(device)
    before = peak_bytes(device)
    yield lambda: max(0.0, peak_bytes(device) - before)


def reset_peak(device: torch.device) -> bool:
    """Begin to measure the peak anew; returns whether the system can."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return True
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def peak_bytes(device: torch.device) -> float:
    """Return the peak since `reset_peak`: of a GPU's memory, or of this process's.

    Where the system cannot begin anew the process's is that of its whole life.
    """
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak) * (1 if sys.platform == "darwin" else 1024)
