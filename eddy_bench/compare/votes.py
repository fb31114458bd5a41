"""Votes of people on pairs of groups: how often a method wins, and which metric agrees."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eddy_bench.compare.ballots import Item, voted_items
from eddy_bench.compare.load import ScoreSet
from eddy_bench.compare.paired import Difference
from eddy_bench.errors import CompareError, counted
from eddy_bench.scoring.metrics import METRICS, MetricSpec
from eddy_bench.scoring.statistics import holm, zero_mean_p
from eddy_bench.storage.files import read_text

QUESTIONS = ("different", "better")
HEADER = ("item", "shuffle", *QUESTIONS, "voter")
ANSWERS = ("left", "same", "right", "")
MAX_BYTES = 16 * 2**20
MAX_DIGITS = 18  # of a shuffle's number
RESAMPLES = 2000
FEW = 8  # items below which no agreement is given


@dataclass(frozen=True)
class Vote:
    """Hold one voter's answers on an item: `left`, `same`, `right`, or empty for none.

    shuffle: of the ballot, which decided the sides.
    """

    item: str
    shuffle: int
    different: str
    better: str
    voter: str


@dataclass(frozen=True)
class Opinion:
    """Hold what a vote says of a method: 1 for it, 0 for the baseline, 0.5 for the same."""

    item: Item
    question: str
    value: float


def read_votes(paths: Sequence[Path]) -> list[Vote]:
    """Read files that a ballot saved; a voter's later answer on an item replaces the earlier one.

    Raises:
        CompareError: a file is no file of votes.

    """
    votes: dict[tuple[str, str, str], Vote] = {}
    for path in paths:
        text = read_text(path, CompareError, "a file of votes", MAX_BYTES)
        header, *rows = _rows(path, text) or [[]]
        if tuple(header) != HEADER:
            raise CompareError(
                f"{path}: expected the columns {','.join(HEADER)} of a ballot's file, "
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
            f"{path} is not a ballot's file: {error}. Save the votes again."
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


def opinions(folder: Path, votes: Sequence[Vote], baseline: str) -> tuple[list[Opinion], int]:
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
            f"None of {counted(len(votes), 'vote')} is on a pair of {folder} with {baseline!r}: "
            "they are of another run, or of another --baseline."
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
                (item.item.label, item.item.prompt_id, item.value)
                for item in opinions
                if item.question == question
            ],
            columns=["label", "prompt", "value"],
        )
        means = table.groupby(["label", "prompt"], sort=False)["value"].mean()
        own = [
            _win_rate(str(label), question, part.to_numpy(np.float64))
            for label, part in means.groupby(level=0, sort=False)
        ]
        chances = holm([1.0 if line.p != line.p else line.p for line in own])
        lines += [replace(line, p_holm=p) for line, p in zip(own, chances, strict=True)]
    return lines


def _win_rate(label: str, question: str, values: NDArray[np.float64]) -> Difference:
    rate = float(values.mean())
    low, high = _wilson(rate, len(values))
    return Difference(
        label,
        f"votes[{question}]",
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


def agreements(scores: ScoreSet, opinions: Sequence[Opinion], baseline: str) -> list[Difference]:
    """Return how far each metric agrees with the votes, metric by metric.

    Spearman's rank correlation over the items between the votes' mean and the difference in the
    metric, better counted up: 1 where the metric orders pairs as people do, 0 where it says
    nothing of them. Intervals by resampling prompts.
    """
    lines = []
    for column in scores.columns:
        metric = METRICS.get(MetricSpec.of_column(column).name)
        if metric is None or metric.scope != "group":
            continue
        gains = _gains(scores, column, baseline, metric.higher_is_better)
        for question in QUESTIONS:
            line = _agreement(column, question, gains, opinions)
            lines += [line] if line is not None else []
    return lines


def _gains(
    scores: ScoreSet, column: str, baseline: str, higher_is_better: bool
) -> Mapping[tuple[str, str, int], float]:
    """Return a metric's differences to the baseline, better counted up, group by group."""
    rows = scores.frame[(scores.frame["column"] == column) & (scores.frame["prompt_id"] != "")]
    values = {
        (str(label), str(prompt), int(seed)): float(value)
        for label, prompt, seed, value in rows[["label", "prompt_id", "seed", "value"]].itertuples(
            index=False
        )
    }
    sign = 1.0 if higher_is_better else -1.0
    return {
        (label, prompt, seed): sign * (value - values[baseline, prompt, seed])
        for (label, prompt, seed), value in values.items()
        if (baseline, prompt, seed) in values
    }


def _agreement(
    column: str,
    question: str,
    gains: Mapping[tuple[str, str, int], float],
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
        if (place := (item.label, item.prompt_id, item.seed)) in gains and np.isfinite(gains[place])
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
        column,
        f"rank correlation[{question}]",
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
