"""Tasks: their specification, opening them, few-shot draws, and labels by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from benchmark.data.base import draw, part_of, rank_within_class
from benchmark.data.images import ImageSet, ImageSubset
from benchmark.data.tasks import (
    BUILTIN_TASKS,
    EvaluationSet,
    Task,
    few_shot,
    miniature_tasks,
    open_task,
    split_holdout,
)
from benchmark.errors import InputError
from tests.data import layouts

SHARED = Path(__file__).parents[3] / "shared" / "data"
NINE = {
    "imagenet": ["imagenet-v2", "imagenet-r", "imagenet-sketch", "objectnet", "imagenet-a"],
    "cifar10": ["cifar10.1", "cifar10.2"],
    "iwildcam": ["iwildcam-ood"],
    "fmow": ["fmow-ood"],
}


def image_set(labels: list[int], prefix: str = "image") -> ImageSet:
    n = len(labels)
    images = ImageSubset([], np.arange(n))  # type: ignore[arg-type]
    ids = np.array([f"{prefix}/{i}" for i in range(n)], np.str_)
    return ImageSet(ids, np.array(labels, np.int64), images, "")


def pets(**changes: Any) -> Task:
    spec: dict[str, Any] = {
        "name": "pets",
        "classes": "from-data",
        "train": {"kind": "image-folder", "path": "train"},
        "id_val": {"holdout": 0.25},
        "id_test": {"source": {"kind": "image-folder", "path": "test"}},
        "shifts": {"odd": {"source": {"kind": "parquet", "path": "odd.parquet"}}},
    }
    return Task.model_validate(spec | changes)


@pytest.fixture
def root(tmp_path: Path) -> str:
    for split, each in (("train", 8), ("test", 2)):
        layouts.class_folders(tmp_path / split, ["ant", "bee", "sea_cow"], each, ".png")
    layouts.parquet(tmp_path / "odd.parquet", [0, 2, 2], ["Sea Cow", "dog", "ant"])
    return str(tmp_path)


def test_the_nine_shifts() -> None:
    assert {name: list(task.shifts) for name, task in BUILTIN_TASKS.items()} == NINE
    for task in BUILTIN_TASKS.values():
        assert task.ood_val is not None
        assert Task.model_validate_json(task.model_dump_json(), strict=True) == task
    assert [s.metric for s in BUILTIN_TASKS["fmow"].evaluation_sets().values()] == [
        "accuracy",
        "worst-region",
        "worst-region",
    ]
    assert {s.metric for s in BUILTIN_TASKS["iwildcam"].evaluation_sets().values()} == {"macro-f1"}


def test_miniature_tasks_differ_in_classes_and_little_else() -> None:
    from benchmark.data.miniature import CLASSES

    for name, task in miniature_tasks().items():
        assert task.classes == CLASSES[name]
        assert list(task.evaluation_sets()) == list(BUILTIN_TASKS[name].evaluation_sets())


def test_opens_every_set(root: str) -> None:
    data = open_task(pets(), root, None, 0)
    assert data.classes == ("ant", "bee", "sea_cow")
    assert data.templates == ("a photo of a {}.",)
    assert len(data.train) == 18
    assert np.bincount(data.id_val.labels).tolist() == [2, 2, 2]
    assert list(data.evaluation) == ["id-val", "id-test", "odd"]
    assert data.evaluation["id-val"][1] is data.id_val
    assert not set(data.train.ids) & set(data.id_val.ids)
    assert data.notes == ()


def test_labels_of_a_shift_are_matched_by_name(root: str) -> None:
    # Its names have another order and spelling; "dog" is none of the classes, but has no images.
    images = open_task(pets(), root, None, 0).evaluation["odd"][1]
    assert images.labels.tolist() == [2, 0, 0]
    assert images.projection is None


def test_a_shift_may_be_scored_on_its_own_classes(root: str) -> None:
    odd = {"source": {"kind": "parquet", "path": "odd.parquet"}, "scored_on": "own"}
    images = open_task(pets(shifts={"odd": odd}), root, None, 0).evaluation["odd"][1]
    assert images.projection is not None
    assert images.projection.groups == ((0,), (2,))
    assert images.labels.tolist() == [1, 0, 0]


def test_a_label_that_is_no_class_is_named_unless_renamed(root: str) -> None:
    layouts.parquet(Path(root) / "odd.parquet", [0, 1, 2], ["Sea Cow", "dog", "ant"])
    with pytest.raises(InputError, match=r'label "dog".*rename'):
        open_task(pets(), root, None, 0)
    for target, expected in (("bee", [2, 1, 0]), (None, [2, 0])):
        source = {"kind": "parquet", "path": "odd.parquet", "rename": {"dog": target}}
        data = open_task(pets(shifts={"odd": {"source": source}}), root, None, 0)
        assert data.evaluation["odd"][1].labels.tolist() == expected


def test_renaming_makes_classes_from_data(root: str) -> None:
    train = {"kind": "image-folder", "path": "train", "rename": {"bee": "ant", "sea_cow": None}}
    test = train | {"path": "test"}
    task = pets(train=train, id_test={"source": test}, shifts={}, classes=["ant", "manatee"])
    data = open_task(task, root, None, 0)
    assert np.bincount(data.train.labels).tolist() == [12]
    assert open_task(task.model_copy(update={"classes": "from-data"}), root, None, 0).classes == (
        "ant",
    )


def test_classes_in_another_order_move_the_labels(root: str) -> None:
    task = pets(classes=["sea_cow", "zebra", "ant", "bee"])
    data = open_task(task, root, None, 0)
    assert np.bincount(data.train.labels).tolist() == [6, 0, 6, 6]


def test_fixed_layouts_keep_their_labels_under_other_names(tmp_path: Path) -> None:
    layouts.cifar10(tmp_path)
    layouts.cifar101(tmp_path)
    names = tuple(f"name {k}" for k in range(10))
    task = Task.model_validate(
        {
            "name": "c",
            "classes": names,
            "train": {"kind": "cifar10", "split": "train"},
            "id_test": {"source": {"kind": "cifar10", "split": "test"}},
            "shifts": {"cifar10.1": {"source": {"kind": "cifar10.1"}}},
        }
    )
    data = open_task(task, str(tmp_path), None, 0)
    assert data.evaluation["id-test"][1].labels.tolist() == list(range(10)) * 3
    nine = task.model_copy(update={"classes": names[:9]})
    with pytest.raises(InputError, match="10 classes, but the task has 9"):
        open_task(nine, str(tmp_path), None, 0)


def test_imagenet_with_a_class_folder_missing_is_refused(tmp_path: Path) -> None:
    layouts.imagenet(tmp_path)
    spec = {
        "name": "i",
        "classes": [f"class {k}" for k in range(6)],
        "train": {"kind": "imagenet", "split": "train"},
        "id_test": {"source": {"kind": "imagenet", "split": "val"}},
    }
    with pytest.raises(InputError, match="5 classes, but the task has 6"):
        open_task(Task.model_validate(spec), str(tmp_path), None, 0)


def test_labels_beyond_the_classes_are_refused(root: str) -> None:
    layouts.parquet(Path(root) / "odd.parquet", [0, 3])
    with pytest.raises(InputError, match=r"odd: .* has label 3, but the task has 3 classes"):
        open_task(pets(), root, None, 0)


def test_worst_region_needs_regions(root: str) -> None:
    odd = {"source": {"kind": "parquet", "path": "odd.parquet"}, "metric": "worst-region"}
    with pytest.raises(InputError, match="worst-region needs"):
        open_task(pets(shifts={"odd": odd}), root, None, 0)


def test_classes_cannot_come_from_data_that_name_none(root: str) -> None:
    layouts.parquet(Path(root) / "t.parquet", [0, 1, 1, 0])
    with pytest.raises(InputError, match="do not name their labels"):
        open_task(pets(train={"kind": "parquet", "path": "t.parquet"}), root, None, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": "imagenett"}, "imagenett"),
        ({"classes": ["cat"]}, "at least two"),
        ({"templates": "openai-81"}, "openai-81"),
        ({"templates": ["a photo"]}, "no {}"),
        ({"templates": []}, "at least one template"),
        ({"id_val": {"holdout": 1.0}}, "less than 1"),
        ({"id_val": {"holdot": 0.1}}, "holdot"),
        ({"train": {"kind": "imagnet"}}, "imagnet"),
        ({"train": {"kind": "image-folder"}}, "path"),
        (
            {"train": {"kind": "image-folder", "path": "a", "limit": 0}},
            "greater than or equal to 1",
        ),
        ({"shifts": {"id-test": {"source": {"kind": "cifar10.1"}}}}, "id-test"),
        ({"id_test": {"source": {"kind": "cifar10.1"}, "metric": "f1"}}, "macro-f1"),
    ],
)
def test_wrong_specifications_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        pets(**change)


def test_few_shot_draws_k_of_every_class_with_the_seed(root: str) -> None:
    one, two = (open_task(pets(), root, 2, seed) for seed in (0, 1))
    assert np.bincount(one.train.labels).tolist() == [2, 2, 2]
    assert np.bincount(one.id_val.labels).tolist() == [2, 2, 2]
    assert one.train.ids.tolist() == open_task(pets(), root, 2, 0).train.ids.tolist()
    assert one.train.ids.tolist() != two.train.ids.tolist()
    more = open_task(pets(), root, 4, 0)
    assert set(one.train.ids) < set(more.train.ids)
    assert len(one.evaluation["id-test"][1]) == 6


def test_few_shot_takes_all_of_a_small_class_and_says_so() -> None:
    images = image_set([0] * 5 + [1] * 2)
    few, note = few_shot(images, 4, 0, classes=3)
    assert np.bincount(few.labels).tolist() == [4, 2]
    assert note == "2 of 3 classes have fewer than 4 training images"
    assert few_shot(images, 2, 0, classes=2)[1] == ""


@pytest.mark.parametrize("shots", [0, -1])
def test_zero_shots_are_refused(root: str, shots: int) -> None:
    with pytest.raises(InputError, match="shots"):
        open_task(pets(), root, shots, 0)


def test_validation_has_at_most_four_shots(root: str) -> None:
    data = open_task(pets(id_val={"holdout": 0.75}), root, 5, 0)
    assert np.bincount(data.id_val.labels).tolist() == [4, 4, 4]
    assert np.bincount(data.train.labels).tolist() == [2, 2, 2]
    assert data.notes == ("pets: 3 of 3 classes have fewer than 5 training images",)


def test_holdout_depends_on_ids_alone() -> None:
    labels = np.random.default_rng(0).integers(0, 5, 200).tolist()
    images = image_set(labels)
    rest, held = split_holdout(images, 0.2)
    counts = np.bincount(images.labels)
    assert np.bincount(held.labels).tolist() == [round(0.2 * n) for n in counts]
    assert sorted([*rest.ids, *held.ids]) == sorted(images.ids)
    order = np.random.default_rng(1).permutation(200)
    _, again = split_holdout(images.subset(order), 0.2)
    assert set(again.ids) == set(held.ids)
    assert len(split_holdout(image_set([0, 0, 1]), 0.01)[1]) == 1


def test_ranks_and_draws_against_slow_ones() -> None:
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 4, 60)
    order = rng.permutation(60)
    seen = dict.fromkeys(range(4), 0)
    slow = np.empty(60, int)
    for index in order:
        slow[index] = seen[labels[index]]
        seen[labels[index]] += 1
    assert rank_within_class(labels, order).tolist() == slow.tolist()
    ids = np.array([f"x{i}" for i in range(60)], np.str_)
    parts = [part_of(ids, labels, a, b) for a, b in ((0, 0.3), (0.3, 0.31), (0.31, 1))]
    assert sorted(np.concatenate(parts).tolist()) == list(range(60))
    assert np.bincount(labels[draw(ids, labels, 20, balanced=True)]).tolist() == [5] * 4


def test_an_evaluation_set_is_plain_data() -> None:
    item = EvaluationSet.model_validate({"source": {"kind": "cifar10.1"}})
    assert (item.metric, item.scored_on) == ("accuracy", "task")


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared photographs are not here")
def test_real_shift_with_eight_of_ten_classes() -> None:
    def source(name: str) -> dict[str, str]:
        return {"kind": "parquet", "path": f"{name}.parquet"}

    task = Task.model_validate(
        {
            "name": "cifar",
            "classes": "cifar10",
            "train": source("cifar10-train-15k"),
            "id_test": {"source": source("cifar10-test")},
            "shifts": {"tiny": {"source": source("cifar10-classes-from-tiny-imagenet")}},
        }
    )
    data = open_task(task, str(SHARED), 16, 0)
    assert len(data.train) == 160
    assert len(data.id_val) == 40
    counts = np.bincount(data.evaluation["tiny"][1].labels, minlength=10)
    assert counts[[0, 7]].tolist() == [0, 0]
    assert (np.delete(counts, [0, 7]) > 0).all()
