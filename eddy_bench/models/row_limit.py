"""How many rows go through decoder and guide network at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Self

Kind = Literal["forward", "backward"]
MOST = 64
SHARE = 0.7  # of the memory that is free
BACKWARD_SHARE = 6.0  # about how much more a row takes with its graph, decoders of 512 pixels


@dataclass
class RowLimit:
    """The rows at once, without and with a graph.

    They are settled by the first rows and by errors, and remembered for everything that follows.

    Args:
        forward: rows at once without a graph.
        backward: rows at once with one.
        fixed: the user set them, so that nothing is measured and nothing shrinks.
        checkpointed: graphs keep the inputs of blocks only.
        taken: bytes that one row took at its peak, where that was measured.

    """

    forward: int = MOST
    backward: int = MOST
    fixed: bool = False
    checkpointed: bool = False
    taken: dict[Kind, float] = field(default_factory=dict)

    @classmethod
    def of(cls, feature_batch: int | str) -> Self:
        """Return the limit of `--feature-batch`: a number of rows, or `auto`."""
        if feature_batch == "auto":
            return cls()
        return cls(int(feature_batch), int(feature_batch), fixed=True)

    def at_once(self, kind: Kind) -> int:
        """Return the rows at once."""
        return self.backward if kind == "backward" else self.forward

    def wants_measure(self, kind: Kind) -> bool:
        """Return whether a row is to be measured first."""
        return not self.fixed and kind not in self.taken

    def foresee(self, free: float) -> None:
        """Checkpoint at once where a row with a graph is not to be expected to fit."""
        if self.taken.get("forward", 0.0) * BACKWARD_SHARE > free:
            self.checkpointed = True

    def settle(self, kind: Kind, taken: float, free: float) -> None:
        """Take as many rows, a power of two, as fit into the memory that is free.

        Args:
            kind: without or with a graph.
            taken: bytes that one row takes; 0 where nothing tells, which leaves the limit.
            free: bytes.

        """
        self.taken[kind] = taken
        if taken <= 0 or taken * self.at_once(kind) <= SHARE * free:
            return
        fits = max(1, int(SHARE * free / taken))
        self._set(kind, min(self.at_once(kind), 2 ** (fits.bit_length() - 1)))

    def shrink(self, kind: Kind) -> bool:
        """Take half the rows, then checkpoint; returns whether there was something left to do."""
        if self.fixed:
            return False
        if self.at_once(kind) > 1:
            self._set(kind, self.at_once(kind) // 2)
            return True
        if kind == "backward" and not self.checkpointed:
            self.checkpointed = True
            return True
        return False

    def _set(self, kind: Kind, rows: int) -> None:
        if kind == "backward":
            self.backward = rows
        else:
            self.forward = rows

    @property
    def note(self) -> str:
        """What was settled, for the user; empty where nothing is less than what was hoped for."""
        if self.fixed or (min(self.forward, self.backward) == MOST and not self.checkpointed):
            return ""
        again = ", which compute their blocks again" if self.checkpointed else ""
        return (
            f"memory: decoder and guide network take {self.forward} images at once, "
            f"{self.backward} with backward passes{again}"
        )
