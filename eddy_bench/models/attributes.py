"""The words of the embedded model's captions: from images to attributes, and from prompts.

A garment has three attributes: its class (10), its tone (3 levels of mean foreground brightness)
and its shape (2 levels of mean extent, split at the class's median in the training set).
A caption names some of them and leaves the others free.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
FOREGROUND = 25  # 8-bit brightness above which a pixel belongs to the garment
TONE_EDGES = (140.0, 180.0)  # close to the terciles of the training set
SHAPE_EDGES = (15.2, 8.9, 17.2, 11.0, 16.2, 6.9, 16.7, 8.0, 19.1, 12.1)  # medians per class, pixels


@dataclass(frozen=True)
class Attributes:
    """The attributes that a prompt fixes: an index each, or None where it is left free."""

    garment: int | None = None
    tone: int | None = None
    shape: int | None = None


def shape_words(garment: int) -> tuple[str, str]:
    """Return the two shape words of a class, lower level first."""
    return SHOE if garment in SHOES else UPRIGHT


def measure(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Measure the attributes of real images.

    Args:
        images: (n, 28, 28), 0 to 255.
        labels: (n,), class indices.

    Returns:
        (n, 3): class, tone level, shape level.
    """
    mask = images > FOREGROUND
    area = mask.sum((1, 2)).clip(1)
    tone = np.digitize((images * mask).sum((1, 2)) / area, TONE_EDGES)
    height = mask.any(2).sum(1).clip(1)
    width = mask.any(1).sum(1).clip(1)
    extent = area / np.where(np.isin(labels, list(SHOES)), width, height)
    shape = extent >= np.asarray(SHAPE_EDGES)[labels]
    return np.stack([labels, tone, shape], 1).astype(np.int64)


def caption(attributes: Attributes, rng: np.random.Generator | None = None) -> str:
    """Return the words of attributes; with `rng`, synonyms and an opening are random."""
    garment = attributes.garment
    nouns = ANY_CLASS if garment is None else CLASSES[garment]
    words = [] if attributes.tone is None else [TONES[attributes.tone]]
    if attributes.shape is not None and garment is not None:
        words.append(shape_words(garment)[attributes.shape])
    words.append(nouns[0] if rng is None else str(rng.choice(nouns)))
    opening = (
        "" if rng is None else str(rng.choice(["", "", "a ", "a photo of a ", "picture of a "]))
    )
    return opening + " ".join(words)


def vocabulary() -> list[str]:
    """Return every word that the embedded model knows, as the tokenizer splits them, sorted."""
    texts = [
        *FILLERS,
        *ANY_CLASS,
        *TONES,
        *UPRIGHT,
        *SHOE,
        *(noun for nouns in CLASSES for noun in nouns),
    ]
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
    return Attributes(
        garment, tone, next((names.index(word) for word in words if word in names), None)
    )
