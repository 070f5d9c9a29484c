import itertools
import json
import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shiftbench.core.errors import InputError
from shiftbench.evaluation.comparison import compare
from shiftbench.evaluation.examples import FIELDS, Examples, of_logits
from shiftbench.evaluation.metrics.registry import METRICS, check_mean, metric
from shiftbench.evaluation.predictions import table_of
from shiftbench.evaluation.scoring import score as score_of
from shiftbench.testing.metrics import CHECKS, models, right_and_wrong

from tests.evaluation.cases import TEXTS, case
from tests.parity.wilds_metrics import REGIONS, worst_region

OF_CLASSES = tuple(text for text in TEXTS if not metric(text).needs)
IN_GROUPS = {"region", "year", "anchor", "offset"}


def score(text, labels, predictions, metadata):
    """The score of answers that are classes only."""
    return score_of(metric(text), Examples(labels, predictions, metadata))


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


@pytest.mark.parametrize("case", list(draws()), ids=lambda case: f"n={len(case[0])}")
def test_worst_region_equals_the_wilds_evaluation(case):
    labels, predictions, groups = case
    ours = score("worst-region", labels, predictions, {"region": REGIONS[groups]})
    theirs = worst_region(labels, predictions, groups)
    slow = slow_worst_region(labels, predictions, REGIONS[groups])

    assert ours.value == pytest.approx(theirs, abs=1e-6)  # wilds averages in float32
    assert ours.value == slow


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
    for text in ("accuracy", "macro-f1"):
        alone = score(text, labels, predictions, {})
        clustered = score(text, labels, predictions, {"location": locations})
        assert clustered.value == alone.value
        assert clustered.interval == "bootstrap over 20 locations"
        assert clustered.high - clustered.low > 3 * (alone.high - alone.low)


def test_one_location_cannot_be_resampled():
    labels, predictions, _ = next(draws())
    one = {"location": np.zeros(len(labels))}
    assert score("accuracy", labels, predictions, one) == score("accuracy", labels, predictions, {})


def test_int32_labels_are_scored_as_int64_ones():
    labels, predictions, _ = next(draws())
    narrow = score("macro-f1", labels.astype(np.int32), predictions.astype(np.int32), {})
    assert narrow == score("macro-f1", labels, predictions, {})


def test_bad_input_is_refused():
    labels = np.zeros(3, dtype=np.int64)
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
    with pytest.raises(InputError, match=r'"nll" needs logits, and these .* classes only'):
        score("nll", labels, labels, {})


# Values that were stored before metrics were plugins: they do not change.

STORED = json.loads((Path(__file__).parent / "stored_scores.json").read_text())


@pytest.mark.parametrize("text", ["accuracy", "macro-f1", "worst-region"])
@pytest.mark.parametrize("seed", range(4))
def test_scores_and_comparisons_are_those_that_were_stored(text, seed):
    labels, answers, metadata = case(seed)
    assert [*vars(score(text, labels, answers[0], metadata)).values()] == STORED[f"{text} {seed}"]
    ids = np.array([str(i) for i in range(len(labels))])
    methods = {
        name: {0: {"x": table_of("x", "", ids, Examples(labels, row, metadata))}}
        for name, row in zip("abc", answers, strict=True)
    }
    found = [[*vars(pair).values()] for pair in compare(methods, {"x": text}, 200)]
    for pair, stored in zip(found, STORED[f"{text} {seed} pairs"], strict=True):
        assert pair == pytest.approx(stored, abs=1e-12) or pair == stored


# Every metric against its definition


def softmax(logits):
    each = [float(x) for x in logits]
    odds = [math.exp(x - max(each)) for x in each]
    return [x / math.fsum(odds) for x in odds]


def slow_top_5(logits, labels, columns):
    ranked = [sorted(range(len(row)), key=lambda c, r=row: (-r[c], c)) for row in logits]
    return np.mean([y in order[:5] for y, order in zip(labels, ranked, strict=True)])


def slow_balanced_accuracy(logits, labels, columns):
    from sklearn.metrics import recall_score

    answers, known = logits.argmax(axis=1), np.unique(labels)
    return recall_score(labels, answers, labels=known, average="macro", zero_division=0)


