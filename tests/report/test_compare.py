from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from scipy.stats import t
from shiftbench.data.tasks.registry import builtin_tasks
from shiftbench.evaluation.intervals import clopper_pearson
from shiftbench.evaluation.metrics import Score
from shiftbench.leaderboard.published import PUBLISHED_SCHEMA, read_published
from shiftbench.leaderboard.schema import Result, digest, done, failed
from shiftbench.report.ranking import Estimate
from shiftbench.report.references import (
    GOLDEN_SETS,
    IMAGES,
    compare,
    golden_faults,
    left_out,
    reference,
)

from tests.leaderboard.records import info

FOLDER = Path(__file__).parents[2] / "results" / "published"
B16 = "openai/ViT-B-16"


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
    return dict.fromkeys(PUBLISHED_SCHEMA.names) | values | changes


def published(*rows):
    return pa.Table.from_pylist([*rows], schema=PUBLISHED_SCHEMA)


def results(values, task, variant="", selection="fixed", n=None, metric="accuracy", half=0.01):
    return [
        Result(
            variant=variant,
            selection=selection,
            evaluation_set=name,
            metric=metric,
            primary=True,
            score=Score(
                value,
                max(0, value - half),
                min(1, value + half),
                n or IMAGES.get((task, name), 100),
                "by hand",
            ),
        )
        for name, value in values.items()
    ]


def of_task(run_id, found, *, task="imagenet", **changes):
    """A run on the real data of a built-in task, whose results ``found`` makes from the task."""
    known = builtin_tasks().get(task)
    settings = {"task": task, "backbone": B16}
    if known is not None:
        settings["task_digest"] = digest(known.model_dump(mode="json"))
    made = results(found, task) if isinstance(found, dict) else found
    return done(info(run_id, **(settings | changes)), made)


def zero_shot(values, **changes):
    settings = {"method": "zero-shot", "label": "zero-shot", "seeded": False}
    return of_task("zs", values, **(settings | changes))


# What is put beside what


def test_published_values_stand_beside_ours():
    table = of_task("a", {"imagenet-r": 0.65, "imagenet-a": 0.36})
    found = compare(table, published(row(0.656)))
    assert [(c.evaluation_set, c.label, c.ours.mean) for c in found] == [
        ("imagenet-r", "full", 0.65),
        ("imagenet-a", "full", 0.36),
    ]
    (near,) = found[0].references
    assert near.value == 0.656
    assert near.difference == pytest.approx(-0.006)
    assert near.source == "by hand"
    assert not near.second_hand
    assert near.verdict == "reproduced"
    assert found[1].references == ()


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
    assert found.references == ()


def test_shots_are_compared_with_the_same_shots():
    tables = [of_task("a", {"imagenet-r": 0.65}), of_task("b", {"imagenet-r": 0.7}, shots=16)]
    found = compare(pa.concat_tables(tables), published(row(0.656), row(0.785, shots=16)))
    assert {c.shots: c.references[0].value for c in found} == {None: 0.656, 16: 0.785}


def test_zero_shot_has_no_shots():
    tables = [
        zero_shot({"imagenet-r": 0.777}),
        of_task("a", {"imagenet-r": 0.7}, shots=4),
        of_task("b", {"imagenet-r": 0.7}, shots=16),
    ]
    found = compare(pa.concat_tables(tables), published(row(0.776, method="zero-shot")))
    assert [(c.label, c.shots) for c in found if c.references] == [("zero-shot", None)]
    assert len(found) == 3


