"""Say which method to use: marginal-preserving, for little time, at little loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from eddy_bench.compare.paired import Difference, medians_by_method
from eddy_bench.compare.power import prompts_needed
from eddy_bench.errors import EddyError, counted
from eddy_bench.ids import MethodId, MetricId
from eddy_bench.methods.registry import build_method
from eddy_bench.results.headroom import Headroom
from eddy_bench.results.results import Results
from eddy_bench.scoring.metric import Aspect
from eddy_bench.scoring.metrics import role_of
from eddy_bench.suites.method_spec import MethodSpec

MORE_TIME = 1.2
LOSS = 0.01
EFFECT = 0.05  # gain that is looked for
UNDECIDED = "too few prompts to decide"
NOT_SHOWN = "no gain is shown"
SMALL = f"no method gains {EFFECT:.0%}"
NONE_FITS = "no method here is known to fit"
NOT_MEASURED = "fidelity was not scored"


@dataclass(frozen=True)
class Candidate:
    """A method as a choice.

    gain: in diversity.
    losses: of every fidelity metric per prompt.
    times: seconds per image over the baseline's, medians; NaN where they were not measured.
    shifted: the scores prove that marginals have shifted.
    """

    method: MethodId
    gain: Difference
    losses: tuple[Difference, ...]
    times: float
    shifted: bool

    @property
    def preserves_marginal(self) -> bool:
        """Whether each sample keeps the distribution that the model gives it, as is proved."""
        return preserves_marginal(self.method) and not self.shifted

    @property
    def faithful(self) -> bool:
        """Whether no fidelity metric loses more than 1% on the average of the prompts.

        False where none was compared.
        """
        return bool(self.losses) and all(_loss(loss) <= LOSS for loss in self.losses)


@dataclass(frozen=True)
class Answer:
    """A question and its answer.

    brief: the question in three words, for one sentence of all answers.
    method: the one to use; None where the baseline stays.
    sentence: the method and its figures.
    gain: its share of the baseline's diversity.
    why: what speaks for the baseline, where it stays.
    """

    question: str
    brief: str
    method: MethodId | None
    sentence: str
    gain: float
    why: str = ""


@dataclass(frozen=True)
class Question:
    """A question, in three words too, and which methods may answer it."""

    text: str
    brief: str
    fits: Callable[[Candidate], bool]
    of_fidelity: bool = True


QUESTIONS = (
    Question(
        "Marginal-preserving",
        "marginal-preserving",
        lambda candidate: candidate.preserves_marginal,
        of_fidelity=False,
    ),
    Question(
        "Within 20% more time, 1% less fidelity",
        "within 20% more time and 1% less fidelity",
        lambda candidate: candidate.faithful and candidate.times <= MORE_TIME,
    ),
    Question(
        "Within 1% less fidelity, any time",
        "within 1% less fidelity at any time",
        lambda candidate: candidate.faithful,
    ),
)


def answers(
    differences: Sequence[Difference], results: Results, headrooms: Sequence[Headroom]
) -> list[Answer]:
    """Answer each question with the method that gains most of those that gain significantly.

    None without differences in diversity. Significance is corrected over all methods; that the best
    one was chosen on these prompts makes its gain look larger than it is.
    """
    found = candidates(differences, results, headrooms)
    if not found:
        return []
    measured = any(one.losses for one in found)
    return [
        _none(question, results.baseline, NOT_MEASURED)
        if question.of_fidelity and not measured
        else _best(question, [one for one in found if question.fits(one)], results.baseline)
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

    >>> lhs = MethodId("lhs")
    >>> both = [Answer("", "at once", lhs, "", 0.1), Answer("", "later", lhs, "", 0.1)]
    >>> [(str(answer.method), when) for answer, when in summary(both)]
    [('lhs', 'at once, and later')]
    """
    kinds: dict[tuple[MethodId | None, str], list[Answer]] = {}
    for answer in answers:
        kinds.setdefault((answer.method, answer.why), []).append(answer)
    return [(own[0], ", and ".join(answer.brief for answer in own)) for own in kinds.values()]


def unfaithful(differences: Sequence[Difference], results: Results) -> set[MethodId]:
    """Return the methods that lose more than 1% of a fidelity metric."""
    losses = of_aspect("fidelity", differences, results)
    return {loss.method for loss in losses if not _loss(loss) <= LOSS}  # NaN is no small loss


def preserves_marginal(method: MethodId) -> bool:
    """Return whether a method promises to keep marginals; unknown ones promise nothing."""
    try:
        spec = MethodSpec(name=method.name, parameters=method.values)
        return build_method(spec).preserves_marginal
    except EddyError:  # of another version, or a plug-in that is not installed
        return False


