"""The rule by which the miniature's rates and strengths are chosen."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import yaml

from tests.choose_rates import GRID, MINIATURE, best, strongest, suite

TABLE = Path("results/example/rates.csv")


def test_of_strengths_near_the_best_the_gentlest_is_chosen() -> None:
    n = 10**6  # where one more right and one more wrong make no difference
    each = 0.9 * 0.1 / n + 0.8 * 0.2 / n  # variance of the sum over two tasks
    least = math.sqrt(each) / 2  # the standard error of the best mean
    scores = {
        "best": [[0.9, n], [0.8, n]],
        "within": [[0.9 - least, n], [0.8 - 0.9 * least, n]],
        "beyond": [[0.9 - 1.1 * least, n], [0.8 - least, n]],
    }
    arrays = {name: np.array(values) for name, values in scores.items()}
    moved = {"best": 2.0, "within": 1.0, "beyond": 0.1}
    assert strongest(arrays, moved) == "within"
    assert strongest(arrays, moved | {"best": 0.5}) == "best"
    few = {"best": np.array([[1.0, 120]]), "gentle": np.array([[0.992, 120]])}
    assert strongest(few, {"best": 1.0, "gentle": 0.5}) == "gentle"


def test_of_rates_the_best_is_chosen_and_of_two_the_gentler() -> None:
    scores = {
        "a": np.array([[0.9, 120]]),
        "b": np.array([[0.91, 120]]),
        "c": np.array([[0.91, 120]]),
    }
    assert best(scores, {"a": 0.1, "b": 2.0, "c": 1.0}) == "c"


def test_every_setting_of_the_grid_is_a_method_of_the_suite() -> None:
    methods = yaml.safe_load(MINIATURE.read_text())["methods"]
    assert set(GRID) <= set(methods)
    tried = suite(["l2-sp", "ldifs"])["methods"]
    assert len([name for name in tried if name.startswith("l2-sp-")]) == 3
    assert "linear-probe" in tried  # the parent, as it is
    assert tried["l2-sp-0.0002-0.09"] == methods["l2-sp"] | {
        "method": "l2-sp", "lr": 2e-4, "strength": 0.09,
    }  # fmt: skip


def test_the_suite_has_what_the_committed_table_chose() -> None:
    methods = yaml.safe_load(MINIATURE.read_text())["methods"]
    tried: dict[str, list[dict[str, float]]] = {label: [] for label in GRID}
    chosen = []
    with TABLE.open(newline="", encoding="utf-8") as text:
        for row in csv.DictReader(text):
            held = {row["field"]: float(row["strength"])} if row["field"] else {}
            setting = {"lr": float(row["lr"])} | held
            tried[row["method"]].append(setting)
            if row["chosen"]:
                chosen.append(row["method"])
                entry = methods[row["method"]]  # YAML 1.1 reads 2e-4 as text
                assert {key: float(entry[key]) for key in setting} == setting
    assert tried == {label: [*GRID[label].settings()] for label in GRID}
    assert chosen == [*GRID]
