"""A strict pretend CUDA device: run a torch program on `cuda` where there is no GPU.

Tensors of the device are wrapper subclasses (class `Pretend`) that report `device == cuda:k` and
hold a CPU tensor in `.raw`; a TorchDispatchMode catches factories and transfers. The arithmetic is
the CPU's, so that results equal the CPU's to rounding; the RULES are CUDA's:

- an op that mixes a device tensor with a CPU tensor of dim > 0, or two devices, raises
  "Expected all tensors to be on the same device" (indices on the CPU are allowed, as CUDA does);
- `.numpy()` of a device tensor raises; a generator of another device raises, both ways;
- more live bytes than the budget raise torch.OutOfMemoryError;
- `torch.cuda.is_available`, `mem_get_info`, `max_memory_allocated`, ... answer accordingly.

It counts transfers (H2D, D2H, D2D with bytes) and synchronisations (item, nonzero, boolean masks,
linalg that checks its result, pageable copies, synchronize) by the line that caused them.

Use (with torch 2.14 or later; install it before anything else acts on a device)
    python tests/makers/pretend.py [options] -m eddy_bench run --device cuda:1 ...
    python tests/makers/pretend.py [options] -m pytest -p no:cacheprovider -m gpu \
        -o addopts="--strict-markers -p no:randomly" tests/models/test_gpu.py
    python tests/makers/pretend.py [options] FILE.py [arguments]
        (`import pretend` there: COUNTS, MEMORY)
    from tests.makers import pretend; pretend.install(budget=2**30, devices=2)

Options
    --budget BYTES     memory of each device (default 8G); 2G, 300M are understood
    --devices N        how many (default 2)
    --counts FILE      write the counts as JSON at exit ("-": a table on stderr)
    --owner TEXT       attribute counts to the innermost frame whose file has TEXT (eddy_bench/)
    --no-float64       a device without float64, as MPS: raise on any (the name stays cuda)
    --free-lies        mem_get_info reports 4 times what is free (as beside another process)

How: the C++ side sees PrivateUse1 (renamed `idle`), for which autograd works on a build without a
driver; `Pretend.device` says `cuda:k`. Composite ops are decomposed, so that each part is checked.

Limits (what fails here and would not on a card): `param.data = tensor` through C++ (diffusers'
group offload), `torch.tensor([tensor])`, sequential offload, torch.save, streams, storages;
`inference_mode` is `no_grad`.
What it cannot show: TF32, cuDNN, nondeterminism, real speed, fused attention, torch.compile.
Memory is what tensors hold: no workspaces, no fragmentation; an error in a backward pass is raised
at its end. Moves of a module make new Parameters, so tied weights count twice.
"""

from __future__ import annotations

import atexit
import collections
import functools
import gc
import json
import os
import runpy
import sys
import threading
import types
import weakref
from typing import Any

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

aten = torch.ops.aten
CPU = torch.device("cpu")


class Settings:
    budget = 8 * 2**30
    devices = 2
    owner = "eddy_bench/"
    no_float64 = False
    linalg = True
    free_lies = 1
    fraction: dict[int, float] = {}
    installed = False


# ---------------------------------------------------------------- counts


class Counts:
    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.events: collections.Counter = collections.Counter()
        self.bytes: collections.Counter = collections.Counter()
        self.ops = 0

    def add(self, kind: str, size: int = 0) -> None:
        where = _where()
        self.events[kind, where] += 1
        self.bytes[kind, where] += size

    def total(self, kind: str, inside: str = "") -> int:
        return sum(n for (k, w), n in self.events.items() if k == kind and inside in w)

    def rows(self) -> list[dict]:
        return [
            {"kind": k, "where": w, "count": n, "bytes": self.bytes[k, w]}
            for (k, w), n in self.events.most_common()
        ]


COUNTS = Counts()


