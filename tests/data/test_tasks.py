"""Tasks: their specification, opening them, few-shot draws, and labels by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from shiftbench.core.errors import InputError
from shiftbench.data.images import ImageSet, ImageSubset, Projection
from shiftbench.data.sources.builtin.imagenet import ImageNetC
from shiftbench.data.sources.corruptions import ALL_CORRUPTIONS, STANDARD_CORRUPTIONS
from shiftbench.data.subsets import draw, few_shot, part_of, rank_within_class, split_holdout
from shiftbench.data.tasks.alignment import on_classes_of
from shiftbench.data.tasks.classes import task_classes
from shiftbench.data.tasks.definition import EvaluationSet, Task
from shiftbench.data.tasks.opening import open_ood_val, open_task
from shiftbench.data.tasks.registry import builtin_tasks, miniature_tasks

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
    assert {name: list(task.shifts) for name, task in builtin_tasks().items()} == NINE
    for task in builtin_tasks().values():
        assert task.ood_val is not None
        assert Task.model_validate_json(task.model_dump_json(), strict=True) == task
    assert [s.metric for s in builtin_tasks()["fmow"].evaluation_sets().values()] == [
        "accuracy",
        "worst-region",
        "worst-region",
    ]
    iwildcam = builtin_tasks()["iwildcam"]
    assert {s.metric for s in iwildcam.evaluation_sets().values()} == {"macro-f1"}


def test_ood_validation_has_the_sizes_of_autoft() -> None:
    def sizes(tasks: dict[str, Task]) -> dict[str, int | None]:
        sources = {name: task.ood_val.source for name, task in tasks.items() if task.ood_val}
        assert all(source.balanced for source in sources.values())
        return {name: source.limit for name, source in sources.items()}

    real = {"imagenet": 15_000, "cifar10": 100, "iwildcam": 1_000, "fmow": 1_000}
    small = {"imagenet": 270, "cifar10": 100, "iwildcam": 240, "fmow": 240}
    assert sizes(builtin_tasks()) == real
    assert sizes(miniature_tasks()) == small


def test_miniature_tasks_differ_in_classes_and_little_else() -> None:
    from shiftbench.data.miniature.definition import CLASSES

    for name, task in miniature_tasks().items():
        assert task.classes == CLASSES[name]
        assert list(task.evaluation_sets()) == list(builtin_tasks()[name].evaluation_sets())


def test_opens_every_set(root: str) -> None:
    data = open_task(pets(), root, None, 0)
    assert data.classes == ("ant", "bee", "sea_cow")
    assert data.prompts == tuple((f"a photo of a {name}.",) for name in data.classes)
    assert len(data.train) == 18
    assert np.bincount(data.id_val.labels).tolist() == [2, 2, 2]
    assert list(data.evaluation) == ["id-val", "id-test", "odd"]
    assert data.evaluation["id-val"][1] is data.id_val
    assert not set(data.train.ids) & set(data.id_val.ids)


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


def odd_with(**changes: Any) -> dict[str, Any]:
    return {"odd": {"source": {"kind": "parquet", "path": "odd.parquet"}} | changes}


def test_id_images_that_have_the_classes_of_a_shift() -> None:
    images = image_set([3, 0, 2, 5, 3, 1])
    kept, part = on_classes_of(images, Projection(((2, 5), (3,))))
    assert kept.tolist() == [0, 2, 3, 4]
    assert part.ids.tolist() == images.ids[kept].tolist()
    assert part.labels.tolist() == [1, 0, 0, 1]
    assert part.projection is not None
    logits = np.arange(36, dtype=np.float32).reshape(6, 6)[kept]
    assert part.projection(logits)[0].tolist() == [5, 3]


def test_parts_of_the_id_test_set_are_known_by_the_shift(root: str) -> None:
    shifts = odd_with(scored_on="own") | {"even": odd_with()["odd"]}
    data = open_task(pets(shifts=shifts), root, None, 0)
    parts = data.on_classes_of_shifts(data.evaluation["id-test"][1])
    ((name, (shift, kept, part)),) = parts.items()
    assert (name, shift) == ("id-test-on-odd-classes", "odd")
    assert kept.tolist() == [0, 1, 4, 5]  # two ants, two bees, two sea cows; the shift has no bee
    assert part.labels.tolist() == [0, 0, 1, 1]
    with pytest.raises(ValidationError, match="cannot be called"):
        pets(shifts={name: shifts["even"]})


def test_a_shift_may_have_classes_of_its_own(root: str) -> None:
    names = ["dog", "ant", "tapir", "sea cow"]
    data = open_task(pets(shifts=odd_with(classes=names)), root, None, 0)
    # The task's classes are ant, bee and sea_cow; the shift's images are a sea cow and two ants.
    assert data.evaluation["odd"][1].labels.tolist() == [3, 1, 1]
    said = tuple((f"a photo of a {name}.",) for name in names)
    assert data.vocabularies == {"odd": (tuple(names), said)}
    assert data.classes == ("ant", "bee", "sea_cow")
    assert data.evaluation["id-test"][1].labels.max() == 2
    assert open_task(pets(), root, None, 0).vocabularies == {}


def test_a_shift_may_take_classes_from_its_own_data(root: str) -> None:
    shifts = odd_with(classes="from-data", templates=["the {}"], scored_on="own")
    data = open_task(pets(shifts=shifts), root, None, 0)
    said = (("the Sea Cow",), ("the dog",), ("the ant",))
    assert data.vocabularies == {"odd": (("Sea Cow", "dog", "ant"), said)}
    images = data.evaluation["odd"][1]
    assert images.projection is not None
    assert images.projection.groups == ((0,), (2,))
    assert images.labels.tolist() == [0, 1, 1]
    logits = np.array([[0.0, 9.0, 1.0]])
    assert images.projection(logits).tolist() == [[0.0, 1.0]]


def test_a_data_set_with_other_classes_may_be_a_shift(root: str) -> None:
    layouts.cifar101(Path(root))
    shift = {"source": {"kind": "cifar10.1"}, "classes": "cifar10", "templates": "iwildcam"}
    data = open_task(pets(shifts={"cifar": shift}), root, None, 0)
    assert data.evaluation["cifar"][1].labels.tolist() == list(range(10)) * 2
    names, said = data.vocabularies["cifar"]
    assert (names, [*map(len, said)]) == (layouts.CIFAR_NAMES, [2] * 10)
    two = pets(shifts={"cifar": shift | {"classes": ["cat", "dog"]}})
    with pytest.raises(InputError, match="10 classes, but the task has 2"):
        open_task(two, root, None, 0)
    with pytest.raises(InputError, match=r"task pets: cifar: .* do not name their labels"):
        open_task(pets(shifts={"cifar": shift | {"classes": "from-data"}}), root, None, 0)


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


def test_renaming_counts_also_where_the_names_are_those_of_the_task(root: str) -> None:
    test = {"kind": "image-folder", "path": "test", "rename": {"bee": "ant", "sea_cow": None}}
    images = open_task(pets(id_test={"source": test}), root, None, 0).evaluation["id-test"][1]
    assert images.labels.tolist() == [0, 0, 0, 0]


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
        ({"id_test": {"source": {"kind": "cifar10.1"}, "classes": "cifar10"}}, "only a shift"),
        ({"ood_val": {"source": {"kind": "cifar10.1"}, "classes": "cifar10"}}, "only a shift"),
        ({"shifts": odd_with(classes="imagenett")}, "imagenett"),
        ({"shifts": odd_with(classes=["cat"])}, "at least two"),
        ({"shifts": odd_with(classes=["cat", "dog"], templates=["a photo"])}, "no {}"),
        ({"shifts": odd_with(templates=["a {}"])}, 'go with "classes"'),
        ({"class_split": "base"}, "base-to-new"),
        ({"overlap": "ignore"}, "refuse"),
    ],
)
def test_wrong_specifications_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        pets(**change)


LETTERS = ["a", "b", "c", "d", "e"]


def halved(**changes: Any) -> Task:
    """Five classes, of which a, b and c are base."""
    folder = {"kind": "image-folder"}
    spec: dict[str, Any] = {
        "name": "letters",
        "classes": "from-data",
        "class_split": "base-to-new",
        "train": folder | {"path": "train"},
        "id_test": {"source": folder | {"path": "test"}},
        "ood_val": {"source": folder | {"path": "val"}},
        "shifts": {"odd": {"source": folder | {"path": "nowhere"}}},
    }
    return Task.model_validate(spec | changes)


@pytest.fixture
def letters(tmp_path: Path) -> str:
    for split, each in (("train", 10), ("test", 3), ("val", 2)):
        layouts.class_folders(tmp_path / split, LETTERS, each, ".png")
    return str(tmp_path)


def classes_of(images: ImageSet) -> list[str]:
    """The folder that every image lies in."""
    return [name.split("/")[0] for name in images.ids.tolist()]


def test_base_to_new_says_what_it_evaluates_without_opening_files() -> None:
    task = halved()
    assert list(task.evaluation_sets()) == ["id-test", "ood-val", "new"]
    assert task.evaluation_sets()["new"] == task.id_test
    assert list(task.sources()) == ["train", "id-test", "ood-val", "new"]
    assert task.sources()["new"] == task.id_test.source
    assert list(halved(class_split=None).evaluation_sets()) == ["id-test", "ood-val", "odd"]


def test_base_to_new_trains_on_the_first_half_and_tests_on_both(letters: str) -> None:
    data = open_task(halved(), letters, None, 0)
    base, new = ("a", "b", "c"), ("d", "e")
    assert data.classes == task_classes(halved(), letters) == base
    said = tuple((f"a photo of a {name}.",) for name in new)
    assert data.vocabularies == {"new": (new, said)}
    assert list(data.evaluation) == ["id-val", "id-test", "ood-val", "new"]
    sizes = {name: len(images) for name, (_, images) in data.evaluation.items()}
    assert sizes == {"id-val": 3, "id-test": 9, "ood-val": 6, "new": 6}
    assert len(data.train) == 27
    for images, names in (
        (data.train, base),
        (data.id_val, base),
        (data.evaluation["id-test"][1], base),
        (data.evaluation["ood-val"][1], base),
        (data.evaluation["new"][1], new),
    ):
        assert [names[label] for label in images.labels] == classes_of(images)
        assert set(classes_of(images)) == set(names)
        assert images.projection is None


def test_an_even_number_of_classes_is_halved(tmp_path: Path) -> None:
    for split in ("train", "test"):
        layouts.class_folders(tmp_path / split, LETTERS[:4], 4, ".png")
    data = open_task(halved(ood_val=None), str(tmp_path), None, 0)
    assert (data.classes, data.vocabularies["new"][0]) == (("a", "b"), ("c", "d"))


def test_base_to_new_draws_shots_of_base_classes(letters: str) -> None:
    data = open_task(halved(), letters, 5, 3)
    assert np.bincount(data.train.labels).tolist() == [5, 5, 5]
    everything = open_task(halved(), letters, None, 3)
    assert data.train.ids.tolist() == few_shot(everything.train, 5, 3).ids.tolist()
    assert len(data.evaluation["new"][1]) == 6


def test_base_to_new_with_a_validation_set_of_its_own(letters: str) -> None:
    task = halved(id_val={"kind": "image-folder", "path": "val"}, ood_val=None)
    data = open_task(task, letters, None, 0)
    assert classes_of(data.id_val) == ["a", "a", "b", "b", "c", "c"]
    assert len(data.train) == 30


def test_base_to_new_of_published_data(tmp_path: Path) -> None:
    layouts.cifar10(tmp_path)
    task = builtin_tasks()["cifar10"].model_copy(
        update={"class_split": "base-to-new", "ood_val": None, "templates": "simple"}
    )
    data = open_task(task, str(tmp_path), None, 0)
    assert data.classes == layouts.CIFAR_NAMES[:5]
    assert data.vocabularies["new"][0] == layouts.CIFAR_NAMES[5:]
    whole = task.id_test.source.open(str(tmp_path))
    label_of = dict(zip(whole.ids.tolist(), whole.labels.tolist(), strict=True))
    for name, first in (("id-test", 0), ("new", 5)):
        images = data.evaluation[name][1]
        assert [label_of[i] - first for i in images.ids.tolist()] == images.labels.tolist()
        assert len(images) == 15


def test_base_to_new_needs_two_classes_on_either_side(root: str) -> None:
    task = pets(class_split="base-to-new")
    for opens in (lambda: open_task(task, root, None, 0), lambda: task_classes(task, root)):
        with pytest.raises(InputError, match="two base and two new classes, but there are 3"):
            opens()


def test_base_to_new_cannot_cut_a_set_with_other_outputs(letters: str) -> None:
    test = {"source": {"kind": "image-folder", "path": "test"}, "scored_on": "own"}
    with pytest.raises(InputError, match="id-test: class_split cannot cut"):
        open_task(halved(id_test=test), letters, None, 0)


def test_base_to_new_needs_images_of_both_halves(letters: str) -> None:
    new = {"a": None, "b": None, "c": None}
    test = {"source": {"kind": "image-folder", "path": "test", "rename": new}}
    with pytest.raises(InputError, match="id-test: no images of the classes"):
        open_task(halved(id_test=test), letters, None, 0)


def test_ood_validation_is_opened_alone(letters: str) -> None:
    task = halved(class_split=None, classes=["e", "d", "c", "b", "a"], train={"kind": "cifar10.1"})
    item, images = open_ood_val(task, letters)
    assert item == task.ood_val
    assert [4 - label for label in images.labels] == [LETTERS.index(k) for k in classes_of(images)]
    _, base = open_ood_val(halved(), letters)
    assert classes_of(base) == ["a", "a", "b", "b", "c", "c"]
    assert base.labels.tolist() == [0, 0, 1, 1, 2, 2]
    with pytest.raises(InputError, match="letters has no OOD validation set"):
        open_ood_val(halved(ood_val=None), letters)


def test_cifar10_c_labels_stay_with_their_images(tmp_path: Path) -> None:
    # AutoFT's script shuffles images and labels separately.
    layouts.cifar10_c(tmp_path, ALL_CORRUPTIONS, n=40)
    _, images = open_ood_val(builtin_tasks()["cifar10"], str(tmp_path))
    assert np.bincount(images.labels).tolist() == [10] * 10
    # Pixels of severity 5 of image i are 50 + i, and its label is i mod 10.
    rows = [np.asarray(images.images[i])[0, 0, 0] - 50 for i in range(len(images))]
    assert [row % 10 for row in rows] == images.labels.tolist()
    assert [int(name.rsplit("/")[-1]) for name in images.ids] == rows
    corruptions = {name.split("/")[0] for name in images.ids.tolist()}
    assert corruptions == set(ALL_CORRUPTIONS)


def test_a_balanced_draw_of_imagenet_c_covers_all_corruptions(tmp_path: Path) -> None:
    # AutoFT's script keeps the last corruption alone.
    layouts.imagenet(tmp_path)
    layouts.imagenet_c(tmp_path, STANDARD_CORRUPTIONS)
    images = ImageNetC(limit=40, balanced=True).open(str(tmp_path))
    assert np.bincount(images.labels).tolist() == [8] * 5
    assert {name.split("/")[0] for name in images.ids} == set(STANDARD_CORRUPTIONS)
    for name, label in zip(images.ids.tolist(), images.labels, strict=True):
        assert layouts.WNIDS[label] in name


def test_a_draw_of_full_size_has_about_as_many_of_every_corruption() -> None:
    classes, each = 200, 50
    ids = np.array(
        [
            f"{corruption}/5/n{k:08d}/ILSVRC2012_val_{k * each + i:08d}.JPEG"
            for corruption in STANDARD_CORRUPTIONS
            for k in range(classes)
            for i in range(each)
        ],
        np.str_,
    )
    labels = np.tile(np.repeat(np.arange(classes), each), len(STANDARD_CORRUPTIONS))
    chosen = draw(ids, labels, 15 * classes, balanced=True)
    assert np.bincount(labels[chosen]).tolist() == [15] * classes
    counts = np.bincount(chosen // (classes * each), minlength=len(STANDARD_CORRUPTIONS))
    assert abs(counts - classes).max() < 0.25 * classes  # five standard deviations


def test_few_shot_draws_k_of_every_class_with_the_seed(root: str) -> None:
    one, two = (open_task(pets(), root, 2, seed) for seed in (0, 1))
    assert np.bincount(one.train.labels).tolist() == [2, 2, 2]
    assert np.bincount(one.id_val.labels).tolist() == [2, 2, 2]
    assert one.train.ids.tolist() == open_task(pets(), root, 2, 0).train.ids.tolist()
    assert one.train.ids.tolist() != two.train.ids.tolist()
    more = open_task(pets(), root, 4, 0)
    assert set(one.train.ids) < set(more.train.ids)
    assert len(one.evaluation["id-test"][1]) == 6


def test_few_shot_takes_all_of_a_small_class() -> None:
    few = few_shot(image_set([0] * 5 + [1] * 2), 4, 0)
    assert np.bincount(few.labels).tolist() == [4, 2]


@pytest.mark.parametrize("shots", [0, -1])
def test_zero_shots_are_refused(root: str, shots: int) -> None:
    with pytest.raises(InputError, match="shots"):
        open_task(pets(), root, shots, 0)


def test_classes_with_fewer_images_than_the_shots_are_named(root: str) -> None:
    for i in range(3):
        (Path(root) / f"train/bee/bee_{i}.png").unlink()
    of_val = "3 of 3 classes have fewer than 4 ID validation images (ant 2, bee 1, sea_cow 2)"
    assert open_task(pets(), root, 4, 0).shortage == of_val
    few = "1 of 3 classes have fewer than 6 images (bee 4)"
    assert open_task(pets(), root, 6, 0).shortage == f"{few}; {of_val}"
    assert open_task(pets(), root, 1, 0).shortage is None
    assert open_task(pets(), root, None, 0).shortage is None


def test_validation_has_at_most_four_shots(root: str) -> None:
    data = open_task(pets(id_val={"holdout": 0.75}), root, 5, 0)
    assert np.bincount(data.id_val.labels).tolist() == [4, 4, 4]
    assert np.bincount(data.train.labels).tolist() == [2, 2, 2]


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
