"""Which variants stand for a run, and how that was decided."""

from __future__ import annotations

from shiftbench.evaluation.metrics.registry import metric
from shiftbench.evaluation.scoring import best_variant, recorded_metrics, selections

ACCURACY, NLL = metric("accuracy"), metric("nll")


def test_a_single_variant_is_fixed() -> None:
    assert selections([""], "", {"": 0.3}, ACCURACY) == [("", "fixed")]


def test_a_curve_has_a_fixed_point_and_the_best_on_id_validation() -> None:
    id_val = {"alpha=0.0": 0.7, "alpha=0.5": 0.8, "alpha=1.0": 0.9}
    assert selections(list(id_val), "alpha=0.5", id_val, ACCURACY) == [
        ("alpha=0.0", None),
        ("alpha=0.5", "fixed"),
        ("alpha=1.0", None),
        ("alpha=1.0", "id-val"),
    ]


def test_the_fixed_point_may_also_be_the_best() -> None:
    chosen = selections(["a", "b"], "a", {"a": 0.9, "b": 0.1}, ACCURACY)
    assert chosen == [("a", "fixed"), ("b", None), ("a", "id-val")]


def test_of_equal_variants_the_first_is_best() -> None:
    assert best_variant({"a": 0.5, "b": 0.7, "c": 0.7}, ACCURACY) == "b"


def test_of_a_loss_the_lowest_is_best() -> None:
    assert best_variant({"a": 0.5, "b": 0.3, "c": 0.3}, NLL) == "b"
    chosen = selections(["a", "b"], "a", {"a": 0.9, "b": 0.1}, NLL)
    assert chosen[-1] == ("b", "id-val")


def test_the_headline_comes_first_then_accuracy_then_what_the_task_asks_for() -> None:
    assert recorded_metrics("accuracy") == ("accuracy",)
    assert recorded_metrics("macro-f1") == ("macro-f1", "accuracy")
    assert recorded_metrics("nll", ["ece:15", "accuracy"]) == ("nll", "accuracy", "ece:15")
