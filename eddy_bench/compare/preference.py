"""The preference study: unlabelled pairs of groups, votes on them, and which metric agrees."""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eddy_bench.compare.comparable import misspelt
from eddy_bench.compare.paired import Difference
from eddy_bench.errors import CompareError, counted
from eddy_bench.ids import MethodId, MetricId
from eddy_bench.results.results import Results
from eddy_bench.results.statistics import holm, zero_mean_p
from eddy_bench.storage.files import read_text
from eddy_bench.storage.group import FinishedGroup
from eddy_bench.storage.limits import MAX_PAIRS, refuse_more
from eddy_bench.storage.run_folder import RunFolder

Place = tuple[MethodId, str, int]  # method, prompt id, seed
QUESTIONS = ("different", "better")
HEADER = ("item", "shuffle", *QUESTIONS, "voter")
ANSWERS = ("left", "same", "right", "")
MAX_BYTES = 16 * 2**20
MAX_DIGITS = 18  # of a shuffle's number
RESAMPLES = 2000
LEGEND = (
    "Votes: how often a method wins over its pairs with the baseline, the same counted half, less "
    "one half; a mean over prompts, with Wilson's 95% interval. p: that both win alike, by the "
    "studentised bootstrap over prompts, Holm over the methods; with few prompts it may differ "
    "from the interval. Better, worse: p below 0.05 and an interval without 0. Rank correlation: "
    "Spearman's between votes and the metric's differences, over pairs; its interval by resampling "
    "prompts."
)
FEW = 8  # items below which no agreement is given


@dataclass(frozen=True)
class Item:
    """One question to a voter: a method's group beside the baseline's, of the same noise.

    id: a hash of both groups' keys and of the shuffle, which names neither to the voter.
    method_left: the method's images stand left.
    """

    id: str
    method: MethodId
    prompt_id: str
    seed: int
    method_left: bool


def study_items(
    groups: Mapping[Place, FinishedGroup], baseline: MethodId, shuffle: int
) -> list[Item]:
    """Return a pair of every prompt and seed of a run in the study's order, methods by turns.

    Which method, the order and the sides follow from the groups' keys and `shuffle` alone, so that
    votes are understood from the run they are on, and on no other.

    Raises:
        CompareError: the baseline was not drawn, or nothing stands beside it.

    """
    items = []
    for (method, prompt, seed), group in groups.items():
        other = groups.get((baseline, prompt, seed))
        if method != baseline and other is not None:
            text = f"{shuffle}|{group.group.key}|{other.group.key}"
            digest = hashlib.sha256(text.encode()).hexdigest()
            items.append(Item(digest[:16], method, prompt, seed, int(digest[16], 16) % 2 == 0))
    if items:
        return _once_each(items)
    drawn = list(dict.fromkeys(method for method, *_ in groups))
    if drawn and baseline not in drawn and (error := misspelt(baseline, drawn)):
        raise error
    raise CompareError(
        f"Expected images of {str(baseline)!r} and of another method for the same prompts, "
        f"found {', '.join(map(str, drawn)) or 'no images'}. Draw them: eddy-bench run --method "
        f"{baseline}; or name another --baseline."
    )


def _once_each(items: Iterable[Item]) -> list[Item]:
    """Return one pair of every prompt and seed, shuffled, methods by turns.

    So every set of images is seen once: whoever saw one twice would know the baseline's by it. Any
    first part has about as many pairs of every method.
    """
    places: dict[tuple[str, int], list[Item]] = {}
    for item in items:
        places.setdefault((item.prompt_id, item.seed), []).append(item)
    turns, chosen = Counter[MethodId](), []
    for own in sorted(places.values(), key=lambda own: min(item.id for item in own)):
        item = min(own, key=lambda item: (turns[item.method], item.id))
        turns[item.method] += 1
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
        (group.group.id, *group.place): group for group in RunFolder(folder).finished(broken=[])
    }


def voted_items(
    folder: Path, wanted: Set[tuple[int, str]], baseline: MethodId
) -> dict[tuple[int, str], Item]:
    """Return the pairs of a run that are wanted, by the study's shuffle and the pair's number.

    Raises:
        CompareError: as `study_items`, or there are too many shuffles to look through.

    """
    groups = drawn_groups(folder)
    shuffles = sorted({shuffle for shuffle, _ in wanted})
    what, cure = "pairs over all shuffles of the votes", "Give fewer files of votes at a time."
    refuse_more([len(shuffles), len(groups)], MAX_PAIRS, what, cure, CompareError)
    return {
        (shuffle, item.id): item
        for shuffle in shuffles
        for item in study_items(groups, baseline, shuffle)
        if (shuffle, item.id) in wanted
    }