def slow_f1(logits, labels, columns):
    return slow_macro_f1(labels.tolist(), logits.argmax(axis=1).tolist())


def slow_worst(names, left_out=None):
    def worst(logits, labels, columns):
        right = logits.argmax(axis=1) == labels
        groups = [*zip(*(columns[name].tolist() for name in names), strict=True)]
        kept = {group for group in groups if left_out is None or left_out not in group[0]}
        return min(
            np.mean([hit for hit, group in zip(right, groups, strict=True) if group == one])
            for one in kept
        )

    return worst


def slow_nll(logits, labels, columns):
    from sklearn.metrics import log_loss

    p = np.array([softmax(row) for row in logits])
    return log_loss(labels, p, labels=range(logits.shape[1]))


def slow_brier(logits, labels, columns):
    total = 0.0
    for row, label in zip(logits, labels, strict=True):
        total += sum((p - (c == label)) ** 2 for c, p in enumerate(softmax(row)))
    return total / len(labels)


def confident(logits, labels):
    """Confidence and correctness of each example, surest last."""
    return sorted(
        (max(softmax(row)), bool(row.argmax() == label))
        for row, label in zip(logits, labels, strict=True)
    )


def slow_ece(logits, labels, columns, bins=15):
    pairs, total = confident(logits, labels), 0.0
    for j in range(bins):
        inside = [(p, hit) for p, hit in pairs if j / bins < p <= (j + 1) / bins]
        total += abs(sum(hit for _, hit in inside) - sum(p for p, _ in inside))
    return total / len(pairs)


def tied(logits, labels):
    """Lists of (confidence, right) of equal confidence, surest last."""
    examples = of_logits(labels, logits, {})
    pairs = sorted(zip(examples.confidence.tolist(), examples.correct.tolist(), strict=True))
    return [[*run] for _, run in itertools.groupby(pairs, key=lambda pair: pair[0])]


def slow_adaptive_ece(logits, labels, columns, bins=7):
    """Every example cut into as many equal pieces as there are bins; ties share their hits."""
    pieces = []
    for run in tied(logits, labels):
        gap = np.mean([hit - p for p, hit in run])
        pieces += [gap / bins] * (bins * len(run))
    parts = np.array(pieces).reshape(bins, -1)
    return np.abs(parts.sum(axis=1)).sum() / len(labels)


def slow_aurc(logits, labels, columns):
    """The risk at every coverage; within ties the errors come evenly."""
    errors, total, answered = 0.0, 0.0, 0
    for run in reversed(tied(logits, labels)):
        rate = np.mean([not hit for _, hit in run])
        for _ in run:
            answered += 1
            errors += rate
            total += errors / answered
    return total / len(labels)


def slow_pm(logits, labels, columns, k):
    """The anchors, one for each frame of offset 0, and of these the ones with no wrong frame."""
    frames = [*zip(logits, labels, columns["anchor"], columns["offset"], strict=True)]
    anchors = [a for _, _, a, offset in frames if offset == 0]
    wrong = {a for row, y, a, offset in frames if abs(offset) <= k and row.argmax() != y}
    return sum(a not in wrong for a in anchors) / max(1, len(anchors))


SLOW = {
    "accuracy": lambda logits, labels, columns: np.mean(logits.argmax(axis=1) == labels),
    "top-5": slow_top_5,
    "balanced-accuracy": slow_balanced_accuracy,
    "macro-f1": slow_f1,
    "worst-region": slow_worst(["region"], "Other"),
    "worst-group:year": slow_worst(["year"]),
    "worst-group:region*year": slow_worst(["region", "year"]),
    "ece:15": slow_ece,
    "ece-adaptive:7": slow_adaptive_ece,
    "nll": slow_nll,
    "brier": slow_brier,
    "aurc": slow_aurc,
    "pm:0": partial(slow_pm, k=0),
    "pm:1": partial(slow_pm, k=1),
}


