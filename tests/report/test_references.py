from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from scipy.stats import t
from shiftbench.data.tasks.registry import builtin_tasks
from shiftbench.evaluation.intervals import clopper_pearson
from shiftbench.execution.runinfo import run_info
from shiftbench.leaderboard.published.reading import read_published
from shiftbench.leaderboard.published.schema import PUBLISHED_COLUMNS, PublishedRow
from shiftbench.leaderboard.published.settings import StatedSettings
from shiftbench.leaderboard.schema import done, failed, rows
from shiftbench.report import references
from shiftbench.report.ranking import rank
from shiftbench.report.references import beside
from shiftbench.report.runs import Runs
from shiftbench.report.scores import Estimate
from shiftbench.report.stated import NOT_STATED
from shiftbench.suite.plan import Plan
from shiftbench.suite.suite import Suite

from tests.leaderboard.real_records import B16, of_task, results, zero_shot
from tests.leaderboard.records import info
from tests.leaderboard.test_published import FOLDER

STATED = StatedSettings()


def compare(table, published):
    found = rows(table)
    return references.compare(rank(found), published, Runs(found), STATED)


def row(value, **changes):
    """A published row about full fine-tuning of ViT-B/16 on ImageNet, on ImageNet-R."""
    values = {
        "data_kind": "real",
        "task": "imagenet",
        "backbone": B16,
        "method": "full",
        "label": "full-ft",
        "evaluation_set": "imagenet-r",
        "role": "shift",
        "metric": "accuracy",
        "value": value,
        "source": "by hand",
        "kind": "original",
        "collection": "papers",
        "line": 2,
        "column": "value",
    }
    return PublishedRow(**(values | changes))


def published(*rows):
    return PUBLISHED_COLUMNS.table(rows)


# What is put beside what


def test_published_values_stand_beside_ours():
    table = of_task("a", {"imagenet-r": 0.65, "imagenet-a": 0.36})
    found = compare(table, published(row(0.656)))
    assert [(c.evaluation_set, c.label, c.ours.mean) for c in found] == [
        ("imagenet-r", "full", 0.65),
        ("imagenet-a", "full", 0.36),
    ]
    (near,) = found[0].published
    assert near.value == 0.656
    assert near.difference == pytest.approx(-0.006)
    assert near.source == "by hand"
    assert not near.second_hand
    assert near.verdict == "reproduced"
    assert found[1].published == ()


@pytest.mark.parametrize(
    "change",
    [
        {"task": "cifar10"},
        {"backbone": "openai/ViT-B-32"},
        {"method": "flyp"},
        {"shots": 16},
        {"evaluation_set": "imagenet-a"},
        {"metric": "macro-f1"},
        {"variant": "alpha=0.5"},
        {"selection": "id-val"},
        {"parent": "lp-ft"},
        {"config": '{"lr": 1e-5}'},  # a point of a search
    ],
)
def test_another_cell_is_not_compared(change):
    (found,) = compare(of_task("a", {"imagenet-r": 0.65}), published(row(0.656, **change)))
    assert found.published == ()


def test_shots_are_compared_with_the_same_shots():
    tables = [of_task("a", {"imagenet-r": 0.65}), of_task("b", {"imagenet-r": 0.7}, shots=16)]
    found = compare(pa.concat_tables(tables), published(row(0.656), row(0.785, shots=16)))
    assert {c.shots: c.published[0].value for c in found} == {None: 0.656, 16: 0.785}


def test_zero_shot_has_no_shots():
    tables = [
        zero_shot({"imagenet-r": 0.777}),
        of_task("a", {"imagenet-r": 0.7}, shots=4),
        of_task("b", {"imagenet-r": 0.7}, shots=16),
    ]
    found = compare(pa.concat_tables(tables), published(row(0.776, method="zero-shot")))
    assert [(c.label, c.shots) for c in found if c.published] == [("zero-shot", None)]
    assert len(found) == 3


def test_originals_come_first():
    quoted = row(0.65, kind="second-hand", source="quoted", note="as printed")
    (found,) = compare(of_task("a", {"imagenet-r": 0.65}), published(quoted, row(0.9), row(0.66)))
    assert [(r.value, r.second_hand) for r in found.published] == [
        (0.9, False),
        (0.66, False),
        (0.65, True),
    ]
    assert found.published[2].note == "as printed"


# Curves


