"""Bad images of a run: flagged in files, scored as no value, counted by every reader."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pandas as pd
import pytest
import yaml
from diffusers.pipelines.stable_diffusion import StableDiffusionPipelineOutput

from eddy_bench.ids import MetricId
from eddy_bench.scoring.metrics import COSTS
from tests.conftest import Result
from tests.makers.score_files import of

Cli = Callable[..., Result]
METRICS = ["vendi", "clip", "align", "mss", "fd", "kid", "drift"]
RUN = [
    *("run", "--model", "fashion", "--method", "iid", "--method", "antithetic"),
    *("--limit", "5", "--particles", "4", "--seeds", "1", "--steps", "2", "--device", "cpu"),
    *("--batch-prompts", "2"),
    *(word for metric in METRICS for word in ("--metric", metric)),
]
GATE = {
    "checks": [
        {"metric": "nfe", "test": "equal"},
        {"metric": "vendi[fmnist-clip]", "test": "equal"},
        {"metric": "clip[fmnist-clip]", "test": "equal"},
    ]
}


@pytest.fixture
def spoilt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two images of a prompt under iid, one under antithetic, and a padding row of each are bad."""
    decode, postprocess = diffusers.AutoencoderKL.decode, StableDiffusionPipelineOutput.__init__
    calls = iter(range(10**6))

    def tampered(self: Any, *args: Any, **kwargs: Any) -> Any:
        result, call = decode(self, *args, **kwargs), next(calls)
        if len(result[0]) == 8 and call in (1, 5):  # after a first one that warms up
            result[0][[1, 2] if call == 1 else [6]] = float("nan")
        return result

    outputs = iter(range(10**6))

    def blacked(self: Any, images: Any, nsfw_content_detected: Any = None) -> None:
        call, flags = next(outputs), [False] * len(images)
        if call in (2, 6) and len(flags) == 8:
            flags[3 if call == 2 else 6] = True
        postprocess(self, images=images, nsfw_content_detected=flags)

    monkeypatch.setattr(diffusers.AutoencoderKL, "decode", tampered)
    monkeypatch.setattr(StableDiffusionPipelineOutput, "__init__", blacked)


def bad_of(folder: Path) -> dict[str, Any]:
    found = {}
    for path in sorted((folder / "samples").rglob("group.json")):
        if "bad" in (record := json.loads(path.read_text())):
            found[path.parent.relative_to(folder / "samples").parts[0]] = record["bad"]
    return found


def counts_them(text: str) -> bool:
    """Whether a text says the count by method once."""
    parts = ("iid 2 (not finite)", "antithetic 1 (safety checker)")
    return text.count("3 bad images: ") == 1 and all(part in text for part in parts)


def test_bad_images_are_flagged_have_no_score_and_are_counted_by_every_reader(
    cli: Cli, tmp_path: Path, spoilt: None
) -> None:
    plain, out = tmp_path / "plain", tmp_path / "run"
    done = cli(*RUN, "--out", out)
    assert done.code == 0
    assert counts_them(done.err)
    assert bad_of(out) == {
        "iid": {"1": "not finite", "2": "not finite"},
        "antithetic": {"3": "safety checker"},
    }
    assert cli(*RUN, "--out", plain).code == 0  # nothing is spoilt any more
    check_scores(out, plain)
    check_readers(cli, out, plain, tmp_path)


