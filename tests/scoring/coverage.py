"""How often intervals cover and tests are false: `python -m tests.scoring.coverage` writes
docs/statistics.md, a slow test holds it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eddy_bench.results.statistics import mean_intervals, positive_mean_p, zero_mean_p
from tests.makers.score_files import of

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "statistics.md"
SETS = 4000
COUNTS = (6, 12, 48)
Array = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], Array]  # (generator, prompts) to (sets, prompts)

HEAD = f"""# Intervals and tests over prompts

Prompts are what is resampled: the particles of a group depend on each other. Intervals are of the
studentised bootstrap (Efron & Tibshirani 1993, section 12.5), equal-tailed, no further from the
mean than 4/3 of Student's t (10/n for fewer than 8 prompts); p-values invert it, and are never
below what signs that all agree would show. Filled by `python -m tests.scoring.coverage`:
{SETS} sets of made-up differences each, whose true mean is known. `reference run` are the
differences of `pg` to `iid` in `results/baselines/fashion.csv` on vendi, drawn with replacement.
The simulation's own standard error is 0.004 at 0.95.

| differences | prompts | 95% interval covers | says 5%, rejects a true zero | one-sided, rejects |
| --- | --- | --- | --- | --- |
"""


def _reference() -> Array:
    frame = pd.read_csv(ROOT / "results" / "baselines" / "fashion.csv")
    frame = frame[of(frame, "vendi")]
    table = frame.pivot_table(index="prompt_id", columns="method", values="value")
    strong = next(method for method in table.columns if method.split(":")[0] == "pg")
    gaps: Array = (table[strong] - table["iid"]).dropna().to_numpy()
    return gaps - gaps.mean()


def kinds() -> dict[str, Draw]:
    """Return the distributions of differences, each with mean 0."""
    reference = _reference()
    return {
        "normal": lambda rng, count: rng.normal(0, 1, (SETS, count)),
        "exponential": lambda rng, count: rng.exponential(1, (SETS, count)) - 1,
        "two points": lambda rng, count: rng.choice([-1.0, 1.0], (SETS, count)),
        "reference run": lambda rng, count: rng.choice(reference, (SETS, count)),
    }


@dataclass(frozen=True)
class Rates:
    """Hold the share of sets whose interval covers, and of tests that reject a true zero."""

    covers: float
    rejects: float
    rejects_above: float


def rates(draw: Draw, count: int) -> Rates:
    values = draw(np.random.default_rng(count), count)
    parts = np.split(values, SETS // 200)  # resamples of all sets at once would be gigabytes
    ends = [np.array(mean_intervals(part)) for part in parts]
    lows, highs = np.concatenate(ends, 1)
    both = np.concatenate([zero_mean_p(part) for part in parts])
    above = np.concatenate([positive_mean_p(part) for part in parts])
    covers = (lows <= 0) & (highs >= 0)
    return Rates(float(covers.mean()), float((both < 0.05).mean()), float((above < 0.05).mean()))


def page() -> str:
    lines = []
    for name, draw in kinds().items():
        for count in COUNTS:
            rate = rates(draw, count)
            lines.append(
                f"| {name} | {count} | {rate.covers:.3f} | {rate.rejects:.3f} "
                f"| {rate.rejects_above:.3f} |"
            )
    return HEAD + "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
