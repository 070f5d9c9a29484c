import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import chi2
from shiftbench.core.errors import InputError
from shiftbench.data.images import ImageSet
from shiftbench.evaluation.comparison import SAME, Difference, align, compare, decisions
from shiftbench.evaluation.letters import groups
from shiftbench.evaluation.pair_tests import holm, mcnemar
from shiftbench.evaluation.predictions import to_table

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


# Alignment


def test_predictions_are_brought_into_the_order_of_the_first():
    order = np.random.default_rng(0).permutation(300)
    ids = np.array([f"test/{i}" for i in range(300)])
    ours, theirs = guesses(0.7), guesses(0.6, 1)
    shuffled = table(theirs[order], LABELS[order], ids[order])
    found = align({"a": table(ours, location=LABELS % 2), "b": shuffled})
    assert [*found] == ["a", "b"]
    for name, answers in (("a", ours), ("b", theirs)):
        assert (found[name].labels == LABELS).all()
        assert (found[name].predictions == answers).all()
        assert found[name].metadata.keys() == {"location"}


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


def test_two_names_of_the_same_runs_are_no_hypothesis():
    methods = {"a": runs(guesses(0.8)), "b": runs(guesses(0.72, 1)), "c": runs(guesses(0.7, 2))}
    alone = {(d.first, d.second): d for d in compare(methods, METRIC)}
    named = compare({**methods, "also a": methods["a"]}, METRIC)
    found = {(d.first, d.second): d for d in named}
    same = found.pop(("a", "also a"))
    assert (same.value, same.p, same.adjusted, same.test) == (0, 1, 1, SAME)
    assert found["a", "b"].p == alone["a", "b"].p == found["b", "also a"].p
    assert [d.adjusted for d in found.values()] == holm([d.p for d in found.values()]).tolist()
    assert len(found) == 5  # and not 6, which would make every other p-value higher
    (only,) = compare({"a": methods["a"], "also a": methods["a"]}, METRIC)
    assert only == same


def test_decisions_do_not_ask_who_is_first():
    one = Difference("b", "a", 0.1, 0.05, 0.15, 0.01, 0.05, 1, "")
    assert decisions([one], ["a", "b"]).tolist() == [[False, True], [True, False]]
    assert not decisions([one], ["a", "b"], level=0.049).any()


def test_one_method_has_nothing_to_be_compared_with():
    assert compare({"a": runs(guesses(0.7))}, METRIC) == ()
    assert groups(decisions([], ["a"])) == ((1,),)
