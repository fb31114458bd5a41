"""Offloading where accelerate is not installed: as much of it as diffusers calls."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers.pipelines import pipeline_utils


class Hook:
    """What stands on a module while its weights are elsewhere."""

    def __init__(self, module: torch.nn.Module, device: Any) -> None:
        self.model, self.execution_device = module, device
        self.weights_map: dict[str, torch.Tensor] = {}

    def offload(self) -> None:
        self.model.to("cpu")


def _watch(hook: Hook, load: Callable[[], Any], unload: Callable[[], Any] = lambda: None) -> Hook:
    def watched(inner: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            load()
            try:
                return inner(*args, **kwargs)
            finally:
                unload()

        return call

    module: Any = hook.model
    for name in ("forward", "encode", "decode"):  # an autoencoder's calls
        if hasattr(module, name):
            setattr(module, name, watched(getattr(module, name)))
    module._hf_hook = hook
    return hook


def cpu_offload_with_hook(
    module: torch.nn.Module, device: Any, prev_module_hook: Hook | None = None
) -> tuple[torch.nn.Module, Hook]:
    """Move a whole module to a device when it is called, and the one before it to the CPU."""

    def load() -> None:
        if prev_module_hook is not None:
            prev_module_hook.offload()
        if next(module.parameters()).device != device:  # of a half-moved module, too
            module.to(device)

    return module, _watch(Hook(module, device), load)


def cpu_offload(module: torch.nn.Module, device: Any, offload_buffers: bool = False) -> None:
    """Keep the weights of each layer elsewhere, as meta tensors in it, but while it is called."""
    for layer in module.modules():
        own = dict(layer.named_parameters(recurse=False))
        hook = Hook(layer, device)
        hook.weights_map = {name: weight.data for name, weight in own.items()}

        def put(values: dict[str, torch.Tensor], to: Any, layer: torch.nn.Module = layer) -> None:
            for name, value in values.items():
                weight = torch.nn.Parameter(value.to(to), value.is_floating_point())
                layer.register_parameter(name, weight.requires_grad_(False))

        def load(put: Any = put, hook: Hook = hook) -> None:
            put(hook.weights_map, hook.execution_device)

        def unload(put: Any = put, hook: Hook = hook) -> None:
            put(hook.weights_map, "meta")

        _watch(hook, load, unload)
        unload()


def remove_hook_from_module(module: torch.nn.Module, recurse: bool = False) -> None:
    """Give a module its own call and weights back."""
    for layer in module.modules() if recurse else [module]:
        if hasattr(layer, "_hf_hook"):
            for name, value in layer._hf_hook.weights_map.items():
                layer.register_parameter(name, torch.nn.Parameter(value, False))
            for name in ("_hf_hook", "forward", "encode", "decode"):
                vars(layer).pop(name, None)


def install(patch: pytest.MonkeyPatch) -> None:
    """Let diffusers find this in the place of accelerate, where that is not installed."""
    if find_spec("accelerate") is not None:
        return
    module: Any = ModuleType("accelerate")
    module.cpu_offload, module.cpu_offload_with_hook = cpu_offload, cpu_offload_with_hook
    module.hooks = SimpleNamespace(remove_hook_from_module=remove_hook_from_module)
    patch.setitem(sys.modules, "accelerate", module)
    patch.setattr(pipeline_utils, "accelerate", module, raising=False)
    patch.setattr(pipeline_utils, "is_accelerate_available", lambda: True)
    patch.setattr(pipeline_utils, "is_accelerate_version", lambda *versions: True)
