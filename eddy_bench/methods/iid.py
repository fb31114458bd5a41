"""Independent samples: the baseline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from eddy_bench.methods.base import Method


@dataclass(frozen=True)
class Iid(Method):
    """N independent particles: every hook is neutral."""

    name: ClassVar[str] = "iid"
    citation: ClassVar[str] = "the base sampler"
    exact_law: ClassVar[bool] = True
    summary: ClassVar[str] = "independent samples, the baseline"
