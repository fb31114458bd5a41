"""Score files made up by tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from eddy_bench.scoring.metrics import METRICS

EXTRACTORS = {
    "mss": "fmnist-clip",
    "vendi": "fmnist-clip",
    "clip": "fmnist-clip",
    "fd": "fmnist-clip",
    "align": "classifier",
}


def frame(
    effects: Mapping[str, Mapping[str, float]],
    prompts: int = 30,
    seed: int = 0,
    scatter: float = 0.1,
    noise_seed: int | None = None,
) -> pd.DataFrame:
    """Rows of scores.csv: for each method and metric a value per prompt, an effect, scatter.

    effects: label -> metric -> effect.
    noise_seed: of the scatter; another one is another draw of the same prompts.
    """
    shared, own = (
        np.random.default_rng(seed),
        np.random.default_rng(seed + 1000 if noise_seed is None else noise_seed),
    )
    bases = {
        "vendi": 2 + shared.random(prompts),
        "clip": 60 + shared.random(prompts),
        "nfe": np.full(prompts, 40.0),
        "seconds_per_image": np.full(prompts, 0.1),
        "mss": 0.7 + 0.1 * shared.random(prompts),
        "align": np.full(prompts, 90.0),
    }
    lines = []
    for label, by_metric in effects.items():
        for metric, effect in by_metric.items():
            if METRICS[metric].scope == "pooled":
                lines.append(_line(label, "", metric, 50.0 + effect))
                continue
            noise = (
                own.normal(0, scatter, prompts)
                if METRICS[metric].scope == "group"
                else np.zeros(prompts)
            )
            lines += [
                _line(label, f"p{k:03}", metric, bases[metric][k] + effect + noise[k])
                for k in range(prompts)
            ]
    return pd.DataFrame(lines)


def _line(method: str, prompt: str, metric: str, value: float) -> dict[str, object]:
    extractor = EXTRACTORS.get(metric, "")
    return {
        "model": "fashion",
        "method": method,
        "scheduler": "DDIMScheduler(default)",
        "steps": 20,
        "guidance_scale": 4.0,
        "particles": 4,
        "prompt_id": prompt,
        "prompt": f"a {prompt}" if prompt else "",
        "seed": "0" if prompt else "",
        "metric": f"{metric}[{extractor}]" if extractor else metric,
        "value": value,
        "higher_is_better": METRICS[metric].higher_is_better,
        "signature": f"{metric}|features={extractor}@0|N=4",
    }


def write(path: Path, rows: pd.DataFrame) -> Path:
    """As a CSV file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows.to_csv(path, index=False)
    return path


def of(rows: pd.DataFrame, metric: str) -> pd.Series:
    """Which rows are of a metric, with any extractor."""
    names: pd.Series = rows["metric"].astype(str).str.partition("[")[0]
    return names == metric
