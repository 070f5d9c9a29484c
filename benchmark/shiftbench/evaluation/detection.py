"""OOD detection: images of the task's classes told from others by a score of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from shiftbench.evaluation.intervals import Floats

if TYPE_CHECKING:
    from shiftbench.evaluation.examples import Examples
    from shiftbench.evaluation.inference import Array

DetectionScore = Literal["msp", "energy", "mcm"]
DETECTION_SCORES: tuple[DetectionScore, ...] = get_args(DetectionScore)
MCM = "mcm"
"""The column of predictions with each example's MCM score: it needs the logits of all classes."""
ACCEPTED = 0.95  # of the images of the task's classes


def mcm(logits: Array, temperature: float) -> Floats:
    """Maximum concept matching (n,) (Ming et al., 2022, arXiv 2211.13445), with its τ of 1.

    It is the highest softmax probability of cosines. Of a zero-shot head, logits are cosines times
    CLIP's temperature; those of a fine-tuned head are divided by the same.

    Args:
        logits: (n, classes).
        temperature: by which CLIP multiplies cosines, such as 100.
    """
    cosines = logits.astype(np.float64) / temperature
    highest = cosines.max(axis=1, keepdims=True)
    found: Floats = 1.0 / np.exp(cosines - highest).sum(axis=1)
    return found


def scores(examples: Examples, name: DetectionScore) -> Floats | None:
    """How much each example (n,) looks like one of the task's classes; ``None``: not known.

    ``msp``: the highest probability (Hendrycks and Gimpel, 2017, arXiv 1610.02136). ``energy``: log
    Σ exp(logit), the negative energy (Liu et al., 2020, arXiv 2010.03759). ``mcm``: see there.
    """
    match name:
        case "msp" if examples.top_logits is not None and examples.log_sum_exp is not None:
            return examples.confidence
        case "energy":
            return examples.log_sum_exp
        case "mcm" if MCM in examples.metadata:
            return examples.metadata[MCM].astype(np.float64)
        case _:
            return None


def auroc(inside: Floats, outside: Floats) -> float:
    """The probability that an image of the classes scores above another; ties count half.

    Args:
        inside: (n,) scores of images of the task's classes.
        outside: (m,) scores of others.
    """
    ordered = np.sort(outside)
    below = np.searchsorted(ordered, inside, side="left")
    up_to = np.searchsorted(ordered, inside, side="right")
    return float((below + up_to).mean() / (2 * len(outside)))


def fpr95(inside: Floats, outside: Floats) -> float:
    """The share of the others that is accepted where at least 95 % of the classes' images are.

    Args:
        inside: (n,) scores of images of the task's classes.
        outside: (m,) scores of others.
    """
    rejected = int(np.floor((1 - ACCEPTED) * len(inside) + 1e-9))  # the most that may be
    threshold = np.sort(inside)[rejected]
    return float((outside >= threshold).mean())
