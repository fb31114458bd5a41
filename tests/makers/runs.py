"""A short run of the embedded model, and what two runs of it are compared by."""

from __future__ import annotations

import hashlib
from pathlib import Path

from eddy_bench.results.io import read_table

RUN = tuple(
    [
        "run",
        "--limit",
        "6",
        "--steps",
        "3",
        "--batch-prompts",
        "2",
        "--particles",
        "2",
        "--metric",
        "vendi",
        "--method",
        "iid",
        "--method",
        "pg",
    ]
)
# the least that a command draws and scores: one group of two images, one step
SHORT = (
    *("run", "--limit", "1", "--steps", "1", "--batch-prompts", "1", "--particles", "2"),
    *("--metric", "vendi[pixels]", "--method", "iid"),
)


def image_hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every image of a run, by its path inside the run folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.glob("samples/**/*.png"))
    }


def scores(folder: Path) -> str:
    """Return the text of scores.csv without the rows of times and memory."""
    table = read_table(folder / "scores.csv", dtype=str, keep_default_na=False)
    measured = table["metric"].isin(["seconds_per_image", "peak_memory_mb"])
    return str(table[~measured].to_csv(index=False))


def change_a_byte(path: Path) -> None:
    """Change the content of a file and keep its size."""
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(bytes(content))
