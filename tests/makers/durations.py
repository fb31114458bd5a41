"""Which tests are slow: writes `tests/slow.txt` from the durations of a run of all of them.

python -m pytest -n 2 --dist loadfile -m "not gpu" --junitxml=durations.xml
python -m tests.makers.durations durations.xml
"""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

LONGEST = 0.8  # seconds of any case of a test that `make test` runs
LIST = Path(__file__).parents[1] / "slow.txt"


def main() -> None:
    longest: dict[str, float] = {}
    for case in ElementTree.parse(sys.argv[1]).iter("testcase"):
        file = case.get("classname", "").replace(".", "/") + ".py"
        name = f"{file}::{case.get('name', '').partition('[')[0]}"
        longest[name] = max(longest.get(name, 0.0), float(case.get("time", 0)))
    slow = sorted(name for name, seconds in longest.items() if seconds > LONGEST)
    LIST.write_text("".join(f"{name}\n" for name in slow), "utf-8")
    print(f"{len(slow)} of {len(longest)} tests are slow: {LIST}")


if __name__ == "__main__":
    main()
