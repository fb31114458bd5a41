"""The words of the embedded model's captions: from images to attributes, and from prompts.

A garment has three attributes: its class (10), its tone (3 levels of mean foreground brightness)
and its shape (2 levels of mean extent, split at the class's median in the training set).
A caption names some of them and leaves the others free.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

CLASSES: tuple[tuple[str, ...], ...] = (
    ("t-shirt", "tee"),
    ("trousers", "pants"),
    ("pullover", "sweater"),
    ("dress", "gown"),
    ("coat", "jacket"),
    ("sandal", "sandals"),
    ("shirt", "blouse"),
    ("sneaker", "trainer"),
    ("bag", "handbag"),
    ("ankle boot", "boot"),
)
ANY_CLASS = ("garment", "item")
TONES = ("dark", "mid", "light")
UPRIGHT = ("narrow", "wide")
SHOE = ("long", "short")
SHOES = frozenset({5, 7, 9})
FILLERS = ("a", "photo", "picture", "of", "an", "the")


@dataclass(frozen=True)
class Attributes:
    """The attributes that a prompt fixes: an index each, or None where it is left free."""

    garment: int | None = None
    tone: int | None = None
    shape: int | None = None


def shape_words(garment: int) -> tuple[str, str]:
    """Return the two shape words of a class, lower level first."""
    return SHOE if garment in SHOES else UPRIGHT


def vocabulary() -> list[str]:
    """Return every word that the embedded model knows, as the tokenizer splits them, sorted."""
    nouns = [noun for nouns in CLASSES for noun in nouns]
    texts = [*FILLERS, *ANY_CLASS, *TONES, *UPRIGHT, *SHOE, *nouns]
    return sorted({word for text in texts for word in split_words(text)})


def split_words(text: str) -> list[str]:
    """Return lower-case pieces of a text: letters, single digits, other marks.

    CLIP's tokenizer splits in the same way.
    """
    return re.findall(r"[^\W\d_]+|\d|[^\s\w]+|_+", text.lower())


def unknown_words(prompt: str) -> list[str]:
    """Return the pieces of a prompt that the embedded model was never trained on, in order."""
    known = set(vocabulary())
    return [word for word in split_words(prompt) if word not in known]


def parse(prompt: str) -> Attributes:
    """Return the attributes that a prompt fixes; the first word of each kind counts."""
    text = f" {' '.join(split_words(prompt))} "
    mentions = [
        (text.index(key), -len(key), index)
        for index, nouns in enumerate(CLASSES)
        for noun in nouns
        if (key := f" {' '.join(split_words(noun))} ") in text
    ]
    garment = min(mentions)[2] if mentions else None
    words = text.split()
    tone = next((TONES.index(word) for word in words if word in TONES), None)
    if garment is None:
        return Attributes(None, tone, None)
    names = shape_words(garment)
    shape = next((names.index(word) for word in words if word in names), None)
    return Attributes(garment, tone, shape)
