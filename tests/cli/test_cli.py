"""The command line with real files: the happy path on a tiny pipeline, every kind of bad input."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from eddy_bench.methods.registry import method_names
from eddy_bench.shown import text_of_cell
from tests.conftest import Result
from tests.makers.families import family_folder
from tests.makers.pipelines import tiny_folder
from tests.makers.terminal import command_line, shown_in_terminal

Cli = Callable[..., Result]
QUICK = (
    "--steps",
    "2",
    "--batch-prompts",
    "2",
    "--limit",
    "2",
    "--particles",
    "2",
    "--metric",
    "vendi[fmnist-clip]",
    "--metric",
    "clip[fmnist-clip]",
)


def quick(out: Path, *more: str) -> tuple[str, ...]:
    return ("run", "--model", str(tiny_folder()), *QUICK, "--out", str(out), *more)


def test_run_draws_scores_and_does_nothing_the_second_time(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "r"
    first = cli(
        *quick(out, "--method", "iid", "--method", "pg", "--method", "eddy-exact:strength=5")
    )
    assert first.code == 0, first.err
    assert "vendi" in first.out
    scores = pd.read_csv(out / "scores.csv")
    metrics = {"vendi[fmnist-clip]", "clip[fmnist-clip]", "seconds_per_image", "nfe"}
    assert metrics | {"feature_forwards"} <= set(scores["metric"])
    assert set(scores["method"]) == {"iid", "pg", "eddy-exact:strength=5"}
    assert np.isfinite(scores["value"]).all()
    assert set(scores.columns) == {
        *(
            "model",
            "method",
            "scheduler",
            "steps",
            "guidance_scale",
            "particles",
            "prompt_id",
            "prompt",
            "seed",
            "metric",
        ),
        *("value", "higher_is_better", "signature"),
    }
    summary = pd.read_csv(out / "summary.csv")
    assert {
        "vendi[fmnist-clip]",
        "vendi[fmnist-clip].low",
        "vendi[fmnist-clip].high",
        "clip[fmnist-clip]",
        "seconds_per_image",
        "nfe",
    } <= set(summary)
    assert (summary["nfe"] == 4).all()
    stamps = {path: path.stat().st_mtime_ns for path in out.rglob("*.png")}
    scored = (out / "scores.csv").read_bytes()
    second = cli(
        *quick(out, "--method", "iid", "--method", "pg", "--method", "eddy-exact:strength=5")
    )
    assert second.code == 0
    assert "Nothing to draw" in second.err
    assert "Nothing to score" in second.err
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.png")} == stamps
    assert (out / "scores.csv").read_bytes() == scored
    assert {"run.yaml", "manifest.json", "grids"} <= {path.name for path in out.iterdir()}
    (drawn_in,) = json.loads((out / "manifest.json").read_text())["environments"]
    assert drawn_in["libraries"]["diffusers"]


def test_methods_start_from_the_same_noise(cli: Cli, tmp_path: Path) -> None:
    assert cli(*quick(tmp_path / "r", "--method", "iid", "--method", "pg:strength=0")).code == 0
    folders = sorted(path for path in (tmp_path / "r/samples").iterdir())
    images = [
        [np.asarray(Image.open(path)) for path in sorted(folder.rglob("*.png"))]
        for folder in folders
    ]
    assert len(images[0]) == 4
    assert all((a == b).all() for a, b in zip(*images, strict=True))
    assert (images[0][0] != images[0][1]).any()


def test_one_method_is_drawn_and_no_other(cli: Cli, tmp_path: Path) -> None:
    assert cli(*quick(tmp_path / "r", "--method", "eddy-hutch")).code == 0
    assert [path.name for path in (tmp_path / "r/samples").iterdir()] == ["eddy-hutch"]
    assert not (tmp_path / "r/reference").exists()


def test_a_partial_batch_is_padded_so_that_images_do_not_change(cli: Cli, tmp_path: Path) -> None:
    assert cli(*quick(tmp_path / "a", "--method", "iid", "--limit", "3")).code == 0
    assert cli(*quick(tmp_path / "b", "--method", "iid", "--limit", "1")).code == 0
    assert cli(*quick(tmp_path / "b", "--method", "iid", "--limit", "3")).code == 0
    for path in (tmp_path / "a/samples").rglob("*.png"):
        other = tmp_path / "b" / path.relative_to(tmp_path / "a")
        assert path.read_bytes() == other.read_bytes()


def test_one_particle_is_iid_for_every_seed(cli: Cli, tmp_path: Path) -> None:
    done = cli(
        *quick(
            tmp_path / "r", "--method", "iid", "--method", "pg", "--particles", "1", "--seeds", "2"
        )
    )
    assert done.code == 0, done.err
    iid, guided = sorted((tmp_path / "r/samples").iterdir())
    assert len(list(iid.rglob("0.png"))) == 4
    for path in iid.rglob("*.png"):
        assert path.read_bytes() == (guided / path.relative_to(iid)).read_bytes(), "N = 1 is iid"


def test_a_broken_group_is_moved_aside_and_redrawn(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "r"
    assert cli(*quick(out, "--method", "iid")).code == 0
    broken = sorted(out.glob("samples/iid/*/0/0.png"))[0]
    before = broken.read_bytes()
    broken.write_bytes(before[: len(before) // 2])
    again = cli(*quick(out, "--method", "iid"))
    assert again.code == 0
    assert "drawn again" in again.err
    assert broken.read_bytes() == before
    assert len(list((out / "broken").iterdir())) == 1
    assert again.err.count("Drew 1 group") == 1


def test_strange_prompts_are_drawn(cli: Cli, tmp_path: Path) -> None:
    texts = ['say "hi" / or\n\nnot', "🦊 ../../etc/passwd", "<script>alert(1)</script>", "=1+1"]
    (tmp_path / "p.yaml").write_text(json.dumps(texts))
    done = cli(
        *quick(
            tmp_path / "r", "--method", "iid", "--prompts", str(tmp_path / "p.yaml"), "--limit", "9"
        )
    )
    assert done.code == 0, done.err
    cells = set(pd.read_csv(tmp_path / "r/scores.csv")["prompt"].dropna())
    assert cells == {*texts[:-1], "'=1+1"}, "what a spreadsheet would run is text"
    assert set(map(text_of_cell, cells)) == set(texts)
    assert set(pd.read_parquet(tmp_path / "r/scores.parquet")["prompt"]) >= set(texts)


def test_score_adds_a_metric_and_leaves_broken_groups_out(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "r"
    assert cli(*quick(out, "--method", "iid")).code == 0
    assert cli("score", out, "--metric", "vendi[efficientnet-lite0]:q=2").code == 0
    name = "vendi[efficientnet-lite0]:q=2"
    signatures = pd.read_csv(out / "scores.csv").set_index("metric").loc[name, "signature"]
    assert signatures.str.startswith("vendi|q=2|k=cos|features=efficientnet-lite0@").all()
    assert name in pd.read_csv(out / "summary.csv")
    (broken,) = sorted(out.glob("samples/iid/*/0/1.png"))[:1]
    broken.write_bytes(b"")
    again = cli("score", out, "--metric", "vendi[fmnist-clip]:q=2", "--metric", "mss[fmnist-clip]")
    assert "left out 1 broken group" in again.err
    assert "mss" in again.out
    assert "vendi:q=2" in again.out


def test_dry_run_draws_nothing(cli: Cli, tmp_path: Path) -> None:
    done = cli(*quick(tmp_path / "r", "--dry-run"))
    assert done.code == 0
    assert "groups" in done.out
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    "kind", ["methods", "models", "metrics", "prompts", "schedulers", "suites"]
)
def test_list_names_what_there_is_of_each_kind(cli: Cli, kind: str) -> None:
    done = cli("list", kind)
    assert done.code == 0
    known = {
        "methods": "eddy-hutch",
        "models": "fashion",
        "metrics": "vendi",
        "prompts": "fashion-tune",
        "schedulers": "dpmpp-2m",
        "suites": "fashion",
    }
    assert known[kind] in done.out
    assert "list" in cli("list", "things").err


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_list_fits_every_terminal(width: int) -> None:
    shown = shown_in_terminal(width, command_line("list", "methods"))
    assert max(map(len, shown.splitlines())) <= width
    assert all(name in shown for name in method_names())


def test_version_and_help_are_printed(cli: Cli) -> None:
    assert cli("--version").out.startswith("eddy-bench 0.")
    assert "score" in cli("--help").out


BAD: dict[str, tuple[tuple[str, ...], str]] = {
    "method": (("--method", "edy-hutch"), "Did you mean 'eddy-hutch'"),
    "parameter": (("--method", "pg:strenght=1"), "Did you mean 'strength'"),
    "parameter type": (("--method", "pg:strength=big"), "strength"),
    "parameter range": (("--method", "eddy-hutch:probes=0"), "probes"),
    "not a number": (("--method", "pg:strength=nan"), "strength"),
    "window": (("--method", "pg:window=3"), "window"),
    "parameter form": (("--method", "pg:strength"), "key=value"),
    "twice": (("--method", "pg", "--method", "pg"), "twice"),
    "features without a guide": (("--method", "pg:kernel=features"), "kernel=latent"),
    "model": (("--model", "fashon"), "Did you mean 'fashion'"),
    "metric": (("--metric", "vendy"), "Did you mean 'vendi'"),
    "extractor": (("--metric", "vendi[clip]"), "Unknown extractor 'clip'"),
    "metric parameter": (("--metric", "clip:q=2"), "no parameter"),
    "scheduler": (("--scheduler", "ddmi"), "'ddim'"),
    "scheduler parameter": (("--scheduler", "ddim:etta=1"), "Did you mean 'eta'"),
    "scheduler range": (("--scheduler", "ddim:eta=7"), "between 0 and 1"),
    "flow scheduler": (("--scheduler", "flow-euler"), "cannot take"),
    "prompt set": (("--prompts", "fashoin"), "Did you mean 'fashion'"),
    "prompt file": (("--prompts", "none.yaml"), "found nothing"),
    "zero particles": (("--particles", "0"), "particles"),
    "zero steps": (("--steps", "0"), "steps"),
    "text for a number": (("--steps", "many"), "--steps"),
    "unknown flag": (("--stesp", "3"), "--stesp"),
    "dtype": (("--dtype", "float8"), "float32"),
    "device": (("--device", "quantum"), "quantum"),
    "hub id": (("--model", "nobody/nothing"), "cannot be loaded"),
    "align elsewhere": (("--metric", "align"), "fashion"),
    "fd without reference": (("--metric", "fd[fmnist-clip]"), "--reference"),
    "reference": (("--metric", "fd[fmnist-clip]", "--reference", "nowhere"), "--reference"),
    "lpips": (("--metric", "lpips"), "alexnet-owt-7be5be79.pth"),
    "fid": (("--metric", "fid", "--reference", "nowhere"), "--reference"),
    "size": (("--size", "12", "--method", "iid"), "cannot draw"),
    "scheduler value": (("--scheduler", "ddim:timestep_spacing=foo"), "foo"),
    "a prompt for a file": (("--prompts", "a dress " * 60), "Error"),
    "a long model": (("--model", "m" * 300), "Error"),
    "a long folder": (("--out", "o" * 300), "Error"),
    "drift of one group": (
        ("--metric", "drift[fmnist-clip]", "--limit", "1", "--method", "iid"),
        "at least 2 groups",
    ),
    "weights": (("--metric", "lpips", "--weights", "nowhere"), "--weights"),
    "coupled under a deterministic solver": (("--method", "coupled"), "ddim:eta=1"),
    "coupled out of range": (
        ("--method", "coupled:strength=2", "--scheduler", "ddim:eta=1"),
        "strength",
    ),
    "plug-in": (("--method", "./nothing.py:Mine"), "nothing.py"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_exit_code_2(cli: Cli, tmp_path: Path, case: str) -> None:
    flags, expected = BAD[case]
    done = cli(
        *quick(tmp_path / "r", *(("--method", "iid") if "--method" not in flags else ()), *flags)
    )
    assert done.code == 2, done.err
    message = [line for line in done.err.splitlines() if line.startswith("Error: ")]
    assert len(message) == 1
    assert expected in message[0]
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("empty.yaml", "", "no prompt"),
        ("empty.txt", "\n\n", "no prompt"),
        ("broken.yaml", "- a\n- [b\n", "line"),
        ("number.yaml", "- a\n- 3\n", "line 2"),
        ("key.yaml", "- {promt: b}\n", "expected a column"),
        ("row.csv", "prompt\na, b\n", "line 2"),
        ("quote.tsv", 'prompt\n"a\n', "line 2"),
        ("long.txt", "x" * 20001, "20001 characters"),
        ("blank.yaml", "- ' '\n- ''\n", "no prompt"),
    ],
)
def test_a_bad_prompt_file_is_refused_with_its_line(
    cli: Cli, tmp_path: Path, name: str, text: str, expected: str
) -> None:
    (tmp_path / name).write_text(text)
    done = cli(*quick(tmp_path / "r", "--prompts", str(tmp_path / name)))
    assert done.code == 2
    assert expected in done.err
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("methdos: [iid]", "Did you mean 'methods'"),
        ("- iid", "mapping"),
        ("methods: [{pg: {strength: much}}]", "strength"),
        ("methods: []", "methods"),
        ("methods: [./x.py:Mine]", "--allow-code"),
        ("methods: [{name: ./x.py:Mine}]", "--allow-code"),
        ("methods: [{name: ./x.py:Mine, parameters: {}}]", "--allow-code"),
        ("methods: 5", "methods"),
        ("methods: [3]", "methods"),
        ("steps: {", "line"),
        ("particles: many", "particles"),
    ],
)
def test_a_bad_suite_is_refused_with_its_mistake(
    cli: Cli, tmp_path: Path, text: str, expected: str
) -> None:
    (tmp_path / "s.yaml").write_text(text)
    done = cli("run", tmp_path / "s.yaml", "--model", tiny_folder(), "--out", tmp_path / "r")
    assert done.code == 2
    assert expected in done.err


def test_a_folder_that_cannot_be_used_is_refused_and_left_alone(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    assert "found a file" in cli(*quick(tmp_path / "file")).err
    assert cli(*quick(tmp_path / "file" / "r")).code == 2
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "scores.csv").write_text("mine")
    assert "left alone" in cli(*quick(tmp_path / "full")).err
    assert (tmp_path / "full" / "scores.csv").read_text() == "mine"
    assert cli(*quick(tmp_path / "r", "--method", "iid")).code == 0
    other = cli(*quick(tmp_path / "r", "--method", "iid", "--steps", "3"))
    assert other.code == 2
    assert "steps 2 there, 3 now" in other.err
    assert "--out" in other.err
    assert cli("score", tmp_path / "nothing").code == 2
    (tmp_path / "model").mkdir()
    assert (
        "model_index.json" in cli("run", "--model", tmp_path / "model", "--out", tmp_path / "x").err
    )


PLUGIN = '''
from dataclasses import dataclass
from typing import ClassVar
from eddy_bench import Method, State
from eddy_bench.kernels import repulsive_force

@dataclass(frozen=True)
class Push(Method):
    """Push particles apart with a fixed bandwidth."""

    strength: float = 1.0
    min_particles: ClassVar[int] = 2

    def guidance(self, state: State):
        gamma = state.particles.shape[-1] * state.sigma**2
        return self.strength * repulsive_force(state.particles, gamma)
'''


def test_a_plugin_runs_where_it_is_allowed_and_its_mistakes_are_named(
    cli: Cli, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN)
    done = cli(
        *quick(tmp_path / "r", "--method", "iid", "--method", f"{tmp_path}/mine.py:Push:strength=3")
    )
    assert done.code == 0, done.err
    methods = set(pd.read_csv(tmp_path / "r/scores.csv")["method"])
    assert [name.partition("Push")[2] for name in sorted(methods)] == [":strength=3", ""]
    assert (
        "at least 2 particles"
        in cli(
            *quick(tmp_path / "s", "--method", f"{tmp_path}/mine.py:Push", "--particles", "1")
        ).err
    )
    assert (
        "Did you mean 'Push'"
        in cli(*quick(tmp_path / "s", "--method", f"{tmp_path}/mine.py:Pusch")).err
    )
    (tmp_path / "bad.py").write_text("import nothing_of_that_name\nclass Mine: pass")
    assert (
        "nothing_of_that_name"
        in cli(*quick(tmp_path / "s", "--method", f"{tmp_path}/bad.py:Mine")).err
    )
    (tmp_path / "suite.yaml").write_text(
        f"methods: ['{tmp_path}/mine.py:Push']\nmodel: {tiny_folder()}\n"
    )
    assert "--allow-code" in cli("run", tmp_path / "suite.yaml", "--out", tmp_path / "s").err
    allowed = cli("run", tmp_path / "suite.yaml", "--allow-code", *QUICK, "--out", tmp_path / "s")
    assert allowed.code == 0, allowed.err


def test_a_method_that_fails_is_recorded_and_the_rest_goes_on(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        PLUGIN.replace("return self.strength *", "return float('nan') *")
    )
    done = cli(*quick(tmp_path / "r", "--method", f"{tmp_path}/mine.py:Push", "--method", "iid"))
    assert done.code == 2
    assert "not finite" in done.err
    assert len(list((tmp_path / "r/failed").rglob("*.json"))) == 2
    assert set(pd.read_csv(tmp_path / "r/scores.csv")["method"]) == {"iid"}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupting_keeps_what_is_finished(tmp_path: Path, number: int, code: int) -> None:
    out = tmp_path / "r"
    command = [
        sys.executable,
        "-m",
        "eddy_bench.cli",
        *quick(out, "--method", "iid", "--limit", "48", "--steps", "60"),
    ]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}
    )
    deadline = time.time() + 120
    while (
        time.time() < deadline
        and process.poll() is None
        and len(list(out.glob("samples/*/*/*/group.json"))) < 2
    ):
        time.sleep(0.05)
    process.send_signal(number)
    error = process.communicate(timeout=120)[1]
    assert process.returncode == code, error
    assert "Traceback" not in error
    assert "goes on from there" in error
    assert len(list(out.glob("samples/*/*/*/group.json"))) >= 2


def test_the_readme_s_plugin_runs_and_is_short(cli: Cli, tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "README.md").read_text()
    code = next(
        block.split("```")[0]
        for block in text.split("```python\n")[1:]
        if block.startswith("# mine.py")
    )
    assert len(code.splitlines()) < 25
    (tmp_path / "mine.py").write_text(code)
    done = cli(
        *quick(
            tmp_path / "r", "--method", "iid", "--method", f"{tmp_path}/mine.py:Push:strength=100"
        )
    )
    assert done.code == 0, done.err
    images = [path.read_bytes() for path in sorted((tmp_path / "r/samples").rglob("*.png"))]
    assert len(set(images)) == len(images) == 8


def test_a_long_prompt_is_said(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("dark " * 40)
    done = cli(*quick(tmp_path / "r", "--method", "iid", "--prompts", str(tmp_path / "p.txt")))
    assert done.code == 0
    assert "longer than fmnist-clip reads" in done.err


def test_an_edited_plugin_is_another_method(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN)
    command = quick(tmp_path / "r", "--method", f"{tmp_path}/mine.py:Push")
    assert cli(*command).code == 0
    assert "Nothing to draw" in cli(*command).err
    (tmp_path / "mine.py").write_text(PLUGIN.replace("self.strength *", "2 * self.strength *"))
    assert "Drew 2 groups" in cli(*command).err
    assert len(list((tmp_path / "r/samples").iterdir())) == 2
    (tmp_path / "mine.py").write_text(
        PLUGIN.replace("class Push", "class Iid")
        .replace("strength: float", "strength: Nothing")
        .replace("from dataclasses", "from __future__ import annotations\nfrom dataclasses", 1)
    )
    assert (
        "cannot be made" in cli(*quick(tmp_path / "s", "--method", f"{tmp_path}/mine.py:Iid")).err
    )


def test_a_plugin_that_raises_anything_is_recorded(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        PLUGIN.replace(
            "return self.strength", "assert False, 'my own mistake'\n        return self.strength"
        )
    )
    done = cli(*quick(tmp_path / "r", "--method", "iid", "--method", f"{tmp_path}/mine.py:Push"))
    assert done.code == 2
    assert "my own mistake" in done.err
    assert set(pd.read_csv(tmp_path / "r/scores.csv")["method"]) == {"iid"}


def test_a_refused_run_changes_nothing(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "r"
    (tmp_path / "p.yaml").write_text("- {id: a, prompt: dress}\n")
    (tmp_path / "q.yaml").write_text("- {id: a, prompt: coat}\n")
    assert (
        cli(
            *quick(
                out,
                "--method",
                "iid",
                "--prompts",
                tmp_path / "p.yaml",
                "--metric",
                "clip[fmnist-clip]",
            )
        ).code
        == 0
    )
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    done = cli(*quick(out, "--method", "iid", "--prompts", tmp_path / "q.yaml"))
    assert done.code == 2
    assert "the prompt 'dress'" in done.err
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_methods_on_different_prompts_are_said(cli: Cli, tmp_path: Path) -> None:
    assert cli(*quick(tmp_path / "r", "--method", "iid", "--limit", "3")).code == 0
    done = cli(*quick(tmp_path / "r", "--method", "pg", "--limit", "2"))
    assert done.code == 0
    assert "different prompts" in done.err
    assert "*" not in done.out.split("Mean over")[0]
    scored = cli("score", tmp_path / "r", "--metric", "vendi[fmnist-clip]")
    assert scored.code == 0, scored.err


def test_brackets_in_paths_are_shown(cli: Cli, tmp_path: Path) -> None:
    done = cli(*quick(tmp_path / "b[/x]", "--method", "iid"))
    assert done.code == 0, done.err
    assert "b[/x]" in done.out


def test_scores_are_computed_again_when_the_reference_has_changed(cli: Cli, tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    for k in range(5):
        Image.fromarray(np.full((8, 8, 3), 40 * k, np.uint8)).save(real / f"{k}.png")
    command = quick(
        tmp_path / "r", "--method", "iid", "--metric", "fd[fmnist-clip]", "--reference", real
    )
    assert cli(*command).code == 0
    assert "Nothing to score" in cli(*command).err
    Image.fromarray(np.full((8, 8, 3), 255, np.uint8)).save(real / "5.png")
    assert "Nothing to score" not in cli(*command).err


@pytest.mark.parametrize("text", ["a: 1", "settings: []", "[]", "suite: {}\nsettings: 3"])
def test_a_damaged_run_file_is_refused(cli: Cli, tmp_path: Path, text: str) -> None:
    (tmp_path / "run.yaml").write_text(text)
    assert cli("score", tmp_path).code == 2
    assert cli(*quick(tmp_path, "--method", "iid")).code == 2


def test_settings_that_fail_while_drawing_are_listed(cli: Cli, tmp_path: Path) -> None:
    done = cli(*quick(tmp_path / "r", "--method", "iid", "--steps", "2000"))
    assert done.code == 2
    assert done.err.count("Failed:") == 2
    assert "Traceback" not in done.err


def test_every_coupling_draws_other_images(cli: Cli, tmp_path: Path) -> None:
    methods = [
        flag
        for name in ("iid", "antithetic", "lhs", "sobol", "coupled", "pg:init=lhs")
        for flag in ("--method", name)
    ]
    done = cli(*quick(tmp_path / "r", "--scheduler", "ddim:eta=1", *methods))
    assert done.code == 0, done.err
    images = {
        path.name: (path / "t-shirt/0/1.png").read_bytes()
        for path in (tmp_path / "r/samples").iterdir()
    }
    assert len(images) == 6
    assert len(set(images.values())) == 6


@pytest.mark.parametrize(
    "kind", ["methods", "models", "tasks", "metrics", "prompts", "schedulers", "suites"]
)
def test_lists_as_json_hold_what_the_tables_hold(cli: Callable[..., Result], kind: str) -> None:
    records = json.loads(cli("list", kind, "--json").out)
    table = cli("list", kind).out
    assert records
    assert all(record["name"] in table for record in records)
    assert kind != "methods" or {record["acts_on"] for record in records} > {"start", "score"}


def test_quiet_leaves_progress_and_notes_out(cli: Cli, tmp_path: Path) -> None:
    command = quick(tmp_path / "r", "--method", "iid")
    done = cli("-q", *command)
    assert (done.code, done.err) == (0, "")
    assert "scores" in done.out
    assert "Nothing to draw" in cli(*command).err, "the next command says again what it does"


def test_the_bare_command_shows_its_help(cli: Cli) -> None:
    bare, asked = cli(), cli("--help")
    assert (bare.code, bare.out, bare.err) == (0, asked.out, "")
    assert len(bare.out.splitlines()) > 10


def test_a_method_that_cannot_act_is_left_out_by_name_and_the_others_stay(
    cli: Cli, tmp_path: Path
) -> None:
    some = ["run", "--dry-run", "--limit", 1, "--out", tmp_path / "run", "--method", "iid"]
    done = cli(*some, "--method", "coupled", "--method", "antithetic")
    assert done.code == 0, done.err
    assert "Warning: coupled is left out. coupled: Step noise" in " ".join(done.err.split())
    assert "2 methods" in done.out
    alone = cli(*some, "--method", "coupled")
    assert alone.code == 2
    assert alone.err.splitlines()[-1].startswith("Error: coupled: Step noise can be coupled")


def test_a_suite_file_that_is_not_there_is_no_unknown_name(cli: Cli, tmp_path: Path) -> None:
    for name in ("mine.yaml", str(tmp_path / "mine")):
        done = cli("run", name)
        assert (done.code, done.out) == (2, "")
        assert f"Expected a YAML file at {name}, and there is none." in done.err
    assert "Unknown suite 'fashon'. Did you mean 'fashion'?" in cli("run", "fashon").err
    assert "Did you mean" not in cli("run", "--method", "padisle").err


def test_a_run_has_a_folder_of_its_own_and_a_limit_is_part_of_it(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.txt").write_text("a dress\n")

    def folder(*flags: str) -> str:
        done = cli("run", "--dry-run", *flags)
        assert done.code == 0, done.err
        return done.out.split(" into ")[1].split(":")[0]

    assert folder() == folder("--limit", "4") == folder("--seeds", "2") == "results/fashion"
    assert folder("--model", "fashion-4step") == "results/fashion-4step"
    assert folder("grid", "--steps", "8") == "results/grid-steps-8"
    assert folder("--prompts", "mine.txt", "--scheduler", "euler") == (
        "results/fashion-prompts-mine.txt-scheduler-euler"
    )
    long = folder("--negative-prompt", "blurred, dark, " * 9)
    assert long != folder("--negative-prompt", "blurred, dark, " * 8)
    assert len(long) < 70


def test_other_settings_name_the_flags_that_go_on(cli: Cli, tmp_path: Path) -> None:
    some = ["run", "--limit", 1, "--method", "iid", "--metric", "pdist", "--out", tmp_path / "r"]
    assert cli(*some, "--steps", 2, "--guidance-scale", 3).code == 0
    done = cli(*some, "--steps", 3, "--guidance-scale", 3)
    assert done.code == 2
    assert "To go on there: --steps 2." in " ".join(done.err.split())
    assert cli(*some, "--steps", 2, "--guidance-scale", 3).code == 0


def test_missing_weights_are_told_before_drawing_and_a_run_without_diversity_fails(
    cli: Cli, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    some = ["run", "--model", family_folder("sd15"), "--size", 16, "--steps", 1, "--limit", 1]
    done = cli(*some, "--particles", 2, "--method", "iid", "--out", out)
    assert done.code == 2
    told, drawn = " ".join(done.err.split()).split("Drew 1 group")
    assert "Warning: vendi[open_clip:ViT-B-32-quickgelu/openai]" in told
    assert "will not be scored: " in told
    assert f"without: eddy-bench score {out} --metric pdist[pixels]." in drawn
    assert cli("score", out, "--metric", "pdist[pixels]").code == 0
    assert cli(*some, "--particles", 2, "--method", "iid", "--out", out).code == 0, "pdist is there"
