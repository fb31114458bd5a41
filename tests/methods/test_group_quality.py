"""The quality term of group inference: what it adds, what judges, and that no judge scores."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from eddy_bench.audit.plan import make_plan
from eddy_bench.errors import ModelError, ParameterError
from eddy_bench.methods.best_of_m import most_distant, unit_distances
from eddy_bench.methods.group_inference import GroupInference
from eddy_bench.models.base import Model
from eddy_bench.models.load import load_model
from eddy_bench.sampling.steer import steer
from tests.conftest import Result
from tests.makers.open_clip_models import save_open_clip

Cli = Callable[..., Result]
PROMPTS, SEEDS = ["a dark dress", "a sandal"], [0, 3]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("judge")
    save_open_clip(folder)
    return folder


@pytest.fixture(scope="module")
def model(weights: Path) -> Model:
    return load_model("fashion", device="cpu", weights=weights)


JUDGE = "open_clip:clip-for-tests/mine"


def draw(model: Model, method: GroupInference) -> Any:
    call = {"num_inference_steps": 3, "guidance_scale": 2.0, "output_type": "np"}
    groups, cost = model.draw(PROMPTS, SEEDS, 2, method, call)
    return np.stack([np.stack(group) for group in groups]), cost


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_subset_has_the_largest_sum_of_distances_and_merits(count: int) -> None:
    generator = torch.Generator().manual_seed(1)
    features, merits = torch.randn(7, 3, generator=generator), torch.randn(7, generator=generator)
    unit = torch.nn.functional.normalize(features.double(), dim=-1)
    distances = torch.cdist(unit, unit)

    def total(subset: tuple[int, ...]) -> float:
        pairs = itertools.combinations(subset, 2)
        return float(sum(distances[i, j] for i, j in pairs) + sum(merits[i] for i in subset))

    best = max(itertools.combinations(range(7), count), key=total)
    assert most_distant(unit_distances(features), count, merits) == list(best)


def test_a_large_merit_is_kept_by_the_greedy_choice_too() -> None:
    generator = torch.Generator().manual_seed(1)
    features, merits = torch.randn(60, 3, generator=generator), torch.zeros(60)
    merits[[7, 50]] = 100.0
    assert {7, 50} <= set(most_distant(unit_distances(features), 6, merits))
    assert most_distant(unit_distances(features), 6, torch.zeros(60)) == most_distant(
        unit_distances(features), 6
    )


def test_no_weight_is_no_term_bit_for_bit(model: Model) -> None:
    plain, cost = draw(model, GroupInference(m=6))
    same, as_much = draw(model, GroupInference(m=6, quality=JUDGE, quality_weight=0))
    assert (plain == same).all()
    assert (cost.nfe, cost.feature_forwards) == (as_much.nfe, as_much.feature_forwards)


def test_a_heavy_weight_keeps_what_fits_its_prompt_best(model: Model) -> None:
    """With one step all is decided by the cosines of that step's estimates with each prompt."""
    seen: list[torch.Tensor] = []

    def quality(points: torch.Tensor) -> torch.Tensor:
        seen.append(points)
        return torch.arange(12.0).view(2, 6)

    maps: dict[str, Any] = {"features": lambda shape: model.feature_map(shape), "particles": 6}
    method = GroupInference(m=6, quality=JUDGE, quality_weight=1e6)
    with steer(model.pipe, method, keep=2, quality=quality, **maps) as record:
        model.pipe(PROMPTS, num_images_per_prompt=6, num_inference_steps=1)
    assert record.active is not None
    assert record.active.tolist() == [[False] * 4 + [True] * 2] * 2
    assert seen[0].shape == (2, 6, 256)


def test_the_judge_is_open_clip_s_cosine(model: Model) -> None:
    import open_clip

    judge = model.judge(JUDGE)
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    cosines = judge.cosines(judge.backbone(images)[:, None], judge.texts(PROMPTS))
    tokens = open_clip.get_tokenizer("clip-for-tests")(PROMPTS)
    network = judge.backbone.module
    data = open_clip.get_model_preprocess_cfg(network)
    mean, std = (torch.tensor(data[name]).view(3, 1, 1) for name in ("mean", "std"))
    with torch.inference_mode():
        image, text, _ = network(((images + 1) / 2 - mean) / std, tokens)
    assert torch.allclose(cosines[:, 0], (image * text).sum(-1), atol=1e-5)


