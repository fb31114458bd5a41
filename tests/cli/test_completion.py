"""What a shell offers while a command is typed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


def offered(line: str) -> list[str]:
    """Return what bash is offered behind a line, as its completion asks for it."""
    words = line.split(" ")
    asked = {
        "_EDDY_BENCH_COMPLETE": "complete_bash",
        "COMP_WORDS": "\n".join(words),
        "COMP_CWORD": str(len(words) - 1),
    }
    done = subprocess.run(
        [sys.executable, "-m", "eddy_bench.cli"],
        env=os.environ | asked,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("eddy-bench run --method eddy-", ["eddy-exact", "eddy-fd", "eddy-hutch"]),
        ("eddy-bench run fash", ["fashion"]),
        ("eddy-bench list m", ["methods", "models", "metrics"]),
        ("eddy-bench score r --metric values", ["values-seen"]),
        ("eddy-bench run ./mine", []),
    ],
)
def test_names_are_offered_and_files_are_left_to_the_shell(line: str, names: list[str]) -> None:
    assert offered(line) == names
