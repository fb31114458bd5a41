"""CLIP-IQA: does an image lie nearer to good or to bad photos in words (arXiv 2207.12396)?"""

from __future__ import annotations

import numpy as np

from eddy_bench.scoring.diversity import Features, unit
from eddy_bench.scoring.metric import Metric

SCALE = 100.0  # of cosines, as CLIP was trained
WORDS = ("Good photo.", "Bad photo.")


def clip_iqa(images: Features, words: Features) -> float:
    """Return the mean of softmax(100 cos(image, good), 100 cos(image, bad))[good], 0 to 1.

    The paper takes a ResNet-50 without positional embeddings; here it is any CLIP, as it is.

    Args:
        images: (N, F).
        words: of the good and the bad one, (2, F).

    """
    return float(clip_iqa_of_images(images, words).mean())


def clip_iqa_of_images(images: Features, words: Features) -> Features:
    """Return softmax(100 cos(image, good), 100 cos(image, bad))[good] of each image, (N,)."""
    good, bad = SCALE * unit(words) @ unit(images).T
    return np.asarray(1 / (1 + np.exp(bad - good)))


METRICS = (
    Metric(
        "clip-iqa",
        "text",
        True,
        "how much nearer an image is to 'Good photo.' than to 'Bad photo.', 0 to 1",
        "arXiv 2207.12396",
        function=clip_iqa,
        each=clip_iqa_of_images,
        marks=(("scale", "100"),),
        texts=WORDS,
        judges="fidelity",
        range=(0.0, 1.0),
    ),
)
