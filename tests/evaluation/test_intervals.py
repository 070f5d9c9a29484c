import numpy as np
import pytest

from benchmark.evaluation.intervals import (
    bootstrap_clusters,
    bootstrap_examples,
    clopper_pearson,
    worst_of_groups,
)


def binomial_tail(k: int, n: int, p: float) -> float:
    """P(X ≥ k) by summing in float64."""
    import math

    return sum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k, n + 1))


@pytest.mark.parametrize(("k", "n"), [(1, 10), (5, 10), (9, 10), (37, 120), (1, 1000)])
def test_clopper_pearson_inverts_the_binomial_test(k, n):
    low, high = (float(end) for end in clopper_pearson(k, n))
    assert binomial_tail(k, n, low) == pytest.approx(0.025, rel=1e-9)
    assert 1 - binomial_tail(k + 1, n, high) == pytest.approx(0.025, rel=1e-6)


def test_clopper_pearson_at_the_ends():
    # With no success the upper limit solves (1 - p)^n = 0.025.
    low, high = clopper_pearson([0, 20], 20)
    assert low[0] == 0.0
    assert high[0] == pytest.approx(1 - 0.025 ** (1 / 20))
    assert low[1] == pytest.approx(0.025 ** (1 / 20))
    assert high[1] == 1.0


def test_clopper_pearson_of_a_paper():
    # 5 of 10: the table of Clopper and Pearson (1934) reads 0.187 and 0.813.
    low, high = clopper_pearson(5, 10)
    assert (round(float(low), 3), round(float(high), 3)) == (0.187, 0.813)


@pytest.mark.parametrize(("k", "n"), [(0, 0), (3, 2), (-1, 5)])
def test_impossible_counts_are_refused(k, n):
    with pytest.raises(ValueError, match="trial"):
        clopper_pearson(k, n)


def test_the_worst_group_is_covered_although_it_is_selected():
    rng = np.random.default_rng(0)
    truth = np.array([0.5, 0.5, 0.5, 0.55, 0.6])
    trials = np.array([40, 80, 120, 200, 60])
    naive = exact = 0
    repetitions = 1000
    for _ in range(repetitions):
        hits = rng.binomial(trials, truth)
        low, high = worst_of_groups(hits, trials)
        exact += low <= truth.min() <= high
        worst = int(np.argmin(hits / trials))
        _, high_alone = clopper_pearson(hits[worst], trials[worst])
        naive += truth.min() <= float(high_alone)
    assert exact / repetitions >= 0.95
    assert naive < exact  # one group's own interval forgets that it was chosen for being low


def test_one_group_is_plain_clopper_pearson():
    low, high = clopper_pearson(30, 50)
    assert worst_of_groups(np.array([30]), np.array([50])) == (float(low), float(high))


def test_bootstrap_of_a_mean_is_its_standard_error():
    rng = np.random.default_rng(3)
    n = 4000
    hits = int((rng.random(n) < 0.3).sum())
    low, high = bootstrap_examples(np.array([n - hits, hits]), lambda c: c[:, 1] / c.sum(axis=1))
    p = hits / n
    half = 1.96 * np.sqrt(p * (1 - p) / n)
    assert (low, high) == pytest.approx((p - half, p + half), abs=0.1 * half)


def test_bootstrap_from_counts_equals_resampling_the_examples():
    rng = np.random.default_rng(0)
    kinds = rng.choice(3, size=200, p=[0.2, 0.3, 0.5])
    cells = np.bincount(kinds)
    ratio = lambda c: c[:, 0] / (c[:, 0] + c[:, 1])  # noqa: E731
    low, high = bootstrap_examples(cells, ratio)
    slow = []
    for _ in range(4000):
        drawn = np.bincount(rng.choice(kinds, size=200), minlength=3)
        slow.append(drawn[0] / (drawn[0] + drawn[1]))
    assert (low, high) == pytest.approx(np.quantile(slow, [0.025, 0.975]), abs=0.015)


def test_clusters_of_one_example_are_examples():
    hits = np.random.default_rng(0).random(500) < 0.4
    totals = np.stack([~hits, hits], axis=1).astype(np.int64)
    mean = lambda c: c[:, 1] / c.sum(axis=1)  # noqa: E731
    assert bootstrap_clusters(totals, mean) == pytest.approx(
        bootstrap_examples(totals.sum(axis=0), mean), abs=0.01
    )


def test_blocks_do_not_change_how_many_resamples_there_are(monkeypatch):
    seen = []

    def statistic(counts):
        seen.append(len(counts))
        return counts[:, 0]

    monkeypatch.setattr("benchmark.evaluation.intervals.BLOCK", 300)
    bootstrap_examples(np.array([5, 5]), statistic)
    assert sum(seen) == 1000
    assert len(seen) > 1
