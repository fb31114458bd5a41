"""The built wheel, installed and run from an empty directory: suites, prompts and assets work by
name.
"""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_wheel_runs_from_an_empty_directory(tmp_path: Path) -> None:
    subprocess.run(
        [
            sys.executable,
            "-m",
            "build",
            "--wheel",
            "--no-isolation",
            "--outdir",
            str(tmp_path),
            str(ROOT),
        ],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.stat().st_size < 25 * 2**20
    names = zipfile.ZipFile(wheel).namelist()
    assert "eddy_bench/data/suites/fashion.yaml" in names
    assert "eddy_bench/data/prompts/fashion-tune.yaml" in names
    site, empty = tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--target",
            str(site),
            str(wheel),
        ],
        check=True,
        capture_output=True,
    )
    environment = {**os.environ, "PYTHONPATH": str(site), "HF_HUB_OFFLINE": "1"}
    where = subprocess.run(
        [sys.executable, "-c", "import eddy_bench; print(eddy_bench.__file__)"],
        cwd=empty,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert str(site) in where.stdout
    flags = [
        "--method",
        "iid",
        "--method",
        "pg",
        "--limit",
        "2",
        "--steps",
        "3",
        "--batch-prompts",
        "2",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "eddy_bench.cli", "run", "fashion", *flags],
        cwd=empty,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert len(list((empty / "results").glob("fashion-*/summary.csv"))) == 1
    listed = subprocess.run(
        [sys.executable, "-m", "eddy_bench.cli", "list", "prompts"],
        cwd=empty,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert "fashion-tune" in listed.stdout
