"""Synchronisations and copies a solver step, by method, on a pretend CUDA device.

python benchmarks/transfers.py [--json] [METHOD ...]

Each figure is the most of any step between the first and the last one of the embedded model, 2
groups of 4, what the pipeline and its scheduler do themselves left out. Without --json the table in
docs/scale.md is written anew.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
sys.argv[0] = "transfers"
PAGE, BEGIN, END = ROOT / "docs" / "scale.md", "<!-- transfers -->\n", "<!-- end -->\n"
KINDS: dict[str, tuple[str, ...]] = {
    "synchronisations": ("item", "mask", "sync", "d2h"),
    "to the device": ("h2d",),
    "from the device": ("d2h",),
}
# beside every registered method: kernels, solvers and settings that take other ways
FEATURES = ("pg", "repulsion", "spell", "diverseflow", "vendi-guidance", "oscar")
OTHERS = (
    "repulsion:kernel=denoised,window=0..", "eddy-exact:v_source=self",
    "eddy-fd:window=0..", "eddy-hutch:window=0..", "coupled:rule=maxcut",
    *(f"{name}:kernel=features,window=0.." for name in FEATURES), "best-of-m:m=8,preview=3",
)  # fmt: skip
NEEDED = {"best-of-m": "best-of-m:m=8"}  # parameters without which a method draws nothing
STEPS = 4
SOLVER = "default"


@functools.cache
def loaded(solver: str) -> Any:
    from eddy_bench.models.load import load_model

    return load_model("fashion", device="cuda", scheduler=solver)


def counted(text: str) -> dict[str, Any]:
    """Count what a method does at each step on the device."""
    from eddy_bench.methods.registry import build_method
    from eddy_bench.suites.method_spec import MethodSpec
    from tests.makers.pretend import COUNTS

    method = build_method(MethodSpec.parse(text))
    solver = "ddim:eta=1" if method.couples_steps else SOLVER
    model = loaded(solver)
    marks: list[tuple[Counter[Any], Counter[Any]]] = []
    inner, begun = model.pipe.scheduler.step, model.pipe.scheduler.set_timesteps

    @functools.wraps(begun)
    def set_timesteps(*args: Any, **kwargs: Any) -> Any:
        marks.clear()  # of an earlier call, such as a preview's
        return begun(*args, **kwargs)

    @functools.wraps(inner)
    def step(*args: Any, **kwargs: Any) -> Any:
        marks.append((Counter(COUNTS.events), Counter(COUNTS.bytes)))
        return inner(*args, **kwargs)

    model.pipe.scheduler.step, model.pipe.scheduler.set_timesteps = step, set_timesteps
    arguments = {"num_inference_steps": STEPS, "guidance_scale": 4.0, "output_type": "pil"}
    arguments |= {"eta": 1.0} if method.couples_steps else {}
    model.draw(["a dress", "a coat"], [0, 1], 4, method, arguments)
    del model.pipe.scheduler.step, model.pipe.scheduler.set_timesteps
    most: dict[str, Any] = {"method": text, "bytes": 0, "lines": {}}
    for title, kinds in KINDS.items():
        most[title] = 0
        for (events, sizes), (events_after, sizes_after) in pairwise(marks[1:]):
            gone = {k: n for k, n in (events_after - events).items() if k[0].startswith(kinds)}
            gone = {k: n for k, n in gone.items() if "diffusers/" not in k[1]}
            moved = sum((sizes_after - sizes)[k] for k in gone)
            most["bytes"] = max(most["bytes"], moved)
            if sum(gone.values()) > most[title]:
                most[title] = sum(gone.values())
                most["lines"][title] = {" ".join(k): n for k, n in gone.items()}
    return most


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("methods", nargs="*")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    from tests.makers import pretend

    pretend.install(budget=2**33)
    from eddy_bench.methods.registry import method_names

    names = [*(NEEDED.get(name, name) for name in method_names()), *OTHERS]
    rows = [counted(text) for text in given.methods or names]
    if given.json or given.methods:
        print(json.dumps(rows, indent=1))
        return
    before, rest = PAGE.read_text("utf-8").split(BEGIN)
    PAGE.write_text(before + BEGIN + table(rows) + END + rest.split(END)[1], "utf-8")


def table(rows: list[dict[str, Any]]) -> str:
    """Return the table of the documents."""
    head = ("method", *KINDS, "bytes")
    lines = [head, ("---",) * len(head)]
    lines += [(f"`{row['method']}`", *(f"{row[key]:,}" for key in head[1:])) for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    main()