def curve(parent_method="full", **changes):
    """WiSE-FT with three points, of which 0.5 is the fixed one and 0.25 the best on ID."""
    found = [
        *results({"imagenet-r": 0.70}, "imagenet", "alpha=0.25", None),
        *results({"imagenet-r": 0.70}, "imagenet", "alpha=0.25", "id-val"),
        *results({"imagenet-r": 0.78}, "imagenet", "alpha=0.5", "fixed"),
        *results({"imagenet-r": 0.74}, "imagenet", "alpha=0.75", None),
    ]
    settings = {"method": "wise-ft", "label": "robust", "seeded": False}
    settings["parents"] = [("trained", "p")]
    parent = of_task("p", {"imagenet-r": 0.65}, method=parent_method, label="trained")
    return pa.concat_tables([parent, of_task("w", found, **(settings | changes))])


def wise_ft(value, variant, **changes):
    return row(value, method="wise-ft", label="wise-ft", **{"variant": variant} | changes)


def test_each_point_of_a_curve():
    references = published(
        wise_ft(0.71, "alpha=0.25", parent="full"),
        wise_ft(0.787, "alpha=0.5", parent="full"),
        wise_ft(0.01, "alpha=0.5", parent="linear-probe"),
        wise_ft(0.751, None, parent="full", selection="id-val"),
        wise_ft(0.8, None, parent="full", selection="oracle-per-column"),
        wise_ft(0.726, None, parent="full"),
    )
    found = [c for c in compare(curve(), references) if c.label == "robust"]
    assert {c.variant: [r.value for r in c.published] for c in found} == {
        "alpha=0.25": [0.71],
        "alpha=0.5": [0.787],
        "id-val": [0.751],
    }
    assert next(c for c in found if c.variant == "id-val").ours.mean == 0.70


def test_points_that_nobody_chose_are_left_out_where_nothing_is_published():
    found = compare(curve(), published())
    assert {c.variant for c in found if c.label == "robust"} == {"alpha=0.25", "alpha=0.5"}


@pytest.mark.parametrize(("parent", "value"), [("full", 0.787), ("linear-probe", 0.776)])
def test_wise_ft_over_what(parent, value):
    references = published(
        wise_ft(0.787, "alpha=0.5", parent="full"),
        wise_ft(0.776, "alpha=0.5", parent="linear-probe"),
    )
    found = {c.variant: c for c in compare(curve(parent), references) if c.label == "robust"}
    assert [r.value for r in found["alpha=0.5"].published] == [value]


def test_over_an_unknown_run():
    table = curve().filter(pc.equal(curve()["run_id"], "w"))
    found = compare(table, published(wise_ft(0.787, "alpha=0.5", parent="full")))
    assert all(not c.published for c in found)


# Differences


def test_over_seeds_the_interval_is_students():
    values = [0.64, 0.66, 0.68]
    tables = [of_task(f"s{i}", {"imagenet-r": v}, seed=i) for i, v in enumerate(values)]
    (found,) = compare(pa.concat_tables(tables), published(row(0.6)))
    half = t.ppf(0.975, 2) * 0.02 / 3**0.5
    (one,) = found.published
    assert found.ours.seeds == (0, 1, 2)
    assert one.difference == pytest.approx(0.06)
    assert (one.low, one.high) == pytest.approx((0.06 - half, 0.06 + half))
    assert one.verdict == "differs"
    assert half < 0.06


@pytest.mark.parametrize(
    ("half", "tolerance", "verdict"),
    [
        (0.001, 0.005, "differs"),
        (0.001, 0.02, "reproduced"),
        (0.001, 0.01, "reproduced"),  # as large as the difference
        (0.009, 0.005, "differs"),
        (0.011, 0.005, "reproduced"),
        (None, 0.005, "differs"),
        (None, 0.01, "reproduced"),
    ],
)
def test_verdict(half, tolerance, verdict):
    ends = (None, None) if half is None else (0.67 - half, 0.67 + half)
    found = beside(Estimate(0.67, None, *ends, (0,)), row(0.66), NOT_STATED, tolerance)
    assert found.verdict == verdict
    assert (found.low is None) == (half is None)


def test_uncertainty_of_the_published_value():
    ours = Estimate(0.7, None, 0.69, 0.72, (0,))
    low, high = clopper_pearson(60, 100)
    found = beside(ours, row(0.6, n=100), NOT_STATED)
    assert found.low == pytest.approx(0.1 - (0.01**2 + (high - 0.6) ** 2) ** 0.5)
    assert found.high == pytest.approx(0.1 + (0.02**2 + (0.6 - low) ** 2) ** 0.5)

    assert beside(ours, row(0.6, n=100, metric="macro-f1"), NOT_STATED).low == pytest.approx(0.09)
    given = beside(ours, row(0.6, low=0.58, high=0.63), NOT_STATED)
    assert given.low == pytest.approx(0.1 - (0.01**2 + 0.03**2) ** 0.5)


# What cannot be compared