def test_originals_come_first():
    quoted = row(0.65, kind="second-hand", source="quoted", note="as printed")
    (found,) = compare(of_task("a", {"imagenet-r": 0.65}), published(quoted, row(0.9), row(0.66)))
    assert [(r.value, r.second_hand) for r in found.references] == [
        (0.9, False),
        (0.66, False),
        (0.65, True),
    ]
    assert found.references[2].note == "as printed"


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
    assert {c.variant: [r.value for r in c.references] for c in found} == {
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
    assert [r.value for r in found["alpha=0.5"].references] == [value]


def test_over_an_unknown_run():
    table = curve().filter(pc.equal(curve()["run_id"], "w"))
    found = compare(table, published(wise_ft(0.787, "alpha=0.5", parent="full")))
    assert all(not c.references for c in found)


# Differences


def test_over_seeds_the_interval_is_students():
    values = [0.64, 0.66, 0.68]
    tables = [of_task(f"s{i}", {"imagenet-r": v}, seed=i) for i, v in enumerate(values)]
    (found,) = compare(pa.concat_tables(tables), published(row(0.6)))
    half = t.ppf(0.975, 2) * 0.02 / 3**0.5
    (one,) = found.references
    assert found.ours.seeds == 3
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
    found = reference(Estimate(0.67, None, *ends, 1), row(0.66), tolerance)
    assert found.verdict == verdict
    assert (found.low is None) == (half is None)


def test_uncertainty_of_the_published_value():
    ours = Estimate(0.7, None, 0.69, 0.72, 1)
    low, high = clopper_pearson(60, 100)
    found = reference(ours, row(0.6, n=100))
    assert found.low == pytest.approx(0.1 - (0.01**2 + (high - 0.6) ** 2) ** 0.5)
    assert found.high == pytest.approx(0.1 + (0.02**2 + (0.6 - low) ** 2) ** 0.5)

    assert reference(ours, row(0.6, n=100, metric="macro-f1")).low == pytest.approx(0.09)
    given = reference(ours, row(0.6, low=0.58, high=0.63))
    assert given.low == pytest.approx(0.1 - (0.01**2 + 0.03**2) ** 0.5)


# What cannot be compared


def test_other_images():
    small = of_task("a", results({"imagenet-r": 0.65}, "imagenet", n=500))
    (found,) = compare(small, published(row(0.65)))
    assert found.references[0].verdict == "not comparable"
    assert found.remark == "500 of 30,000 images"


def test_a_limit_on_a_set_of_unknown_size():
    table = of_task("a", {"id-test": 0.9}, task="dtd", budget={"evaluation_images": 64})
    (found,) = compare(table, published(row(0.9, task="dtd", evaluation_set="id-test")))
    assert found.references[0].verdict == "not comparable"
    assert found.remark == "at most 64 images"


def test_a_task_of_ones_own_is_remarked():
    table = of_task("a", {"imagenet-r": 0.65}, task_digest="f" * 12)
    (found,) = compare(table, published(row(0.65)))
    assert found.references[0].verdict == "reproduced"
    assert found.remark == "the task is not defined as the built-in one"


def test_failed_runs_and_the_miniature_world_are_not_compared():
    tables = [
        failed(info("f", backbone=B16), "loss is NaN"),
        of_task("m", {"imagenet-r": 0.65}, data_kind="miniature/1"),
        of_task("n", {"imagenet-r": 0.65}, data_kind="miniature/1", seed=1),
    ]
    table = pa.concat_tables(tables)
    assert compare(table, published(row(0.65))) == []
    assert left_out(table) == 2


def test_sizes_are_the_documented_ones(tmp_path):
    for (name, evaluation_set), size in IMAGES.items():
        source = builtin_tasks()[name].evaluation_sets()[evaluation_set].source
        assert source.documented(str(tmp_path)).examples == size


# The published rows that ship


def test_against_the_shipped_rows():
    """Values of the papers themselves are reproduced; a curve of one's own is not."""
    paper = {"id-test": 0.813, "imagenet-v2": 0.709, "imagenet-r": 0.656, "objectnet": 0.596}
    found = compare(of_task("a", paper), read_published(FOLDER))
    verdicts = {
        c.evaluation_set: r.verdict
        for c in found
        for r in c.references
        if r.source == "arXiv:2109.01903 Table 8"
    }
    assert verdicts == dict.fromkeys(paper, "reproduced") | {"objectnet": "differs"}
    assert all(len(c.references) >= 3 for c in found)


def test_means_over_shifts_are_compared_too():
    """Those of WiSE-FT's Table 8 for full fine-tuning: (70.9 + 65.6 + 46.3 + 49.6 + 36.7) / 5."""
    paper = {"imagenet-v2": 70.9, "imagenet-r": 65.6, "imagenet-sketch": 46.3}
    paper |= {"objectnet": 49.6, "imagenet-a": 36.7}
    ours = {name: value / 100 for name, value in paper.items()}
    found = {c.evaluation_set: c for c in compare(of_task("a", ours), read_published(FOLDER))}
    (table_8,) = (r for r in found["mean OOD"].references if r.source == "arXiv:2109.01903 Table 8")
    assert table_8.value == pytest.approx(sum(paper.values()) / 500)
    assert table_8.verdict == "reproduced"
    few = {name: ours[name] for name in ("imagenet-v2", "imagenet-r")}
    partly = compare(of_task("a", few), read_published(FOLDER))
    assert {c.evaluation_set for c in partly} == {*few}


# The golden row

GOLDEN = {
    # open_clip's table
    "imagenet": {
        "id-test": 0.6834,
        "imagenet-v2": 0.6188,
        "imagenet-r": 0.7770,
        "imagenet-sketch": 0.4824,
        "imagenet-a": 0.4995,
        "objectnet": 0.5531,
    },
    "iwildcam": {"iwildcam-ood": 0.1099},
    "fmow": {"fmow-ood": 0.1888},
}
METRICS = {"imagenet": "accuracy", "iwildcam": "macro-f1", "fmow": "worst-region"}


def golden(task, changes=None, **settings):
    values = GOLDEN[task] | (changes or {})
    return zero_shot(results(values, task, metric=METRICS[task]), task=task, **settings)


@pytest.mark.parametrize("task", GOLDEN)
def test_a_golden_row_without_fault(task):
    assert golden_faults(golden(task), read_published(FOLDER)) == []


@pytest.mark.parametrize(("task", "name"), GOLDEN_SETS)
def test_a_golden_cell_that_differs(task, name):
    expected = GOLDEN[task][name]
    faults = golden_faults(golden(task, {name: expected + 0.011}), read_published(FOLDER))
    assert faults == [
        f"zero-shot {B16} on {name}: {100 * expected + 1.1:.2f} %, but {100 * expected:.2f} % in "
        "open_clip's table (tolerance 1.0 points)"
    ]
    near = golden(task, {name: expected - 0.009})
    assert golden_faults(near, read_published(FOLDER)) == []
    assert len(golden_faults(near, read_published(FOLDER), tolerance=0.005)) == 1


def test_what_is_no_golden_cell():
    shipped = read_published(FOLDER)
    wrong = {"imagenet-r": 0.5}
    assert len(golden_faults(golden("imagenet", wrong), shipped)) == 1
    others = [
        golden("imagenet", {"objectnet": 0.3}),  # other class names there
        golden("imagenet", wrong, data_kind="miniature/1"),
        golden("imagenet", wrong, backbone="somebody/model"),
        golden("imagenet", wrong, method="full"),
        zero_shot(results(wrong, "imagenet", n=30)),  # a part of the set
        failed(info("f", method="zero-shot", backbone=B16), "no memory"),
    ]
    for table in others:
        assert golden_faults(table, shipped) == []


def test_a_published_zero_is_no_reference():
    """FMoW's worst region of openai/RN50 is 0 in open_clip's table."""
    shipped = read_published(FOLDER)
    table = golden("fmow", {"fmow-ood": 0.12}, backbone="openai/RN50")
    assert golden_faults(table, shipped) == []
