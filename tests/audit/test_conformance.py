"""The contract of methods: built-in ones keep it, and each way of breaking it is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from eddy_bench import Method, State
from eddy_bench.audit.conformance import CHECKS, check_contract
from eddy_bench.methods.registry import METHODS, build_method
from eddy_bench.suites.method_spec import MethodSpec
from tests.conftest import Result


@pytest.mark.parametrize(
    "name",
    [
        *METHODS,
        "pg:kernel=features,window=0..",
        "eddy-hutch:kernel=latent",
        "eddy-fd:kernel=features,window=0..",
    ],
)
def test_built_in_methods_keep_it(name: str) -> None:
    method = build_method(MethodSpec.parse({"best-of-m": "best-of-m:m=6"}.get(name, name)))
    broken = [finding for finding in check_contract(method) if finding.holds is False]
    assert broken == []


@dataclass(frozen=True)
class Push(Method):
    strength: float = 0.1


class Random(Push):
    def guidance(self, state: State) -> Tensor:
        return self.strength * torch.randn_like(state.score)


class Offset(Push):
    def guidance(self, state: State) -> Tensor:
        return 0.1 + self.strength * state.score


class Ordered(Push):
    def guidance(self, state: State) -> Tensor:
        return self.strength * state.score * torch.arange(state.score.shape[1])[:, None]


class Mixed(Push):
    def guidance(self, state: State) -> Tensor:
        return self.strength * (state.score - state.score.mean((0, 1)))


class Broken(Push):
    def guidance(self, state: State) -> Tensor:
        return self.strength * state.score / (state.step - 2)


class Wide(Method):
    def initial_noise(self, noise: Tensor, generator: torch.Generator) -> Tensor:
        return 1.2 * noise


class Doubled(Method):
    """Each coordinate is normal, and all of them are the same."""

    def initial_noise(self, noise: Tensor, generator: torch.Generator) -> Tensor:
        return noise[:, :1].expand_as(noise)


class First(Push):
    """Breaks its promise at the first step alone."""

    def guidance(self, state: State) -> Tensor:
        return (
            self.strength
            * state.score
            * torch.arange(state.score.shape[1])[:, None]
            * (state.step == 0)
        )


class Shifted(Method):
    def step_noise(self, noise: Tensor, state: State) -> Tensor:
        return noise + 0.3


@pytest.mark.parametrize(
    ("method", "promise"),
    [
        (Random(), "deterministic"),
        (Offset(), "zero strength"),
        (Offset(), "one particle"),
        (Ordered(), "permutation"),
        (Mixed(), "batch independence"),
        (Broken(), "finite"),
        (Wide(), "start noise is normal"),
        (Doubled(), "start noise is normal"),
        (First(), "permutation"),
        (Shifted(), "step noise is normal"),
    ],
)
def test_what_breaks_it_is_told(method: Method, promise: str) -> None:
    holds, detail = CHECKS[promise](method) if promise != "finite" else (None, "")
    if promise == "finite":
        (finding,) = [finding for finding in check_contract(method) if finding.name == promise]
        holds, detail = finding.holds, finding.detail
    assert holds is False
    assert detail


def test_check_method_tells_by_its_exit_code_whether_promises_hold(
    cli: Callable[..., Result], tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(
        "from dataclasses import dataclass\n"
        "from eddy_bench import Method\n"
        "@dataclass(frozen=True)\n"
        "class Mine(Method):\n"
        "    strength: float = 0.1\n"
        "    def guidance(self, state):\n        return self.strength * state.score + 1e-3\n"
    )
    done = cli("check-method", f"{tmp_path}/mine.py:Mine")
    assert done.code == 1
    assert "zero strength" in done.out
    assert "broken" in done.out
    assert cli("check-method", "iid").code == 0
    assert cli("check-method", "iidd").code == 2
    assert cli("check-method", "best-of-m").code == 2
