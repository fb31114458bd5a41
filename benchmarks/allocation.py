"""What keeping freed memory saves on a CPU: `iid` on the embedded model, in turn, as a ratio.

python benchmarks/allocation.py [--rounds 5]
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from eddy_bench import Iid
from eddy_bench.models.devices import keep_pages
from eddy_bench.models.load import load_model

USUAL = {"trim": 128 * 1024, "mmap": 128 * 1024}  # what glibc begins with


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    model = load_model("fashion", device="cpu")
    arguments = {"num_inference_steps": 20, "guidance_scale": 4.0, "output_type": "pil"}

    def seconds() -> float:
        start = time.perf_counter()
        model.draw(["a dress"] * 8, list(range(8)), 4, Iid(), arguments)
        return time.perf_counter() - start

    ratios = []
    for _ in range(parser.parse_args().rounds):
        keep_pages()
        kept = seconds()
        keep_pages(**USUAL)
        ratios.append(kept / seconds())
        print(f"kept over given back: {ratios[-1]:.3f}", flush=True)
    print(f"median {np.median(ratios):.3f}")


if __name__ == "__main__":
    main()
