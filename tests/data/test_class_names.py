"""Class names: no two of a task, of a shift or of a source may be matched as one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from shiftbench.core.errors import InputError
from shiftbench.data.prompts import resolve_classes
from shiftbench.data.sources.builtin.image_folder import ImageFolder
from shiftbench.data.tasks.alignment import open_aligned
from shiftbench.data.tasks.definition import Task
from shiftbench.data.tasks.opening import open_task

from tests.data import layouts


def task(**changes: Any) -> Task:
    spec = {
        "name": "twins",
        "classes": "from-data",
        "train": {"kind": "image-folder", "path": "train"},
        "id_test": {"source": {"kind": "image-folder", "path": "train"}},
        "shifts": {"s": {"source": {"kind": "image-folder", "path": "shift"}}},
    }
    return Task.model_validate(spec | changes)


@pytest.fixture
def root(tmp_path: Path) -> str:
    layouts.class_folders(tmp_path / "train", ["t_shirt", "square", "T shirt"], 6, ".png")
    layouts.class_folders(tmp_path / "shift", ["t_shirt", "T shirt"], 2, ".png")
    return str(tmp_path)


def test_two_folders_that_are_one_name_are_refused_with_both(root: str) -> None:
    with pytest.raises(InputError, match='"T shirt" and "t_shirt" are the same class'):
        open_task(task(), root, None, 0)
    with pytest.raises(InputError, match='"T shirt" and "t_shirt" are the same label'):
        open_task(task(classes=("t shirt", "square")), root, None, 0)


def test_twin_folders_are_one_class_if_the_suite_says_so(root: str) -> None:
    rename = {"rename": {"T shirt": "t_shirt"}}
    train = {"kind": "image-folder", "path": "train"} | rename
    shift = {"source": {"kind": "image-folder", "path": "shift"} | rename}
    merged = task(train=train, id_test={"source": train}, shifts={"s": shift})
    data = open_task(merged, root, None, 0)
    assert sorted(data.classes) == ["square", "t_shirt"]
    assert set(data.evaluation["s"][1].labels.tolist()) == {data.classes.index("t_shirt")}


def of_shift(names: tuple[str, ...]) -> dict[str, Any]:
    return {"shifts": {"s": {"source": {"kind": "cifar10.1"}, "classes": names}}}


@pytest.mark.parametrize("where", ["task", "shift"])
@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("crane", "hen", "crane"), '"crane" is named twice'),
        (("T_shirt", "hen", "t  shirt"), '"T_shirt" and "t  shirt" are the same class'),
        (("caf\u00e9", "hen", "cafe\u0301"), "caf.*is named twice"),
    ],
)
def test_a_list_that_names_a_class_twice_is_refused(
    where: str, names: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        task(**({"classes": names} if where == "task" else of_shift(names)))


def test_a_label_that_two_listed_classes_have_is_refused(tmp_path: Path) -> None:
    """ImageNet's names hold two pairs of equal ones."""
    layouts.class_folders(tmp_path / "birds", ["missile", "goldfish"], 6, ".png")
    source = ImageFolder(path="birds")
    with pytest.raises(InputError, match='"missile" is named twice'):
        open_aligned(source, "s", resolve_classes("imagenet"), str(tmp_path))


def test_composed_and_decomposed_names_are_the_same_class(tmp_path: Path) -> None:
    layouts.class_folders(tmp_path / "train", ["cafe\u0301", "square"], 6, ".png")
    layouts.class_folders(tmp_path / "shift", ["caf\u00e9"], 2, ".png")
    data = open_task(task(), str(tmp_path), None, 0)
    assert data.classes == ("caf\u00e9", "square")
    assert data.evaluation["s"][1].labels.tolist() == [0, 0]


def test_two_shifts_of_one_name_are_refused() -> None:
    item = {"source": {"kind": "cifar10.1"}}
    with pytest.raises(ValidationError, match='"odd" and "ODD" are the same shift'):
        task(shifts={"odd": item, "ODD": item})


@pytest.mark.parametrize("name", ["a\\b", "new\nline", "nul\0"])
def test_a_shift_that_charts_cannot_show_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="no backslash, no control signs"):
        task(shifts={name: {"source": {"kind": "cifar10.1"}}})
