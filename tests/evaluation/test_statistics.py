import itertools
import time

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, chi2
from shiftbench.core.errors import InputError
from shiftbench.data.images import ImageSet
from shiftbench.evaluation.metrics import METRICS, score
from shiftbench.evaluation.predictions import to_table
from shiftbench.evaluation.statistics import (
    EXACT_UP_TO,
    Difference,
    Examples,
    align,
    bootstrap_p,
    compare,
    decisions,
    groups,
    holm,
    letters,
    mcnemar,
    over_sets,
    resample,
)

LABELS = np.arange(300) % 5


def guesses(accuracy, seed=0, labels=LABELS, classes=6):
    rng = np.random.default_rng(seed)
    return np.where(
        rng.random(len(labels)) < accuracy, labels, rng.integers(0, classes, len(labels))
    )


def table(predictions, labels=LABELS, ids=None, **metadata):
    names = np.array([f"test/{i}" for i in range(len(labels))]) if ids is None else ids
    images = ImageSet(names, labels, [None] * len(labels), "", metadata)
    logits = np.eye(int(max(labels.max(), predictions.max())) + 1, dtype=np.float32)[predictions]
    return to_table("imagenet-r", "", images, logits)


def examples(models=2, n=300, classes=5, seed=0, **metadata):
    rng = np.random.default_rng(seed)
    labels = rng.choice(classes, size=n, p=rng.dirichlet(np.full(classes, 0.8)))
    predictions = np.stack([guesses(0.6, s, labels, classes + 2) for s in range(models)])
    return Examples(labels, predictions, metadata)


# McNemar


@pytest.mark.parametrize(("b", "c"), [(0, 1), (0, 5), (3, 9), (9, 3), (12, 13), (0, 25)])
def test_mcnemar_of_few_pairs_is_the_binomial_test(b, c):
    assert float(mcnemar(b, c)) == pytest.approx(binomtest(b, b + c).pvalue, rel=1e-12)


@pytest.mark.parametrize(("b", "c"), [(8, 18), (13, 13), (0, 30), (100, 140), (2000, 2200)])
def test_mcnemar_of_many_pairs_is_mid_p(b, c):
    at = binomtest(b, b + c, alternative="less" if b <= c else "greater").pvalue
    beyond = binomtest(b - 1, b + c).pvalue / 2 if b else 0.0
    if b > c:
        beyond = binomtest(b + 1, b + c).pvalue / 2
    # Twice the tail with half the outcome: the tail with it, and the tail without.
    expected = 1.0 if b == c else at + beyond
    assert float(mcnemar(b, c)) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_of_very_many_pairs_is_the_chi_square_test():
    p = float(mcnemar(5200, 4900))
    assert p == pytest.approx(chi2.sf((5200 - 4900) ** 2 / 10100, 1), rel=1e-3)


def test_mcnemar_without_discordant_pairs_and_of_arrays():
    p = mcnemar([0, 3, 3], [0, 9, 3])
    assert p.tolist() == pytest.approx([1.0, binomtest(3, 12).pvalue, 1.0])
    with pytest.raises(ValueError, match="negative"):
        mcnemar(-1, 3)


@given(st.integers(0, 200), st.integers(0, 200))
def test_mcnemar_does_not_ask_who_is_first(b, c):
    p = float(mcnemar(b, c))
    assert p == float(mcnemar(c, b))
    assert 0 <= p <= 1


@pytest.mark.parametrize("discordant", [20, 60, 500])
def test_mcnemar_keeps_its_level(discordant):
    # 20,000 simulations under equality: the standard error of the share of rejections is 0.15 %.
    b = np.random.default_rng(0).binomial(discordant, 0.5, size=20_000)
    rejected = float((mcnemar(b, discordant - b) <= 0.05).mean())
    assert rejected <= 0.055
    assert discordant <= EXACT_UP_TO or rejected >= 0.035


# Holm


