"""What to do about a folder below the samples that is no whole group of its run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from eddy_bench.errors import StoreError
from eddy_bench.storage.run_files import read_planned


def cure_of(run: Path) -> Callable[[Path], str]:
    """Return a function from a group's folder to what helps: drawing it again, where that is done.

    The next run draws what commands set out to draw (planned.json), and nothing else.
    """
    try:
        grids = [(set(g.labels), set(g.prompts), g.seeds) for g in read_planned(run)]
    except StoreError:  # broken: the next run writes it
        grids = []

    def cure(folder: Path) -> str:
        store, label, prompt, seed = folder.parts[-4:]
        drawn = any(
            (label in labels or store == label == "reference")
            and prompt in prompts
            and seed.isdecimal()
            and int(seed) < seeds
            for labels, prompts, seeds in grids
        )
        if drawn or not grids:
            return "run again to redraw it"
        return "no command draws a group there: move it back to its place, or remove it"

    return cure
