import numpy as np
import pytest
from scipy.stats import binomtest, ttest_1samp
from shiftbench.evaluation.intervals import (
    bootstrap_clusters,
    bootstrap_examples,
    clopper_pearson,
    resampled_counts,
    student_t,
    wilson,
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

    monkeypatch.setattr("shiftbench.evaluation.intervals.BLOCK", 300)
    bootstrap_examples(np.array([5, 5]), statistic)
    assert sum(seen) == 1000
    assert len(seen) > 1


CASES = [(0, 1), (0, 20), (20, 20), (1, 10), (37, 120), (999, 1000), (7012, 10000)]


@pytest.mark.parametrize(("interval", "name"), [(wilson, "wilson"), (clopper_pearson, "exact")])
@pytest.mark.parametrize(("k", "n"), CASES)
def test_intervals_of_a_proportion_equal_scipy(interval, name, k, n):
    expected = binomtest(k, n).proportion_ci(0.95, method=name)
    low, high = interval(k, n)
    assert (float(low), float(high)) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize(("k", "n"), [(0, 0), (3, 2), (-1, 5)])
def test_impossible_counts_have_no_score_interval(k, n):
    with pytest.raises(ValueError, match="trial"):
        wilson(k, n)


@pytest.mark.parametrize("p", [0.05, 0.3, 0.76, 0.98])
@pytest.mark.parametrize("n", [50, 1000])
def test_intervals_of_a_proportion_cover(p, n):
    # 20,000 simulations: the standard error of the coverage is 0.15 %.
    k = np.random.default_rng(0).binomial(n, p, size=20_000)

    def coverage(interval):
        low, high = interval(k, n)
        return float(((low <= p) & (p <= high)).mean())

    assert coverage(clopper_pearson) >= 0.945
    assert 0.92 <= coverage(wilson) <= 0.985  # it is right on average over p, not at each


def test_the_score_interval_is_narrower():
    k = np.arange(1, 100)
    (exact_low, exact_high), (low, high) = clopper_pearson(k, 100), wilson(k, 100)
    assert (high - low < exact_high - exact_low).all()


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


def macro_f1(counts):
    """Macro-F1 of (block, 9) counts of label and prediction among three classes."""
    table = counts.reshape(-1, 3, 3)
    both = np.diagonal(table, axis1=1, axis2=2)
    return (2 * both / np.maximum(table.sum(axis=1) + table.sum(axis=2), 1)).mean(axis=1)


def test_the_bootstrap_of_macro_f1_covers():
    # 300 simulations, 95 % nominal: three standard errors are 3.8 %.
    cells = np.array([30, 5, 5, 4, 20, 6, 3, 2, 25])
    truth = float(macro_f1(cells[None])[0])
    drawn = np.random.default_rng(0).multinomial(500, cells / 100, size=300)
    ends = np.array([bootstrap_examples(cells, macro_f1) for cells in drawn])
    assert 0.91 <= ((ends[:, 0] <= truth) & (truth <= ends[:, 1])).mean() <= 0.985


def test_the_bootstrap_of_clusters_covers_where_that_of_examples_does_not():
    # 300 simulations of 40 locations; a percentile bootstrap of so few is a little too narrow.
    rng = np.random.default_rng(0)
    accuracy = lambda c: c[:, 1] / c.sum(axis=1)  # noqa: E731
    clustered = alone = 0
    for _ in range(300):
        hits = rng.binomial(25, rng.uniform(0.4, 0.9, size=40))
        totals = np.stack([25 - hits, hits], axis=1)
        low, high = bootstrap_clusters(totals, accuracy)
        clustered += low <= 0.65 <= high
        low, high = bootstrap_examples(totals.sum(axis=0), accuracy)
        alone += low <= 0.65 <= high
    assert 0.89 <= clustered / 300 <= 0.985
    assert alone / 300 < 0.8


def test_counts_of_draws_are_those_of_drawing():
    rng = np.random.default_rng(7)
    expected = [np.bincount(rng.integers(0, 9, size=9), minlength=9) for _ in range(5)]
    assert np.concatenate([*resampled_counts(9, 5, 7)]).tolist() == np.array(expected).tolist()


def test_counts_of_draws_do_not_depend_on_blocks(monkeypatch):
    whole = np.concatenate([*resampled_counts(9, 50)])
    monkeypatch.setattr("shiftbench.evaluation.intervals.CACHED", 30)
    blocks = [*resampled_counts(9, 50)]
    assert len(blocks) == 17
    assert np.concatenate(blocks).tolist() == whole.tolist()
