"""Benchmark ways of drawing different images from diffusion and flow models."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "Antithetic": "eddy_bench.methods.couplings",
    "Count": "eddy_bench.methods.base",
    "Coupled": "eddy_bench.methods.coupled",
    "EddyError": "eddy_bench.errors",
    "EddyExact": "eddy_bench.methods.eddy",
    "EddyFd": "eddy_bench.methods.eddy",
    "EddyHutch": "eddy_bench.methods.eddy",
    "Extractor": "eddy_bench.scoring.extractor",
    "Forward": "eddy_bench.scoring.forward",
    "Iid": "eddy_bench.methods.iid",
    "Judge": "eddy_bench.scoring.metric",
    "KernelMethod": "eddy_bench.methods.guided",
    "Lhs": "eddy_bench.methods.couplings",
    "Method": "eddy_bench.methods.base",
    "Metric": "eddy_bench.scoring.metric",
    "StepInfo": "eddy_bench.sampling.state",
    "Parameter": "eddy_bench.scoring.metric",
    "ParticleGuidance": "eddy_bench.methods.pg",
    "Positive": "eddy_bench.methods.base",
    "Repulsion": "eddy_bench.methods.repulsion",
    "Sobol": "eddy_bench.methods.couplings",
    "State": "eddy_bench.sampling.state",
    "Strength": "eddy_bench.methods.base",
    "Run": "eddy_bench.notebook",
    "benchmark": "eddy_bench.notebook",
    "load_run": "eddy_bench.notebook",
    "steer": "eddy_bench.sampling.steer",
}
__all__ = ["__version__", *sorted(_PUBLIC)]


def __getattr__(name: str) -> Any:
    """Import public names on first use: `eddy-bench --help` does not wait for torch."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'eddy_bench' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    """Return the public names."""
    return list(__all__)
