"""Audits drawn for real: what iid, couplings and EDDY must give, files, resumption."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from eddy_bench.audit.divergence import check_guides, default_methods, measure_divergence
from eddy_bench.audit.draw import draw_groups, draw_truth
from eddy_bench.audit.measure import Baseline, Groups, group_distance, group_vendi, modes_covered
from eddy_bench.audit.plan import AuditPlan, make_plan, parse_step_counts
from eddy_bench.audit.run import find_missing, prepare_folder, run_audit
from eddy_bench.audit.tables import COLUMNS
from eddy_bench.errors import EddyError, ParameterError
from eddy_bench.experiment.events import Advance, Kind, Listener
from eddy_bench.methods.iid import Iid
from eddy_bench.methods.registry import build_method
from eddy_bench.models.tasks import load_task
from eddy_bench.storage.lock import locked
from eddy_bench.suites.method_spec import MethodSpec
from tests.conftest import Result

SMALL = {"groups": 40, "steps": "4,8"}

Cli = Callable[..., Result]


class Recorder(Listener):
    """Records progress: how much, and of what; `stop` is a method at which Ctrl-C comes."""

    def __init__(self, stop: str = "") -> None:
        self.done: list[tuple[float, str]] = []
        self.told: list[str] = []
        self.stop = stop
        self.total = 0.0

    def began(self, title: str, total: float) -> AbstractContextManager[Advance]:
        self.total = total
        return nullcontext(self._advance)

    def tell(self, text: str, kind: Kind = "") -> None:
        self.told.append(text)

    def _advance(self, count: float, label: str) -> None:
        if self.stop and label.endswith(self.stop):
            raise KeyboardInterrupt
        self.done.append((count, label))


def missing_work(wanted: AuditPlan, folder: Path) -> int:
    return sum(cell.work for cell in find_missing(wanted, folder)[1])


def plan(*methods: str, task: str = "ring8", **options: object) -> AuditPlan:
    return make_plan([task], methods, **{**SMALL, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "particles"), [("ring8", 8), ("ring10", 10)])
def test_iid_covers_the_modes_that_theory_gives(name: str, particles: int) -> None:
    """K (1 - (1 - 1/K)^N) for equal weights, within 3 standard errors."""
    block = plan("pg", task=name, particles=particles).blocks[0]
    modes = modes_covered(block.task, draw_groups(block, Iid(), 100, 4000, 0, "main")).numpy()
    count = len(block.task.mixture.means)
    expected = count * (1 - (1 - 1 / count) ** particles)
    assert abs(modes.mean() - expected) < 3 * modes.std(ddof=1) / len(modes) ** 0.5


def test_iid_s_distance_to_the_truth_falls_to_the_floor() -> None:
    block = plan("pg", particles=4).blocks[0]
    task = block.task
    truth = [Groups.of(task, draw_truth(block, 3000, 0, stream)) for stream in ("main", "disjoint")]
    by_steps = {}
    for steps in (10, 40, 400):
        main, disjoint = (
            Groups.of(task, draw_groups(block, Iid(), steps, 3000, 0, stream))
            for stream in ("main", "disjoint")
        )
        by_steps[steps] = {row.metric: row for row in Baseline(task, main, disjoint, *truth).rows()}
    coarse, fine = by_steps[10]["energy_to_truth"], by_steps[400]["energy_to_truth"]
    assert coarse.low > 0
    assert fine.low < 0 < fine.high
    gaps = [abs(rows["spread"].value - rows["spread"].floor) for rows in by_steps.values()]
    assert min(gaps[:2]) > 3 * gaps[2]
    distances = [rows["sw2_to_truth"].value for rows in by_steps.values()]
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < 2 * by_steps[400]["sw2_to_truth"].floor


def test_methods_share_the_noise_of_iid() -> None:
    for scheduler in ("ddim", "ddim:eta=1"):
        block = plan("pg", schedulers=[scheduler]).blocks[0]
        bare = draw_groups(block, Iid(), 6, 40, 0, "main")
        assert torch.equal(
            draw_groups(block, build_method(MethodSpec.parse("pg:strength=0")), 6, 40, 0, "main"),
            bare,
        )
        assert not torch.equal(draw_groups(block, Iid(), 6, 40, 0, "disjoint"), bare)
        assert not torch.equal(draw_groups(block, Iid(), 6, 40, 1, "main"), bare)


def test_group_measures_by_hand() -> None:
    task = load_task("ring8")
    same = task.mixture.means[:1].expand(8, 2)[None]
    assert modes_covered(task, torch.cat([same, task.mixture.means[None]])).tolist() == [1, 8]
    assert group_vendi(task, same).tolist() == pytest.approx([1.0])
    two = torch.stack([torch.zeros(2), torch.tensor([100.0, 0.0])]).double()[None]
    assert group_vendi(task, two).tolist() == pytest.approx([2.0])
    assert group_distance(task, two).tolist() == pytest.approx([100 / (2 * task.mixture.scale())])
    assert torch.isnan(group_distance(task, two[:, :1])).all()


def test_a_small_audit_through_the_command_line(cli: Callable[..., Result], tmp_path: Path) -> None:
    out = tmp_path / "audit"
    arguments = [
        "audit",
        "--task",
        "ring8",
        "--method",
        "antithetic",
        "--method",
        "coupled",
        "--groups",
        60,
        "--steps",
        "4,8",
        "--out",
        out,
    ]
    done = cli(*arguments)
    assert done.code == 0, done.err
    assert "coupled is left out under ddim" in " ".join(done.err.split())
    frame = pd.read_csv(out / "audit.csv", keep_default_na=False, na_values=[""])
    assert list(frame.columns) == COLUMNS
    assert set(frame["method"]) == {"iid", "antithetic", "coupled"}
    assert {
        "modes_covered",
        "modes_covered_gain",
        "shift_to_iid",
        "shift_to_truth",
        "sw2_to_truth",
        "slot_shift_to_iid_p",
        "gain_limit",
    } <= set(frame["metric"])
    keys = ["task", "method", "scheduler", "steps", "metric"]
    assert not frame.duplicated(keys).any()
    gains = frame[frame["metric"] == "modes_covered_gain"].set_index(
        ["method", "scheduler", "steps"]
    )
    levels = frame[frame["metric"] == "modes_covered"].set_index(["method", "scheduler", "steps"])
    coupled = ("coupled", "ddim:eta=1", 8)
    assert gains.loc[coupled, "value"] == pytest.approx(
        levels.loc[coupled, "value"] - levels.loc[("iid", *coupled[1:]), "value"], abs=1e-5
    )
    assert gains.loc[coupled, "low"] < gains.loc[coupled, "value"] < gains.loc[coupled, "high"]
    assert frame[frame["method"] == "coupled"]["verdict"].str.len().min() > 0
    with Image.open(out / "audit.png") as figure:
        assert figure.size[0] > 500
    assert "| antithetic |" in (out / "audit.md").read_text()
    before = (out / "audit.csv").read_text()
    again = cli(*arguments)
    assert again.code == 0
    assert (out / "audit.csv").read_text() == before


def test_what_was_measured_is_kept_and_a_broken_part_is_measured_again(tmp_path: Path) -> None:
    wanted = plan("antithetic", schedulers=["ddim"])
    prepare_folder(tmp_path, wanted)
    assert missing_work(wanted, tmp_path) == 12 * 3
    first = run_audit(wanted, tmp_path, Listener())
    assert missing_work(wanted, tmp_path) == 0
    parts = sorted((tmp_path / "parts").glob("*.json"))
    assert len(parts) == 4, "iid and the method, at two step counts"
    method = wanted.blocks[0].candidates[0]
    part = tmp_path / "parts" / f"{wanted.key(wanted.blocks[0], 4, method)}.json"
    part.write_text(part.read_text()[:100])
    recorder = Recorder()
    second = run_audit(wanted, tmp_path, recorder)
    assert recorder.total == sum(count for count, _ in recorder.done) == 4, "iid is not drawn again"
    assert [a.verdicts for a in first] == [a.verdicts for a in second]
    run_audit(plan("antithetic", schedulers=["ddim"], seed=1), tmp_path, Listener())
    assert missing_work(wanted, tmp_path) == 0, "parts of other settings stay"


def test_a_file_task_with_one_mode_and_one_particle(
    cli: Callable[..., Result], tmp_path: Path
) -> None:
    """Nothing to count and nothing to gain; every column is still there."""
    (tmp_path / "one.yaml").write_text("name: one\nmeans: [[1, 2, 3]]\ncovariances: 0.5\n")
    done = cli(
        "audit",
        "--task",
        tmp_path / "one.yaml",
        "--particles",
        1,
        "--groups",
        30,
        "--steps",
        "5",
        "--method",
        "eddy-hutch",
        "--out",
        tmp_path / "a",
    )
    assert done.code == 0, done.err
    frame = pd.read_csv(tmp_path / "a" / "audit.csv")
    assert frame[frame["metric"] == "vendi_gain"]["value"].tolist() == [0, 0]
    assert set(frame[frame["method"] != "iid"]["verdict"]) == {"no gain"}


def test_a_method_that_breaks_is_named_and_the_rest_goes_on(
    cli: Callable[..., Result], tmp_path: Path
) -> None:
    done = cli(
        "audit",
        "--task",
        "ring8",
        "--method",
        "eddy-exact:strength=1e300",
        "--method",
        "antithetic",
        "--scheduler",
        "ddim",
        "--groups",
        20,
        "--steps",
        "5",
        "--out",
        tmp_path / "a",
    )
    assert done.code == 2
    frame = pd.read_csv(tmp_path / "a" / "audit.csv")
    assert "antithetic" in set(frame["method"])
    assert "not measured: " in done.out


def test_iid_is_taken_among_the_methods_and_alone(cli: Cli, tmp_path: Path) -> None:
    """It is always there, so asking for it changes nothing."""
    common = ("audit", "--quick", "--groups", 30, "--steps", "4,8", "--scheduler", "ddim")
    for name, methods in (("both", ("iid", "antithetic")), ("one", ("antithetic",))):
        asked = [word for method in methods for word in ("--method", method)]
        done = cli(*common, *asked, "--out", tmp_path / name)
        assert (done.code, "iid" in done.err) == (0, False), done.err
    tables = [(tmp_path / name / "audit.csv").read_text() for name in ("both", "one")]
    assert tables[0] == tables[1]
    alone = cli(*common, "--method", "iid", "--out", tmp_path / "alone")
    assert alone.code == 0, alone.err
    frame = pd.read_csv(tmp_path / "alone/audit.csv")
    assert set(frame["method"]) == {"iid"}
    assert (tmp_path / "alone/audit.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", "ring9"], "Unknown task 'ring9'. Did you mean"),
        (["--method", "edy-exact"], "Unknown method 'edy-exact'"),
        (["--method", "pg", "--method", "pg"], "given twice"),
        (["--method", "eddy-hutch:kernel=features"], "no guide network"),
        (["--method", "coupled", "--scheduler", "ddim"], "stochastic solver only"),
        (["--scheduler", "dim"], "Unknown scheduler 'dim'"),
        (["--groups", "1"], "--groups from 2"),
        (["--particles", "0"], "--particles from 1"),
        (["--steps", "25,x"], "whole numbers"),
        (["--steps", "0"], "from 1 to 8000"),
        (["--steps", "25,25"], "different --steps"),
        (["--margin", "0"], "positive --margin"),
        (["--method", "eddy-exact", "--method", "eddy-exact:strength=20"], "are the same"),
        (["--divergence"], "--quick means nothing there"),
        (["--method", "best-of-m:m=12,fair=true"], "a multiple of the 8 particles"),
        (["--method", "best-of-m:m=4"], "at least the 8 particles"),
        (["--method", "best-of-m:m=16,preview=26"], "at most the 25 steps, got 26"),
    ],
)
def test_bad_input_is_one_line(
    cli: Callable[..., Result], tmp_path: Path, arguments: list[str], message: str
) -> None:
    done = cli("audit", "--quick", *arguments, "--out", tmp_path / "a")
    assert done.code == 2
    assert message in done.err
    assert done.err.strip().count("\n") == 0
    assert not (tmp_path / "a").exists()


def test_foreign_folders_are_left_alone(cli: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    done = cli("audit", "--quick", "--out", tmp_path)
    assert (done.code, list(tmp_path.iterdir())) == (2, [tmp_path / "notes.txt"])
    assert "is not an audit's folder" in done.err
    assert "found a file" in cli("audit", "--quick", "--out", tmp_path / "notes.txt").err


def test_the_ladder_is_sorted() -> None:
    assert parse_step_counts("100, 25,50") == (25, 50, 100)
    with pytest.raises(ParameterError):
        parse_step_counts("")


def test_the_default_is_every_method_where_it_is_defined() -> None:
    plan = make_plan()
    names = {
        (block.task.name, str(block.scheduler)): [candidate.label for candidate in block.candidates]
        for block in plan.blocks
    }
    assert len(names) == 10
    assert "coupled" in names["ring10", "ddim:eta=1"]
    assert "coupled" not in names["ring10", "ddim"]
    coupling = {"pg", "repulsion", "eddy-exact", "eddy-hutch", "antithetic", "lhs", "sobol"}
    assert coupling < set(names["ring8", "ddim:eta=1"])
    assert not {"iid", "best-of-m", "cads", "oscar"} & set(names["ring8", "ddim:eta=1"])
    guided = make_plan(tasks=["class-ring"]).blocks[0]
    assert "cads" in [candidate.label for candidate in guided.candidates]
    assert {block.particles for block in plan.blocks if block.task.name == "ring10"} == {10}


def test_the_divergence_of_every_form_of_eddy() -> None:
    task = load_task("anisotropic")
    verdicts = {}
    for method in default_methods():
        divergence = measure_divergence(task, method, "", 0.5)
        verdicts[method.title(), method.div_sign, method.v_source] = divergence.verdict
    assert verdicts.pop(("eddy-exact", "derived", "others")) == "divergence-free"
    assert (
        verdicts.pop(("eddy-fd", "derived", "others"))
        == "divergence-free as the difference step goes to 0"
    )
    assert (
        verdicts.pop(("eddy-hutch", "derived", "others"))
        == "divergence-free in the mean over probes"
    )
    assert set(verdicts.values()) == {"not divergence-free"}
    assert len(verdicts) == 9
    (pg,) = check_guides([build_method(MethodSpec.parse("pg"))])
    assert measure_divergence(task, pg, "", 0.5).verdict == "not divergence-free"


def test_the_divergence_check_through_the_command_line(
    cli: Callable[..., Result], tmp_path: Path
) -> None:
    done = cli(
        "audit",
        "--divergence",
        "--task",
        "ring8",
        "--method",
        "eddy-exact",
        "--method",
        "eddy-exact:v_source=self",
        "--out",
        tmp_path,
    )
    assert done.code == 0, done.err
    frame = pd.read_csv(tmp_path / "divergence.csv")
    assert set(frame["verdict"]) == {"divergence-free", "not divergence-free"}


@pytest.mark.slow
def test_ring8_shows_what_theory_says() -> None:
    """EDDY's gain at 25 steps is gone at 400; couplings gain at every step count with the marginal
    kept; forces move it.
    """
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        wanted = make_plan(
            ["ring8"],
            ["eddy-exact", "antithetic", "coupled", "pg:strength=0.01"],
            groups=4000,
            steps="25,100,400",
        )
        prepare_folder(Path(folder), wanted)
        ode, sde = run_audit(wanted, Path(folder), Listener())
        assert ode.verdicts["eddy-exact"].text == "gain vanishes with finer steps"
        assert ode.verdicts["eddy-exact"].gains[0].low > 0.05
        assert ode.verdicts["antithetic"].text == "real gain, marginal kept"
        assert ode.verdicts["pg:strength=0.01"].text.startswith("real gain, marginal shifted")
        assert sde.verdicts["coupled"].text == "real gain, marginal kept"
        assert min(gain.low for gain in sde.verdicts["coupled"].gains) > 0.3
        assert json.loads((Path(folder) / "audit.json").read_text())["blocks"][0][3] == 4000


@pytest.mark.slow
def test_no_false_alarms_when_a_method_is_iid() -> None:
    """Groups of the same law as iid's are called a gain, a loss or shifted in at most 5% of audits,
    within binomial error.
    """
    block = make_plan(["ring8"], ["pg"]).blocks[0]
    task, alarms = block.task, 0
    from eddy_bench.audit.verdict import judge_block

    for trial in range(200):
        sets = [Groups.of(task, draw_truth(block, 300, 5 * trial + k, "main")) for k in range(4)]
        measured = Baseline(task, *sets).measure(draw_truth(block, 300, 5 * trial + 4, "main"))
        verdict = judge_block((25,), [[measured]], 0.1)[0]
        alarms += verdict.marginal == "shifted" or verdict.text.startswith(("gain", "real", "loss"))
    assert alarms <= 2 * 200 * 0.05 + 3 * np.sqrt(200 * 0.1 * 0.9)
    assert alarms < 40


def test_too_many_groups_are_refused() -> None:
    with pytest.raises(EddyError):
        make_plan(groups=10**9)


def test_another_spelling_of_a_method_in_the_same_folder(
    cli: Callable[..., Result], tmp_path: Path
) -> None:
    arguments = [
        "--task",
        "ring8",
        "--scheduler",
        "ddim",
        "--groups",
        20,
        "--steps",
        "4",
        "--out",
        tmp_path / "a",
    ]
    for text in ("eddy-exact", "eddy-exact:strength=20"):
        done = cli("audit", "--method", text, *arguments)
        assert done.code == 0, done.err


def test_damaged_parts_are_measured_again(tmp_path: Path) -> None:
    wanted = plan("antithetic", schedulers=["ddim"], steps="4")
    prepare_folder(tmp_path, wanted)
    run_audit(wanted, tmp_path, Listener())
    block, folder = wanted.blocks[0], tmp_path / "parts"
    part = folder / f"{wanted.key(block, 4, block.candidates[0])}.json"
    kept = part.read_text()
    for text in ('{"gain": [], "rows": 1}', "[]", "{}", ""):
        part.write_text(text)
        assert missing_work(wanted, tmp_path) > 0
        run_audit(wanted, tmp_path, recorder := Recorder())
        assert recorder.told == [f"1 file of {tmp_path} could not be read: measured again."]
        assert (missing_work(wanted, tmp_path), part.read_text()) == (0, kept)
    iid = folder / f"{wanted.key(block, 4)}.json"
    rows = iid.read_text()
    for damaged in (b"", b"no array", (folder / iid.name).with_suffix(".npy").read_bytes()[:300]):
        iid.write_text("[")
        part.unlink()
        iid.with_suffix(".npy").write_bytes(damaged)
        run_audit(wanted, tmp_path, recorder := Recorder())
        assert recorder.told == [f"1 file of {tmp_path} could not be read: measured again."]
        assert (iid.read_text(), part.read_text()) == (rows, kept)
    run_audit(wanted, tmp_path, recorder := Recorder())
    assert recorder.told == []


def test_a_kill_loses_one_method_and_other_methods_meet_the_same_iid(tmp_path: Path) -> None:
    first = plan("antithetic", "lhs", schedulers=["ddim"], steps="4")
    prepare_folder(tmp_path, first)
    with pytest.raises(KeyboardInterrupt):
        run_audit(first, tmp_path, Recorder(stop="lhs"))
    assert missing_work(first, tmp_path) == 4, "lhs alone"
    other, recorder = plan("antithetic", "sobol", schedulers=["ddim"], steps="4"), Recorder()
    run_audit(other, tmp_path, recorder)
    assert {label.rsplit(": ")[-1] for _, label in recorder.done} == {"sobol"}
    assert missing_work(plan("sobol", schedulers=["ddim"], steps="4"), tmp_path) == 0


def test_two_audits_in_one_folder_are_refused(cli: Cli, tmp_path: Path) -> None:
    prepare_folder(tmp_path / "a")
    before = (tmp_path / "a/audit.json").read_text()
    with locked(tmp_path / "a"):
        done = cli("audit", "--quick", "--groups", 20, "--steps", "4", "--out", tmp_path / "a")
    assert (done.code, "is in use by" in done.err) == (2, True)
    assert (tmp_path / "a/audit.json").read_text() == before


def test_a_plug_in_that_raises_is_named_in_the_csv(
    cli: Callable[..., Result], tmp_path: Path
) -> None:
    (tmp_path / "plug.py").write_text(
        "from eddy_bench import Method\n"
        "class Boom(Method):\n"
        "    def guidance(self, state):\n"
        "        return 1 / 0\n"
    )
    done = cli(
        "audit",
        "--task",
        "ring8",
        "--method",
        f"{tmp_path / 'plug.py'}:Boom",
        "--method",
        "antithetic",
        "--scheduler",
        "ddim",
        "--groups",
        20,
        "--steps",
        "4",
        "--out",
        tmp_path / "a",
    )
    assert done.code == 2
    frame = pd.read_csv(tmp_path / "a" / "audit.csv")
    (line,) = frame[frame["metric"] == "problem"]["verdict"]
    assert "ZeroDivisionError" in line
    assert (frame["method"] == "antithetic").any()


@pytest.mark.parametrize(
    "text",
    [
        "name: 2001-13-45",
        "name: a\nmeans: !!int abc",
        "name: a\nmeans: [[1e200, 0]]\ncovariances: 1",
        "name: a\nmeans: [[0, 0]]\ncovariances: 1.0e+308",
        "name: a\nmeans: [[1000, 0], [-1000, 0]]\ncovariances: 1",
        "name: a\nmeans: [[0.01], [-0.01]]\ncovariances: 1e-6",
        "name: a\nmeans: [[0, 1], [1, 0]]\ncovariances: 1\nweights: [1e308, 1e308]",
    ],
)
def test_tasks_that_no_schedule_fits(cli: Callable[..., Result], tmp_path: Path, text: str) -> None:
    (tmp_path / "task.yaml").write_text(text)
    done = cli("audit", "--quick", "--task", tmp_path / "task.yaml", "--out", tmp_path / "a")
    assert (done.code, done.err.count("\n")) == (2, 1)


def test_numbers_that_overflow_are_not_measured(cli: Callable[..., Result], tmp_path: Path) -> None:
    done = cli(
        "audit",
        "--task",
        "ring8",
        "--steps",
        "1",
        "--groups",
        20,
        "--scheduler",
        "ddim",
        "--method",
        "eddy-exact:strength=1e160",
        "--out",
        tmp_path / "a",
    )
    assert (done.code, "not measured" in done.out) == (2, True)


def test_the_divergence_check_shares_the_audit_s_folder(
    cli: Callable[..., Result], tmp_path: Path
) -> None:
    assert (
        cli(
            "audit",
            "--divergence",
            "--task",
            "ring8",
            "--method",
            "eddy-exact",
            "--out",
            tmp_path / "a",
        ).code
        == 0
    )
    assert (
        cli(
            "audit",
            "--task",
            "ring8",
            "--method",
            "antithetic",
            "--groups",
            20,
            "--steps",
            "4",
            "--scheduler",
            "ddim",
            "--out",
            tmp_path / "a",
        ).code
        == 0
    )
    (tmp_path / "notes.txt").write_text("mine")
    assert (
        "is not an audit's folder"
        in cli("audit", "--divergence", "--task", "ring8", "--out", tmp_path).err
    )


def test_a_field_that_vanishes_has_no_divergence(tmp_path: Path) -> None:
    """In one dimension an antisymmetric matrix is 0, and so is EDDY's drift."""
    (tmp_path / "line.yaml").write_text("name: line\nmeans: [[-1], [1]]\ncovariances: 0.1")
    task = load_task(str(tmp_path / "line.yaml"))
    for method in default_methods()[::4]:
        assert measure_divergence(task, method, "", 0.5).verdict.startswith("divergence-free")


@pytest.mark.slow
def test_ctrl_c_says_what_is_kept_and_the_audit_goes_on(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "eddy_bench", "audit", "--task", "ring8", "--method", "lhs"]
    command += ["--method", "eddy-hutch", "--steps", "20,2000", "--out", str(tmp_path / "a")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    parts = tmp_path / "a" / "parts"
    while process.poll() is None and len(list(parts.glob("*.json"))) < 3:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert "Interrupted. What is finished is kept" in told
    assert "Traceback" not in told
    wanted = plan("lhs", "eddy-hutch", groups=1500, steps="20,2000")
    assert missing_work(wanted, tmp_path / "a") < 2 * 2020 * 4
