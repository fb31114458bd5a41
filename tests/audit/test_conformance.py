"""The contract of methods: built-in ones keep it, and each way of breaking it is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from eddy_bench import Method, State
from eddy_bench.audit.conformance import CHECKS, check_contract
from eddy_bench.methods.iid import Iid
from eddy_bench.methods.registry import METHODS, build_method
from eddy_bench.sampling.state import StepInfo
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


class Claiming(Method):
    """Says that each sample keeps its distribution."""

    exactly_marginal: ClassVar[bool] = True


class LoudField(Claiming):
    """Doubles and shifts the noise through the hook that sees its shape."""

    def initial_field(self, noise: Tensor, generator: torch.Generator) -> Tensor:
        return 2 * noise + 1


class LoudRestart(Claiming):
    @property
    def restarts(self) -> tuple[tuple[float, float, int], ...]:
        return ((0.5, 5.0, 1),)

    def restart_noise(self, noise: Tensor, generator: torch.Generator) -> Tensor:
        return 1.5 * noise


class Pulled(Claiming):
    """Claims it with a drift."""

    def guidance(self, state: State) -> Tensor:
        return 0.5 * state.score


class Numbered(Method):
    """Noise by the particle's place."""

    def initial_field(self, noise: Tensor, generator: torch.Generator) -> Tensor:
        return noise * (1 + torch.arange(len(noise)).reshape(-1, *[1] * (noise.ndim - 1)))


class Paired(Method):
    """Only the first two particles are coupled: each is normal, and they are not alike."""

    def initial_noise(self, noise: Tensor, generator: torch.Generator) -> Tensor:
        return torch.cat([noise[:1], -noise[:1], noise[2:]])


class OrderedText(Method):
    def condition(self, embeds: Tensor, mask: Tensor, info: StepInfo) -> Tensor:
        return embeds * (1 + torch.arange(len(embeds)).to(embeds))[:, None, None]


class OrderedBranches(Method):
    def combine(self, conditional: Tensor, null: Tensor, scale: float, info: StepInfo) -> Tensor:
        return conditional * (1 + torch.arange(conditional.shape[1]).to(conditional))[:, None]


class SharedText(Method):
    """Prompts of a batch see each other through a hook on embeddings."""

    seen: ClassVar[list[Tensor]] = []

    def condition(self, embeds: Tensor, mask: Tensor, info: StepInfo) -> Tensor:
        self.seen.append(embeds.mean())
        return embeds + 0.3 * (len(self.seen) % 5)


class Smeared(Method):
    """Each pixel is normal, and neighbours are alike."""

    exactly_marginal = True

    def initial_field(self, noise: Tensor, generator: torch.Generator) -> Tensor:
        if noise.ndim < 4:
            return noise
        kernel = torch.ones(noise.shape[1], 1, 3, 3, dtype=noise.dtype)
        smeared, pixels = (
            torch.nn.functional.conv2d(field, kernel, padding=1, groups=len(kernel))
            for field in (noise, torch.ones_like(noise))
        )
        return smeared / pixels.sqrt()


class OddlyLoud(Method):
    def initial_noise(self, noise: Tensor, generator: torch.Generator) -> Tensor:
        return noise * (1 + len(noise) % 2)


class LoudAtLast(Method):
    def step_noise(self, noise: Tensor, state: State) -> Tensor:
        return noise * (2 if state.share > 0.8 else 1)


class Restarted(Method):
    """Claims it with steps of its own and no hook."""

    exactly_marginal, interacts = True, False
    restarts = ((0.3, 2.0, 8),)  # type: ignore[assignment]


class Chooser(Method):
    """Claims it, chooses, and does not say so."""

    exactly_marginal, interacts = True, False

    def drawn(self, particles: int) -> int:
        return 3 * particles

    def choose(self, features: Tensor, count: int, generator: torch.Generator) -> list[int]:
        return list(features.norm(dim=1).argsort()[:count])


@pytest.mark.parametrize(
    ("method", "promise"),
    [
        (LoudField(), "start noise is normal"),
        (LoudField(), "marginal-preserving"),
        (LoudRestart(), "restart noise is normal"),
        (Pulled(), "marginal-preserving"),
        (Smeared(), "start noise is normal"),
        (OddlyLoud(), "start noise is normal"),
        (LoudAtLast(), "step noise is normal"),
        (Restarted(), "marginal-preserving"),
        (Numbered(), "permutation"),
        (Paired(), "permutation"),
        (OrderedText(), "permutation"),
        (OrderedBranches(), "permutation"),
        (SharedText(), "batch independence"),
        (Random(), "deterministic"),
        (Offset(), "zero strength"),
        (Offset(), "one particle"),
        (Ordered(), "permutation"),
        (Mixed(), "batch independence"),
        (Wide(), "start noise is normal"),
        (Doubled(), "start noise is normal"),
        (First(), "permutation"),
        (Shifted(), "step noise is normal"),
    ],
)
def test_what_breaks_it_is_told(method: Method, promise: str) -> None:
    holds, detail = CHECKS[promise](method)
    assert holds is False
    assert detail


def test_guidance_that_is_not_finite_is_told() -> None:
    (finding,) = [finding for finding in check_contract(Broken()) if finding.name == "finite"]
    assert finding.holds is False
    assert finding.detail


def test_what_was_not_tested_is_not_kept() -> None:
    """A method without hooks keeps nothing, a claim without a test is no kept promise."""
    tested = {finding.name: finding for finding in check_contract(Iid())}
    for name in ("permutation", "batch independence", "start noise is normal"):
        assert tested[name].holds is None
    for finding in check_contract(build_method(MethodSpec.parse("best-of-m:m=6,fair=true"))):
        assert finding.name != "marginal-preserving" or finding.holds is None
    assert CHECKS["marginal-preserving"](Chooser()) == (
        None,
        "not tested: it chooses among finished images",
    )


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
