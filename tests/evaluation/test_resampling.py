import time

import numpy as np
import pytest
from scipy.stats import chi2
from shiftbench.core.errors import InputError
from shiftbench.evaluation.examples import Examples
from shiftbench.evaluation.intervals import percentiles
from shiftbench.evaluation.metrics.registry import metric
from shiftbench.evaluation.pair_tests import bootstrap_p
from shiftbench.evaluation.resampling import (
    over_sets,
    resample,
    resampled_counts,
    resampled_kinds,
)
from shiftbench.testing.metrics import models

from tests.evaluation.cases import TEXTS

ACCURACY = metric("accuracy")


def bootstrap_examples(kinds, statistic):
    """The interval of a statistic of counts of kinds."""
    return percentiles(np.concatenate([statistic(counts) for counts in resampled_kinds(kinds)]))


def bootstrap_clusters(totals, statistic):
    """The interval of a statistic of sums (clusters, k) over clusters."""
    ones = np.ones(len(totals), dtype=np.int64)
    return bootstrap_examples(ones, lambda counts: statistic(counts @ totals))


def examples(count=2, n=300, classes=5, seed=0, **metadata):
    """Two models' answers that are right in about two of three cases."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(classes, size=n, p=rng.dirichlet(np.full(classes, 0.8)))
    answers = rng.integers(0, classes + 2, size=(count, n))
    answers = np.where(rng.random((count, n)) < 0.6, labels, answers)
    return [Examples(labels, each, metadata) for each in answers]


def right_or_wrong(right, **metadata):
    """Models by which examples (models, n) they have right."""
    return [Examples(np.zeros(len(row), int), (~row).astype(int), metadata) for row in right]


# Drawing


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

    monkeypatch.setattr("shiftbench.evaluation.resampling.BLOCK", 300)
    bootstrap_examples(np.array([5, 5]), statistic)
    assert sum(seen) == 1000
    assert len(seen) > 1


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
    monkeypatch.setattr("shiftbench.evaluation.resampling.CACHED", 30)
    blocks = [*resampled_counts(9, 50)]
    assert len(blocks) == 17
    assert np.concatenate(blocks).tolist() == whole.tolist()


# Metrics of resamples


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("with_locations", [False, True])
def test_the_value_is_that_of_the_metric(text, with_locations):
    metadata = {"location": np.arange(200) % 20} if with_locations else {}
    for seed in range(3):
        drawn = models(seed, metadata=metadata)
        found = resample(drawn, metric(text), resamples=5)
        assert found.values.tolist() == [metric(text).value(each) for each in drawn]
        assert found.draws.shape == (3, 5)
        assert found.units == (20 if with_locations else 200)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("with_locations", [False, True])
@pytest.mark.parametrize("dense", [0.0, 1.0])
def test_a_draw_is_the_metric_of_the_drawn_examples(text, with_locations, dense, monkeypatch):
    """The same draws, made slowly: each resample is written out and scored as a set."""
    monkeypatch.setattr("shiftbench.evaluation.metrics.base.DENSE", dense)
    location = np.random.default_rng(3).integers(0, 8, size=80)
    drawn = models(5, n=80, metadata={"location": location} if with_locations else {})
    found = resample(drawn, metric(text), seed=4, resamples=6)

    rng = np.random.default_rng(4)
    expected = []
    for _ in range(6):
        units = rng.integers(0, found.units, size=found.units)
        rows = (
            np.concatenate([np.flatnonzero(location == unit) for unit in units])
            if with_locations
            else units
        )
        expected.append([metric(text).value(each.take(rows)) for each in drawn])
    slow = metric(text).centred(np.array(expected).T, found.values)
    assert found.draws.ravel().tolist() == pytest.approx(slow.ravel().tolist(), abs=1e-12)


def test_blocks_do_not_change_the_draws(monkeypatch):
    whole = resample(examples(), metric("macro-f1"), resamples=50)
    monkeypatch.setattr("shiftbench.evaluation.resampling.CACHED", 1000)
    found = resample(examples(), metric("macro-f1"), resamples=50)
    assert found.draws == pytest.approx(whole.draws)


def test_a_region_that_no_draw_holds_is_not_the_worst():
    regions = np.array(["rare"] + ["common"] * 29)
    wrong = right_or_wrong(np.zeros((1, 30), dtype=bool), region=regions)
    found = resample(wrong, metric("worst-region"))
    assert (found.draws == 0).all()


@pytest.mark.parametrize(
    ("drawn", "text", "message"),
    [
        (examples(), "worst-region", '"region"'),
        (examples(region=np.array(["Other"] * 300)), "worst-region", "no region to score"),
        (examples(n=0), "accuracy", "no example"),
        (examples(), "nll", "classes only"),
    ],
)
def test_what_cannot_be_resampled_is_refused(drawn, text, message):
    with pytest.raises(InputError, match=message):
        resample(drawn, metric(text))


def test_ten_thousand_examples_take_less_than_a_second():
    drawn = examples(2, n=10_000, classes=182)
    for text in ("accuracy", "macro-f1"):
        fastest = np.inf
        for _ in range(2):
            start = time.process_time()
            resample(drawn, metric(text), resamples=2000)
            fastest = min(fastest, time.process_time() - start)
        assert fastest < 1.0


# p-values of the bootstrap


def test_the_bootstrap_p_of_accuracy_is_that_of_the_z_test():
    drawn = examples(2, n=4000)
    ours, theirs = (each.correct.astype(float) for each in drawn)
    found = resample(drawn, ACCURACY)
    difference = float(found.values[0] - found.values[1])
    error = np.std(ours - theirs) / np.sqrt(4000)
    # 2,000 resamples know the standard error to 1.6 %.
    assert (found.draws[0] - found.draws[1]).std() == pytest.approx(error, rel=0.07)
    p = bootstrap_p(difference, found.draws[0] - found.draws[1], 4000)
    assert p == pytest.approx(chi2.sf((difference / error) ** 2, 1), abs=0.05)


def test_the_bootstrap_test_keeps_its_level_with_clusters():
    """Two equally good models whose errors go by location; examples alone would mislead.

    200 simulations: the standard error of a share of 5 % is 1.5 %.
    """
    rng = np.random.default_rng(0)
    clustered = alone = 0
    for _ in range(200):
        location = np.repeat(np.arange(25), 20)
        skill = rng.uniform(0.3, 0.9, size=(2, 25))
        right = rng.random((2, 500)) < skill[:, location]
        for metadata in ({"location": location}, {}):
            found = resample(right_or_wrong(right, **metadata), ACCURACY, 1, 200)
            difference = float(found.values[0] - found.values[1])
            rejects = bootstrap_p(difference, found.draws[0] - found.draws[1], found.units) <= 0.05
            if metadata:
                clustered += rejects
            else:
                alone += rejects
    assert 0.02 <= clustered / 200 <= 0.10
    assert alone / 200 > 0.2


def test_the_interval_of_a_difference_covers():
    # 300 simulations, 95 % nominal: three standard errors are 3.8 %.
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(300):
        hard = rng.random(400)
        right = np.stack([hard < 0.7, (hard < 0.6) ^ (rng.random(400) < 0.1)])
        truth = 0.7 - (0.6 * 0.9 + 0.4 * 0.1)
        found = resample(right_or_wrong(right), ACCURACY, 2, 200)
        low, high = np.quantile(found.draws[0] - found.draws[1], [0.025, 0.975])
        covered += low <= truth <= high
    assert 0.91 <= covered / 300 <= 0.985


def test_the_mean_over_sets_is_as_sure_as_the_smallest():
    parts = [resample(examples(n=n), ACCURACY, seed=n, resamples=10) for n in (300, 50)]
    mean = over_sets(parts)
    assert mean.units == 50
    assert mean.values == pytest.approx((parts[0].values + parts[1].values) / 2)
    assert mean.draws == pytest.approx((parts[0].draws + parts[1].draws) / 2)
