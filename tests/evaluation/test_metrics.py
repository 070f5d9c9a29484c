from collections.abc import Iterator
from typing import get_args

import numpy as np
import pytest
from shiftbench.core.errors import InputError
from shiftbench.evaluation.metrics import METRICS, metrics_for, needed_columns, score


def slow_macro_f1(labels, predictions):
    """F1 of each class in the labels, from its definition by precision and recall."""
    total = 0.0
    classes = sorted(set(labels))
    for c in classes:
        hits = sum(1 for y, p in zip(labels, predictions, strict=True) if y == c and p == c)
        precision = hits / max(1, sum(1 for p in predictions if p == c))
        recall = hits / sum(1 for y in labels if y == c)
        total += 2 * precision * recall / (precision + recall) if hits else 0.0
    return total / len(classes)


def slow_worst_region(labels, predictions, regions):
    """The steps of FMoWDataset.eval of wilds 2.0: skip empty regions and those named Other."""
    accuracies = []
    for region in sorted(set(regions)):
        where = [i for i, r in enumerate(regions) if r == region]
        if "Other" in region:
            continue
        accuracies.append(sum(labels[i] == predictions[i] for i in where) / len(where))
    return min(accuracies)


def draws(n_cases: int = 12) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Random labels with absent classes, predictions of classes not in the labels, groups."""
    for seed in range(n_cases):
        rng = np.random.default_rng(seed)
        n, classes = int(rng.integers(20, 400)), int(rng.integers(2, 40))
        labels = rng.choice(classes, size=n, p=rng.dirichlet(np.full(classes, 0.3)))
        guesses = rng.integers(0, classes + 3, size=n)
        predictions = np.where(rng.random(n) < rng.random(), labels, guesses)
        yield labels, predictions, rng.integers(0, 5, size=n)


@pytest.mark.parametrize("case", list(draws()), ids=lambda case: f"n={len(case[0])}")
def test_macro_f1_equals_the_wilds_metric(case):
    import torch
    from wilds.common.metrics.all_metrics import F1

    labels, predictions, _ = case
    ours = score("macro-f1", labels, predictions, {})
    theirs = F1(prediction_fn=None, average="macro").compute(
        torch.from_numpy(predictions), torch.from_numpy(labels)
    )
    assert ours.value == pytest.approx(theirs["F1-macro_all"], abs=1e-6)  # wilds rounds to float32
    assert ours.value == pytest.approx(slow_macro_f1(labels, predictions), abs=1e-12)


@pytest.mark.parametrize("case", list(draws()), ids=lambda case: f"n={len(case[0])}")
def test_accuracy_equals_the_wilds_metric(case):
    import torch
    from wilds.common.metrics.all_metrics import Accuracy

    labels, predictions, _ = case
    ours = score("accuracy", labels, predictions, {})
    theirs = Accuracy().compute(torch.from_numpy(predictions), torch.from_numpy(labels))
    assert ours.value == pytest.approx(theirs["acc_avg"], abs=1e-6)  # wilds averages in float32
    assert ours.value == sum(labels == predictions) / len(labels)


NAMES = np.array(["Asia", "Europe", "Africa", "Other", "Oceania", "Americas"])  # no Americas drawn


@pytest.mark.parametrize("case", list(draws()), ids=lambda case: f"n={len(case[0])}")
def test_worst_region_equals_the_wilds_evaluation(case, monkeypatch):
    labels, predictions, groups = case
    ours = score("worst-region", labels, predictions, {"region": NAMES[groups]})
    theirs = wilds_worst_region(labels, predictions, groups, monkeypatch)
    slow = slow_worst_region(labels, predictions, NAMES[groups])

    assert ours.value == pytest.approx(theirs, abs=1e-6)  # wilds averages in float32
    assert ours.value == slow


def wilds_worst_region(labels, predictions, groups, monkeypatch):
    """``FMoWDataset.eval`` itself, on a data set that has nothing but its metadata."""
    import sys
    import types

    import torch
    from wilds.common.grouper import CombinatorialGrouper
    from wilds.datasets.fmow_dataset import FMoWDataset

    def scatter(src, index, dim_size, reduce):
        assert reduce == "mean"
        total = torch.zeros(dim_size).index_add(0, index, src)
        return total / torch.bincount(index, minlength=dim_size).clamp(min=1)

    stand_in = types.ModuleType("torch_scatter")
    stand_in.scatter = scatter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch_scatter", stand_in)

    dataset = FMoWDataset.__new__(FMoWDataset)
    dataset._metadata_fields = ["region", "year"]
    dataset._metadata_map = {"region": list(NAMES), "year": ["2016", "2017"]}
    years = np.arange(len(groups)) % 2
    # One example of the region that is not evaluated makes it known, and thus empty.
    known = np.append(groups, len(NAMES) - 1)
    dataset._metadata_array = torch.from_numpy(np.stack([known, np.append(years, 0)], axis=1))
    dataset._eval_groupers = {
        name: CombinatorialGrouper(dataset=dataset, groupby_fields=[name])
        for name in ("region", "year")
    }
    results, _ = dataset.eval(
        torch.from_numpy(predictions), torch.from_numpy(labels), dataset._metadata_array[:-1]
    )
    return float(results["acc_worst_region"])


def test_by_hand():
    labels = np.array([0, 0, 1, 1, 2])
    predictions = np.array([0, 1, 1, 1, 7])
    # F1: class 0 2/3, class 1 4/5, class 2 0; class 7 is in no label.
    assert score("macro-f1", labels, predictions, {}).value == pytest.approx((2 / 3 + 4 / 5) / 3)
    assert score("accuracy", labels, predictions, {}).value == 0.6
    regions = np.array(["Asia", "Europe", "Europe", "Europe", "Other"])
    worst = score("worst-region", labels, predictions, {"region": regions})
    assert worst.value == 2 / 3
    assert worst.n == 5
    assert worst.interval == "Clopper-Pearson, worst of 2 regions: Europe"


def test_any_name_that_contains_other_is_skipped():
    labels = np.zeros(4, dtype=np.int64)
    regions = np.array(["Asia", "Other regions", "AnOther", "Asia"])
    predictions = np.array([0, 1, 1, 0])
    assert score("worst-region", labels, predictions, {"region": regions}).value == 1.0


def test_metadata_of_any_type_group_alike():
    labels, predictions, groups = next(draws())
    scores = {
        score("accuracy", labels, predictions, {"location": column})
        for column in (groups, groups.astype(np.uint8), groups.astype(str), groups.astype(object))
    }
    assert len(scores) == 1


def test_locations_widen_the_interval_of_correlated_examples():
    rng = np.random.default_rng(0)
    locations = np.repeat(np.arange(20), 50)
    hit = np.repeat(rng.random(20) < 0.5, 50)  # all right or all wrong at a location
    labels = rng.integers(0, 4, size=1000)
    predictions = np.where(hit, labels, labels + 1)
    for metric in ("accuracy", "macro-f1"):
        alone = score(metric, labels, predictions, {})
        clustered = score(metric, labels, predictions, {"location": locations})
        assert clustered.value == alone.value
        assert clustered.interval == "bootstrap over 20 locations"
        assert clustered.high - clustered.low > 3 * (alone.high - alone.low)


def test_one_location_cannot_be_resampled():
    labels, predictions, _ = next(draws())
    one = {"location": np.zeros(len(labels))}
    assert score("accuracy", labels, predictions, one) == score("accuracy", labels, predictions, {})


@pytest.mark.parametrize("metric", METRICS)
def test_intervals_hold_the_value_and_are_the_same_every_time(metric):
    for labels, predictions, groups in draws():
        metadata = {"region": NAMES[groups]}
        first = score(metric, labels, predictions, metadata)
        assert 0 <= first.low <= first.value <= first.high <= 1
        assert first == score(metric, labels, predictions, metadata)
        order = np.random.default_rng(1).permutation(len(labels))
        shuffled = {"region": metadata["region"][order]}
        assert first == score(metric, labels[order], predictions[order], shuffled)


@pytest.mark.parametrize("metric", METRICS)
def test_perfect_and_hopeless_predictions(metric):
    labels = np.arange(30) % 3
    metadata = {"region": np.array(["Asia", "Africa"] * 15)}
    assert score(metric, labels, labels, metadata).value == 1.0
    assert score(metric, labels, labels + 3, metadata).value == 0.0


def test_int32_labels_are_scored_as_int64_ones():
    labels, predictions, _ = next(draws())
    narrow = score("macro-f1", labels.astype(np.int32), predictions.astype(np.int32), {})
    assert narrow == score("macro-f1", labels, predictions, {})


def test_bad_input_is_refused():
    labels = np.zeros(3, dtype=np.int64)
    with pytest.raises(ValueError, match='unknown metric "f1"'):
        score("f1", labels, labels, {})
    with pytest.raises(ValueError, match="no example"):
        score("accuracy", labels[:0], labels[:0], {})
    with pytest.raises(ValueError, match=r"must all be \(n,\)"):
        score("accuracy", labels, labels[:2], {})
    with pytest.raises(ValueError, match=r"must all be \(n,\)"):
        score("accuracy", labels, labels, {"location": labels[:1]})
    with pytest.raises(InputError, match='needs a column "region"'):
        score("worst-region", labels, labels, {"location": labels})
    with pytest.raises(InputError, match='all are called "Other"'):
        score("worst-region", labels, labels, {"region": np.array(["Other"] * 3)})


def test_tasks_and_metrics_know_the_same_names():
    from shiftbench.data.tasks.definition import Metric

    assert set(get_args(Metric)) == set(METRICS)


def test_every_set_reports_its_headline_first_and_accuracy():
    assert metrics_for("accuracy") == ("accuracy",)
    assert metrics_for("macro-f1") == ("macro-f1", "accuracy")
    assert metrics_for("worst-region") == ("worst-region", "accuracy")
    assert needed_columns("worst-region") == ("region",)
    assert needed_columns("accuracy") == ()