def _where() -> str:
    """The innermost line of the owner, and of a library below it (">" diffusers line)."""
    frame = sys._getframe(2)
    library = ""
    while frame is not None:
        name = frame.f_code.co_filename
        if Settings.owner in name:
            own = f"{name.split(Settings.owner)[-1]}:{frame.f_lineno}"
            return f"{own} > {library}" if library else own
        if not library and any(x in name for x in ("diffusers/", "transformers/", "accelerate/")):
            library = f"{name.split('site-packages/')[-1]}:{frame.f_lineno}"
        frame = frame.f_back
    return library or "?"


# ---------------------------------------------------------------- memory


class Memory:
    """Live bytes per device, by storage."""

    def __init__(self) -> None:
        self.live = collections.Counter()
        self.peak = collections.Counter()
        self.held: dict[tuple[int, int], list[int]] = {}
        self.lock = threading.RLock()

    def limit(self, index: int) -> int:
        return int(Settings.budget * Settings.fraction.get(index, 1.0))

    def take(self, owner: Any, raw: torch.Tensor, index: int) -> None:
        storage = raw.untyped_storage()
        key = (index, storage._cdata)
        with self.lock:
            if key in self.held:
                self.held[key][0] += 1
            else:
                size = storage.nbytes()
                if self.live[index] + size > self.limit(index):
                    gc.collect()
                    if self.live[index] + size > self.limit(index):
                        self.fail(
                            f"CUDA out of memory. Tried to allocate {size / 2**20:.2f} MiB. GPU "
                            f"{index} has a total capacity of {Settings.budget / 2**30:.2f} GiB "
                            "(pretended)."
                        )
                self.held[key] = [1, size]
                self.live[index] += size
                self.peak[index] = max(self.peak[index], self.live[index])
        weakref.finalize(owner, self.drop, key).atexit = False

    def fail(self, text: str) -> None:
        """Raise, at the end of a backward pass where one is under way (C++ nodes would abort)."""
        if torch._C._current_graph_task_id() != -1:
            self.burst = text
            return
        raise torch.OutOfMemoryError(text)

    burst = ""

    def drop(self, key: tuple[int, int]) -> None:
        with self.lock:
            entry = self.held.get(key)
            if entry is None:
                return
            entry[0] -= 1
            if not entry[0]:
                self.live[key[0]] -= entry[1]
                del self.held[key]


MEMORY = Memory()


# ---------------------------------------------------------------- tensors


class Pretend(torch.Tensor):
    raw: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, raw: torch.Tensor, device: torch.device, requires_grad: bool = False):
        with _disable_current_modes():
            strides = raw.stride() if raw.layout == torch.strided else None
            self = torch.Tensor._make_wrapper_subclass(
                cls,
                raw.shape,
                strides=strides,
                storage_offset=raw.storage_offset(),
                dtype=raw.dtype,
                layout=raw.layout,
                device=torch.device("idle", device.index or 0),
                requires_grad=requires_grad,
            )
        self.raw = raw
        MEMORY.take(self, raw, device.index or 0)
        if raw.is_conj():
            torch._C._set_conj(self, True)
        if raw.is_neg():
            torch._C._set_neg(self, True)
        return self

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"Pretend({self.raw!r}, device='{self.device}')"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})

    def numpy(self, *, force: bool = False):
        if force:
            return self.detach().cpu().numpy()
        raise TypeError(
            f"can't convert {self.device} device type tensor to numpy. Use Tensor.cpu() to copy "
            "the tensor to host memory first."
        )

    def __array__(self, dtype=None, copy=None):
        return self.numpy()

    def __reduce_ex__(self, protocol):
        return (_restored, (self.detach().cpu(), str(self.device), self.requires_grad))

    def __deepcopy__(self, memo):
        if id(self) in memo:
            return memo[id(self)]
        if not self.is_leaf:
            raise RuntimeError("Only Tensors created explicitly by the user support deepcopy")
        with torch.no_grad():
            new = self.detach().clone()
        new.requires_grad_(self.requires_grad)
        if getattr(self, "_is_param", False):
            new._is_param = True
        memo[id(self)] = new
        return new

    def tolist(self):
        return self.detach().cpu().tolist()

    @property
    def device(self):
        return _real_device(torch.Tensor.device.__get__(self))

    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)

    def get_device(self):
        return self.device.index

    def to(self, *args, **kwargs):
        args = [_inner(x) for x in args]
        kwargs = {k: _inner(x) for k, x in kwargs.items()}
        return torch.Tensor.to(self, *args, **kwargs)

    def cuda(self, device=None, **kwargs):
        return self.to(_device("cuda" if device is None else device), **kwargs)

    def data_ptr(self) -> int:
        return self.raw.data_ptr()

    @property
    def data(self):
        return self.detach()

    @data.setter
    def data(self, new):
        if not isinstance(new, Pretend):
            raise RuntimeError("pretend: .data of a device tensor set to a tensor of the CPU")
        torch.Tensor.data.__set__(self, new)
        self.raw = new.raw
        MEMORY.take(self, new.raw, new.device.index or 0)


