"""Our order of methods beside the published one."""

from __future__ import annotations

import math
from itertools import count

import numpy as np
import pyarrow as pa
import pytest
from shiftbench.data.tasks.registry import builtin_tasks
from shiftbench.report.order import orders, rank_correlation

from tests.leaderboard.real_records import of_task, zero_shot
from tests.report.of_table import rankings
from tests.report.test_references import published, row

NAMES = ("zero-shot", "full", "flyp", "lp-ft", "l2-sp")
SHIFTS = tuple(builtin_tasks()["imagenet"].shifts)


def values(mean: float) -> dict[str, float]:
    """Scores on all shifts of ImageNet with this mean."""
    offsets = (-0.02, -0.01, 0.0, 0.01, 0.02)
    return {name: mean + offset for name, offset in zip(SHIFTS, offsets, strict=True)}


def line(method: str, cells: dict[str, float], source: str = "a paper", **changes: object):
    return [
        row(value, method=method, label=method, evaluation_set=name, source=source, **changes)
        for name, value in cells.items()
    ]


def run(label: str, mean: float, method: str | None = None, **changes: object) -> pa.Table:
    return of_task(f"run-{label}", values(mean), method=method or label, label=label, **changes)


def slow_spearman(pairs: list[tuple[float, float]]) -> float:
    ranks = []
    for values in zip(*pairs, strict=True):
        ranks.append([sum(v < x for v in values) + sum(v == x for v in values) / 2 for x in values])
    a, b = (np.array(r) - np.mean(r) for r in ranks)
    return float((a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum()))


def test_methods_in_the_published_order_have_a_correlation_of_one() -> None:
    table = pa.concat_tables(
        [zero_shot(values(0.5)), run("full", 0.4), run("flyp", 0.55), run("lp-ft", 0.45),
         run("l2-sp", 0.42)]
    )  # fmt: skip
    papers = published(
        *line("zero-shot", values(0.6)), *line("full", values(0.5)), *line("flyp", values(0.7)),
        *line("lp-ft", values(0.59)), *line("l2-sp", values(0.55)),
    )  # fmt: skip
    (order,) = orders(rankings(table), papers)
    assert [gain.name for gain in order.gains] == ["flyp", "zero-shot", "lp-ft", "l2-sp", "full"]
    assert order.rho == pytest.approx(1.0)
    flyp = order.gains[0]
    assert (flyp.ours, flyp.published) == (pytest.approx(0.05), pytest.approx(0.1))


def test_a_gain_is_over_the_zero_shot_of_its_own_source_on_the_shifts_that_the_line_has() -> None:
    table = pa.concat_tables([zero_shot(values(0.5))] + [
        run(label, mean) for label, mean in
        {"full": 0.4, "flyp": 0.55, "lp-ft": 0.45, "l2-sp": 0.42}.items()
    ])  # fmt: skip
    four = {name: value for name, value in values(0.7).items() if name != "objectnet"}
    papers = published(
        *line("zero-shot", values(0.6)), *line("zero-shot", values(0.65), "other"),
        *line("zero-shot", values(0.5), "table", collection="openclip-zero-shot"),
        *line("flyp", values(0.7)), *line("flyp", four, "other"),
        *line("full", values(0.53), "without its own"), *line("lp-ft", values(0.61)),
        *line("l2-sp", {SHIFTS[0]: 0.9}),  # of one shift: no mean
    )  # fmt: skip
    found = orders(rankings(table), papers)
    assert found == []  # four methods are too few to speak of an order
    papers = pa.concat_tables([papers, published(*line("l2-sp", values(0.6), "second"))])
    (order,) = orders(rankings(table), papers)
    gains = {gain.name: gain.published for gain in order.gains}
    assert gains["flyp"] == pytest.approx((0.1 + 0.05) / 2)
    assert gains["full"] == pytest.approx(0.03)
    assert gains["l2-sp"] == pytest.approx(0.1)


def test_of_a_method_with_several_settings_the_one_called_so_is_compared() -> None:
    table = pa.concat_tables(
        [zero_shot(values(0.5)), run("a", 0.3, "full"), run("full", 0.4), run("flyp", 0.55),
         run("lp-ft", 0.45), run("l2-sp", 0.42)]
    )  # fmt: skip
    means = zip(NAMES, count(1), strict=False)
    papers = published(*(cell for name, i in means for cell in line(name, values(i / 10))))
    (order,) = orders(rankings(table), papers)
    assert "full" in {gain.name for gain in order.gains}
    assert "a" not in {gain.name for gain in order.gains}


def test_papers_about_all_training_data_say_nothing_of_few_shots() -> None:
    papers = published(
        *(cell for i, name in enumerate(NAMES) for cell in line(name, values(0.4 + i / 10)))
    )
    for shots, tables in ((None, 1), (4, 0)):
        runs = [run(name, 0.3 + i / 20, shots=shots) for i, name in enumerate(NAMES[1:])]
        table = pa.concat_tables([zero_shot(values(0.5)), *runs])
        assert len(orders(rankings(table), papers)) == tables


def test_published_calibration_errors_are_no_accuracies() -> None:
    table = pa.concat_tables([zero_shot(values(0.5))] + [
        run(label, mean) for label, mean in
        {"full": 0.4, "flyp": 0.55, "lp-ft": 0.45, "l2-sp": 0.42}.items()
    ])  # fmt: skip
    papers = published(
        *(cell for i, name in enumerate(NAMES) for cell in line(name, values(0.4 + i / 10))),
        *line("flyp", values(0.1), metric="ece", note="calibration"),
    )
    (order,) = orders(rankings(table), papers)
    gains = {gain.name: gain.published for gain in order.gains}
    assert gains["flyp"] == pytest.approx(NAMES.index("flyp") / 10)


def test_two_lines_of_one_source_are_averaged_and_other_class_names_are_no_zero_shot() -> None:
    table = pa.concat_tables([zero_shot(values(0.5))] + [
        run(name, 0.3 + i / 20) for i, name in enumerate(NAMES[1:])
    ])  # fmt: skip
    papers = published(
        *line("zero-shot", values(0.5), "table", collection="openclip-zero-shot"),
        *line("zero-shot", {"objectnet": 0.9}, "table", collection="openclip-zero-shot",
              note="by other names"),
        *line("full", values(0.5)), *line("full", values(0.6)),
        *(cell for i, name in enumerate(NAMES[2:]) for cell in line(name, values(0.6 + i / 10))),
    )  # fmt: skip
    (order,) = orders(rankings(table), papers)
    gains = {gain.name: gain for gain in order.gains}
    assert gains["full"].published == pytest.approx(0.05)
    assert gains["full"].sources == ("a paper",)


def test_what_is_all_the_same_has_no_order() -> None:
    assert all(map(math.isnan, rank_correlation(np.array([[0.1, 1.0], [0.1, 2.0], [0.1, 3.0]]))))


def test_the_correlation_is_spearmans_and_its_interval_holds_it() -> None:
    pairs = [(0.1, 3.0), (0.2, 1.0), (0.2, 2.0), (0.5, 5.0), (0.4, 4.0), (0.9, 2.0)]
    rho, low, high = rank_correlation(np.array(pairs))
    assert rho == pytest.approx(slow_spearman(pairs), abs=1e-12)
    assert -1 <= low < rho < high <= 1
