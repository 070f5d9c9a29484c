from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats
from shiftbench.report.model import build
from shiftbench.report.over_tasks import _harmonic, harmonic_mean, overall
from shiftbench.report.scores import Estimate

from tests.leaderboard.records import run
from tests.report.of_table import markdown, rankings
from tests.report.test_ranking import SETS, values

CIFAR = ("id-test", "cifar10.1", "cifar10.2")


def test_over_tasks_only_what_ranks_in_all_of_them():
    table = pa.concat_tables(
        [
            run("a", values(80, 50, 60), label="a"),
            run("b", values(90, 60, 60), label="b"),
            run("c", values(90, 99, 99), label="c"),
            run("d", values(99, 99, sets=SETS[:2]), label="d"),
            run("a2", values(90, 80, 82, sets=CIFAR), label="a", task="cifar10"),
            run("b2", values(90, 70, 70, sets=CIFAR), label="b", task="cifar10"),
            run("d2", values(99, 99, 99, sets=CIFAR), label="d", task="cifar10"),
        ]
    )
    (across,) = overall(rankings(table))
    assert across.tasks == ("cifar10", "imagenet")
    assert [(line.rank, line.label) for line in across.methods] == [(1, "a"), (2, "b")]
    first = across.methods[0]
    numbers = (first.mean_ood.mean, first.id_test.mean)
    assert numbers == pytest.approx(((0.55 + 0.81) / 2, 0.85))
    assert first.cost_seconds == 120.0


def test_where_no_seed_changes_anything_the_mean_is_as_sure_as_its_examples():
    """A task whose seeds are equal is no reason for an interval without width, nor for a t."""
    by_task = {"imagenet": [0.5, 0.5], "cifar10": [0.7, 0.7], "fmow": [0.2, 0.4]}
    runs = [
        run(f"{task}{seed}", {"id-test": 0.8, "new": value}, task=task, seed=seed)
        for task, of_task in by_task.items()
        for seed, value in enumerate(of_task)
    ]
    (equal,) = overall(rankings(pa.concat_tables(runs[:4])))
    (line,) = equal.methods
    assert line.mean_ood.interval == "from the intervals of the sets"
    half = np.sqrt(2) * 0.01 / 2  # each set's is 0.01
    ends = (line.mean_ood.low, line.mean_ood.high)
    assert ends == pytest.approx((0.6 - half, 0.6 + half))
    (mixed,) = overall(rankings(pa.concat_tables(runs[2:])))
    (line,) = mixed.methods
    assert line.mean_ood.interval == "from the intervals of the sets"
    alone = stats.t.ppf(0.975, 1) * np.std([0.2, 0.4], ddof=1) / np.sqrt(2)
    assert line.mean_ood.high - line.mean_ood.mean == pytest.approx(np.hypot(0.01, alone) / 2)


def test_one_task_has_no_ranking_over_tasks():
    assert overall(rankings(run("a", values(80, 50, 60)))) == []


def test_the_mean_over_tasks_has_an_interval_over_seeds():
    """Student's t of the mean of independent means, with Welch and Satterthwaite's freedom."""
    by_task = {"imagenet": [0.5, 0.52, 0.57], "cifar10": [0.7, 0.71, 0.72]}
    runs = [
        run(f"{task}{seed}", {"id-test": 0.8, "new": value}, task=task, seed=seed)
        for task, of_task in by_task.items()
        for seed, value in enumerate(of_task)
    ]
    (across,) = overall(rankings(pa.concat_tables(runs)))
    (line,) = across.methods
    means, variances = (
        np.array([f(v) for v in by_task.values()])
        for f in (np.mean, lambda v: np.var(v, ddof=1) / 3)
    )
    freedom = variances.sum() ** 2 / (variances**2 / 2).sum()
    half = stats.t.ppf(0.975, freedom) * np.sqrt(variances.sum()) / 2
    ends = (line.mean_ood.low, line.mean_ood.high)
    assert ends == pytest.approx((means.mean() - half, means.mean() + half))
    assert line.shifts.keys() == {"cifar10 new", "imagenet new"}


def test_a_harmonic_mean_of_nothing_right_is_nothing_right():
    nothing = Estimate(0.0, None, 0.0, 0.01, (0,))
    assert _harmonic(nothing, nothing) == Estimate(0.0, None, None, None, (0,))


def test_the_harmonic_mean_is_of_the_averages():
    """As published: CoOp's 82.69 and 63.22 give 71.66 (MaPLe's README)."""
    assert harmonic_mean(82.69, 63.22) == pytest.approx(71.66, abs=0.005)
    assert harmonic_mean(69.34, 74.22) == pytest.approx(71.70, abs=0.005)
    assert harmonic_mean(0, 0) == 0

    def split(task, base, new):
        changes = {"task": task, "task_digest": task, "shots": 16}
        return run(task, {"id-test": base, "new": new}, **changes)

    table = pa.concat_tables([split("a", 0.9, 0.3), split("b", 0.5, 0.7)])
    (line,) = build(table).base_to_new
    assert (line.base.mean, line.new.mean) == pytest.approx((0.7, 0.5))
    assert line.harmonic_mean.mean == pytest.approx(2 * 0.7 * 0.5 / 1.2)
    # Each is a mean of two scores that are known to a point; both at their ends at once.
    half = 0.01 / np.sqrt(2)
    assert (line.base.low, line.base.high) == pytest.approx((0.7 - half, 0.7 + half))
    widest = [harmonic_mean(0.7 + end, 0.5 + end) for end in (-half, half)]
    assert (line.harmonic_mean.low, line.harmonic_mean.high) == pytest.approx(widest, abs=1e-4)
    shown = "70.0 (69.3 to 70.7) | 50.0 (49.3 to 50.7) | 58.3 (57.6 to 59.1)"
    assert f"| miniature | 16 | full | {shown} |" in markdown(table)