def _restored(raw, device, requires_grad):
    return raw.to(device).requires_grad_(requires_grad)


def _real_device(device: torch.device) -> torch.device:
    """What the C++ side calls `idle` (PrivateUse1, for autograd's sake) is said to be CUDA."""
    return torch.device("cuda", device.index or 0) if device.type == "idle" else device


def _inner(x: Any) -> Any:
    if isinstance(x, (str, torch.device)) and torch.device(x).type == "cuda":
        return torch.device("idle", _device(x).index)
    return torch.device("idle", x) if type(x) is int else x


def _device(value: Any) -> torch.device | None:
    if value is None:
        return None
    if isinstance(value, int):
        value = f"cuda:{value}"
    device = _real_device(torch.device(value))
    if device.type == "cuda":
        index = _current[0] if device.index is None else device.index
        if index >= Settings.devices:
            raise RuntimeError(
                "CUDA error: invalid device ordinal\nGPU device may be out of range, do you have "
                "enough GPUs?"
            )
        return torch.device("cuda", index)
    return device


_current = [0]
_keep: list[Any] = []
_composite: dict[Any, bool] = {}

# Ops whose indices may be on the CPU beside a tensor of the device
INDEXED = {
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
    aten._unsafe_index.Tensor,
}
# Ops that wait for the device, as their results have sizes or are checked on the host
SYNCS = {
    "_linalg_check_errors",
    "_linalg_eigh",
    "_linalg_eigvals",
    "_linalg_solve_ex",
    "_linalg_svd",
    "_local_scalar_dense",
    "_unique2",
    "allclose",
    "bincount",
    "cholesky",
    "equal",
    "histc",
    "is_nonzero",
    "linalg_cholesky",
    "linalg_eig",
    "linalg_eigvals",
    "linalg_eigvalsh",
    "linalg_inv",
    "linalg_lstsq",
    "linalg_matrix_rank",
    "linalg_pinv",
    "linalg_slogdet",
    "linalg_solve",
    "masked_select",
    "nonzero",
    "repeat_interleave",
    "unique_consecutive",
    "unique_dim",
    "unique_dim_consecutive",
}


def _is_dev(x: Any) -> bool:
    return isinstance(x, Pretend)


def _raise_mixed(func, a, b):
    raise RuntimeError(
        f"Expected all tensors to be on the same device, but found at least two devices, {a} and "
        f"{b}! (when checking arguments of {func})"
    )


