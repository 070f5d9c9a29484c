"""Class names: no two of a task, of a shift or of a source may be matched as one."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError
from shiftbench.core.errors import InputError
from shiftbench.data.prompts import resolve_classes
from shiftbench.data.sources.builtin.image_folder import ImageFolder
from shiftbench.data.sources.builtin.parquet import Parquet
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


@pytest.mark.parametrize("names", [("caf\u00e9", "cafz", "square"), ("\u00e9t\u00e9", "e", "z")])
def test_a_folder_copied_by_macos_is_the_same_set_to_the_digit(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    """Order of classes, ids, and so draws and splits, whichever Unicode form the folders have."""
    opened = []
    for form in ("NFC", "NFD"):
        for k, name in enumerate(names):
            for i in range(9):
                path = tmp_path / form / "train" / name / f"\u00e9{i}.png"
                layouts.write_image(Path(unicodedata.normalize(form, str(path))), 9 * k + i)
        layouts.class_folders(tmp_path / form / "shift", names[:2], 2, ".png")
        opened.append(open_task(task(id_val={"holdout": 0.3}), str(tmp_path / form), 2, 0))
    composed, decomposed = opened
    assert decomposed.classes == composed.classes == tuple(sorted(names))
    for part in ("train", "id_val"):
        one, other = getattr(composed, part), getattr(decomposed, part)
        assert one.ids.tolist() == other.ids.tolist()
        assert one.fingerprint == other.fingerprint
        assert np.array_equal(np.asarray(one.images[3]), np.asarray(other.images[3]))


def test_texts_of_a_label_column_are_one_label_in_either_form(tmp_path: Path) -> None:
    texts = ["cafe\u0301", "cafz", "caf\u00e9"]
    images = [{"bytes": layouts.encoded(k), "path": ""} for k in range(3)]
    pq.write_table(pa.table({"image": images, "label": texts}), tmp_path / "a.parquet")
    source = Parquet(path="a.parquet")
    assert source.label_names(str(tmp_path)) == ("cafz", "caf\u00e9")
    assert source.open(str(tmp_path)).labels.tolist() == [1, 0, 1]


def test_two_shifts_of_one_name_are_refused() -> None:
    item = {"source": {"kind": "cifar10.1"}}
    with pytest.raises(ValidationError, match='"odd" and "ODD" are the same shift'):
        task(shifts={"odd": item, "ODD": item})


@pytest.mark.parametrize("name", ["a\\b", "new\nline", "nul\0"])
def test_a_shift_that_charts_cannot_show_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="no backslash, no control signs"):
        task(shifts={name: {"source": {"kind": "cifar10.1"}}})
