"""Feature kernels under a relative scale: which share, cap, window and probes, on `fashion-tune`.

    python benchmarks/embedded/tune_scale.py [--seeds 2] [--only TEXT] [--out tuning_scale.csv]

Every method is compared with `iid` on the same noise, prompt by prompt; lines that the file has are
kept. The rule: the largest gain on `pdist` among those that lose at most 0.7% of clip and one point
of align on these prompts; the windows of `pg` and `repulsion` stay their authors'.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.embedded.tune import Tuner
from eddy_bench import Iid
from eddy_bench.methods.registry import build_method
from eddy_bench.results.statistics import mean_interval
from eddy_bench.suites.method_spec import MethodSpec

SHARES = (0.2, 0.3, 0.4, 0.5)
WINDOWS = ("0%..10%", "0%..30%", "0%..50%")

PEERS = (
    *(f"interval:window={window}" for window in ("20%..100%", "40%..100%", "0%..60%")),
    "guidance-schedule",
    "guidance-schedule:shape=cosine",
    "guidance-schedule:shape=cfg++,strength=0.6",
    *(f"cads:{line}" for line in ("tau1=0.6", "tau1=0.8", "s=0.1,psi=0.5")),
    *(f"spell:radius={radius}" for radius in (0.3, 0.5, 0.7)),
    *(
        f"{name}{kernel}"
        for name in ("diverseflow", "vendi-guidance")
        for kernel in ("", ":kernel=denoised")
    ),
    *(
        f"rke:{line}"
        for line in ("strength=0.02", "strength=0.05", "kernel=denoised", "kernel=features")
    ),
    *(
        f"apg:{line}"
        for line in ("eta=0", "eta=0.5", "momentum=0,threshold=0", "eta=0.5,momentum=0")
    ),
    *(f"tsr:k={k}" for k in (0.97, 0.93, 0.85)),
    *(f"pink-noise:alpha={alpha}" for alpha in (0.1, 0.2, 0.4)),
    *(f"group-inference:m={m}" for m in (8, 16)),
)  # tuning_methods.csv; drawn with the papers' s = 0.25 and psi = 1 of cads where it says no other


def sweep() -> list[str]:
    """Return the methods: around a share of 0.3, a cap of twice that, a window of a fifth."""
    hutch = "eddy-hutch:scale=relative,probes={probes},strength={share},window={window},cap={cap}"
    usual = {"probes": 10, "share": 0.3, "window": "0%..20%", "cap": 0.6}
    lines = [{**usual, "share": share, "cap": 2 * share} for share in SHARES]
    lines += [{**usual, "window": window} for window in WINDOWS]
    lines += [{**usual, "cap": cap} for cap in (0.35, 0.45, 100)]
    lines += [{**usual, "probes": probes} for probes in (5, 25)]
    methods = [hutch.format(**line) for line in lines]
    # A share far beyond the cap gives every particle the cap: normalised by particle, not by group.
    methods += [
        hutch.format(**{**usual, "probes": 5, "share": 5, "cap": cap}) for cap in (0.25, 0.3)
    ]
    methods += [
        hutch.format(**{**usual, "probes": 5, "share": 0.25, "cap": 0.5, "window": window})
        for window in ("0%..20%", "0%..30%")
    ]
    denoised = hutch.replace(":", ":kernel=denoised,", 1)
    methods += [
        denoised.format(**{**usual, "probes": 5, "share": share, "cap": 2 * share})
        for share in (0.2, 0.3)
    ]
    methods += [
        f"eddy-fd:scale=relative,max_coordinates={count},strength={share}"
        for count, share in ((16, 0.3), (16, 0.5), (64, 0.3))
    ]
    for name in ("pg", "repulsion"):
        start = f"{name}:kernel=features,scale=relative,strength="
        methods += [f"{start}{share}" for share in (0.05, 0.07, 0.1, 0.15, *SHARES)]
        methods += [f"{start}0.3,window={window}" for window in ("0%..20%", *WINDOWS)]
        methods += [f"{start}{share},window=0%..10%" for share in (0.2, 0.25)]
        methods += [f"{start}{share},window=0%..20%" for share in (0.1, 0.15)]
        start = f"{name}:kernel=denoised,scale="
        methods += [f"{start}fixed", f"{start}relative,strength=0.07"]
        methods += [f"{start}relative,strength=0.15"]
    methods += [f"pg:kernel=denoised,scale=relative,strength={share}" for share in (0.05, 0.1)]
    methods += ["eddy-hutch:kernel=denoised,scale=fixed,probes=5"]
    return [*methods, "eddy-hutch:scale=fixed", "pg:kernel=features,scale=fixed"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--only", default="")
    parser.add_argument("--peers", action="store_true", help="the other methods of the field")
    parser.add_argument("--method", action="append", default=[])
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    asked.out = asked.out or Path(__file__).with_name(
        "tuning_methods.csv" if asked.peers else "tuning_scale.csv"
    )
    rows = pd.read_csv(asked.out).to_dict("records") if asked.out.is_file() else []
    tuner = Tuner(asked.seeds, steps=20, scale=4.0)
    base = tuner.measure(Iid())
    for text in asked.method or (PEERS if asked.peers else sweep()):
        if asked.only not in text or text in {row["method"] for row in rows}:
            continue
        start = time.perf_counter()
        measured = tuner.measure(build_method(MethodSpec.parse(text)))
        row: dict[str, object] = {"method": text, "seeds": asked.seeds}
        for metric, values in measured.items():
            gains = values - base[metric]
            row[metric], row[f"{metric}.low"], row[f"{metric}.high"] = mean_interval(gains)
        row["clip_loss"] = 1 - float(measured["clip"].mean() / base["clip"].mean())
        row["lowest_clip"] = float(np.min(measured["clip"] - base["clip"]))
        row["seconds"] = time.perf_counter() - start
        rows.append(row)
        print(
            f"{text:84} pdist {row['pdist']:+.4f} vendi {row['vendi']:+.4f} "
            f"[{row['vendi.low']:+.3f}, {row['vendi.high']:+.3f}]  "
            f"clip loss {100 * float(str(row['clip_loss'])):.2f}% lowest {row['lowest_clip']:+.1f} "
            f"align {row['align']:+.4f}  {row['seconds']:.0f} s",
            flush=True,
        )
        table = pd.DataFrame(rows).sort_values("method")
        table.to_csv(asked.out, index=False, float_format="%.5f")


if __name__ == "__main__":
    main()