def run(func, args, kwargs):
    name = func._schema.name.split("::")[-1]
    base = name.rstrip("_") if not name.startswith("_") else name
    flat, _ = pytree.tree_flatten((args, kwargs))
    tensors = [x for x in flat if isinstance(x, torch.Tensor)]
    devs = [x for x in tensors if _is_dev(x)]
    wanted = kwargs.get("device")
    wanted = _device(wanted) if wanted is not None else None
    if not devs and (wanted is None or wanted.type != "cuda"):
        _check_generators(func, flat, CPU)
        return func(*args, **kwargs)
    if func not in _composite:
        _composite[func] = torch._C._dispatch_has_kernel_for_dispatch_key(
            func.name(), "CompositeImplicitAutograd"
        )
    if _composite[func]:  # whole under inference_mode
        with Mode():
            result = func.decompose(*args, **kwargs)
        if result is not NotImplemented:
            return result
    COUNTS.ops += 1
    if func is aten.set_.source_Tensor or name == "set_data":
        raise NotImplementedError(f"pretend: {func}")
    # -------- transfers
    if base in ("_to_copy", "_to_cpu"):
        return _to_copy(func, args, kwargs, wanted)
    if name == "copy_":
        return _copy(func, args, kwargs)
    if base == "_copy_from":
        raise NotImplementedError(str(func))
    if base == "_local_scalar_dense":
        COUNTS.add("item")
        with _disable_current_modes():
            return func(args[0].raw)
    if base in ("_pin_memory", "is_pinned") and devs:
        raise RuntimeError(
            f"cannot pin '{devs[0].dtype}' of {devs[0].device}: "
            "only dense CPU tensors can be pinned"
        )
    # -------- devices
    if func in INDEXED:
        first = args[0]
        if not _is_dev(first):
            raise RuntimeError(
                "indices should be either on cpu or on the same device as the indexed tensor (cpu)"
                if any(_is_dev(x) for x in args[1])
                else f"Expected all tensors to be on the same device: {func}"
            )
        target = first.device
        for value in args[2:3]:
            if isinstance(value, torch.Tensor) and value.dim() and value.device != target:
                _raise_mixed(func, target, value.device)
        for index in args[1]:
            if index is None:
                continue
            if _is_dev(index):
                if index.dtype in (torch.bool, torch.uint8):
                    COUNTS.add("mask")
                if index.device != target:
                    _raise_mixed(func, target, index.device)
            else:
                COUNTS.add("h2d", index.nbytes)
    else:
        target = devs[0].device if devs else wanted
        for x in tensors:
            if _is_dev(x):
                if x.device != target and x.dim():
                    _raise_mixed(func, target, x.device)
            elif x.dim() or base in ("cat", "stack", "index_select", "gather", "embedding"):
                if x.device.type == "meta":
                    continue
                _raise_mixed(func, target, x.device)
        if (
            devs
            and all(x.dim() == 0 for x in devs)
            and any(not _is_dev(x) and x.dim() for x in tensors)
        ):
            _raise_mixed(func, devs[0].device, CPU)
    _check_generators(func, flat, target)
    if base in SYNCS:
        COUNTS.add("sync:" + base)
    if Settings.linalg and "linalg" in base:
        for x in devs:
            if x.dtype in (torch.float16, torch.bfloat16):
                raise RuntimeError(f"{base}: Low precision dtypes not supported. Got {x.dtype}")
    if base == "_fused_sdp_choice":
        return 0  # math
    with _disable_current_modes():
        if "device" in kwargs:
            where = wanted if wanted is not None else target
            kwargs = {**kwargs, "device": CPU if where.type == "cuda" else where}
            kwargs.pop("pin_memory", None)
        else:
            where = target
        raw_args, raw_kwargs = pytree.tree_map(_raw, (args, kwargs))
        try:
            out = func(*raw_args, **raw_kwargs)
        except RuntimeError as error:
            if "DefaultCPUAllocator" not in str(error):
                raise
            raise torch.OutOfMemoryError(
                "CUDA out of memory (pretended: the CPU's ran out)."
            ) from None
        if where.type == "meta":
            return out
    return _wrapped(func, args, kwargs, out, where, base)


def _raw(x):
    if isinstance(x, Pretend):
        return x.raw
    if isinstance(x, torch.device) and x.type in ("cuda", "idle"):
        return CPU
    return x