def sides(item: Item, baseline: MethodId) -> Sequence[MethodId]:
    """Return the methods on the left and the right side."""
    return (item.method, baseline) if item.method_left else (baseline, item.method)


@dataclass(frozen=True)
class Vote:
    """One voter's answers on an item: `left`, `same`, `right`, or empty for none.

    shuffle: of the study, which decided the sides.
    """

    item: str
    shuffle: int
    different: str
    better: str
    voter: str


@dataclass(frozen=True)
class Opinion:
    """What a vote says of a method: 1 for it, 0 for the baseline, 0.5 for the same."""

    item: Item
    question: str
    value: float


def read_votes(paths: Sequence[Path]) -> list[Vote]:
    """Read files that a study saved; a voter's later answer on an item replaces the earlier one.

    Raises:
        CompareError: a file is no file of votes.

    """
    votes: dict[tuple[str, str, str], Vote] = {}
    for path in paths:
        text = read_text(path, CompareError, "a file of votes", MAX_BYTES)
        header, *rows = _rows(path, text) or [[]]
        if tuple(header) != HEADER:
            raise CompareError(
                f"{path}: expected the columns {','.join(HEADER)} of a study's file, "
                f"got {','.join(header)[:80]!r}."
            )
        for line, row in enumerate(rows, 2):
            vote = _vote(path, line, row)
            # whoever gives no name is one voter per file
            vote = replace(vote, voter=vote.voter or str(path))
            votes[vote.item, str(vote.shuffle), vote.voter] = vote
    if not votes:
        raise CompareError(f"{', '.join(map(str, paths))}: there are no votes.")
    return list(votes.values())


def _rows(path: Path, text: str) -> list[list[str]]:
    """Return the rows of a CSV file; raises CompareError for what is none."""
    try:
        return list(csv.reader(io.StringIO(text)))
    except csv.Error as error:
        raise CompareError(
            f"{path} is not a study's file: {error}. Save the votes again."
        ) from None


def _vote(path: Path, line: int, row: Sequence[str]) -> Vote:
    answers = row[2:4]
    known = len(row) == len(HEADER) and row[1].isdecimal() and len(row[1]) <= MAX_DIGITS
    if not known or set(answers) - set(ANSWERS):
        raise CompareError(
            f"{path}, line {line}: expected an item, the shuffle's number, "
            f"left, same or right twice, and the voter, got {','.join(row)[:80]!r}."
        )
    return Vote(row[0], int(row[1]), answers[0], answers[1], row[4])


def opinions(folder: Path, votes: Sequence[Vote], baseline: MethodId) -> tuple[list[Opinion], int]:
    """Return what votes say of the methods of a run, and how many are on no pair of it.

    Raises:
        CompareError: none is, or none answers anything.

    """
    known = voted_items(folder, {(vote.shuffle, vote.item) for vote in votes}, baseline)
    found, lost = [], 0
    for vote in votes:
        if (vote.shuffle, vote.item) not in known:
            lost += 1
            continue
        item = known[vote.shuffle, vote.item]
        given = {"different": vote.different, "better": vote.better}
        found += [
            Opinion(item, question, _value(answer, item))
            for question, answer in given.items()
            if answer
        ]
    if lost == len(votes):
        raise CompareError(
            f"None of {counted(len(votes), 'vote')} is on a pair of {folder} with "
            f"{str(baseline)!r}: they are of another run, or of another --baseline."
        )
    if not found:
        raise CompareError("Expected an answer to a question in the votes, got none. Vote first.")
    return found, lost


def _value(answer: str, item: Item) -> float:
    if answer == "same":
        return 0.5
    return float((answer == "left") == item.method_left)


def win_rates(opinions: Sequence[Opinion]) -> list[Difference]:
    """Return how often each method wins against the baseline, the same counted half.

    Means over prompts, of all votes on a prompt; 0.5 is as often as the baseline. Intervals and p
    are over prompts (Wilson's intervals, Holm over the methods).
    """
    lines: list[Difference] = []
    for question in QUESTIONS:
        table = pd.DataFrame(
            [
                (item.item.method, item.item.prompt_id, item.value)
                for item in opinions
                if item.question == question
            ],
            columns=["method", "prompt", "value"],
        )
        means: Any = table.groupby(["method", "prompt"], sort=False)["value"].mean()
        own = [
            _win_rate(method, question, part.to_numpy(np.float64))
            for method, part in means.groupby(level=0, sort=False)
        ]
        chances = holm([1.0 if line.p != line.p else line.p for line in own])
        lines += [replace(line, p_holm=p) for line, p in zip(own, chances, strict=True)]
    return lines