@pytest.mark.parametrize("text", TEXTS)
@settings(max_examples=15, deadline=None)
@given(
    st.integers(0, 2**32), st.integers(3, 60), st.integers(2, 9), st.floats(0.1, 4), st.booleans()
)
def test_the_value_is_that_of_the_definition(text, seed, n, classes, scale, ties):
    """Up to scales at which scikit-learn does not clip a probability."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, size=n)
    labels[:2] = 0, classes - 1  # the log-loss of scikit-learn wants two
    logits = (scale * rng.normal(size=(n, classes))).astype(np.float32)
    if ties:
        logits = np.round(logits)
    columns = {
        "region": np.array(["Asia", "Other", "Africa"])[rng.integers(0, 3, size=n)],
        "year": rng.integers(2002, 2004, size=n),
        "anchor": rng.integers(0, 8, size=n),
        "offset": rng.integers(-2, 3, size=n),
    }
    columns["region"][0] = "Asia"
    found = metric(text).value(of_logits(labels, logits, columns))
    slow = SLOW[text](logits, labels, columns)
    # Σ p² is kept in float32.
    assert found == pytest.approx(slow, abs=1e-7 if text == "brier" else 1e-9)


def test_brier_equals_scikit_learn():
    from sklearn.metrics import brier_score_loss

    for seed in range(5):
        rng = np.random.default_rng(seed)
        logits, labels = rng.normal(size=(100, 2)), rng.integers(0, 2, size=100)
        theirs = brier_score_loss(labels, [softmax(row)[1] for row in logits.astype(np.float32)])
        ours = metric("brier").value(of_logits(labels, logits, {}))
        assert ours == pytest.approx(2 * theirs, abs=1e-7)  # of two classes, both count


def test_calibration_and_risk_by_hand():
    p = np.array([0.95, 0.85, 0.75, 0.65])
    logits = np.log(np.stack([p, 1 - p], axis=1))
    examples = of_logits(np.array([0, 1, 0, 0]), logits, {})
    assert metric("ece:10").value(examples) == pytest.approx((0.05 + 0.85 + 0.25 + 0.35) / 4)
    assert metric("ece:1").value(examples) == pytest.approx(0.8 - 0.75)
    assert metric("ece-adaptive:2").value(examples) == pytest.approx((0.6 + 0.8) / 4)
    assert metric("aurc").value(examples) == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 4) / 4)
    assert metric("nll").value(examples) == pytest.approx(
        -np.log([0.95, 0.15, 0.75, 0.65]).mean(), abs=1e-6
    )


def test_equal_examples_that_a_cut_parts_count_in_both_bins():
    examples = of_logits(np.array([0, 0, 1]), np.zeros((3, 2)), {})
    # Confidence ½, two of three right: every bin has the same gap, wherever the cuts are.
    for bins in (1, 2, 5):
        assert metric(f"ece-adaptive:{bins}").value(examples) == pytest.approx(2 / 3 - 1 / 2)


# Every metric, whatever it measures


def answers(seed=0, **metadata):
    return models(seed, count=1, metadata=metadata)[0]


def test_the_registry_holds_these():
    assert {text.partition(":")[0] for text in TEXTS} == METRICS.entries().keys()
    for text in TEXTS:
        found = metric(text)
        assert (found.text, type(found).name) == (text, text.partition(":")[0])
        assert found.title


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("check", CHECKS)
def test_every_metric_keeps_the_contract_that_plugins_are_checked_against(check, text):
    CHECKS[check](metric(text))


@pytest.mark.parametrize("text", TEXTS)
def test_the_order_of_examples_is_nothing(text):
    found = metric(text)
    for seed in range(4):
        examples = answers(seed)
        shuffled = examples.take(np.random.default_rng(1).permutation(len(examples)))
        first, again = score_of(found, examples), score_of(found, shuffled)
        assert again.value == pytest.approx(first.value, abs=1e-12)
        if text in OF_CLASSES:
            assert again == first
        else:  # other examples are drawn: the ends are those of other resamples
            width = first.high - first.low
            assert (again.low, again.high) == pytest.approx(
                (first.low, first.high), abs=0.25 * width
            )


@pytest.mark.parametrize("text", TEXTS)
def test_what_is_certain_and_right_is_best_and_what_is_certain_and_wrong_is_worse(text):
    found = metric(text)
    right, wrong = map(found.value, right_and_wrong(found))
    best = found.range[1] if found.higher_is_better else found.range[0]
    assert right == pytest.approx(best, abs=1e-9)
    assert found.better(right, wrong)
    assert found.merit(right) > found.merit(wrong)


@pytest.mark.parametrize("text", TEXTS)
def test_classes_alone_are_enough_for_metrics_that_need_no_field(text):
    found, examples = metric(text), answers()
    assert found.available(FIELDS)
    assert found.available([]) == (text in OF_CLASSES)
    assert set(found.columns) <= IN_GROUPS
    if text in OF_CLASSES:
        class_only = Examples(examples.labels, examples.predictions, examples.metadata)
        assert score_of(found, class_only) == score_of(found, examples)


def test_classes_alone_have_top_1_and_its_means_over_groups():
    of_groups = ["worst-region", "worst-group:year", "worst-group:region*year", "pm:0", "pm:1"]
    assert [*OF_CLASSES] == ["accuracy", "balanced-accuracy", "macro-f1", *of_groups]


def test_frames_near_an_anchor_must_all_be_right():
    metadata = {"anchor": np.array([*"aaabbbcdd"])}
    metadata["offset"] = np.array([0, -2, 9, 0, 1, -4, 0, 7, 0])
    labels = np.zeros(9, np.int64)
    wrong = np.array([0, 0, 1, 0, 1, 0, 0, 1, 0])  # at 9 from a, at 1 from b, at 7 from d
    by_hand = {"pm:0": 4 / 4, "pm:1": 3 / 4, "pm:8": 2 / 4, "pm": 1 / 4, "pm:10": 1 / 4}
    assert {text: score(text, labels, wrong, metadata).value for text in by_hand} == by_hand
    assert score("pm", labels, wrong, metadata).interval == "Clopper-Pearson over 4 anchors"
    of_videos = metadata | {"location": np.array([*"xxxxxxyyy"])}
    assert score("pm", labels, wrong, of_videos).interval == "bootstrap over 2 locations"
    with pytest.raises(InputError, match='such as "pm:10"'):
        metric("pm:-1")


def test_anchors_of_videos_of_their_own_are_independent():
    metadata = {"anchor": np.arange(80) // 2, "offset": np.arange(80) % 2}
    wrong, labels = np.arange(80) % 5 == 0, np.zeros(80, np.int64)
    alone = score("pm", labels, wrong, metadata)
    assert score("pm", labels, wrong, metadata | {"location": np.arange(80) // 2}) == alone
    shared = score("pm", labels, wrong, metadata | {"location": np.arange(80) // 4})
    assert shared.interval == "bootstrap over 20 locations"


def test_a_video_that_is_drawn_twice_counts_its_anchors_twice():
    """Two anchors, both right, in one video; one, which is wrong, in the other."""
    metadata = {"anchor": np.array([*"aabbc"]), "offset": np.array([0, 1, 0, 1, 0])}
    examples = Examples(np.zeros(5, np.int64), np.array([0, 0, 0, 0, 1]), metadata)
    draws = np.array([[1, 1], [2, 0], [0, 2], [3, 1]], float)
    found = metric("pm:1").statistic(examples, np.array([0, 0, 0, 0, 1]))(draws)
    assert found == pytest.approx([2 / 3, 1, 0, 6 / 7])


def test_two_models_are_compared_on_anchors():
    anchors = {"anchor": np.arange(40) // 2, "offset": np.arange(40) % 2}
    labels = np.zeros(40, np.int64)
    good = Examples(labels, labels, anchors)
    bad = Examples(labels, np.where(np.arange(40) < 16, 1, 0), anchors)  # 8 anchors, twice each
    assert metric("pm").pair_test(good, bad) == (2 / 2**8, "McNemar over anchors, exact")


def test_several_classes_may_be_right():
    """A column lists them: the label alone, another one, none at all."""
    accepted = np.array(["0", "0 12", "", "3 0", "12"])
    answers = np.array([0, 12, 0, 1, 12])
    found = Examples(np.array([0, 0, 0, 3, 12]), answers, {"accepted": accepted})
    assert found.correct.tolist() == [True, True, False, False, True]
    assert metric("accuracy").value(found) == 0.6
    assert found.take(np.array([4, 1])).correct.tolist() == [True, True]


def test_a_product_of_columns_names_its_groups():
    labels = np.zeros(4, dtype=np.int64)
    metadata = {"region": np.array(["Asia"] * 3 + ["Other"]), "year": np.array([1, 1, 2, 2])}
    found = score("worst-group:region*year", labels, np.array([0, 1, 0, 0]), metadata)
    assert found.value == 0.5
    assert found.interval == "Clopper-Pearson, worst of 3 groups: Asia × 1"


def test_an_interval_of_calibration_error_covers_what_resampling_would_miss():
    """Of well calibrated answers every resample lies above the value."""
    rng = np.random.default_rng(0)
    p = rng.uniform(0.5, 1, size=400)
    labels = (rng.random(400) > p).astype(np.int64)
    examples = of_logits(labels, np.log(np.stack([p, 1 - p], axis=1)), {})
    ece = metric("ece:15")
    draws = ece.values(examples, rng.multinomial(400, np.full(400, 1 / 400), 500).astype(float))
    found = score_of(ece, examples)
    assert draws.mean() > found.value + 0.01
    assert found.low < found.value < found.high
    assert found.interval == "bootstrap over examples, centred"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("f1", 'unknown metric "f1".*macro-f1'),
        ("accurracy", 'unknown metric "accurracy".*accuracy'),
        ("accuracy:2", 'metric "accuracy:2": takes nothing after "accuracy"'),
        ("ece", 'metric "ece": takes a number of bins, such as "ece:15"'),
        ("ece:0", "number of bins"),
        ("ece:015", "number of bins"),
        ("ece-adaptive:many", 'such as "ece-adaptive:15"'),
        ("worst-group", 'metric "worst-group": takes a metadata column'),
        ("worst-group:", "takes a metadata column"),
        ("worst-group:a*a", "takes a metadata column"),
        ("", 'unknown metric ""'),
    ],
)
def test_what_names_no_metric_is_refused(text, message):
    with pytest.raises(InputError, match=message):
        metric(text)


def test_a_mean_needs_one_direction_and_one_unit():
    check_mean(["accuracy", "macro-f1", "worst-region"])
    check_mean(["nll", "nll", "brier"])
    check_mean([])
    with pytest.raises(InputError, match='"accuracy", of which more is better, and "nll", of'):
        check_mean(["nll", "accuracy"])
    with pytest.raises(InputError, match='"ece:15" and "nll", which have different units'):
        check_mean(["ece:15", "nll"])


MINE = """
from shiftbench.evaluation.metrics.base import MeanMetric

