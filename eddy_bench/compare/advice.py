"""Say which method to use: where samples must keep their law, for little time, at little loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from eddy_bench.compare.free_shares import MethodShare
from eddy_bench.compare.load import ScoreSet
from eddy_bench.compare.paired import Difference
from eddy_bench.errors import EddyError
from eddy_bench.methods.registry import build_method
from eddy_bench.scoring.metrics import MetricSpec, judging
from eddy_bench.suites.method_spec import MethodSpec

MORE_TIME = 1.2
LOSS = 0.01
COST = "seconds_per_image"
NONE_SHOWN = "no method here is shown to gain"
NONE_GAINS = "no method here gains"
NONE_FITS = "no method here is known to fit"
NOT_MEASURED = "fidelity was not scored"


@dataclass(frozen=True)
class Candidate:
    """Hold a method as a choice.

    gain: in diversity.
    losses: of every fidelity metric per prompt.
    times: seconds per image over the baseline's, medians; NaN where they were not measured.
    moved: the scores prove that samples have moved.
    """

    label: str
    gain: Difference
    losses: tuple[Difference, ...]
    times: float
    moved: bool

    @property
    def keeps_law(self) -> bool:
        """Whether each sample keeps the distribution that the model gives it, as is proved."""
        return keeps_law(self.label) and not self.moved

    @property
    def faithful(self) -> bool:
        """Whether no fidelity metric loses more than 1% on the average of the prompts.

        False where none was compared.
        """
        return bool(self.losses) and all(_loss(loss) <= LOSS for loss in self.losses)


@dataclass(frozen=True)
class Answer:
    """Hold a question and its answer.

    brief: the question in three words, for one sentence of all answers.
    label: the method to use; empty where the baseline stays.
    sentence: the method and its figures.
    gain: its share of the baseline's diversity.
    why: what speaks for the baseline, where it stays.
    """

    question: str
    brief: str
    label: str
    sentence: str
    gain: float
    why: str = ""


@dataclass(frozen=True)
class Question:
    """Hold a question, in three words too, and which methods may answer it."""

    text: str
    brief: str
    fits: Callable[[Candidate], bool]
    of_fidelity: bool = True


QUESTIONS = (
    Question(
        "To keep samples' law",
        "to keep every sample's law",
        lambda candidate: candidate.keeps_law,
        of_fidelity=False,
    ),
    Question(
        "Within 20% more time, 1% less fidelity",
        "within 20% more time and 1% less fidelity",
        lambda candidate: candidate.faithful and candidate.times <= MORE_TIME,
    ),
    Question(
        "Within 1% less fidelity, any time",
        "at 1% less fidelity whatever the time",
        lambda candidate: candidate.faithful,
    ),
)


def answers(
    differences: Sequence[Difference],
    scores: ScoreSet,
    shares: Sequence[MethodShare],
    baseline: str,
) -> list[Answer]:
    """Answer each question with the method that gains most of those shown to gain.

    None without differences in diversity. Shown is what `Difference.better` says, corrected over
    all methods; that the best one was chosen on these prompts makes its gain look larger than it
    is.
    """
    found = candidates(differences, scores, shares, baseline)
    if not found:
        return []
    measured = any(one.losses for one in found)
    return [
        _none(question, baseline, NOT_MEASURED)
        if question.of_fidelity and not measured
        else _best(question, [one for one in found if question.fits(one)], baseline)
        for question in QUESTIONS
    ]


def together(answers: Sequence[Answer]) -> list[tuple[str, str]]:
    """Return (question, sentence), questions of one answer in one."""
    questions: dict[str, str] = {}
    for answer in answers:
        asked, own = questions.get(answer.sentence), answer.question
        questions[answer.sentence] = f"{asked}; {own[0].lower()}{own[1:]}" if asked else own
    return [(question, sentence) for sentence, question in questions.items()]


def summary(answers: Sequence[Answer]) -> list[tuple[Answer, str]]:
    """Return the first answer of each kind, and when it holds.

    >>> both = [Answer("", "at once", "lhs", "", 0.1), Answer("", "later", "lhs", "", 0.1)]
    >>> [(answer.label, when) for answer, when in summary(both)]
    [('lhs', 'at once, and later')]
    """
    kinds: dict[tuple[str, str], list[Answer]] = {}
    for answer in answers:
        kinds.setdefault((answer.label, answer.why), []).append(answer)
    return [(own[0], ", and ".join(answer.brief for answer in own)) for own in kinds.values()]


def unfaithful(differences: Sequence[Difference]) -> set[str]:
    """Return the methods that lose more than 1% of a fidelity metric."""
    fidelity = judging("fidelity")
    losses = [item for item in differences if any(_is(item, name) for name in fidelity)]
    return {loss.label for loss in losses if not _loss(loss) <= LOSS}  # NaN is no small loss


def keeps_law(label: str) -> bool:
    """Return whether a method promises that samples keep their law; unknown ones promise none."""
    spec = MethodSpec.of_label(label)
    try:
        return build_method(spec).keeps_law
    except EddyError:  # of another version, or a plug-in that is not installed
        return False


def candidates(
    differences: Sequence[Difference],
    scores: ScoreSet,
    shares: Sequence[MethodShare],
    baseline: str = "iid",
) -> list[Candidate]:
    """Return every method as a choice, by the first diversity metric that was compared."""
    diversity, fidelity = judging("diversity"), judging("fidelity")
    gains = _first([item for name in diversity for item in differences if _is(item, name)])
    moved = {share.label for share in shares if share.moved}
    times = _times(scores, baseline)
    return [
        Candidate(
            gain.label,
            gain,
            tuple(
                item
                for item in differences
                if item.label == gain.label and any(_is(item, name) for name in fidelity)
            ),
            times.get(gain.label, float("nan")),
            gain.label in moved,
        )
        for gain in gains
    ]


def _is(difference: Difference, metric: str) -> bool:
    """Whether a difference is of a metric, compared per prompt."""
    return bool(difference.prompts) and MetricSpec.of_column(difference.column).name == metric


def _first(differences: Sequence[Difference]) -> list[Difference]:
    """Return the differences of the first column."""
    return [item for item in differences if item.column == differences[0].column]


def _times(scores: ScoreSet, baseline: str) -> dict[str, float]:
    """Return how many times the baseline's seconds each method takes in its own run.

    Of medians over groups, which no batch that something else stalled moves.
    """
    rows = scores.frame[scores.frame["metric"] == COST]
    medians = {
        (str(source), str(label)): float(own["value"].median())
        for (source, label), own in rows.groupby(["source", "label"], sort=False)
    }
    usual = {source: value for (source, label), value in medians.items() if label == baseline}
    first = next(iter(usual.values()), float("nan"))
    return {
        label: value / (usual.get(source, first) or float("nan"))
        for (source, label), value in medians.items()
    }


def _loss(difference: Difference) -> float:
    """Return the share of the baseline's value that is lost."""
    worse = -difference.difference if difference.higher_is_better else difference.difference
    return worse / abs(difference.baseline) if difference.baseline else 0.0


