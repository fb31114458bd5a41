"""Two Ray workers on this machine draw what one process draws, also when one of them is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from eddy_bench.experiment.batches import Batch
from eddy_bench.experiment.options import RunOptions
from eddy_bench.methods.best_of_m import BestOfM
from eddy_bench.methods.iid import Iid
from eddy_bench.suites.suite import Suite
from tests.conftest import Result
from tests.makers.groups import make_group
from tests.makers.runs import RUN, image_hashes, scores

pytest.importorskip("ray", reason="needs the package ray")
from eddy_bench.experiment.ray_executor import ray_executor, weight

Cli = Callable[..., Result]


LONG = (*RUN, "--steps", "30", "--limit", "8")
RAY = ("--executor", "ray", "--workers", "2")


def started(out: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "eddy_bench.cli", *LONG, *more, "--out", str(out)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(out: Path) -> int:
    return len(list(out.glob("samples/*/*/*/group.json")))


def wait_for_groups(process: subprocess.Popen[str], out: Path, count: int) -> None:
    for _ in range(6000):
        if process.poll() is not None or finished(out) >= count:
            return
        time.sleep(0.05)


def test_a_numbered_card_is_refused_before_anything_is_loaded(cli: Cli, tmp_path: Path) -> None:
    done = cli(*RUN, "--executor", "ray", "--device", "cuda:1", "--out", tmp_path / "run")
    assert done.code == 2
    said = " ".join(done.err.split())
    assert "Expected --device cuda with --executor ray" in said
    assert "CUDA_VISIBLE_DEVICES=1" in said


@pytest.mark.parametrize(("device", "each"), [("cpu", 0), ("cuda", 1), ("auto", 1)])
def test_workers_take_cards_only_where_the_run_does(
    device: str, each: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    cluster = SimpleNamespace(
        init=lambda **given: None,
        shutdown=lambda: None,
        cluster_resources=lambda: {"CPU": 8.0, "GPU": 2.0},
        remote=lambda **given: asked.append(given["num_gpus"]) or (lambda worker: worker),
    )
    monkeypatch.setitem(sys.modules, "ray", cluster)
    plan: Any = SimpleNamespace(suite=Suite(device=device))
    with ray_executor(plan, RunOptions(executor="ray"), lambda text: None) as executor:
        assert (asked, executor.count) == ([each], 2 if each else 8)


@pytest.mark.slow
def test_a_killed_driver_and_a_killed_worker_change_no_image(tmp_path: Path) -> None:
    plain = started(tmp_path / "plain")
    _, said = plain.communicate(timeout=400)
    assert plain.returncode == 0, said
    out = tmp_path / "ray"
    driver = started(out, *RAY)
    wait_for_groups(driver, out, 1)
    orphans = workers_of(driver.pid)
    driver.send_signal(signal.SIGKILL)
    driver.communicate()
    kept = finished(out)
    assert 0 < kept < 16
    for _ in range(600):
        if not any(Path(f"/proc/{worker}").exists() for worker in orphans):
            break
        time.sleep(0.1)
    assert len(orphans) >= 2
    assert not any(Path(f"/proc/{worker}").exists() for worker in orphans), (
        "workers end with their driver"
    )
    driver = started(out, *RAY)
    wait_for_groups(driver, out, kept + 1)
    os.kill(workers_of(driver.pid)[0], signal.SIGKILL)
    _, said = driver.communicate(timeout=400)
    assert driver.returncode == 0, said
    assert "Drawing on 2 Ray workers" in said
    assert "a worker died" in said
    assert f"Drew {16 - kept} groups" in said
    assert "failed 0" in said
    assert image_hashes(out) == image_hashes(tmp_path / "plain")
    assert scores(out) == scores(tmp_path / "plain")


def workers_of(driver: int) -> list[int]:
    """Processes of the actors, below a driver."""
    workers, parents = [], {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(path.name)] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            if b"ray::Worker" in (path / "cmdline").read_bytes():
                workers.append(int(path.name))
        except OSError:
            continue
    return [worker for worker in workers if driver in ancestors(worker, parents)]


def ancestors(process: int, parents: dict[int, int]) -> set[int]:
    seen: set[int] = set()
    while process in parents and process not in seen:
        seen.add(process)
        process = parents[process]
    return seen


def test_the_largest_batches_come_first() -> None:
    plain, features, eddy = (
        Batch((make_group(method=method, kernel=kernel, particles=2),), 1)
        for method, kernel in (("iid", ""), ("pg", "features"), ("eddy-hutch", "features"))
    )
    best = Batch((make_group(method="best-of-m", particles=2),), 1)
    batches = [plain, eddy, best, features]
    methods = {id(batch): Iid() for batch in batches} | {id(best): BestOfM(m=10)}
    ordered = sorted(batches, key=lambda batch: weight(batch, methods[id(batch)]), reverse=True)
    assert ordered == [eddy, best, features, plain]
    early = BestOfM(m=10, preview=2)
    assert weight(best, early, 20) == 1 + 5 * 2 / 20  # all candidates for 2 steps, then the chosen
    assert weight(best, BestOfM(m=2, preview=2), 20) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--executor", "slurm"), "local or ray"),
        (("--workers", "2"), "Add --executor ray"),
        (("--executor", "ray", "--workers", "0"), "workers"),
        (("--executor", "ray", "--method", "best-of-m"), "best-of-m:m=16"),
    ],
)
def test_executor_options_that_mean_nothing_are_refused(
    cli: Cli, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    done = cli(*RUN, *options, "--out", tmp_path / "run")
    assert (done.code, message in done.err) == (2, True), done.err