def check_scores(out: Path, plain: Path) -> None:
    """Groups and images have no values; costs stay, and so does all else but pooled values."""
    now, before = (pd.read_csv(path / "scores.csv") for path in (out, plain))
    counted = now[of(now, "bad-images")]
    assert dict(zip(counted["method"], counted["value"], strict=True)) == {
        "iid": 2,
        "antithetic": 1,
    }
    assert not of(before, "bad-images").any()
    keys = ["method", "prompt_id", "metric", "signature"]
    both = now.merge(before, on=keys, how="outer", suffixes=("", "_before"), indicator=True)
    both = both[~of(both, "bad-images")]
    assert set(both["_merge"]) == {"both"}, "signatures and rows stay"
    bad = set(zip(counted["method"], counted["prompt_id"], strict=True))
    for row in both[~both["metric"].isin(["seconds_per_image", "peak_memory_mb"])].itertuples():
        name = MetricId.parse(row.metric).name
        if name in ("fd", "kid", "drift", "drift_floor"):
            assert np.isfinite(row.value)
            assert row.value != row.value_before
        elif (row.method, row.prompt_id) in bad and name not in COSTS:
            assert np.isnan(row.value), row
        else:
            assert row.value == row.value_before, row
    images = pd.read_parquet(out / "scores.parquet").dropna(subset=["image"])
    lost = images[(of(images, "image:clip")) & images["value"].isna()]
    assert sorted(zip(lost["method"], lost["image"], strict=True)) == [
        ("antithetic", 3),
        ("iid", 1),
        ("iid", 2),
    ]
    summary = pd.read_csv(out / "summary.csv")
    assert dict(zip(summary["method"], summary["bad-images"], strict=True)) == {
        "iid": 2,
        "antithetic": 1,
    }
    assert "bad-images" not in pd.read_csv(plain / "summary.csv")


def check_readers(cli: Cli, out: Path, plain: Path, folder: Path) -> None:
    """Each reader says the count; a gate fails by it alone, and allows as many as it says."""
    again = cli(*RUN, "--out", out)
    assert "Nothing to draw" in again.err
    assert counts_them(again.err)
    assert counts_them(cli(*RUN, "--limit", "6", "--out", folder / "run").err), "of all groups"
    for call in (
        ("score", out, "--metric", "vendi"),
        ("compare", out),
        ("compare", out, "--statistic", "best"),
        ("merge", folder / "merged", out),
    ):
        done = cli(*call)
        assert done.code == 0, done.err
        assert counts_them(done.err), call
    assert bad_of(folder / "merged") == bad_of(out)
    assert "bad image" not in cli("compare", plain).err
    assert cli("report", out).code == 0
    assert counts_them((out / "report.html").read_text())


@pytest.mark.parametrize(("allowed", "code"), [(None, 1), (1, 1), (2, 0)])
def test_a_gate_holds_bad_images_by_a_check_of_their_own(
    cli: Cli, tmp_path: Path, spoilt: None, allowed: int | None, code: int
) -> None:
    out, plain, gate = tmp_path / "run", tmp_path / "plain", tmp_path / "gate.yaml"
    assert cli(*RUN, "--out", out).code == cli(*RUN, "--out", plain).code == 0
    gate.write_text(yaml.safe_dump(GATE | ({"bad-images": allowed} if allowed else {})))
    done = cli("compare", out, "--against", plain, "--gate", gate)
    assert done.code == code, done.out + done.err
    assert "bad-images" in done.out
    clean = cli("compare", plain, "--against", out, "--gate", gate)
    assert clean.code == 0, clean.out + clean.err
    assert ("bad-images" in clean.out) == (allowed is not None)


@pytest.mark.parametrize("value", ["-1", "many", "0.5", "true"])
def test_a_gate_takes_whole_numbers_of_bad_images(cli: Cli, tmp_path: Path, value: str) -> None:
    (tmp_path / "gate.yaml").write_text(
        f"bad-images: {value}\nchecks: [{{metric: nfe, test: equal}}]\n"
    )
    done = cli("compare", tmp_path, "--against", tmp_path, "--gate", tmp_path / "gate.yaml")
    assert done.code == 2
    assert "bad-images" in done.err
    assert len(done.err.splitlines()) == 1


def test_a_group_none_of_whose_images_is_finite_fails(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = diffusers.AutoencoderKL.decode

    def tampered(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = decode(self, *args, **kwargs)
        result[0][:4] = float("nan")  # the first of two prompts
        return result

    monkeypatch.setattr(diffusers.AutoencoderKL, "decode", tampered)
    done = cli(*RUN, "--limit", "2", "--out", tmp_path / "run")
    assert done.code == 2
    failed = [line for line in done.err.splitlines() if line.startswith("Failed: ")]
    assert failed
    assert all("None of its images is finite" in line for line in failed)
    assert not bad_of(tmp_path / "run")
