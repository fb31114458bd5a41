"""The signature of a metric's value: everything beside the images that changes it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

CIRCULAR = "circular"  # the extractor is the network that also guided
SMALL_SAMPLE = "small-sample"  # fewer images than the extractor has features
SOURCE = "source"  # the digest of a plug-in
GIVEN = "given"  # parameters of a plug-in that are not its defaults, which nothing else tells
JUDGES = "judges"  # of a plug-in: diversity or fidelity, where it says so
POOLED = "pooled"  # of a plug-in: a value per method, not per group
BAD_IMAGES = "bad-images"  # no metric: how many images of a group are none
Part = tuple[str, str] | str  # `key=value`, or a word that stands alone


@dataclass(frozen=True)
class Signature:
    """Hold what a value depends on, as `metric|key=value|word|...`; unequal ones are not compared.

    metric: the name.
    parts: pairs and words in order; a value may hold any text.

    >>> str(Signature("fd", (("features", "fmnist-clip@1f"), ("n", "192"), SMALL_SAMPLE)))
    'fd|features=fmnist-clip@1f|n=192|small-sample'
    >>> Signature.parse("vendi|q=2|k=cos|N=4").value("q")
    '2'
    """

    metric: str
    parts: tuple[Part, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Signature:
        """Read a signature back from its text; any text is one."""
        metric, *parts = text.split("|")
        return cls(_unescaped(metric), tuple(map(_part, parts)))

    def __str__(self) -> str:
        words = (part if isinstance(part, str) else "=".join(part) for part in self.parts)
        return "|".join(map(_escaped, (self.metric, *words)))

    def value(self, key: str, default: str = "") -> str:
        """Return the value of a key; `default` where the signature has none."""
        return next(
            (part[1] for part in self.parts if not isinstance(part, str) and part[0] == key),
            default,
        )

    def has(self, word: str) -> bool:
        """Return whether a word stands alone in the signature."""
        return word in self.parts

    def adding(self, parts: Iterable[Part]) -> Signature:
        """Return the signature with parts at its end."""
        return replace(self, parts=(*self.parts, *parts))

    @property
    def features(self) -> tuple[str, str]:
        """The extractor that the value is seen through and the digest of its weights."""
        name, _, digest = self.value("features").rpartition("@")
        return name, digest


def _part(text: str) -> Part:
    key, equals, value = _unescaped(text).partition("=")
    return (key, value) if equals else key


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("|", "%7C")


def _unescaped(text: str) -> str:
    return text.replace("%7C", "|").replace("%25", "%")


def number_text(value: float) -> str:
    """Return the shortest text that reads back as the same number.

    >>> number_text(2.0), number_text(0.1)
    ('2', '0.1')
    """
    return repr(float(value)).removesuffix(".0")
