"""Tasks with a network of random weights: what feature kernels see on exact tasks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from eddy_bench.audit.draw import draw_groups
from eddy_bench.audit.plan import make_plan
from eddy_bench.errors import ParameterError
from eddy_bench.methods.iid import Iid
from eddy_bench.methods.registry import build_method
from eddy_bench.models.tasks import load_task
from eddy_bench.suites.method_spec import MethodSpec
from tests.conftest import Result

FEATURES = "ring8-features"


def test_the_network_is_smooth_bounded_and_always_the_same() -> None:
    task = load_task(FEATURES)
    network = task.network
    assert network is not None
    points = task.mixture.sample(200, torch.Generator().manual_seed(0))
    values = network(points)
    assert values.shape == (200, 16)
    assert values.abs().max() < 1
    assert values.std(0).min() > 0.05, "no feature is the same for all points"
    assert torch.equal(values, load_task(FEATURES).network(points))  # type: ignore[misc]
    hessian = torch.func.hessian(lambda point: network(point[None])[0, 0])(points[0])
    step = 1e-3 * torch.eye(2, dtype=torch.float64)
    seconds = [
        (network(points[:1] + e) - 2 * network(points[:1]) + network(points[:1] - e))[0, 0] / 1e-6
        for e in step
    ]
    assert hessian.diagonal().tolist() == pytest.approx([float(s) for s in seconds], rel=1e-3)


def test_feature_kernels_are_audited_there_and_nowhere_else(
    cli: Callable[..., Result], tmp_path: Path
) -> None:
    arguments = ["--groups", 20, "--steps", "10", "--scheduler", "ddim", "--out", tmp_path / "a"]
    methods = ["eddy-hutch:kernel=features", "pg:kernel=features,strength=1", "eddy-hutch"]
    asked = [word for method in methods for word in ("--method", method)]
    done = cli("audit", "--task", FEATURES, *asked[:4], *arguments)
    assert done.code == 0, done.err
    frame = pd.read_csv(tmp_path / "a" / "audit.csv")
    assert set(frame["method"]) == {"iid", methods[0], "pg:strength=1,kernel=features"}
    twins = cli("audit", "--task", FEATURES, *asked[:2], *asked[4:], *arguments)
    assert "are the same" in twins.err, "features are the preferred kernel where there are some"
    assert "no guide network" in cli("audit", "--task", "ring8", *asked[:2], *arguments).err


@pytest.mark.parametrize("method", ["eddy-fd", "eddy-hutch", "pg"])
@pytest.mark.parametrize("scale", ["fixed", "relative"])
def test_guidance_through_features_acts_and_strength_0_is_iid(method: str, scale: str) -> None:
    block = make_plan([FEATURES], [], ["ddim"], groups=20).blocks[0]
    plain = draw_groups(block, Iid(), 10, 20, 0, "main")
    options = f"{method}:kernel=features,scale={scale},window=0.."
    guided = build_method(MethodSpec.parse(f"{options},strength=0.3"))
    off = build_method(MethodSpec.parse(f"{options},strength=0"))
    assert not torch.equal(draw_groups(block, guided, 10, 20, 0, "main"), plain)
    assert torch.equal(draw_groups(block, off, 10, 20, 0, "main"), plain)


def test_selection_sees_the_features() -> None:
    plan = make_plan([FEATURES], ["best-of-m:m=16"], ["ddim"], groups=20, particles=4)
    block = plan.blocks[0]
    method = block.candidates[0].method
    chosen = draw_groups(block, method, 5, 20, 0, "main")
    points = replace(block, task=replace(block.task, network=None))
    assert not torch.equal(draw_groups(points, method, 5, 20, 0, "main"), chosen)


def test_a_file_asks_for_features(tmp_path: Path) -> None:
    text = "name: two\nmeans: [[-1, 0], [1, 0]]\ncovariances: 0.1\n"
    (tmp_path / "with.yaml").write_text(text + "features: random\n")
    (tmp_path / "without.yaml").write_text(text)
    seen, blind = (load_task(str(tmp_path / f"{name}.yaml")) for name in ("with", "without"))
    assert (seen.network is None, blind.network is None) == (False, True)
    assert seen.digest != blind.digest
    with pytest.raises(ParameterError, match="no guide network"):
        make_plan([str(tmp_path / "without.yaml")], ["pg:kernel=features"])
