"""OOD detection against scikit-learn and obvious code."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import logsumexp, softmax
from shiftbench.evaluation.detection import auroc, fpr95, mcm, scores
from shiftbench.evaluation.examples import of_logits


def slow_auroc(inside, outside):
    wins = [(a > b) + (a == b) / 2 for a in inside for b in outside]
    return sum(wins) / len(wins)


def slow_fpr95(inside, outside):
    """The highest threshold among the scores that accepts 95 % of what is inside."""
    accepted = [t for t in inside if sum(a >= t for a in inside) >= 0.95 * len(inside) - 1e-9]
    return sum(b >= max(accepted) for b in outside) / len(outside)


@pytest.mark.parametrize("seed", range(12))
def test_auroc_and_fpr95_are_those_of_the_definitions(seed):
    rng = np.random.default_rng(seed)
    inside, outside = rng.normal(0.7, 1, 20 + 7 * seed), rng.normal(0, 1, 33)
    if seed % 3 == 0:
        inside, outside = np.round(inside), np.round(outside)  # many ties
    assert auroc(inside, outside) == pytest.approx(slow_auroc(inside, outside), abs=1e-12)
    assert fpr95(inside, outside) == pytest.approx(slow_fpr95(inside, outside), abs=1e-12)
    from sklearn.metrics import roc_auc_score

    labels = np.repeat([1, 0], [len(inside), len(outside)])
    found = roc_auc_score(labels, np.concatenate([inside, outside]))
    assert auroc(inside, outside) == pytest.approx(found, abs=1e-12)


def test_scores_are_those_of_the_papers_in_float64():
    rng = np.random.default_rng(0)
    cosines = rng.uniform(-1, 1, (50, 9))
    logits = (100 * cosines).astype(np.float32)
    exact = logits.astype(np.float64)
    examples = of_logits(np.zeros(50, np.int64), logits, {"mcm": mcm(logits, 100.0)})
    np.testing.assert_allclose(scores(examples, "msp"), softmax(exact, axis=1).max(1), rtol=1e-12)
    np.testing.assert_allclose(scores(examples, "energy"), logsumexp(exact, axis=1), rtol=1e-12)
    concept = softmax(exact / 100, axis=1).max(1)
    np.testing.assert_allclose(scores(examples, "mcm"), concept, rtol=1e-12)
    kept = of_logits(np.zeros(50, np.int64), logits, {"mcm": mcm(logits, 100.0).astype(str)})
    np.testing.assert_array_equal(scores(kept, "mcm"), scores(examples, "mcm"))
    assert scores(of_logits(np.zeros(50, np.int64), logits, {}, ()), "msp") is None
