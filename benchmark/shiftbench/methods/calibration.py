"""Temperatures fitted on labelled examples."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from shiftbench.methods.base import Array
    from shiftbench.methods.members import Labelled, Labels

LOWEST, HIGHEST = 0.1, 10.0
"""The ends between which VRF's code (arXiv 2411.06966) looks for a temperature."""


def confidence(logits: Array, temperature: float) -> float:
    """Mean over examples of the highest probability of softmax(z / T), in float64."""
    from scipy.special import log_softmax

    scaled = log_softmax(logits.astype(np.float64) / temperature, axis=1)
    return float(np.exp(scaled.max(axis=1)).mean())


def calibrated_temperature(logits: Array, labels: Labels) -> float:
    """The T at which the mean confidence of softmax(z / T) is the accuracy.

    Confidence falls as T rises, so there is one such T, or an end of [0.1, 10] comes nearest.

    Args:
        logits: (n, classes).
        labels: (n,).
    """
    from scipy.optimize import brentq

    accuracy = float((logits.argmax(axis=1) == labels).mean())

    def gap(log_temperature: float) -> float:
        return confidence(logits, float(np.exp(log_temperature))) - accuracy

    low, high = np.log(LOWEST), np.log(HIGHEST)
    if gap(low) <= 0:
        return LOWEST
    if gap(high) >= 0:
        return HIGHEST
    return float(np.exp(brentq(gap, low, high, xtol=1e-6)))


def calibrated_temperatures(labelled: Labelled) -> Array:
    """Those of the zero-shot model and of each parent, in their order, fp32."""
    members, labels = labelled
    outputs = (members.zero_shot, *members.parents.values())
    return np.array([calibrated_temperature(of.logits, labels) for of in outputs], np.float32)
