"""How many of the values that a prompt leaves open are seen in a group, by zero-shot CLIP."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence

import numpy as np

from eddy_bench.errors import EddyError, MetricError
from eddy_bench.scoring.diversity import Features, unit
from eddy_bench.scoring.metric import Metric
from eddy_bench.storage.records import RunRecord
from eddy_bench.suites.prompts import PromptSet, load_prompts

Values = Mapping[str, Sequence[Sequence[str]]]  # by prompt id: the values of each open attribute


def values_seen(images: Features, attributes: Sequence[Features]) -> float:
    """Return how many values of an attribute are nearest to some image, mean over attributes.

    1 to the smaller of N and the number of values; NaN for a prompt that lists none.

    Args:
        images: (N, F).
        attributes: of the texts of each attribute's values, (V, F) each.

    >>> values_seen(np.eye(3), [np.eye(3), np.array([[1.0, 0, 0], [0, 1.0, 1.0]])])
    2.5
    """
    z = unit(images)
    counts = [len(np.unique((z @ unit(texts).T).argmax(1))) for texts in attributes]
    return float(np.mean(counts)) if counts else float("nan")


def values_of_run(run: RunRecord) -> Values:
    """Return the values that the prompt set of a run lists: `attributes: {colour: [red, blue]}`.

    Raises:
        MetricError: the set is not there any more, was changed, or lists none.
    """
    extra = run.suite.model_extra or {}
    source, limit = str(extra.get("prompts", "")), extra.get("limit")
    try:
        prompts = load_prompts(source)
    except EddyError as error:
        raise MetricError(f"Metric 'values-seen' needs the run's prompt set. {error}") from None
    if limit:
        prompts = prompts.cut(int(limit))
    if run.prompt_digest not in (None, prompts.digest):
        raise MetricError(
            f"Metric 'values-seen' needs the prompt set {source!r} as it was when the run was "
            "drawn, and it was changed since. Put the file back."
        )
    return open_values(prompts, source)


def open_values(prompts: PromptSet, source: str) -> Values:
    """Return the values that prompts list; MetricError where they list none, or what is no word."""
    values = {
        prompt.id: [
            _words(prompt.id, name, listed)
            for name, listed in prompt.attributes.items()
            if isinstance(listed, list) and len(listed) > 1
        ]
        for prompt in prompts.prompts
    }
    if not any(values.values()):
        raise MetricError(
            f"Metric 'values-seen' needs prompts that list values, and those of {source!r} list "
            "none. Give them in YAML: attributes: {colour: [red, blue]}."
        )
    return values


def _words(prompt: str, attribute: str, listed: Sequence[object]) -> list[str]:
    """Return values as text; MetricError for what is neither text nor number, or is there twice."""
    words = [" ".join(str(value).split()) for value in listed]
    seen: set[str] = set()
    for value, word in zip(listed, words, strict=True):
        if not isinstance(value, str | int | float) or isinstance(value, bool) or not word:
            raise MetricError(
                f"Expected words as values of {attribute!r} of the prompt {prompt!r}, "
                f"got {value!r}. Put it in quotes."
            )
        if word in seen:
            raise MetricError(
                f"Expected different values of {attribute!r} of the prompt {prompt!r}, "
                f"got {word!r} twice. Leave one out."
            )
        seen.add(word)
    return words


def values_digest(values: Values) -> str:
    """Return a digest of what the prompts list, for signatures."""
    text = json.dumps(values, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


METRICS = (
    Metric(
        "values-seen",
        "values",
        True,
        "how many of the values that the prompt set lists an attribute are seen in a group",
        function=values_seen,
        marks=(("text", "PROMPT, VALUE"),),
        aspect="diversity",
        range=(1.0, math.inf),
    ),
)
