"""Independent samples: the baseline."""

from __future__ import annotations

from dataclasses import dataclass

from eddy_bench.methods.base import Method


@dataclass(frozen=True)
class Iid(Method):
    """N independent particles: every hook is neutral."""

    name = "iid"
    citation = "the base sampler"
    exactly_marginal = True
    summary = "independent samples, the baseline"
