"""Pairs of groups to vote on, unlabelled: what a ballot's opaque numbers stand for."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from eddy_bench.compare.paired import is_misspelt
from eddy_bench.errors import CompareError, unknown
from eddy_bench.storage.files import MAX_PAIRS, refuse_more
from eddy_bench.storage.group import FinishedGroup
from eddy_bench.storage.run_folder import RunFolder

Place = tuple[str, str, int]  # label, prompt id, seed


@dataclass(frozen=True)
class Item:
    """Hold one question to a voter: a method's group beside the baseline's, of the same noise.

    id: a hash of both groups' keys and of the shuffle, which names neither to the voter.
    method_left: the method's images stand left.
    """

    id: str
    label: str
    prompt_id: str
    seed: int
    method_left: bool


def ballot_items(groups: Mapping[Place, FinishedGroup], baseline: str, shuffle: int) -> list[Item]:
    """Return a pair of every prompt and seed of a run in the ballot's order, methods by turns.

    Which method, the order and the sides follow from the groups' keys and `shuffle` alone, so that
    votes are understood from the run they are on, and on no other.

    Raises:
        CompareError: the baseline was not drawn, or nothing stands beside it.

    """
    items = []
    for (label, prompt, seed), group in groups.items():
        other = groups.get((baseline, prompt, seed))
        if label != baseline and other is not None:
            text = f"{shuffle}|{group.group.key}|{other.group.key}"
            digest = hashlib.sha256(text.encode()).hexdigest()
            items.append(Item(digest[:16], label, prompt, seed, int(digest[16], 16) % 2 == 0))
    drawn = list(dict.fromkeys(label for label, *_ in groups))
    if not items and drawn and baseline not in drawn and is_misspelt(baseline):
        raise CompareError(
            unknown("baseline", baseline, drawn).replace("Available", "The run holds")
        )
    if not items:
        labels = ", ".join(drawn) or "no images"
        raise CompareError(
            f"Expected images of {baseline!r} and of another method for the same prompts, "
            f"found {labels}. Draw them: eddy-bench run --method {baseline}; or name another "
            "--baseline."
        )
    return _once_each(items)


def _once_each(items: Iterable[Item]) -> list[Item]:
    """Return one pair of every prompt and seed, shuffled, methods by turns.

    So every set of images is seen once: whoever saw one twice would know the baseline's by it. Any
    first part has about as many pairs of every method.
    """
    places: dict[tuple[str, int], list[Item]] = {}
    for item in items:
        places.setdefault((item.prompt_id, item.seed), []).append(item)
    turns, chosen = Counter[str](), []
    for own in sorted(places.values(), key=lambda own: min(item.id for item in own)):
        item = min(own, key=lambda item: (turns[item.label], item.id))
        turns[item.label] += 1
        chosen.append(item)
    return chosen


def drawn_groups(folder: Path) -> dict[Place, FinishedGroup]:
    """Return the finished groups of a run folder by method, prompt and seed.

    Raises:
        CompareError: it is no folder.

    """
    if not folder.is_dir():
        raise CompareError(f"Expected a run folder, got {folder}. Votes are on its images.")
    return {
        (group.group.name, group.group.prompt_id, group.group.seed): group
        for group in RunFolder(folder).finished(broken=[])
    }


def voted_items(
    folder: Path, wanted: Set[tuple[int, str]], baseline: str
) -> dict[tuple[int, str], Item]:
    """Return the pairs of a run that are wanted, by the ballot's shuffle and the pair's number.

    Raises:
        CompareError: as `ballot_items`, or there are too many shuffles to look through.

    """
    groups = drawn_groups(folder)
    shuffles = sorted({shuffle for shuffle, _ in wanted})
    what, cure = "pairs over all shuffles of the votes", "Give fewer files of votes at a time."
    refuse_more([len(shuffles), len(groups)], MAX_PAIRS, what, cure, CompareError)
    return {
        (shuffle, item.id): item
        for shuffle in shuffles
        for item in ballot_items(groups, baseline, shuffle)
        if (shuffle, item.id) in wanted
    }


def sides(item: Item, baseline: str) -> Sequence[str]:
    """Return the labels of the left and the right side."""
    return (item.label, baseline) if item.method_left else (baseline, item.label)
