"""A page that asks people to vote on two methods' images side by side, without saying which."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from eddy_bench.compare.paired import Progress, quiet
from eddy_bench.compare.preference import HEADER, Item, Place, drawn_groups, sides, study_items
from eddy_bench.errors import CompareError
from eddy_bench.ids import MethodId
from eddy_bench.report.prompts import ALT, TEXT, shortened
from eddy_bench.report.strips import BUDGET, OVERHEAD, SMALL, make_strip
from eddy_bench.report.templates import rendered
from eddy_bench.storage.files import write_text
from eddy_bench.storage.group import FinishedGroup

NAME = "blind.html"


def write_blind(
    folder: Path,
    out: Path | None,
    baseline: MethodId,
    count: int,
    shuffle: int,
    progress: Progress = quiet,
) -> tuple[Path, int, int]:
    """Write the preference study of a run's images.

    Returns its path, how many pairs it asks about, and how many could not be read.

    Args:
        folder: of the run.
        out: the page; None is `blind.html` in the folder.
        baseline: the method whose images stand on one side of every pair.
        count: of pairs at most; fewer where the page would grow beyond 5 MB.
        shuffle: decides order and sides.
        progress: of the pairs.

    Raises:
        CompareError: there are no two methods' images to compare, or none can be read.

    """
    groups = drawn_groups(folder)
    items = study_items(groups, baseline, shuffle)[:count]
    advance, spent, unread = progress(len(items)), 0, 0
    pairs: list[dict[str, Any]] = []
    for item in items:
        pair = _pair(groups, item, baseline)
        advance(1, str(item.method))
        if pair is None:
            unread += 1
            continue
        spent += sum(len(strip["data"]) + OVERHEAD for strip in pair["strips"])
        if spent > BUDGET and pairs:
            break
        pairs.append(pair)
    if not pairs:
        raise CompareError(
            f"Expected images in {folder} to vote on, got none that can be read. "
            "Draw them again: eddy-bench run."
        )
    target = out or folder / NAME
    fields = {
        "pairs": pairs,
        "small_images": all(s["height"] <= SMALL for pair in pairs for s in pair["strips"]),
        "shuffle": shuffle,
        "header": ",".join(HEADER),
        "questions": [("different", "Which is more different?"), ("better", "Which is better?")],
    }
    write_text(target, rendered("blind.html", fields))
    return target, len(pairs), unread


def _pair(
    groups: dict[Place, FinishedGroup], item: Item, baseline: MethodId
) -> dict[str, Any] | None:
    """Return both sides' images; None where some cannot be read."""
    own = [groups[method, item.prompt_id, item.seed] for method in sides(item, baseline)]
    strips = [make_strip(group, "") for group in own]
    if None in strips:
        return None
    text = own[0].group.prompt
    return {
        "id": item.id,
        "text": shortened(text, TEXT),
        "alt": shortened(text, ALT),
        "strips": [
            {"data": strip.data, "width": strip.width, "height": strip.height, "count": strip.count}
            for strip in strips
            if strip is not None
        ],
    }
