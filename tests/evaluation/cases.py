"""Examples to score: some for values that were stored, some with logits for every metric."""

from __future__ import annotations

import numpy as np
from shiftbench.testing.metrics import REGIONS


def case(seed: int) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Labels, answers of three models (3, n), and metadata; odd seeds have locations."""
    rng = np.random.default_rng(seed)
    n, classes = int(rng.integers(50, 400)), int(rng.integers(2, 40))
    labels = rng.choice(classes, size=n, p=rng.dirichlet(np.full(classes, 0.5)))
    guesses = rng.integers(0, classes + 2, size=(3, n))
    answers = np.where(rng.random((3, n)) < rng.random((3, 1)), labels, guesses)
    metadata = {"region": REGIONS[rng.integers(0, 5, size=n)]}
    if seed % 2:
        metadata["location"] = rng.integers(0, 12, size=n).astype(str)
    return labels, answers, metadata


TEXTS = (
    *("accuracy", "top-5", "balanced-accuracy", "macro-f1"),
    *("worst-region", "worst-group:year", "worst-group:region*year"),
    *("pm:0", "pm:1"),
    *("ece:15", "ece-adaptive:7", "nll", "brier", "aurc"),
)
"""Every built-in metric, with an argument where it takes one."""