def test_prompts_are_encoded_once_for_all_steps(model: Model) -> None:
    judge, calls = model.judge(JUDGE), list[int]()

    def texts(prompts: Sequence[str]) -> torch.Tensor:
        calls.append(len(prompts))
        return judge.texts(prompts)

    watched = replace(model, judges={JUDGE: replace(judge, texts=texts)})
    draw(watched, GroupInference(m=8, quality=JUDGE, prune=0.1))
    assert calls == [2]


def test_what_judges_changes_the_choice_and_is_counted(model: Model) -> None:
    plain, cost = draw(model, GroupInference(m=8))
    judged, more = draw(model, GroupInference(m=8, quality=JUDGE, quality_weight=100))
    assert not (plain == judged).all()
    assert more.nfe == cost.nfe
    assert more.feature_forwards == 2 * cost.feature_forwards


def test_a_scoring_network_is_refused_as_judge(cli: Cli, tmp_path: Path, weights: Path) -> None:
    call = ["run", "--limit", "1", "--steps", "2", "--particles", "2", "--out", tmp_path / "run"]
    call += ["--weights", weights, "--method", f"group-inference:m=4,quality={JUDGE}"]
    done = cli(*call, "--metric", f"clip[{JUDGE}]")
    assert done.code == 2
    assert "by a network that does not score" in done.err
    assert done.err.count("\n") == 1
    assert not (tmp_path / "run").exists()
    assert cli(*call, "--metric", "vendi").code == 0
    assert cli("score", tmp_path / "run", "--metric", f"vendi[{JUDGE}]").code == 2  # no weights
    scored = cli("score", tmp_path / "run", "--weights", weights, "--metric", f"vendi[{JUDGE}]")
    assert scored.code == 0, scored.err
    table = pd.read_csv(tmp_path / "run" / "scores.csv")
    own = table[table["metric"].str.contains(f"[{JUDGE}]", regex=False)]["signature"]
    assert len(own)
    assert own.str.endswith("circular").all()


def test_what_cannot_judge_is_said_in_one_line(model: Model) -> None:
    with pytest.raises(ParameterError, match="open_clip:MODEL/WEIGHTS, got 'dino'"):
        GroupInference(quality="dino")
    with pytest.raises(ParameterError, match="an audit draws points"):
        make_plan(["ring8"], [f"group-inference:quality={JUDGE}"])
    with pytest.raises(ModelError, match="cannot be had"):
        replace(model, judges={}, weights=None).judge(JUDGE)
    maps: dict[str, Any] = {"features": lambda shape: model.feature_map(shape)}
    with (
        pytest.raises(ParameterError, match="Nothing judges the quality"),
        steer(model.pipe, GroupInference(m=4, quality=JUDGE), keep=2, **maps),
    ):
        model.pipe("a sandal", num_images_per_prompt=4, num_inference_steps=2)


JUDGING = f"""
from dataclasses import dataclass
from pathlib import Path
from eddy_bench.methods.group_inference import GroupInference

@dataclass(frozen=True)
class Renamed(GroupInference):
    critic: str = "{JUDGE}"
    @property
    def judge(self):
        return self.critic

@dataclass(frozen=True)
class Inherited(GroupInference):
    quality: str = "{JUDGE}"
"""


@pytest.mark.parametrize(
    ("text", "circular"),
    [
        (f"group-inference:m=4,quality={JUDGE}", True),
        (f"group-inference:m=4,quality={JUDGE},quality_weight=0", False),  # judges nothing
        ("mine.py:Renamed:m=4", True),
        ("mine.py:Inherited:m=4", True),
        ("mine.py:Inherited:m=4,quality_weight=0", False),
    ],
)
def test_circularity_follows_the_declared_judge_and_scoring_runs_no_plugin(
    cli: Cli,
    tmp_path: Path,
    weights: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    circular: bool,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(JUDGING)
    small = ("--limit", "1", "--steps", "2", "--particles", "2", "--seeds", "1")
    run = ("run", *small, "--method", text.replace("mine.py", "./mine.py"), "--metric", "vendi")
    done = cli(*run, "--weights", weights, "--out", "run")
    assert done.code == 0, done.err
    Path("mine.py").write_text("raise SystemExit('code of others')")
    scored = cli("score", "run", "--weights", weights, "--metric", f"vendi[{JUDGE}]")
    assert scored.code == 0, scored.err
    table = pd.read_csv("run/scores.csv")
    own = table[table["metric"].str.contains(f"[{JUDGE}]", regex=False)]["signature"]
    assert len(own)
    assert set(own.str.endswith("circular")) == {circular}
    assert ("guided" in scored.err) == circular
