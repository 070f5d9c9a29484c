import numpy as np
import pytest
from scipy.stats import binomtest, ttest_1samp
from shiftbench.evaluation.intervals import clopper_pearson, student_t, worst_of_groups


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


CASES = [(0, 1), (0, 20), (20, 20), (1, 10), (37, 120), (999, 1000), (7012, 10000)]


@pytest.mark.parametrize(("k", "n"), CASES)
def test_clopper_pearson_equals_scipy(k, n):
    expected = binomtest(k, n).proportion_ci(0.95, method="exact")
    low, high = clopper_pearson(k, n)
    assert (float(low), float(high)) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize("p", [0.05, 0.3, 0.76, 0.98])
@pytest.mark.parametrize("n", [50, 1000])
def test_clopper_pearson_covers(p, n):
    # 20,000 simulations: the standard error of the coverage is 0.15 %.
    low, high = clopper_pearson(np.random.default_rng(0).binomial(n, p, size=20_000), n)
    assert float(((low <= p) & (p <= high)).mean()) >= 0.945


def test_student_t_equals_scipy():
    values = np.random.default_rng(0).normal(0.7, 0.01, size=(6, 5))
    low, high = student_t(values)
    for row, ends in zip(values, np.stack([low, high], axis=1), strict=True):
        expected = ttest_1samp(row, 0).confidence_interval(0.95)
        assert ends.tolist() == pytest.approx([expected.low, expected.high])
    with pytest.raises(ValueError, match="no spread"):
        student_t([0.7])


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_student_t_covers(seeds):
    # 20,000 simulations: the standard error of the coverage is 0.15 %.
    low, high = student_t(np.random.default_rng(0).normal(0.7, 0.01, size=(20_000, seeds)))
    assert ((low <= 0.7) & (high >= 0.7)).mean() == pytest.approx(0.95, abs=0.005)
