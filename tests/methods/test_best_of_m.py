"""best-of-m: which images it keeps, what it costs, how M is set."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from eddy_bench.errors import ParameterError
from eddy_bench.experiment.cost_matching import match_costs
from eddy_bench.experiment.setup import Setup
from eddy_bench.methods.best_of_m import BestOfM, most_distant, unit_distances
from eddy_bench.methods.registry import build_method
from eddy_bench.models.base import Cost
from eddy_bench.models.load import load_model
from eddy_bench.storage.records import CostMatch
from eddy_bench.suites.method_spec import MethodSpec, expand
from eddy_bench.suites.suite import Suite, load_suite
from tests.conftest import Result


def spread(features: torch.Tensor, chosen: tuple[int, ...] | list[int]) -> float:
    unit = torch.nn.functional.normalize(features.double(), dim=-1)[list(chosen)]
    return float(torch.pdist(unit).sum())


def test_the_most_distant_subset_is_the_best_of_all() -> None:
    features = torch.randn(9, 5, generator=torch.Generator().manual_seed(0))
    best = max(itertools.combinations(range(9), 4), key=lambda chosen: spread(features, chosen))
    assert most_distant(unit_distances(features), 4) == list(best)


def test_greedy_reaches_half_of_the_best_and_more() -> None:
    features = torch.randn(
        40, 5, generator=torch.Generator().manual_seed(0)
    )  # C(40, 6) subsets are too many to try
    chosen = most_distant(unit_distances(features), 6)
    assert len(set(chosen)) == 6
    random = [
        spread(
            features, torch.randperm(40, generator=torch.Generator().manual_seed(k))[:6].tolist()
        )
        for k in range(200)
    ]
    assert spread(features, chosen) > max(random)


def test_edge_counts_and_equal_features_are_chosen_from_and_bad_m_is_refused() -> None:
    features = torch.eye(3)
    assert most_distant(unit_distances(features), 3) == [0, 1, 2]
    assert len(most_distant(unit_distances(features), 1)) == 1
    same = torch.ones(50, 4)
    assert len(set(most_distant(unit_distances(same), 8))) == 8
    with pytest.raises(ParameterError, match="at least the 4 particles"):
        BestOfM(m=2).drawn(4)
    with pytest.raises(ParameterError, match="Expected m"):
        BestOfM().drawn(4)


class Clock:
    """A model that takes a known time per image."""

    name = "fashion"
    has_features = True
    pipe = load_model("fashion", device="cpu").pipe
    prompts_fit = None

    def __init__(self) -> None:
        self.drawn: list[str] = []

    def draw(
        self,
        prompts: list[str],
        seeds: list[int],
        particles: int,
        method: object,
        arguments: object,
    ) -> tuple[list[object], Cost]:
        name = str(getattr(method, "name", ""))
        self.drawn.append(name)
        return [], Cost(seconds_per_image={"iid": 0.1, "pg": 0.12, "eddy-hutch": 0.42}[name])


@pytest.mark.parametrize(
    ("text", "m"),
    [
        ("best-of-m", 17),
        ("best-of-m:equal=pg", 5),
        ("best-of-m:m=9", 9),
        ("best-of-m:fair=true", 20),
        ("best-of-m:fair=true,equal=pg", 8),
    ],
)
def test_m_takes_as_long_as_another_method(text: str, m: int) -> None:
    suite = Suite(methods=["iid", "pg", "eddy-hutch", text])  # type: ignore[list-item]
    settled, _ = match_costs(Setup(suite, Clock()), [])  # type: ignore[arg-type]
    assert int(settled.suite.methods[-1].parameters["m"]) == m
    assert build_method(settled.suite.methods[-1]).drawn(4) == m


def test_what_was_measured_once_stands() -> None:
    clock = Clock()
    suite = Suite(methods=["iid", "pg", "best-of-m"])  # type: ignore[list-item]
    record = [CostMatch(equal="", methods=["pg"], m=11)]
    settled, after = match_costs(Setup(suite, clock), record)  # type: ignore[arg-type]
    assert str(settled.suite.methods[-1]) == "best-of-m:m=11"
    assert (clock.drawn, after) == ([], record)
    alone, _ = match_costs(Setup(Suite(methods=["best-of-m"]), clock), record)  # type: ignore[list-item, arg-type]
    assert str(alone.suite.methods[0]) == "best-of-m:m=11"


def test_a_slower_method_raises_m() -> None:
    """Only what is new is measured; an m set by hand is not taken for a measured one."""
    clock = Clock()
    suite = Suite(methods=["iid", "pg", "eddy-hutch", "best-of-m:m=30", "best-of-m"])  # type: ignore[list-item]
    settled, after = match_costs(Setup(suite, clock), [CostMatch(equal="", methods=["pg"], m=11)])  # type: ignore[arg-type]
    assert [str(spec) for spec in settled.suite.methods[-2:]] == [
        "best-of-m:m=30",
        "best-of-m:m=17",
    ]
    assert after == [CostMatch(equal="", methods=["pg", "eddy-hutch"], m=17)]
    assert "pg" not in clock.drawn


def test_a_dry_run_measures_nothing(cli: Callable[..., Result], tmp_path: Path) -> None:
    done = cli(
        "run",
        "--limit",
        1,
        "--method",
        "iid",
        "--method",
        "pg",
        "--method",
        "best-of-m",
        "--dry-run",
        "--out",
        tmp_path / "run",
    )
    assert done.code == 0, done.err
    assert "m is measured when the run starts" in done.out
    assert not (tmp_path / "run").exists()


def test_the_first_images_are_those_of_iid(cli: Callable[..., Result], tmp_path: Path) -> None:
    """On the embedded model: paired noise, N images kept of M, M network evaluations paid."""
    import pandas as pd

    out = tmp_path / "run"
    done = cli(
        "run",
        "--limit",
        1,
        "--particles",
        2,
        "--steps",
        2,
        "--batch-prompts",
        1,
        "--method",
        "iid",
        "--method",
        "best-of-m:m=5",
        "--metric",
        "vendi",
        "--out",
        out,
    )
    assert done.code == 0, done.err
    table = pd.read_csv(out / "scores.csv")
    names = table["method"].str.partition(":")[0], table["metric"].str.partition("[")[0]
    scores = table.set_index(list(names))["value"]
    assert scores["best-of-m", "nfe"] == 2.5 * scores["iid", "nfe"]
    assert scores["best-of-m", "feature_forwards"] == 2.5
    assert scores["best-of-m", "vendi"] >= scores["iid", "vendi"] - 0.2
    assert "best-of-m:m=5" in yaml.safe_load((out / "run.yaml").read_text())["suite"]["methods"]


def test_best_of_m_without_a_guide_network_is_refused(
    cli: Callable[..., Result], tmp_path: Path
) -> None:
    done = cli(
        "run",
        "--model",
        "exact:ring8",
        "--limit",
        1,
        "--method",
        "iid",
        "--method",
        "best-of-m:m=9",
        "--out",
        tmp_path / "a",
    )
    assert (done.code, "chooses by a guide network" in done.err) == (2, True)
    assert (
        "best-of-m:m=16"
        in cli("audit", "--quick", "--method", "best-of-m", "--out", tmp_path / "b").err
    )


def test_grids_are_spelled_out(tmp_path: Path) -> None:
    assert [
        str(spec) for spec in expand(MethodSpec.parse("pg:strength=1|2,kernel=latent|features"))
    ] == [f"pg:strength={s},kernel={k}" for s in (1, 2) for k in ("latent", "features")]
    with pytest.raises(ParameterError, match="got an empty one"):
        expand(MethodSpec.parse("pg:strength=1|"))
    path = tmp_path / "mine.yaml"
    path.write_text(
        "methods: [iid, {repulsion: {strength: [1, 2]}}]\nsweep: {pg: {strength: [0.5, 1]}}\n"
    )
    assert [str(spec) for spec in load_suite(str(path)).methods] == [
        "iid",
        "repulsion:strength=1",
        "repulsion:strength=2",
        "pg:strength=0.5",
        "pg:strength=1",
    ]
    path.write_text("sweep: [1]\n")
    with pytest.raises(Exception, match="sweep: expected methods"):
        load_suite(str(path))


def test_a_sweep_keeps_the_parameters_of_its_method() -> None:
    names = [str(spec) for spec in load_suite("grid").methods]
    assert "pg:kernel=features,strength=0.15" in names
    assert len(names) == len(set(names)) == 65


def test_a_grid_in_the_long_form_is_spelled_out() -> None:
    suite = Suite(methods=[{"name": "pg", "parameters": {"strength": [1, 2]}}])  # type: ignore[list-item]
    assert [str(spec) for spec in suite.methods] == ["pg:strength=1", "pg:strength=2"]


def test_m_needs_something_to_equal(cli: Callable[..., Result], tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="no other method"):
        match_costs(Setup(Suite(methods=["iid", "best-of-m"]), Clock()), [])  # type: ignore[list-item, arg-type]
    (tmp_path / "plug.py").write_text(
        "from eddy_bench import Method\nclass Boom(Method):\n"
        "    def guidance(self, state):\n        raise RuntimeError('boom')\n"
    )
    done = cli(
        "run",
        "--limit",
        1,
        "--steps",
        2,
        "--batch-prompts",
        1,
        "--method",
        "iid",
        "--method",
        f"{tmp_path / 'plug.py'}:Boom",
        "--method",
        "best-of-m",
        "--out",
        tmp_path / "a",
    )
    assert (done.code, "RuntimeError: boom" in done.err) == (2, True)