def slow_holm(p_values):
    """Adjusted p of each: the least level at which the step-down procedure rejects it."""

    def rejected(level):
        left = dict(enumerate(p_values))
        while left:
            least = min(left, key=left.__getitem__)
            if left[least] * len(left) > level:
                break
            del left[least]
        return set(range(len(p_values))) - left.keys()

    levels = sorted({p * k for p in p_values for k in range(1, len(p_values) + 1)})
    return [
        min(1.0, min(level for level in levels if index in rejected(level)))
        for index in range(len(p_values))
    ]


@given(st.lists(st.floats(0, 1), max_size=6))
def test_holm_is_the_step_down_procedure(p_values):
    assert holm(p_values).tolist() == pytest.approx(slow_holm(p_values), rel=1e-12)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.randoms())
def test_holm_lies_between_no_correction_and_bonferroni_in_any_order(p_values, random):
    p = np.array(p_values)
    adjusted = holm(p)
    assert (adjusted >= p).all()
    assert (adjusted <= np.minimum(1, p * len(p))).all()
    order = list(range(len(p)))
    random.shuffle(order)
    assert holm(p[order]).tolist() == adjusted[order].tolist()


def test_holm_of_a_textbook_case():
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])


@pytest.mark.parametrize("p_values", [[0.5, float("nan")], [1.1], [[0.1]]])
def test_what_is_no_p_value_is_refused(p_values):
    with pytest.raises(ValueError, match="p-values"):
        holm(p_values)


# Groups


@st.composite
def symmetric(draw):
    n = draw(st.integers(1, 8))
    differs = np.zeros((n, n), dtype=bool)
    for i, j in itertools.combinations(range(n), 2):
        differs[i, j] = differs[j, i] = draw(st.booleans())
    return differs


@given(symmetric())
def test_two_methods_share_a_group_if_they_cannot_be_told_apart(differs):
    found = groups(differs)
    for i, j in itertools.product(range(len(differs)), repeat=2):
        assert bool(set(found[i]) & set(found[j])) == (i == j or not differs[i, j])
    assert 1 in found[0]
    assert set(itertools.chain(*found)) == set(range(1, max(map(max, found)) + 1))


def test_groups_of_neighbours_overlap():
    differs = np.abs(np.subtract.outer(range(5), range(5))) > 1
    assert groups(differs) == ((1,), (1, 2), (2, 3), (3, 4), (4,))
    assert [letters(own) for own in groups(differs)] == ["a", "ab", "bc", "cd", "d"]


def test_groups_at_the_extremes():
    assert groups(np.zeros((3, 3))) == ((1,), (1,), (1,))
    assert groups(~np.eye(3, dtype=bool)) == ((1,), (2,), (3,))
    assert groups(np.zeros((0, 0))) == ()
    assert letters((1, 30)) == "1,30"


@pytest.mark.parametrize("differs", [[[False, True], [False, False]], [[True]], [True, False]])
def test_decisions_that_contradict_themselves_are_refused(differs):
    with pytest.raises(ValueError, match="symmetric"):
        groups(differs)


# Alignment


def test_predictions_are_brought_into_the_order_of_the_first():
    order = np.random.default_rng(0).permutation(300)
    ids = np.array([f"test/{i}" for i in range(300)])
    ours, theirs = guesses(0.7), guesses(0.6, 1)
    shuffled = table(theirs[order], LABELS[order], ids[order])
    found = align({"a": table(ours, location=LABELS % 2), "b": shuffled})
    assert (found.labels == LABELS).all()
    assert (found.predictions == np.stack([ours, theirs])).all()
    assert found.metadata.keys() == {"location"}


def test_other_examples_are_refused():
    ids = np.array([f"test/{i}" for i in range(300)])
    ids[7] = "test/new"
    with pytest.raises(
        InputError,
        match=r"^b and a were not .* 300 and 300, of which 299 are shared \(such as \"test/7\"\)$",
    ):
        align({"a": table(guesses(0.7)), "b": table(guesses(0.7), ids=ids)})
    with pytest.raises(InputError, match="300 and 299, of which 299"):
        align({"a": table(guesses(0.7)).slice(1), "b": table(guesses(0.7))})


def test_other_labels_are_refused():
    labels = LABELS.copy()
    labels[3:5] = 0
    with pytest.raises(
        InputError, match=r'^b and a have different labels of 2 examples \(such as "test/3"\)$'
    ):
        align({"a": table(guesses(0.7)), "b": table(guesses(0.7), labels)})


