"""Which variants stand for a run, and how that was decided."""

from __future__ import annotations

from shiftbench.evaluation.scoring import best_variant, selections


def test_a_single_variant_is_fixed() -> None:
    assert selections([""], "", {"": 0.3}) == [("", "fixed")]


def test_a_curve_has_a_fixed_point_and_the_best_on_id_validation() -> None:
    id_val = {"alpha=0.0": 0.7, "alpha=0.5": 0.8, "alpha=1.0": 0.9}
    assert selections(list(id_val), "alpha=0.5", id_val) == [
        ("alpha=0.0", None),
        ("alpha=0.5", "fixed"),
        ("alpha=1.0", None),
        ("alpha=1.0", "id-val"),
    ]


def test_the_fixed_point_may_also_be_the_best() -> None:
    chosen = selections(["a", "b"], "a", {"a": 0.9, "b": 0.1})
    assert chosen == [("a", "fixed"), ("b", None), ("a", "id-val")]


def test_of_equal_variants_the_first_is_best() -> None:
    assert best_variant({"a": 0.5, "b": 0.7, "c": 0.7}) == "b"
