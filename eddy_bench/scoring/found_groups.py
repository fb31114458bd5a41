"""The finished groups of a run folder, read once for all that follows drawing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from eddy_bench.errors import StoreError, counted
from eddy_bench.scoring.readings import BASELINE
from eddy_bench.storage.group import FinishedGroup
from eddy_bench.storage.records import Group, RunRecord
from eddy_bench.storage.run_folder import RunFolder
from eddy_bench.suites.method_spec import MethodSpec

ByLabel = dict[str, list[FinishedGroup]]


@dataclass(frozen=True)
class FoundGroups:
    """Hold the whole groups of a folder, and what is wrong with the others."""

    groups: list[FinishedGroup]
    broken: list[str]


def read_groups(folder: RunFolder) -> FoundGroups:
    """Read every group.json of a folder."""
    broken: list[str] = []
    return FoundGroups(list(folder.finished(broken=broken)), broken)


def groups_by_label(
    folder: RunFolder, run: RunRecord, found: FoundGroups
) -> tuple[ByLabel, list[str]]:
    """Return groups by the method's label, in the table's order, and notes on others.

    Raises:
        StoreError: there are none.

    """
    by_label: ByLabel = {}
    broken, particles = list(found.broken), run.settings.particles
    for group in found.groups:
        if group.group.particles != particles:
            broken.append(
                f"{group.folder} has {group.group.particles} particles, the run "
                f"{particles}: remove it, and run again"
            )
            continue
        by_label.setdefault(group.group.label, []).append(group)
    if not by_label:
        raise StoreError(
            f"{folder.path} holds no finished group. `eddy-bench run --out {folder.path}` "
            "draws them."
        )
    order = _method_order(run.suite.methods)
    by_label = dict(sorted(by_label.items(), key=lambda item: order(item[1][0].group)))
    return by_label, _notes(by_label, broken)


def _notes(by_label: ByLabel, broken: list[str]) -> list[str]:
    notes = []
    if broken:
        notes.append(f"left out {counted(len(broken), 'broken group')} ({broken[0]})")
    if len({len(groups) for groups in by_label.values()}) > 1:
        counts = ", ".join(f"{own[0].group.name} {len(own)}" for own in by_label.values())
        notes.append(
            f"the methods have different numbers of groups ({counts}): "
            "their means are over different prompts"
        )
    return notes


def _method_order(methods: Iterable[str]) -> Callable[[Group], tuple[Any, ...]]:
    """Order iid first, then methods as in the suite, then one method's by rising numbers."""
    names = [MethodSpec.of_label(text).name for text in methods]

    def order(group: Group) -> tuple[Any, ...]:
        near = [k for k, name in enumerate(names) if name == group.method]
        parts = re.split(r"(-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)", group.parameters)
        rank = -1 if group.label == BASELINE else near[0] if near else len(names)
        words = re.sub(r"\d", "", "".join(parts[::2]))
        return rank, group.method, words, [float(number) for number in parts[1::2]], group.label

    return order
