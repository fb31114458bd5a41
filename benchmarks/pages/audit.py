"""Write the tables and figures of docs/audit.md: five audits, about half an hour on one core;
what is measured already is kept.

python benchmarks/pages/audit.py [--out results/audit-page] [--part rescaling]
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

from benchmarks.pages.marked import put
from eddy_bench.audit.figure import write_figure
from eddy_bench.audit.plan import make_plan
from eddy_bench.audit.run import prepare_folder, run_audit
from eddy_bench.audit.tables import audit_frame, audit_markdown
from eddy_bench.cli.terminal import Terminal
from eddy_bench.storage.files import write_text

RESCALED = [f"scale=relative,strength={share}" for share in (0.1, 0.3, 0.5)]
DOCS = Path(__file__).parents[2] / "docs"
PARTS: dict[str, dict[str, Any]] = {
    "all": {},
    "theory": {
        "tasks": ["ring8"],
        "schedulers": ["ddim"],
        "methods": ["eddy-exact", "pg:strength=0.01", "repulsion:strength=0.3", "antithetic"],
        "steps": "25,50,100,200,400,800",
        "groups": 16_000,
        "margin": 0.05,
    },
    "stochastic": {
        "tasks": ["ring8"],
        "schedulers": ["ddim:eta=1"],
        "methods": ["eddy-exact", "antithetic", "coupled", "coupled:strength=0.5"],
        "steps": "25,50,100,200,400,800",
        "groups": 6000,
        "margin": 0.05,
    },
    "variants": {
        "tasks": ["ring8"],
        "schedulers": ["ddim"],
        "groups": 4000,
        "methods": [
            "eddy-exact:strength=40",
            "eddy-exact:init=antithetic",
            "eddy-exact:div_sign=published",
            "eddy-exact:v_source=self",
        ],
    },
    "rescaling": {
        "tasks": ["ring8-features"],
        "schedulers": ["ddim"],
        "groups": 800,
        "steps": "25,100,400",
        "methods": [
            "eddy-exact",
            *(f"eddy-exact:{scale}" for scale in RESCALED),
            *(f"eddy-fd:kernel=features,scale=fixed,strength={s}" for s in (1e-4, 1e-3, 0.1)),
            *(f"eddy-fd:kernel=features,{scale}" for scale in RESCALED),
            f"eddy-hutch:kernel=features,{RESCALED[1]}",
            *(f"pg:kernel=features,scale=fixed,strength={s}" for s in (1e-3, 0.2)),
            *(f"pg:kernel=features,{scale}" for scale in RESCALED),
        ],
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("results/audit-page"))
    parser.add_argument("--part", choices=PARTS, action="append", help="one of the audits alone")
    arguments = parser.parse_args()
    out, parts = arguments.out, arguments.part or list(PARTS)
    for name in parts:
        plan, folder = make_plan(**PARTS[name]), out / name
        prepare_folder(folder, plan)
        audited = run_audit(plan, folder, Terminal())
        write_text(
            DOCS / f"audit-{name}.csv",
            audit_frame(plan, audited).to_csv(
                index=False, lineterminator="\n", float_format="%.4g"
            ),
        )
        write_figure(plan, audited, folder / "audit.png")
        shutil.copyfile(folder / "audit.png", DOCS / f"audit-{name}.png")
        begin = f"<!-- {name}: written by benchmarks/pages/audit.py -->"
        text = f"\n{audit_markdown(plan, audited)}"
        put(DOCS / "audit.md", begin, f"<!-- end of {name} -->", text)


if __name__ == "__main__":
    main()