def _check_generators(func, flat, device):
    for x in flat:
        if isinstance(x, torch._C.Generator):
            have = _OF_DEVICE.get(x._cdata, CPU)
            if have.type != device.type:
                raise RuntimeError(
                    f"Expected a '{device.type}' device type for generator but found '{have.type}'"
                )
            if have.type == "cuda" and (have.index or 0) != (device.index or 0):
                raise RuntimeError(f"Expected a generator of {device} but found {have}")


def _wrapped(func, args, kwargs, out, device, base):
    """Return outputs: written arguments as themselves, the rest in new wrappers."""
    schema = func._schema
    returns = schema.returns
    written = {}
    for k, argument in enumerate(schema.arguments):
        info = argument.alias_info
        if info is not None and info.is_write:
            value = args[k] if k < len(args) else kwargs.get(argument.name)
            for s in info.before_set:
                written[s] = value
            values = value if isinstance(value, (list, tuple)) else [value]
            for x in values:
                if isinstance(x, Pretend) and (
                    x.shape != x.raw.shape or x.stride() != x.raw.stride()
                ):
                    raise NotImplementedError(f"pretend: {func} changes the shape of its argument")
    single = len(returns) == 1
    outs = [out] if single else (list(out) if out is not None else [])
    results = []
    for k, value in enumerate(outs):
        info = returns[k].alias_info if k < len(returns) else None
        if info is not None and info.is_write:
            names = list(info.before_set)
            results.append(written[names[0]])
            continue
        results.append(pytree.tree_map(lambda x: _wrap(x, device), value))
    if not returns:
        return None
    if single:
        return results[0]
    return tuple(results)


def _wrap(x, device):
    if isinstance(x, torch.Tensor) and not isinstance(x, Pretend):
        if Settings.no_float64 and x.dtype in (torch.float64, torch.complex128):
            raise TypeError(
                "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't "
                "support float64. Please use float32 instead."
            )
        return Pretend(x, device)
    return x


def _to_copy(func, args, kwargs, wanted):
    x = args[0]
    here = x.device
    there = wanted or here
    kwargs = dict(kwargs)
    blocking = not kwargs.get("non_blocking", False)
    kwargs.pop("device", None)
    kwargs.pop("pin_memory", None)
    raw = x.raw if _is_dev(x) else x
    if there.type == "meta":
        with _disable_current_modes():
            return func(raw, device="meta", **kwargs)
    if here != there:
        kind = "h2d" if here.type == "cpu" else "d2h" if there.type == "cpu" else "d2d"
        COUNTS.add(kind if blocking else kind + "-async", raw.nbytes)
    with _disable_current_modes():
        new = aten._to_copy.default(raw, **kwargs)
        if new is raw or (new.numel() and new.data_ptr() == raw.data_ptr()):
            new = raw.clone()
    return _wrap(new, there) if there.type == "cuda" else new


def _copy(func, args, kwargs):
    target, source = args[0], args[1]
    if target.device != source.device:
        kind = (
            "h2d" if target.device.type == "cuda" and source.device.type == "cpu"
            else "d2h" if target.device.type == "cpu" else "d2d"
        )  # fmt: skip
        COUNTS.add(kind, source.nbytes)
    with _disable_current_modes():
        _raw(target).copy_(_raw(source))
    return target


class Mode(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})


# ---------------------------------------------------------------- generators


class Generator(torch._C.Generator):
    """A generator that says it is of a device; its numbers are the CPU's."""

    def __new__(cls, device="cuda"):
        self = super().__new__(cls)
        self._where = _device(device)
        key = self._cdata  # an op sees another Python object of the same generator
        _OF_DEVICE[key] = self._where
        weakref.finalize(self, _OF_DEVICE.pop, key, None).atexit = False
        return self

    def __init__(self, device="cuda"):
        pass

    @property
    def device(self):
        return self._where