def _win_rate(method: MethodId, question: str, values: NDArray[np.float64]) -> Difference:
    rate = float(values.mean())
    low, high = _wilson(rate, len(values))
    return Difference(
        method,
        MetricId("votes", question),
        True,
        len(values),
        0.5,
        rate,
        rate - 0.5,
        low - 0.5,
        high - 0.5,
        p=zero_mean_p(values[None] - 0.5)[0],
        wins=rate,
    )


def _wilson(rate: float, count: int) -> tuple[float, float]:
    """Return Wilson's 95% interval of a rate, within 0 to 1 and never of no width.

    A rate of means between 0 and 1 scatters no more than one of votes for 0 or 1.
    """
    square = 1.96**2 / count
    middle, half = rate + square / 2, (square * rate * (1 - rate) + square**2 / 4) ** 0.5
    return (middle - half) / (1 + square), (middle + half) / (1 + square)


def agreements(results: Results, opinions: Sequence[Opinion]) -> list[Difference]:
    """Return how far each metric agrees with the votes, metric by metric.

    Spearman's rank correlation over the items between the votes' mean and the difference in the
    metric, better counted up: 1 where the metric orders pairs as people do, 0 where it says
    nothing of them. Intervals by resampling prompts.
    """
    lines = []
    for column in results.columns:
        if results.metric(column).scope == "group":
            gains = _gains(results, column)
            found = [_agreement(column, question, gains, opinions) for question in QUESTIONS]
            lines += [line for line in found if line is not None]
    return lines


def _gains(results: Results, column: MetricId) -> Mapping[Place, float]:
    """Return a metric's differences to the baseline, better counted up, group by group."""
    rows = results.rows(column=column)
    parts = (rows[name] for name in ("method", "prompt_id", "seed", "value"))
    values = {
        (method, prompt, int(seed)): float(value)
        for method, prompt, seed, value in zip(*parts, strict=True)
    }
    sign = 1.0 if results.metric(column).higher_is_better else -1.0
    return {
        (method, prompt, seed): sign * (value - values[results.baseline, prompt, seed])
        for (method, prompt, seed), value in values.items()
        if (results.baseline, prompt, seed) in values
    }


def _agreement(
    column: MetricId,
    question: str,
    gains: Mapping[Place, float],
    opinions: Sequence[Opinion],
) -> Difference | None:
    """Return a metric's agreement with the answers to a question.

    None for too few items, and where all votes or all differences are the same.
    """
    answers: dict[Item, list[float]] = {}
    for opinion in opinions:
        if opinion.question == question:
            answers.setdefault(opinion.item, []).append(opinion.value)
    judged = [
        (item.prompt_id, gains[place], float(np.mean(values)))
        for item, values in answers.items()
        if (place := (item.method, item.prompt_id, item.seed)) in gains
        and np.isfinite(gains[place])
    ]
    pairs = np.asarray([pair for _, *pair in judged]).reshape(-1, 2)
    if len(judged) < FEW or not (pairs.std(0) > 0).all():
        return None
    prompts = np.asarray([prompt for prompt, *_ in judged])
    rho = _spearman(pairs)
    names = np.unique(prompts)
    rng = np.random.default_rng(0)
    rows = {name: np.flatnonzero(prompts == name) for name in names}
    drawn = [
        _spearman(pairs[np.concatenate([rows[name] for name in rng.choice(names, len(names))])])
        for _ in range(RESAMPLES)
    ]
    alone = len(names) < 2  # one prompt has no scatter to take
    low, high = (np.nan, np.nan) if alone else np.nanquantile(drawn, [0.025, 0.975])
    return Difference(
        MethodId(str(column)),
        MetricId("rank correlation", question),
        True,
        len(names),
        0.0,
        rho,
        rho,
        float(low),
        float(high),
        warning=f"{len(judged)} pairs",
    )


def _spearman(pairs: NDArray[np.float64]) -> float:
    """Return the rank correlation of two columns, ties sharing their mean rank; NaN if constant."""
    from scipy.stats import rankdata

    ranks = rankdata(pairs, axis=0)
    ranks -= ranks.mean(0)
    size = np.sqrt((ranks**2).sum(0).prod())
    return float((ranks[:, 0] * ranks[:, 1]).sum() / size) if size > 0 else float("nan")