def _best(question: Question, candidates: Sequence[Candidate], baseline: str) -> Answer:
    """Answer with the method that gains most of those shown to gain."""
    text, brief = question.text, question.brief
    ordered = sorted(candidates, key=lambda one: _signed(one.gain), reverse=True)
    shown = [one for one in ordered if one.gain.better]
    if shown:
        best = shown[0]
        sentence = f"{best.label}: {_words(best)}."
        return Answer(text, brief, best.label, sentence, _share(best.gain))
    if not ordered:
        return _none(question, baseline, NONE_FITS)
    if _signed(ordered[0].gain) <= 0:
        return _none(question, baseline, NONE_GAINS)
    sentence = f"none is shown to gain; largest: {ordered[0].label}, {_words(ordered[0])}."
    return Answer(text, brief, "", sentence, 0.0, NONE_SHOWN)


def _none(question: Question, baseline: str, why: str) -> Answer:
    """Answer that there is nothing to choose from."""
    sentence = f"{why}: stay with {baseline}."
    return Answer(question.text, question.brief, "", sentence, 0.0, why)


def _share(difference: Difference) -> float:
    return difference.difference / abs(difference.baseline) if difference.baseline else 0.0


def _signed(difference: Difference) -> float:
    return difference.difference if difference.higher_is_better else -difference.difference


def _words(candidate: Candidate) -> str:
    """Return gain, largest loss and time in parts of the baseline's, short enough for one line."""
    words = [_with_interval(candidate.gain)]
    worst = max(candidate.losses, key=_loss, default=None)
    if worst is not None and _loss(worst) > 0:
        words.append(_with_interval(worst))
    if candidate.times == candidate.times:
        words.append(f"{candidate.times:.2f}x time")
    return ", ".join(words)


def _with_interval(difference: Difference) -> str:
    """Return the change in per cent, or as it is where the baseline is 0, and of what."""
    name, values = difference.column.partition("[")[0], difference
    write = partial(_percent, baseline=abs(difference.baseline))
    change, low, high = (write(value) for value in (values.difference, values.low, values.high))
    known = math.isfinite(values.low) and math.isfinite(values.high)
    return f"{change} {name} [{low}, {high}]" if known else f"{change} {name}"


def _percent(value: float, baseline: float) -> str:
    """Return a signed share of a baseline in two digits or more; without one, the value.

    >>> _percent(0.0431, 1), _percent(-0.152, 1), _percent(0.5, 0)
    ('+4.3%', '-15%', '+0.5')
    """
    if not baseline:
        return f"{value:+.3g}"
    share = value / baseline
    return f"{share:+.1%}" if abs(share) < 0.0995 else f"{share:+.0%}"
