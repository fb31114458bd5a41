"""What waiting threads cost: drawing with OpenMP's usual wait policy and with PASSIVE, in turn.

python benchmarks/busy.py [--rounds 5] [--beside 4]

First on the machine as it is, then beside so many processes that compute without a pause. Each
figure is one draw of 8 groups of 4 in a process of its own, after a warm-up.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

DRAW = """
import time
from eddy_bench import Iid
from eddy_bench.models.load import load_model
model = load_model("fashion", device="cpu")
arguments = {"num_inference_steps": 20, "guidance_scale": 4.0, "output_type": "pil"}
for steps in (2, 20):
    start = time.perf_counter()
    call = {**arguments, "num_inference_steps": steps}
    model.draw(["a dress"] * 8, list(range(8)), 4, Iid(), call)
print(time.perf_counter() - start)
"""
SPIN = "while True: pass"


def seconds(policy: str | None) -> float:
    environment = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
    environment |= {} if policy is None else {"OMP_WAIT_POLICY": policy}
    call = [sys.executable, "-W", "ignore", "-c", DRAW]
    done = subprocess.run(call, env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout)


@contextmanager
def spinning(count: int) -> Iterator[None]:
    others = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--beside", type=int, default=4)
    given = parser.parse_args()
    for count in (0, given.beside):
        with spinning(count):
            pairs = np.array([[seconds("PASSIVE"), seconds(None)] for _ in range(given.rounds)])
        ratio = np.median(pairs[:, 0] / pairs[:, 1])
        passive, usual = np.median(pairs, 0)
        print(
            f"beside {count} processes: PASSIVE {passive:.2f} s, usual {usual:.2f} s, "
            f"PASSIVE over usual {ratio:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