def test_other_images():
    small = of_task("a", results({"imagenet-r": 0.65}, "imagenet", n=500))
    (found,) = compare(small, published(row(0.65)))
    assert found.published[0].verdict == "not comparable"
    assert found.remark == "500 of 30,000 images"


def test_a_limit_on_a_set_of_unknown_size():
    table = of_task("a", {"id-test": 0.9}, task="dtd", budget={"evaluation_images": 64})
    (found,) = compare(table, published(row(0.9, task="dtd", evaluation_set="id-test")))
    assert found.published[0].verdict == "not comparable"
    assert found.remark == "at most 64 images"


def test_a_task_of_ones_own_is_remarked():
    table = of_task("a", {"imagenet-r": 0.65}, task_digest="f" * 12)
    (found,) = compare(table, published(row(0.65)))
    assert found.published[0].verdict == "reproduced"
    assert found.remark == "the task is not defined as the built-in one"


def test_runs_of_nine_shifts_are_of_the_builtin_tasks(tmp_path):
    """Rows as the score stage writes them, of every task, also those that search on OOD data."""
    suite = Suite.load("nine-shifts", (), str(tmp_path))
    tables, seen = [], set()
    for run in Plan.build(suite).runs.values():
        if run.label in ("zero-shot", "full") and (run.task.name, run.label, run.seed) not in seen:
            seen.add((run.task.name, run.label, run.seed))
            names = run.task.evaluation_sets()
            values = [
                result
                for name, item in names.items()
                for result in results({name: 0.65}, run.task.name, metric=item.metric)
            ]
            tables.append(done(run_info(suite.name, run), values))
    assert {task for task, _, _ in seen} == builtin_tasks().keys()
    reference = row(0.65, method="zero-shot", label="zero-shot")
    found = compare(pa.concat_tables(tables), published(reference, row(0.652)))
    held = "of the training images are held out for validation"
    assert {c.remark for c in found} == {None, f"2% {held}", f"10% {held}"}
    verdicts = [value.verdict for c in found for value in c.published]
    assert verdicts == ["reproduced", "reproduced"]


def test_failed_runs_and_the_miniature_world_are_not_compared():
    tables = [
        failed(info("f", backbone=B16), "loss is NaN"),
        of_task("m", {"imagenet-r": 0.65}, data_kind="miniature/1"),
        of_task("n", {"imagenet-r": 0.65}, data_kind="miniature/1", seed=1),
    ]
    table = pa.concat_tables(tables)
    assert compare(table, published(row(0.65))) == []


# The published rows that ship


def test_against_the_shipped_rows():
    """Values of the papers themselves are reproduced; a curve of one's own is not."""
    paper = {"id-test": 0.813, "imagenet-v2": 0.709, "imagenet-r": 0.656, "objectnet": 0.596}
    found = compare(of_task("a", paper), read_published(FOLDER))
    verdicts = {
        c.evaluation_set: r.verdict
        for c in found
        for r in c.published
        if r.source == "arXiv:2109.01903 Table 8"
    }
    assert verdicts == dict.fromkeys(paper, "reproduced") | {"objectnet": "differs"}
    assert all(len(c.published) >= 3 for c in found)


def test_means_over_shifts_are_compared_too():
    """Those of WiSE-FT's Table 8 for full fine-tuning: (70.9 + 65.6 + 46.3 + 49.6 + 36.7) / 5."""
    paper = {"imagenet-v2": 70.9, "imagenet-r": 65.6, "imagenet-sketch": 46.3}
    paper |= {"objectnet": 49.6, "imagenet-a": 36.7}
    ours = {name: value / 100 for name, value in paper.items()}
    found = {c.evaluation_set: c for c in compare(of_task("a", ours), read_published(FOLDER))}
    (table_8,) = (r for r in found["mean OOD"].published if r.source == "arXiv:2109.01903 Table 8")
    assert table_8.value == pytest.approx(sum(paper.values()) / 500)
    assert table_8.verdict == "reproduced"
    few = {name: ours[name] for name in ("imagenet-v2", "imagenet-r")}
    partly = compare(of_task("a", few), read_published(FOLDER))
    assert {c.evaluation_set for c in partly} == {*few}


def test_training_images_that_are_held_out_are_told():
    whole = of_task("a", {"imagenet-r": 0.65}, held_out=0.0, trains_on_id_val=True)
    (found,) = compare(whole, published(row(0.656)))
    less = of_task("a", {"imagenet-r": 0.65}, held_out=0.02)
    (told,) = compare(less, published(row(0.656)))
    line = "2% of the training images are held out for validation"
    assert line in told.remark and line not in (found.remark or "")
    assert told.published[0].verdict == found.published[0].verdict == "reproduced"
