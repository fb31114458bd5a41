"""Windows: where along the solver's path guidance acts."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from eddy_bench.errors import ParameterError
from eddy_bench.sampling.state import Moment, State

# Guidance is faded at the end of its window: an edit stays in a multistep solver's history.
FADE_STEPS = 2
FADE_SIGMA = 0.25


@dataclass(frozen=True)
class Window:
    """Where guidance acts, faded towards its later end.

    Attributes:
        low: lower end of an interval of the noise level sigma, or of the share of steps done.
        high: upper end of the same.
        share: the interval is one of the share of steps done, in [0, 1].

    """

    low: float
    high: float
    share: bool = False

    def weight(self, state: State) -> float:
        """Return 1 inside and 0 outside, and less towards the end that sampling reaches last.

        The weight falls linearly over the last two steps, or over sigma in [low, 1.25 low].
        """
        if self.share:
            inside = self.low <= state.share + 1e-9
            if not inside or self.high >= 1:
                return float(inside)
            edge = FADE_STEPS / max(state.steps, 1)
            return min(max((self.high - state.share) / edge, 0.0), 1.0)
        if not self.low <= state.sigma <= self.high:
            return 0.0
        return min((state.sigma - self.low) / (FADE_SIGMA * self.low), 1.0) if self.low > 0 else 1.0

    def holds(self, moment: Moment) -> bool:
        """Return whether a moment is inside: low < sigma <= high, or low <= share < high."""
        if self.share:
            return self.low <= moment.share + 1e-9 < self.high
        return self.low < moment.sigma <= self.high


def parse_window(text: str) -> Window:
    """Read `a..b` in sigma (b may be left out: no upper end), or `a%..b%` in share of steps.

    >>> parse_window("0%..20%")
    Window(low=0.0, high=0.2, share=True)
    >>> parse_window("1..")
    Window(low=1.0, high=inf, share=False)
    """
    match = re.fullmatch(r"\s*([\d.eE+-]*?)(%?)\.\.([\d.eE+-]*?|inf)(%?)\s*", text)
    problem = (
        "Expected a window 'a..b' in the noise level sigma / alpha or 'a%..b%' in share of steps, "
        f"got {text!r}."
    )
    if not match or match[2] != match[4]:
        raise ParameterError(problem)
    percent = bool(match[2])
    try:
        low = float(match[1] or 0)
        high = float(match[3]) if match[3] else (100.0 if percent else math.inf)
    except ValueError:
        raise ParameterError(problem) from None
    if not 0 <= low < high or (percent and high > 100):
        raise ParameterError(problem + " The ends must rise, and shares stay within 0% and 100%.")
    return Window(low / 100, high / 100, True) if percent else Window(low, high)