_OF_DEVICE: dict[int, torch.device] = {}
_CpuGenerator = torch._C.Generator


class _Meta(type):
    def __instancecheck__(cls, x):
        return isinstance(x, torch._C.Generator)

    def __call__(cls, device="cpu"):
        if isinstance(device, int) or torch.device(device).type == "cuda":
            return Generator(device)
        return _CpuGenerator(device)


class PublicGenerator(metaclass=_Meta):
    """What torch.Generator is replaced by."""


# ---------------------------------------------------------------- torch.cuda


def _index(device=None) -> int:
    if device is None:
        return _current[0]
    if isinstance(device, int):
        return device
    device = torch.device(device)
    if device.type != "cuda":
        raise ValueError(f"Expected a cuda device, but got: {device}")
    return _current[0] if device.index is None else device.index


def _patch_cuda() -> None:
    cuda = torch.cuda

    def synchronize(device=None):
        COUNTS.add("synchronize")

    def mem_get_info(device=None):  # knows nothing of a process's fraction, as the real one
        free = max(0, Settings.budget - MEMORY.live[_index(device)])
        return free * Settings.free_lies, Settings.budget * Settings.free_lies

    def reset_peak(device=None):
        MEMORY.peak[_index(device)] = MEMORY.live[_index(device)]

    properties = types.SimpleNamespace(
        total_memory=Settings.budget, name="Pretend GPU", major=9, minor=0, multi_processor_count=1
    )

    def set_fraction(fraction, device=None):
        Settings.fraction[_index(device)] = fraction

    class _Event:
        def __init__(self, *a, **k):
            pass

        def record(self, *a):
            pass

        def synchronize(self):
            COUNTS.add("synchronize")

        def wait(self, *a):
            pass

        def query(self):
            return True

        def elapsed_time(self, other):
            return 1.0

    class _Device:
        def __init__(self, device):
            self.index = _index(device)

        def __enter__(self):
            self.before = _current[0]
            _current[0] = self.index

        def __exit__(self, *_):
            _current[0] = self.before

    def stats(device=None):
        i = _index(device)
        return {
            "allocated_bytes.all.current": MEMORY.live[i],
            "allocated_bytes.all.peak": MEMORY.peak[i],
        }

    replaced = dict(
        is_available=lambda: True,
        is_initialized=lambda: True,
        init=lambda: None,
        _lazy_init=lambda: None,
        device_count=lambda: Settings.devices,
        current_device=lambda: _current[0],
        set_device=lambda d: _current.__setitem__(0, _index(d)),
        synchronize=synchronize,
        mem_get_info=mem_get_info,
        memory_allocated=lambda device=None: MEMORY.live[_index(device)],
        memory_reserved=lambda device=None: MEMORY.live[_index(device)],
        max_memory_allocated=lambda device=None: MEMORY.peak[_index(device)],
        max_memory_reserved=lambda device=None: MEMORY.peak[_index(device)],
        reset_peak_memory_stats=reset_peak,
        memory_stats=stats,
        empty_cache=lambda: COUNTS.add("empty_cache"),
        get_device_properties=lambda device=None: properties,
        get_device_name=lambda device=None: "Pretend GPU",
        get_device_capability=lambda device=None: (9, 0),
        set_per_process_memory_fraction=set_fraction,
        manual_seed=lambda seed: None,
        manual_seed_all=lambda seed: None,
        get_rng_state=lambda device="cuda": torch.get_rng_state(),
        get_rng_state_all=lambda: [torch.get_rng_state()] * Settings.devices,
        set_rng_state=lambda state, device="cuda": None,
        set_rng_state_all=lambda states: None,
        is_bf16_supported=lambda *a, **k: True,
        ipc_collect=lambda: None,
        Event=_Event,
        device=_Device,
    )
    for name, value in replaced.items():
        setattr(cuda, name, value)
    import torch.cuda.memory as memory
    import torch.cuda.random as random

    for module in (memory, random):
        for name, value in replaced.items():
            if hasattr(module, name):
                setattr(module, name, value)
    torch._C._cuda_getDeviceCount = lambda: Settings.devices
    torch._C._cuda_init = lambda: None
    torch.accelerator.is_available = lambda: True
    torch.accelerator.current_accelerator = lambda check_available=False: torch.device("cuda")
    torch.accelerator.device_count = lambda: Settings.devices