def candidates(
    differences: Sequence[Difference], results: Results, headrooms: Sequence[Headroom]
) -> list[Candidate]:
    """Return every method as a choice, by the first diversity metric that was compared."""
    gains = of_aspect("diversity", differences, results)
    losses = of_aspect("fidelity", differences, results)
    shifted = {own.method for own in headrooms if own.shifted}
    times = _times(results)
    return [
        Candidate(
            gain.method,
            gain,
            tuple(own for own in losses if own.method == gain.method),
            times.get(gain.method, float("nan")),
            gain.method in shifted,
        )
        for gain in gains
        if gain.metric == gains[0].metric
    ]


def of_aspect(
    aspect: Aspect, differences: Sequence[Difference], results: Results
) -> list[Difference]:
    """Return the differences per prompt in metrics of an aspect, the leading metric's first."""
    paired = [own for own in differences if own.prompts]
    columns = results.of_aspect(aspect, list(dict.fromkeys(own.metric for own in paired)))
    return [own for column in columns for own in paired if own.metric == column]


def _times(results: Results) -> dict[MethodId, float]:
    """Return how many times the baseline's seconds each method takes in its own run.

    Of medians over groups, which no batch that something else stalled moves.
    """
    rows = results.rows(column=MetricId(role_of("seconds").name))
    sources = rows.groupby("source", sort=False)
    medians = {source: medians_by_method(own) for source, own in sources}
    usual = [own[results.baseline] for own in medians.values() if results.baseline in own]
    first = usual[0] if usual else float("nan")
    return {
        method: value / (own.get(results.baseline, first) or float("nan"))
        for own in medians.values()
        for method, value in own.items()
    }


def _loss(difference: Difference) -> float:
    """Return the share of the baseline's value that is lost."""
    return -difference.gain / abs(difference.baseline) if difference.baseline else 0.0


def _best(question: Question, candidates: Sequence[Candidate], baseline: MethodId) -> Answer:
    """Answer with the method that gains most of those shown to gain."""
    text, brief = question.text, question.brief
    ordered = sorted(candidates, key=lambda one: one.gain.gain, reverse=True)
    if best := next((one for one in ordered if one.gain.better), None):
        caution = _not_excluded(best) if question.of_fidelity else ""
        sentence = f"{best.method}: {_words(best)}.{caution}"
        return Answer(text, brief, best.method, sentence, -_loss(best.gain))
    if not ordered:
        return _none(question, baseline, NONE_FITS)
    if all(_most(one.gain) < EFFECT for one in ordered):
        return _none(question, baseline, SMALL)
    if (needed := _needed(ordered)) > ordered[0].gain.prompts:
        have = counted(ordered[0].gain.prompts, "prompt")
        enough = f"about {needed:.0f} would show {EFFECT:.0%}" if math.isfinite(needed) else ""
        sentence = f"{have} cannot decide{f'; {enough}' if enough else ''}."
        return Answer(text, brief, None, sentence, 0.0, UNDECIDED)
    if ordered[0].gain.gain <= 0:
        return _none(question, baseline, NOT_SHOWN)
    sentence = f"{NOT_SHOWN}; largest: {ordered[0].method}, {_words(ordered[0])}."
    return Answer(text, brief, None, sentence, 0.0, NOT_SHOWN)


def _needed(candidates: Sequence[Candidate]) -> float:
    """Return how many prompts would show a gain of 5% of the method that needs most of them."""
    gains = [one.gain for one in candidates]
    return max((n for _, n in prompts_needed(gains, EFFECT, len(gains))), default=float("inf"))


def _most(gain: Difference) -> float:
    """Return the largest gain that is not excluded, as a share of the baseline's value."""
    ends = (gain.low, gain.high) if gain.higher_is_better else (-gain.low, -gain.high)
    share = max(ends) / abs(gain.baseline) if gain.baseline else float("nan")
    return share if math.isfinite(share) else float("inf")


def _not_excluded(candidate: Candidate) -> str:
    """Return the largest loss of fidelity that is not excluded, where it is beyond 1%."""
    worst, name = 0.0, ""
    for loss in candidate.losses:
        ends = (-loss.low, -loss.high) if loss.higher_is_better else (loss.low, loss.high)
        share = max(ends) / abs(loss.baseline) if loss.baseline else 0.0
        if not share <= worst:
            worst, name = share, loss.metric.bare
    if worst <= LOSS:
        return ""
    most = f"a loss of up to {worst:.1%} of {name}" if math.isfinite(worst) else f"a loss of {name}"
    return f" On average; {most} is not excluded."


def _none(question: Question, baseline: MethodId, why: str) -> Answer:
    """Answer that there is nothing to choose from."""
    sentence = f"{why}: stay with {baseline}."
    return Answer(question.text, question.brief, None, sentence, 0.0, why)


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
    name, values = difference.metric.bare, difference
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
