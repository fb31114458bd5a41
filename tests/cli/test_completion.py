"""What a shell offers while a command is typed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.conftest import Result


def request(line: str) -> dict[str, str]:
    """The variables by which bash requests what to offer behind a line."""
    words = line.split(" ")
    return {
        "_EDDY_BENCH_COMPLETE": "complete_bash",
        "COMP_WORDS": "\n".join(words),
        "COMP_CWORD": str(len(words) - 1),
    }


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
def test_names_are_offered_and_files_are_left_to_the_shell(
    cli: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, line: str, names: list[str]
) -> None:
    for key, value in request(line).items():
        monkeypatch.setenv(key, value)
    done = cli()
    assert done.err == ""
    assert done.out.split() == names


def test_a_shell_s_request_is_answered() -> None:
    command = [sys.executable, "-m", "eddy_bench.cli"]
    environment = os.environ | request("eddy-bench list su")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout.split(), done.stderr) == (["suites"], "")
