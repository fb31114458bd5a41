"""What methods and metrics are called, and what a metric's value depends on."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Self

CIRCULAR = "circular"  # the extractor is the network that also guided
SMALL_SAMPLE = "small-sample"  # fewer images than the extractor has features
SOURCE = "source"  # the digest of a plug-in
ASPECT = "aspect"  # of a plug-in: diversity or fidelity, where it has one
POOLED = "pooled"  # of a plug-in: a value per method, not per group
Part = tuple[str, str] | str  # `key=value`, or a word that stands alone
_WHOLE = re.compile(r"(=-?\d+)\.0(?=,|$)")


def number_text(value: float) -> str:
    """Return the shortest text that reads back as the same number.

    >>> number_text(2.0), number_text(0.1)
    ('2', '0.1')
    """
    return repr(float(value)).removesuffix(".0")


@dataclass(frozen=True)
class MethodId:
    """A method with the parameters that are not its defaults, `key=value,...` in their order.

    >>> str(MethodId.parse("pg:strength=2.0,kernel=features"))
    'pg:strength=2,kernel=features'
    >>> MethodId.parse("./mine.py:Mine:strength=2")
    MethodId(name='./mine.py:Mine', parameters='strength=2')
    """

    name: str
    parameters: str = ""

    def __post_init__(self) -> None:
        """Write whole numbers without `.0`."""
        object.__setattr__(self, "parameters", _WHOLE.sub(r"\1", self.parameters))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a method's text; any text is one."""
        path, file, rest = text.rpartition(".py:")
        name, _, parameters = rest.partition(":")
        return cls(path + file + name, parameters)

    def __str__(self) -> str:
        return f"{self.name}:{self.parameters}" if self.parameters else self.name

    @property
    def values(self) -> dict[str, str]:
        """The parameters by name."""
        pairs = (part.partition("=") for part in self.parameters.split(","))
        return {key: value for key, equals, value in pairs if equals}


IID = MethodId("iid")


@dataclass(frozen=True)
class MetricId:
    """A metric with its extractor and the parameters that are not its defaults.

    image: `best` or `worst`, where values are of each group's best or worst image.

    >>> MetricId.parse("vendi[fmnist-clip]:q=2").parameters
    (('q', 2.0),)
    >>> str(MetricId("clip", "fmnist-clip", image="best"))
    'clip[fmnist-clip]:image=best'
    """

    name: str
    extractor: str = ""
    parameters: tuple[tuple[str, float], ...] = ()
    image: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a metric's text; raises ValueError where a parameter is no number."""
        match = re.fullmatch(r"([^\[\]:]+)(?:\[([^\[\]]*)\])?(?::(.*=.*))?", text)
        if match is None:
            raise ValueError(f"expected name[extractor]:key=value,..., got {text[:80]!r}")
        pairs = [part.partition("=")[::2] for part in filter(None, (match[3] or "").split(","))]
        numbers = tuple((key, float(value)) for key, value in pairs if key != "image")
        return cls(match[1], match[2] or "", numbers, dict(pairs).get("image", ""))

    def __str__(self) -> str:
        extractor = f"[{self.extractor}]" if self.extractor else ""
        pairs = [f"{key}={number_text(value)}" for key, value in self.parameters]
        pairs += [f"image={self.image}"] if self.image else []
        return self.name + extractor + (f":{','.join(pairs)}" if pairs else "")

    @property
    def bare(self) -> str:
        """The text without the extractor."""
        return str(replace(self, extractor=""))


@dataclass(frozen=True)
class Signature:
    """What a value depends on, as `metric|key=value|word|...`; unequal ones are not compared.

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
    def parse(cls, text: str) -> Self:
        """Read a signature back from its text; any text is one."""
        metric, *parts = text.split("|")
        return cls(_unescaped(metric), tuple(map(_part, parts)))

    def __str__(self) -> str:
        words = (part if isinstance(part, str) else "=".join(part) for part in self.parts)
        return "|".join(map(_escaped, (self.metric, *words)))

    def value(self, key: str) -> str:
        """Return the value of a key; empty where the signature has none."""
        pairs = (part for part in self.parts if not isinstance(part, str))
        return next((value for name, value in pairs if name == key), "")

    def has(self, word: str) -> bool:
        """Return whether a word stands alone in the signature."""
        return word in self.parts

    def adding(self, parts: Iterable[Part]) -> Signature:
        """Return the signature with parts at its end."""
        return replace(self, parts=(*self.parts, *parts))

    @property
    def features(self) -> tuple[str, str]:
        """The extractor that the value is computed with, and the digest of its weights."""
        name, _, digest = self.value("features").rpartition("@")
        return name, digest


def _part(text: str) -> Part:
    key, equals, value = _unescaped(text).partition("=")
    return (key, value) if equals else key


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("|", "%7C")


def _unescaped(text: str) -> str:
    return text.replace("%7C", "|").replace("%25", "%")