def install(budget: int | None = None, devices: int | None = None, **settings: Any) -> None:
    """Pretend from here on, in every thread that starts later."""
    if Settings.installed:
        return
    Settings.installed = True
    if budget:
        Settings.budget = int(budget)
    if devices:
        Settings.devices = devices
    for name, value in settings.items():
        setattr(Settings, name, value)
    # Autograd asks the accelerator for streams; an idle PrivateUse1 answers in CUDA's place.
    from torch.utils import backend_registration as registration

    class Hook(registration._DummyPrivateUse1Hook):
        def has_primary_context(self, dev_id):
            return False

    registration._setup_privateuseone_for_python_backend("idle", hook=Hook())
    _keep.append(Hook)
    torch._C._ensureCUDADeviceGuardSet()
    torch._C._set_only_lift_cpu_tensors(True)
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    _patch_cuda()
    torch.Generator = PublicGenerator  # type: ignore
    # views of normal tensors cannot be wrapped under inference_mode
    torch.inference_mode = lambda mode=True: torch.no_grad() if mode else torch.enable_grad()
    start = threading.Thread.run

    def run_with_mode(self):
        with Mode():
            start(self)

    threading.Thread.run = run_with_mode
    for name in ("grad", "backward"):
        setattr(torch.autograd, name, _raising_late(getattr(torch.autograd, name)))
    # backward in the calling thread: an error raised in the engine's own thread ends the process
    _keep.append(torch.autograd.set_multithreading_enabled(False))
    Mode().__enter__()


def _raising_late(function):
    @functools.wraps(function)
    def call(*args, **kwargs):
        MEMORY.burst = ""
        result = function(*args, **kwargs)
        if text := MEMORY.burst:
            MEMORY.burst = ""
            raise torch.OutOfMemoryError(text)
        return result

    return call


def _bytes(text: str) -> int:
    units = {"K": 2**10, "M": 2**20, "G": 2**30}
    return int(float(text[:-1]) * units[text[-1]]) if text[-1] in units else int(text)


def report(file: str) -> None:
    if file == "-":
        for row in COUNTS.rows()[:60]:
            print(
                f"{row['count']:6d} {row['bytes']:12d} {row['kind']:22s} {row['where']}",
                file=sys.stderr,
            )
    else:
        with open(file, "w") as stream:
            json.dump(COUNTS.rows(), stream, indent=1)


def main() -> None:
    args = sys.argv[1:]
    options: dict[str, Any] = {}
    while args and args[0].startswith("--"):
        flag = args.pop(0)
        if flag == "--budget":
            options["budget"] = _bytes(args.pop(0))
        elif flag == "--devices":
            options["devices"] = int(args.pop(0))
        elif flag == "--owner":
            options["owner"] = args.pop(0)
        elif flag == "--counts":
            atexit.register(report, args.pop(0))
        elif flag == "--no-float64":
            options["no_float64"] = True
        elif flag == "--free-lies":
            options["free_lies"] = 4
        else:
            raise SystemExit(f"pretend: unknown option {flag}")
    sys.modules["pretend"] = sys.modules["__main__"]
    install(**options)
    if args[0] == "-m":
        sys.argv = args[1:]
        sys.path[0] = os.getcwd()  # not this file's folder, whose modules would hide packages
        runpy.run_module(args[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = args
        sys.path.insert(0, os.path.dirname(os.path.abspath(args[0])))
        runpy.run_path(args[0], run_name="__main__")


if __name__ == "__main__":
    main()