class Hesitation(MeanMetric):
    name = "hesitation"
    title = "hesitation"
    higher_is_better = False
    needs = frozenset({"top_logits", "log_sum_exp"})

    def per_example(self, examples):
        return 1 - examples.confidence

class Nothing:
    name = "nothing"
"""


def test_a_metric_of_a_third_party_is_one_class(tmp_path, monkeypatch):
    (tmp_path / "hesitating.py").write_text(MINE)
    monkeypatch.syspath_prepend(str(tmp_path))
    plugins = "metrics/hesitation=hesitating:Hesitation,metrics/nothing=hesitating:Nothing"
    monkeypatch.setenv("SHIFTBENCH_PLUGINS", plugins)
    examples = answers()
    found = score_of(metric("hesitation"), examples)
    assert found.value == pytest.approx(1 - examples.confidence.mean())
    assert found.low < found.value < found.high
    ids = np.array([str(i) for i in range(200)])
    methods = {
        name: {0: {"x": table_of("x", "", ids, each)}}
        for name, each in zip("ab", models(0, count=2), strict=True)
    }
    (pair,) = compare(methods, {"x": "hesitation"})
    assert pair.low <= pair.value <= pair.high
    assert pair.test == "bootstrap of 200 units"
    with pytest.raises(InputError, match=r"not a subclass of shiftbench\.Metric"):
        metric("nothing")
