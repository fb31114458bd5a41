"""docs/samplers.md says what is."""

from __future__ import annotations

import pytest

from tests.sampling.table import PAGE, cell, page


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*FluxPosEmbed:FutureWarning")
def test_the_page_of_samplers_holds() -> None:
    assert page() == PAGE.read_text(), "python -m tests.sampling.table writes it anew"


@pytest.mark.parametrize(
    ("family", "solver", "method", "spacing", "answer"),
    [
        ("sd15", "dpmpp-2m", "pg", "karras", "yes"),
        ("sdxl", "euler", "eddy-hutch", "ays", "yes"),
        ("sd3", "unipc", "pg", "default", "yes"),
        ("sd3", "ddim", "pg", "default", ""),
        ("sd15", "flow-euler", "pg", "default", ""),
        ("sd15", "ddim", "coupled", "default", "-"),
        ("sd15", "ddim", "pg", "ays", ""),
        ("sana", "dpm", "pg", "default", ""),
    ],
)
def test_a_cell_says_yes_dash_or_nothing(
    family: str, solver: str, method: str, spacing: str, answer: str
) -> None:
    assert cell(family, solver, method, spacing) == answer
