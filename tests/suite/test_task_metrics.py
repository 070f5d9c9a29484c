"""The metrics that tasks name are checked where a suite is read, and before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shiftbench.core.errors import InputError
from shiftbench.data.images import ImageSet
from shiftbench.data.tasks.definition import EvaluationSet, Task
from shiftbench.suite.suite import Suite
from shiftbench.suite.task_metrics import check_columns, check_metrics, faults, metric_of_part

SUITE = """
data: miniature
backbones: [miniature]
methods: {zero-shot: {}}
tasks:
  cifar10:
"""


def refused(tmp_path: Path, task: str) -> str:
    file = tmp_path / "own.yaml"
    file.write_text(SUITE + task)
    with pytest.raises(InputError) as error:
        Suite.load(file)
    return str(error.value).removeprefix(str(file))


def task(**changes: Any) -> Task:
    spec = {
        "name": "pets",
        "classes": ["cat", "dog"],
        "train": {"kind": "parquet", "path": "a.parquet"},
        "id_test": {"source": {"kind": "parquet", "path": "b.parquet"}},
    }
    return Task.model_validate(spec | changes)


def shift(metric: str) -> dict[str, Any]:
    return {"source": {"kind": "parquet", "path": "c.parquet"}, "metric": metric}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "    shifts:\n      cifar10.1:\n        metric: acuracy\n",
            ':9: tasks.cifar10.shifts."cifar10.1".metric: unknown metric "acuracy"',
        ),
        (
            "    id_test:\n      metric: ece\n",
            ':8: tasks.cifar10.id_test.metric: metric "ece": takes a number of bins',
        ),
        (
            "    ood_val:\n      metric: ece:x\n",
            ':8: tasks.cifar10.ood_val.metric: metric "ece:x": takes a number of bins',
        ),
        (
            "    also_metrics:\n      - nll\n      - worst-group\n",
            ':9: tasks.cifar10.also_metrics[1]: metric "worst-group": takes a metadata column',
        ),
        (
            "    shifts:\n      cifar10.1: {metric: nll}\n",
            ':7: tasks.cifar10.shifts: no mean over "accuracy", of which more is better, and '
            '"nll", of which less is; methods are ranked by the mean over shifts',
        ),
    ],
)
def test_a_suite_names_its_metrics_by_line(tmp_path, text, message):
    assert refused(tmp_path, text).startswith(message)


def test_metrics_of_any_kind_are_taken(tmp_path):
    (tmp_path / "own.yaml").write_text(
        SUITE + "    also_metrics: [top-5, 'ece:15', 'worst-group:region*year']\n"
        "    shifts: {cifar10.1: {metric: nll}, cifar10.2: {metric: nll}}\n"
    )
    found = Suite.load(tmp_path / "own.yaml").tasks["cifar10"]
    assert found.also_metrics == ("top-5", "ece:15", "worst-group:region*year")
    assert {item.metric for item in found.shifts.values()} == {"nll"}


def test_a_task_made_in_python_is_checked_alike():
    check_metrics(task(shifts={"a": shift("accuracy"), "b": shift("worst-group:year")}))
    with pytest.raises(InputError, match=r'^task pets: shifts\.a\.metric: unknown metric "f1"'):
        check_metrics(task(shifts={"a": shift("f1")}))
    with pytest.raises(InputError, match=r"^task pets: shifts: no mean over .* different units"):
        check_metrics(task(shifts={"a": shift("brier"), "b": shift("ece:15")}))
    assert len([*faults(task(id_test=shift("a"), ood_val=shift("b"), also_metrics=["c"]))]) == 3


def test_the_columns_of_a_metric_must_be_there():
    labels = np.array([0, 1])
    images = ImageSet(labels.astype(str), labels, [None] * 2, "", {"region": labels})
    item = EvaluationSet.model_validate(shift("worst-region"))
    check_columns("pets", {"far": (item, images)})
    item = EvaluationSet.model_validate(shift("worst-group:region*year"))
    with pytest.raises(
        InputError, match=r'^task pets: far: metric .* needs .* "year" \(the set has region\)$'
    ):
        check_columns("pets", {"far": (item, images)})


def test_a_part_of_the_id_test_set_has_the_metric_of_its_shift_where_it_can() -> None:
    """ImageNet's own images have no anchors, as frames of videos have."""
    part = ImageSet(
        ids=np.array(["a"]),
        labels=np.zeros(1, np.int64),
        images=[],
        fingerprint="x",
        metadata={"region": np.array(["Asia"])},
    )
    assert metric_of_part("pm:10", part, "accuracy") == "accuracy"
    assert metric_of_part("macro-f1", part, "accuracy") == "macro-f1"
    assert metric_of_part("worst-region", part, "accuracy") == "worst-region"
