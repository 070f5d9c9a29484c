"""Examples to score: some for values that were stored, some with logits for every metric."""

from __future__ import annotations

import numpy as np
from shiftbench.evaluation.examples import Examples, of_logits

REGIONS = np.array(["Asia", "Europe", "Africa", "Other", "Oceania"])


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
    *("ece:15", "ece-adaptive:7", "nll", "brier", "aurc"),
)
"""Every built-in metric, with an argument where it takes one."""


def models(seed: int, n: int = 200, count: int = 3, **metadata: np.ndarray) -> list[Examples]:
    """Answers by logits of some models on the same examples: skilled, unsure and tied ones."""
    rng = np.random.default_rng(seed)
    classes = int(rng.integers(2, 12))
    labels = rng.choice(classes, size=n, p=rng.dirichlet(np.full(classes, 0.8)))
    columns = {"region": REGIONS[rng.integers(0, 5, size=n)], "year": rng.integers(2002, 2005, n)}
    found = []
    for _ in range(count):
        logits = rng.normal(size=(n, classes)) * rng.uniform(0.3, 4)
        logits[np.arange(n), labels] += rng.uniform(0, 4)
        if rng.random() < 0.4:
            logits = np.round(logits)  # many ties
        found.append(of_logits(labels, logits.astype(np.float32), {**columns, **metadata}))
    return found