def test_two_variants_in_one_table_are_refused():
    both = pa.concat_tables([table(guesses(0.7)), table(guesses(0.6))])
    with pytest.raises(InputError, match=r"^a: an example has several"):
        align({"a": both, "b": table(guesses(0.7))})
    with pytest.raises(InputError, match="600 and 300"):
        align({"a": table(guesses(0.7)), "b": both})


# Resampling


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("with_locations", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_the_value_is_that_of_the_metric(metric, with_locations, seed):
    metadata = {"region": np.array(["Asia", "Other", "Africa"])[np.arange(300) % 3]}
    if with_locations:
        metadata["location"] = np.arange(300) % 20
    drawn = examples(3, seed=seed, **metadata)
    found = resample(drawn, metric, resamples=5)
    expected = [score(metric, drawn.labels, row, metadata).value for row in drawn.predictions]
    assert found.values.tolist() == pytest.approx(expected, abs=1e-12)
    assert found.draws.shape == (3, 5)
    assert found.units == (20 if with_locations else 300)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("with_locations", [False, True])
@pytest.mark.parametrize("dense", [0.0, 1.0])
def test_a_draw_is_the_metric_of_the_drawn_examples(metric, with_locations, dense, monkeypatch):
    """The same draws, made slowly: each resample is written out and scored as a set."""
    monkeypatch.setattr("shiftbench.evaluation.statistics.DENSE", dense)
    location = np.random.default_rng(3).integers(0, 8, size=80)
    metadata = {"region": np.array(["Asia", "Other", "Africa"])[np.arange(80) % 3]}
    if with_locations:
        metadata["location"] = location
    drawn = examples(2, n=80, **metadata)
    found = resample(drawn, metric, seed=4, resamples=6)

    rng = np.random.default_rng(4)
    for draw in found.draws.T:
        units = rng.integers(0, found.units, size=found.units)
        rows = (
            np.concatenate([np.flatnonzero(location == unit) for unit in units])
            if with_locations
            else units
        )
        columns = {name: column[rows] for name, column in metadata.items() if name == "region"}
        expected = [
            score(metric, drawn.labels[rows], p[rows], columns).value for p in drawn.predictions
        ]
        assert draw.tolist() == pytest.approx(expected, abs=1e-12)


def test_blocks_do_not_change_the_draws(monkeypatch):
    whole = resample(examples(), "macro-f1", resamples=50)
    monkeypatch.setattr("shiftbench.evaluation.intervals.CACHED", 1000)
    assert resample(examples(), "macro-f1", resamples=50).draws == pytest.approx(whole.draws)


def test_a_region_that_no_draw_holds_is_not_the_worst():
    regions = np.array(["rare"] + ["common"] * 29)
    labels = np.zeros(30, int)
    found = resample(Examples(labels, np.ones((1, 30), int), {"region": regions}), "worst-region")
    assert (found.draws == 0).all()


@pytest.mark.parametrize(
    ("drawn", "metric", "message"),
    [
        (examples(), "worst-region", '"region"'),
        (examples(region=np.array(["Other"] * 300)), "worst-region", "no region to score"),
        (Examples(np.zeros(0, int), np.zeros((2, 0), int), {}), "accuracy", "no example"),
    ],
)
def test_what_cannot_be_resampled_is_refused(drawn, metric, message):
    with pytest.raises(InputError, match=message):
        resample(drawn, metric)


def test_an_unknown_metric_is_refused():
    with pytest.raises(ValueError, match='unknown metric "auc"'):
        resample(examples(), "auc")


def test_ten_thousand_examples_take_less_than_a_second():
    drawn = examples(2, n=10_000, classes=182)
    for metric in ("accuracy", "macro-f1"):
        fastest = np.inf
        for _ in range(2):
            start = time.process_time()
            resample(drawn, metric, resamples=2000)
            fastest = min(fastest, time.process_time() - start)
        assert fastest < 1.0


# p-values of the bootstrap


def test_the_bootstrap_p_of_accuracy_is_that_of_the_z_test():
    drawn = examples(2, n=4000)
    ours, theirs = (drawn.predictions == drawn.labels).astype(float)
    found = resample(drawn, "accuracy")
    difference = float(found.values[0] - found.values[1])
    error = np.std(ours - theirs) / np.sqrt(4000)
    # 2,000 resamples know the standard error to 1.6 %.
    assert (found.draws[0] - found.draws[1]).std() == pytest.approx(error, rel=0.07)
    p = bootstrap_p(difference, found.draws[0] - found.draws[1], 4000)
    assert p == pytest.approx(chi2.sf((difference / error) ** 2, 1), abs=0.05)


def test_the_bootstrap_p_at_its_ends():
    assert bootstrap_p(0.0, np.zeros(10), 100) == 1.0
    assert bootstrap_p(1e-17, np.array([1e-17, -1e-17]), 100) == 1.0
    assert bootstrap_p(1.0, np.ones(10), 5) == 2.0**-4  # every unit says so
    assert bootstrap_p(1.0, np.ones(10), 1) == 1.0
    assert bootstrap_p(1.0, np.ones(10), 10**6) > 0
    few = bootstrap_p(0.3, np.array([0.29, 0.31]), 3)
    assert few == 0.25


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
        labels = np.zeros(500, int)
        for metadata in ({"location": location}, {}):
            found = resample(Examples(labels, (~right).astype(int), metadata), "accuracy", 1, 200)
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
        found = resample(Examples(np.zeros(400, int), (~right).astype(int), {}), "accuracy", 2, 200)
        low, high = np.quantile(found.draws[0] - found.draws[1], [0.025, 0.975])
        covered += low <= truth <= high
    assert 0.91 <= covered / 300 <= 0.985


# Comparisons

METRIC = {"imagenet-r": "accuracy"}


def runs(*predictions, seeds=(0,), **metadata):
    return {
        seed: {"imagenet-r": table(p, **metadata)}
        for seed, p in zip(seeds, predictions, strict=True)
    }


def test_one_pair_of_runs_is_tested_by_mcnemar():
    ours, theirs = guesses(0.8), guesses(0.5, 1)
    (found,) = compare({"a": runs(ours), "b": runs(theirs)}, METRIC)
    b = int(((ours == LABELS) & (theirs != LABELS)).sum())
    c = int(((ours != LABELS) & (theirs == LABELS)).sum())
    assert (found.first, found.second, found.seeds) == ("a", "b", 1)
    assert found.value == pytest.approx((b - c) / 300)
    assert found.p == found.adjusted == float(mcnemar(b, c))
    assert found.test == "McNemar, mid-p"
    half = 1.96 * np.sqrt((b + c) / 300 - found.value**2) / np.sqrt(300)
    assert (found.low, found.high) == pytest.approx(
        (found.value - half, found.value + half), abs=0.01
    )


@pytest.mark.parametrize(
    ("metric", "metadata"),
    [("macro-f1", {}), ("accuracy", {"location": LABELS}), ("worst-region", {"region": LABELS})],
)
def test_all_else_is_bootstrapped(metric, metadata):
    methods = {"a": runs(guesses(0.8), **metadata), "b": runs(guesses(0.5, 1), **metadata)}
    (found,) = compare(methods, {"imagenet-r": metric})
    assert found.test == f"bootstrap of {5 if 'location' in metadata else 300} units"
    assert found.low <= found.value <= found.high
    assert found.p < 0.1


def test_equal_predictions_do_not_differ():
    (found,) = compare({"a": runs(guesses(0.8)), "b": runs(guesses(0.8))}, METRIC)
    assert (found.value, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_seeds_are_paired_and_their_differences_averaged():
    first, second = [guesses(0.7, s) for s in (0, 1, 2)], [guesses(0.65, s) for s in (11, 12, 13)]
    methods = {"a": runs(*first, seeds=(0, 1, 2)), "b": runs(*second, seeds=(2, 1, 5))}
    (found,) = compare(methods, METRIC)
    # Seeds 1 and 2 are common: each example counts with its mean difference.
    each = np.mean(
        [
            (first[1] == LABELS).astype(float) - (second[1] == LABELS),
            (first[2] == LABELS).astype(float) - (second[0] == LABELS),
        ],
        axis=0,
    )
    assert found.seeds == 2
    assert found.value == pytest.approx(each.mean())
    half = 1.96 * each.std() / np.sqrt(300)
    ends = (found.value - half, found.value + half)
    assert (found.low, found.high) == pytest.approx(ends, abs=0.15 * half)
    assert found.p == pytest.approx(chi2.sf((each.mean() / each.std()) ** 2 * 300, 1), abs=0.05)


def test_a_run_that_no_seed_changes_is_compared_with_every_seed():
    trained = [guesses(0.7, s) for s in range(3)]
    methods = {
        "zero-shot": runs(guesses(0.6, 9), seeds=[None]),
        "a": runs(*trained, seeds=range(3)),
    }
    (found,) = compare(methods, METRIC)
    assert found.seeds == 3
    expected = np.mean(guesses(0.6, 9) == LABELS) - np.mean(np.stack(trained) == LABELS)
    assert found.value == pytest.approx(expected)


def test_methods_without_a_common_seed_are_refused():
    with pytest.raises(InputError, match=r"^a and b have no seed in common$"):
        compare({"a": runs(guesses(0.7)), "b": runs(guesses(0.7), seeds=[1])}, METRIC)


def test_a_missing_set_is_refused():
    with pytest.raises(InputError, match=r"^a \(seed 0\): has no predictions on sketch$"):
        compare(
            {"a": runs(guesses(0.7)), "b": runs(guesses(0.7))}, {**METRIC, "sketch": "accuracy"}
        )


def test_the_mean_over_sets_is_compared_on_independent_resamples():
    methods = {
        name: {0: {"x": table(guesses(p, s)), "y": table(guesses(q, s + 1))}}
        for name, p, q, s in [("a", 0.8, 0.5, 0), ("b", 0.6, 0.6, 5)]
    }
    (found,) = compare(methods, {"x": "accuracy", "y": "accuracy"})
    parts = [compare(methods, {name: "accuracy"})[0] for name in ("x", "y")]
    assert found.value == pytest.approx(np.mean([part.value for part in parts]))
    widths = [part.high - part.low for part in parts]
    assert found.high - found.low == pytest.approx(np.hypot(*widths) / 2, rel=0.1)
    assert found.test == "bootstrap of 300 units"


def test_the_mean_over_sets_is_as_sure_as_the_smallest():
    parts = [resample(examples(n=n), "accuracy", seed=n, resamples=10) for n in (300, 50)]
    mean = over_sets(parts)
    assert mean.units == 50
    assert mean.values == pytest.approx((parts[0].values + parts[1].values) / 2)
    assert mean.draws == pytest.approx((parts[0].draws + parts[1].draws) / 2)


def test_all_pairs_are_corrected_together_and_grouped():
    good = guesses(0.8)
    nearly = np.where(np.arange(300) < 2, 5, good)  # two examples more are wrong, or were already
    methods = {"a": runs(good), "b": runs(nearly), "c": runs(guesses(0.3, 1))}
    found = compare(methods, METRIC)
    assert [(d.first, d.second) for d in found] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert [d.adjusted for d in found] == holm([d.p for d in found]).tolist()
    differs = decisions(found, ["a", "b", "c"])
    assert differs.tolist() == [[False, False, True], [False, False, True], [True, True, False]]
    assert groups(differs) == ((1,), (1,), (2,))
    with pytest.raises(ValueError, match="a and d were not compared"):
        decisions(found, ["a", "d"])


def test_decisions_do_not_ask_who_is_first():
    one = Difference("b", "a", 0.1, 0.05, 0.15, 0.01, 0.05, 1, "")
    assert decisions([one], ["a", "b"]).tolist() == [[False, True], [True, False]]
    assert not decisions([one], ["a", "b"], level=0.049).any()


def test_one_method_has_nothing_to_be_compared_with():
    assert compare({"a": runs(guesses(0.7))}, METRIC) == ()
    assert groups(decisions([], ["a"])) == ((1,),)
