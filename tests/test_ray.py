"""Two Ray workers on this machine draw what one process draws, also when one of them is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from eddy_bench.jobs import Job
from tests.conftest import Result
from tests.test_faults import RUN, pictures, scores
from tests.test_store import group

pytest.importorskip("ray", reason="needs the package ray")
from eddy_bench.ray_executor import weight

Cli = Callable[..., Result]


def run(out: Path, *more: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "eddy_bench.cli", *RUN, *more, "--out", str(out)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=400, env={**os.environ, **(environment or {})})


@pytest.mark.slow
def test_the_same_images_and_a_killed_worker(tmp_path: Path) -> None:
    plain = run(tmp_path / "plain")
    assert plain.returncode == 0, plain.stderr
    ray = run(tmp_path / "ray", "--executor", "ray", "--workers", "2")
    assert ray.returncode == 0, ray.stderr
    assert "Drawing on 2 Ray workers" in ray.stderr
    assert pictures(tmp_path / "ray") == pictures(tmp_path / "plain")
    assert scores(tmp_path / "ray") == scores(tmp_path / "plain")
    long = ("--steps", "30", "--limit", "8", "--executor", "ray", "--workers", "2")
    out = tmp_path / "killed"
    process = subprocess.Popen(
        [sys.executable, "-m", "eddy_bench.cli", *RUN, *long, "--out", str(out)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    for _ in range(2400):
        if process.poll() is not None or any(out.glob("samples/*/*/*/group.json")):
            break
        time.sleep(0.05)
    os.kill(workers_of(process.pid)[0], signal.SIGKILL)
    _, said = process.communicate(timeout=400)
    assert process.returncode == 0, said
    assert "a worker died" in said
    assert "Drew 16 groups" in said
    assert "failed 0" in said
    whole = run(tmp_path / "whole", *long[:4])
    assert whole.returncode == 0, whole.stderr
    assert pictures(out) == pictures(tmp_path / "whole")


def workers_of(driver: int) -> list[int]:
    """Processes of the actors, below a driver."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if b"ray::Worker" in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def test_the_largest_jobs_come_first() -> None:
    plain, features, eddy = (
        Job((group(method=method, kernel=kernel, particles=2),), 1)
        for method, kernel in (("iid", ""), ("pg", "features"), ("eddy-hutch", "features"))
    )
    best = Job((group(method="best-of-m", parameters="m=10", particles=2),), 1)
    assert sorted([plain, eddy, best, features], key=weight, reverse=True) == [eddy, best, features, plain]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--executor", "slurm"), "local or ray"),
        (("--workers", "2"), "Add --executor ray"),
        (("--executor", "ray", "--workers", "0"), "workers"),
        (("--executor", "ray", "--method", "best-of-m"), "best-of-m:m=16"),
    ],
)
def test_what_is_no_executor(cli: Cli, tmp_path: Path, options: tuple[str, ...], message: str) -> None:
    found = cli(*RUN, *options, "--out", tmp_path / "run")
    assert (found.code, message in found.err) == (2, True), found.err
