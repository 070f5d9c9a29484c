"""Predictions that were made elsewhere."""

from __future__ import annotations

import csv
import json
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shiftbench.core.errors import InputError
from shiftbench.data.images import ImageSet, Projection
from shiftbench.data.sources.builtin.image_folder import ImageFolder
from shiftbench.data.tasks.definition import IN_NO_IDENTITY, EvaluationSet, Holdout, Task
from shiftbench.data.tasks.opening import open_task
from shiftbench.evaluation import predictions
from shiftbench.evaluation.examples import FIELDS
from shiftbench.leaderboard import store
from shiftbench.leaderboard.columns import digest
from shiftbench.leaderboard.importing.answers import AnswerFile, Answers
from shiftbench.leaderboard.importing.matching import (
    class_positions,
    predictions_table,
    rows_in_order,
)
from shiftbench.leaderboard.importing.record import import_predictions
from shiftbench.leaderboard.importing.target import OpenedSet, Target, open_set
from shiftbench.leaderboard.runfolder import RunFolder
from shiftbench.leaderboard.schema import rows
from shiftbench.leaderboard.verify import verify_run
from shiftbench.report.ranking import rank

from tests.data import layouts

NAMES = ("ant", "bee", "cow", "dog")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Image folders: of the shift ``some`` only two classes have images."""
    folder = tmp_path_factory.mktemp("data")
    layouts.class_folders(folder / "train", NAMES, 5, ".png")
    layouts.class_folders(folder / "test", NAMES, 3, ".png")
    layouts.class_folders(folder / "some", ("dog", "bee"), 4, ".png")
    return folder


def source(path: str) -> dict[str, str]:
    return {"kind": "image-folder", "path": path}


@pytest.fixture
def target(root: Path) -> Target:
    task = Task(
        name="animals",
        classes=NAMES,
        train=source("train"),
        id_val=Holdout(holdout=0.2),
        id_test=EvaluationSet(source=source("test")),
        ood_val=EvaluationSet(source=source("some")),
        shifts={
            "some": EvaluationSet(source=source("some"), scored_on="own"),
            "renamed": EvaluationSet(source=source("some"), classes=("bee", "dog", "elk")),
            "absent": EvaluationSet(source=source("nowhere")),
        },
    )
    return Target(
        task=task, data_kind="real", root=str(root), suite="x", label="mine", backbone="miniature"
    )


def logits_for(images: ImageSet, classes: int = 4) -> np.ndarray:
    rng = np.random.default_rng(len(images))
    return rng.normal(size=(len(images), classes))


def write_csv(file: Path, **columns: object) -> Path:
    with file.open("w", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return file


def read_answers(file: Path, evaluation_set: str | None = None) -> dict[str, Answers]:
    return AnswerFile.read(file).answers("mine", evaluation_set)


def same(one: dict[str, object], other: dict[str, object]) -> None:
    names = ("set", "id", "label", "prediction")
    assert {name: one[name] for name in names} == {name: other[name] for name in names}


# Formats


def test_all_formats_say_the_same(target, tmp_path):
    opened = open_set(target, "id-test")
    logits = logits_for(opened.images)
    ids = opened.images.ids.tolist()
    answers = logits.argmax(1)
    shuffled = np.random.default_rng(0).permutation(len(ids))
    pq.write_table(pa.table({"id": ids, "prediction": answers}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"id": ids, "logits": logits.tolist()}), tmp_path / "b.parquet")
    wide = {f"logit_{k}": logits[:, k] for k in (2, 0, 3, 1)}
    pq.write_table(pa.table({"index": np.arange(12), **wide}), tmp_path / "c.parquet")
    pq.write_table(
        pa.table({"id": ids, "prediction": pa.array(answers).dictionary_encode(), "other": ids}),
        tmp_path / "d.parquet",
    )
    write_csv(tmp_path / "e.csv", id=ids, prediction=[NAMES[k] for k in answers])
    write_csv(tmp_path / "f.csv", index=shuffled.tolist(), prediction=answers[shuffled].tolist())
    write_csv(tmp_path / "g.csv", id=ids, **{name: list(column) for name, column in wide.items()})
    np.savez(tmp_path / "h.npz", id=np.array(ids)[shuffled], logits=logits[shuffled])
    np.savez(tmp_path / "i.npz", id=np.array(ids, dtype="S"), prediction=answers)
    np.savez(tmp_path / "j.npz", index=shuffled, prediction=np.array(NAMES)[answers[shuffled]])
    expected = {
        "set": ["id-test"] * 12,
        "id": ids,
        "label": opened.images.labels.tolist(),
        "prediction": answers.tolist(),
    }
    files = sorted(tmp_path.iterdir())
    assert len(files) == 10
    for file in files:
        read = read_answers(file, "id-test")["id-test"]
        same(predictions_table("id-test", opened, read, "x").to_pydict(), expected)


def test_logits_are_kept(target, tmp_path):
    opened = open_set(target, "id-test")
    logits = logits_for(opened.images).astype(np.float32)
    np.savez(tmp_path / "a.npz", index=np.arange(12), logits=logits)
    table = predictions_table(
        "id-test", opened, read_answers(tmp_path / "a.npz", "id-test")["id-test"], "x"
    )
    assert table.equals(predictions.to_table("id-test", "", opened.images, logits))


def test_classes_alone_have_no_logits(target, tmp_path):
    opened = open_set(target, "id-test")
    np.savez(tmp_path / "a.npz", index=np.arange(12), prediction=np.full(12, 2))
    answers = read_answers(tmp_path / "a.npz", "id-test")["id-test"]
    table = predictions_table("id-test", opened, answers, "x")
    assert predictions.schema_fault(table.schema) is None
    assert table["prediction"].to_pylist() == [2] * 12
    assert all(table[name].null_count == 12 for name in FIELDS)
    predictions.write(tmp_path / "p.parquet", table)
    assert predictions.read(tmp_path / "p.parquet").equals(table)


BAD = {
    "no key": ({"prediction": [1]}, 'needs a column "id" or "index"'),
    "two keys": ({"id": ["a"], "index": [0], "prediction": [1]}, "and not both"),
    "no answer": ({"id": ["a"]}, 'needs a column "prediction" or "logits"'),
    "fraction": ({"id": ["a"], "prediction": [0.5]}, '"prediction" must hold whole numbers'),
    "texts as indices": ({"index": ["a"], "prediction": [0]}, '"index" must hold whole numbers'),
    "empty cell": ({"id": ["a", None], "prediction": [0, 1]}, '1 cells of "id" are empty'),
    "gaps": ({"id": ["a"], "logit_0": [0.0], "logit_2": [0.0]}, "have gaps"),
    "ragged": ({"id": ["a", "b"], "logits": [[1.0], [1.0, 2.0]]}, "have 1 to 2 values"),
    "not finite": ({"id": ["a"], "logits": [[1.0, float("nan")]]}, "1 logits are not finite"),
    "texts as logits": ({"id": ["a"], "logits": [["x"]]}, '"logits" must hold numbers'),
    "ids of another kind": ({"id": [0.5], "prediction": [0]}, '"id" must hold text, not fractions'),
    "lists as ids": ({"id": [["a"]], "prediction": [0]}, '"id" holds list'),
    "no rows": ({"id": [], "prediction": []}, "has no rows"),
}


@pytest.mark.parametrize(("columns", "message"), BAD.values(), ids=BAD)
def test_a_file_of_another_form_is_refused(tmp_path, columns, message):
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=message) as refused:
        read_answers(tmp_path / "a.parquet", "id-test")
    assert str(refused.value).startswith(f"{tmp_path}/a.parquet: ")


def test_a_broken_file_is_refused(tmp_path):
    for name, content in {"a.parquet": b"PAR1", "b.npz": b"PK", "c.csv": b""}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match="cannot be read as"):
            read_answers(tmp_path / name, "id-test")
    with pytest.raises(InputError, match=r"must end in \.parquet, \.csv, \.npz"):
        read_answers(tmp_path / "a.txt")
    with pytest.raises(InputError, match="no such file"):
        read_answers(tmp_path / "d.csv")
    np.savez(tmp_path / "o.npz", id=np.array([{}], dtype=object), prediction=[1])
    with pytest.raises(InputError, match="cannot be read as npz"):
        read_answers(tmp_path / "o.npz", "id-test")
    np.savez(tmp_path / "l.npz", index=[0, 1], prediction=[1])
    with pytest.raises(InputError, match="different lengths"):
        read_answers(tmp_path / "l.npz", "id-test")


def test_a_file_may_have_several_sets(tmp_path):
    file = write_csv(tmp_path / "a.csv", index=[0, 0, 1], prediction=[1, 2, 3], set=["u", "v", "u"])
    found = read_answers(file)
    assert {name: answers.keys.tolist() for name, answers in found.items()} == {
        "u": [0, 1],
        "v": [0],
    }
    assert found["u"].classes.tolist() == ["1", "3"]
    assert read_answers(file, "v").keys() == {"v"}
    with pytest.raises(InputError, match='no rows of the set "w"'):
        read_answers(file, "w")
    with pytest.raises(InputError, match="which evaluation set"):
        read_answers(write_csv(tmp_path / "b.csv", index=[0], prediction=[1]))


# Examples and classes


def test_every_example_is_wanted_once():
    ids = np.array(["c", "a", "b"])
    keys = np.array(["a", "b", "c"])
    assert keys[rows_in_order(keys, ids, "x")].tolist() == ids.tolist()
    assert rows_in_order(np.array([2, 0, 1]), ids, "x").tolist() == [1, 2, 0]
    for given, message in {
        ("a", "b"): "x: 1 ids of the set are missing (c); the file has 2 rows, the set 3 examples",
        ("a", "b", "c", "a"): "x: 1 ids are there more than once (a); ",
        ("a", "b", "c", "d"): "x: 1 ids are not in the set (d); ",
        ("d", "e", "f", "g"): "4 ids are not in the set (d, e, f, …); 3 ids of the set are missing",
        (): "3 ids of the set are missing (a, b, c)",
    }.items():
        with pytest.raises(InputError) as refused:
            rows_in_order(np.array(given, dtype=np.str_), ids, "x")
        assert message in str(refused.value)
        assert "\n" not in str(refused.value)
    with pytest.raises(InputError, match=r"1 indices are not in the set \(3\)"):
        rows_in_order(np.array([0, 1, 2, 3]), ids, "x")


def _opened(names: tuple[str, ...], groups: tuple[tuple[int, ...], ...] | None) -> OpenedSet:
    projection = None if groups is None else Projection(groups)
    images = ImageSet(np.array(["a"]), np.array([0]), [], "f", projection=projection)
    return OpenedSet(images, names)


def test_classes_are_names_or_positions():
    whole = _opened(NAMES, None)
    assert class_positions(whole, np.array(["dog", "ant", "2"]), "x").tolist() == [3, 0, 2]
    assert class_positions(whole, np.array([3, 0]), "x").tolist() == [3, 0]
    merged = _opened(NAMES, ((3, 0), (1,)))
    assert class_positions(merged, np.array(["ant", "dog", "bee"]), "x").tolist() == [0, 0, 1]
    digits = _opened(("1", "0"), None)
    assert class_positions(digits, np.array(["1", "0"]), "x").tolist() == [0, 1]
    for opened, given, message in (
        (whole, ["bat"], '"bat" is none of its classes'),
        (whole, ["4"], '"4" is none of its classes'),
        (whole, [4], "classes 0 to 3, so not 4"),
        (whole, [-1], "classes 0 to 3, so not -1"),
        (merged, ["cow"], "not among the classes that the set is scored on; give logits"),
        (merged, [2], "classes 0 to 1"),
        (_opened(("crane", "crane"), None), ["crane"], "is the name of several classes"),
    ):
        with pytest.raises(InputError, match=message):
            class_positions(opened, np.array(given), "x")


def test_logits_over_all_classes_are_projected(target, tmp_path):
    opened = open_set(target, "some")
    assert opened.images.projection.groups == ((1,), (3,))
    logits = logits_for(opened.images)
    for width, name in ((4, "all"), (2, "own")):
        given = logits if width == 4 else logits[:, [1, 3]]
        np.savez(tmp_path / f"{name}.npz", index=np.arange(8), logits=given)
        answers = read_answers(tmp_path / f"{name}.npz", "some")["some"]
        table = predictions_table("some", opened, answers, "x")
        assert table["prediction"].to_pylist() == logits[:, [1, 3]].argmax(1).tolist()
    np.savez(tmp_path / "odd.npz", index=np.arange(8), logits=logits[:, :3])
    answers = read_answers(tmp_path / "odd.npz", "some")["some"]
    with pytest.raises(InputError, match="logits over 3 classes, but there are 2 or 4"):
        predictions_table("some", opened, answers, "x")


# Evaluation sets


def test_sets_are_opened_as_for_runs(target):
    """Against opening the whole task, without the shift whose files are absent."""
    shifts = {name: item for name, item in target.task.shifts.items() if name != "absent"}
    task = target.task.model_copy(update={"shifts": shifts})
    data = open_task(task, target.root, 2, 1)
    some_shots = replace(target, shots=2, seed=1)
    for name, (_, expected) in data.evaluation.items():
        if name == "ood-val":
            continue
        opened = open_set(some_shots, name)
        assert opened.images.ids.tolist() == expected.ids.tolist()
        assert opened.images.labels.tolist() == expected.labels.tolist()
        assert opened.images.projection == expected.projection
        assert opened.images.fingerprint == expected.fingerprint
    assert open_set(target, "renamed").names == ("bee", "dog", "elk")
    assert len(open_set(replace(target, images=5), "id-test").images) == 5


# Labels, order and models


def test_predictions_by_index_in_another_order_are_refused_where_labels_say_so(target, tmp_path):
    """The file of a loader that goes through the set in another order, with its own labels."""
    images = open_set(target, "id-test").images
    order = np.random.default_rng(0).permutation(len(images))
    labels = images.labels[order]
    columns = {"index": np.arange(12), "prediction": labels, "label": labels}
    for file in (tmp_path / "a.parquet", tmp_path / "a.csv", tmp_path / "a.npz"):
        if file.suffix == ".npz":
            np.savez(file, **columns)
        elif file.suffix == ".csv":
            write_csv(file, **{name: column.tolist() for name, column in columns.items()})
        else:
            pq.write_table(pa.table(columns), file)
        with pytest.raises(InputError) as refused:
            import_predictions(file, target, tmp_path / "results", "id-test")
        wrong = int((labels != images.labels).sum())
        assert f"id-test: {wrong} of 12 labels are not the set's: example " in str(refused.value)
        assert "The order of the set is 0 = ant/ant_0.png, 1 = ant/ant_1.png" in str(refused.value)
    assert not (tmp_path / "results").exists()


def test_labels_that_agree_are_taken_in_every_form(target, tmp_path):
    """As names, as positions among the set's classes, and among all classes of the task."""
    opened = open_set(target, "some")
    own = opened.images.labels
    of_task = np.array([1, 3])[own]
    for i, labels in enumerate((own, of_task, np.array(NAMES)[of_task], of_task.astype(str))):
        np.savez(tmp_path / f"{i}.npz", index=np.arange(8), prediction=own, label=labels)
        (imported,) = import_predictions(tmp_path / f"{i}.npz", target, tmp_path / "r", "some")
        assert rows(imported.table)[0].value == 1
        assert imported.notes == (
            "some: by index, in the order of the set: 0 = bee/bee_0.png, 1 = bee/bee_1.png, "
            "2 = bee/bee_2.png, … 7 = dog/dog_3.png; its labels agree",
        )
    np.savez(tmp_path / "x.npz", index=np.arange(8), prediction=own, label=of_task[::-1])
    with pytest.raises(InputError, match="4 of 8 labels are not the set's"):
        import_predictions(tmp_path / "x.npz", target, tmp_path / "r", "some")


def test_answers_are_in_the_form_of_the_labels_where_both_forms_fit(tmp_path):
    """Positions 1 and 2 of the task are 0 and 1 of the set; 1 is a position in both."""
    layouts.class_folders(tmp_path / "train", ["ant", "bee", "cow"], 4, ".png")
    layouts.class_folders(tmp_path / "some", ["bee", "cow"], 2, ".png")
    train = ImageFolder(path="train")
    some = EvaluationSet(source=ImageFolder(path="some"), scored_on="own")
    task = Task(
        name="t",
        classes="from-data",
        train=train,
        id_test=EvaluationSet(source=train),
        shifts={"some": some},
    )
    target = Target(
        task=task, data_kind="real", root=str(tmp_path), suite="x", label="m", backbone="miniature"
    )
    np.savez(tmp_path / "a.npz", index=np.arange(4), prediction=[1] * 4, label=[1, 1, 2, 2])
    (imported,) = import_predictions(tmp_path / "a.npz", target, tmp_path / "r", "some")
    (path,) = (tmp_path / "r").rglob("predictions.parquet")
    assert pq.read_table(path)["prediction"].to_pylist() == [0] * 4  # bee, as the first labels are
    assert rows(imported.table)[0].value == 0.5


def test_probabilities_are_not_taken_for_logits(target, tmp_path):
    """Their accuracy would be right, and their calibration and loss another model's."""
    logits = logits_for(open_set(target, "id-test").images)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.savez(tmp_path / "a.npz", index=np.arange(12), logits=probabilities.round(3))
    with pytest.raises(InputError, match=r'"logits" holds probabilities.*logarithms'):
        import_predictions(tmp_path / "a.npz", target, tmp_path / "r", "id-test")


def test_names_in_another_unicode_form_are_the_same():
    images = ImageSet(np.array(["café/0.png", "thé/1.png"]), np.array([0, 1]), [], "f")
    opened = OpenedSet(images, ("café", "thé"))
    ids, classes = (
        np.array([unicodedata.normalize("NFD", text) for text in texts])
        for texts in (["thé/1.png", "café/0.png"], ["thé", "café"])
    )
    table = predictions_table("x", opened, Answers(ids, classes, None), "x")
    assert table["prediction"].to_pylist() == [0, 1]


def test_without_labels_the_order_that_is_taken_is_told(target, tmp_path):
    np.savez(tmp_path / "a.npz", index=np.arange(12), prediction=np.zeros(12, int))
    (imported,) = import_predictions(tmp_path / "a.npz", target, tmp_path / "r", "id-test")
    (note,) = imported.notes
    assert note.startswith("id-test: by index, in the order of the set: 0 = ant/ant_0.png, ")
    assert note.endswith('11 = dog/dog_2.png; no column "label" to check it by')


def several(target: Target, file: Path, wrong: str = "") -> Path:
    """Two models on one set, of which ``right`` is always right and ``always-ant`` at times."""
    images = open_set(target, "id-test").images
    ids = images.ids.tolist()
    answers = [NAMES[k] for k in images.labels]
    write_csv(
        file,
        method=["right"] * 12 + ["always-ant"] * 12,
        id=ids * 2,
        prediction=[*answers, *(["ant"] * 11), wrong or "ant"],
    )
    return file


def test_a_file_with_several_models_is_imported_at_once(target, tmp_path):
    file, unnamed = several(target, tmp_path / "a.csv"), replace(target, label="")
    found = import_predictions(file, unnamed, tmp_path / "r", "id-test")
    values = {item.label: rows(item.table)[0].value for item in found}
    assert values == {"right": 1, "always-ant": 0.25}
    stored = rows(store.read(tmp_path / "r"))
    assert {row.label for row in stored} == {"right", "always-ant"}
    one = replace(target, label="right")
    (again,) = import_predictions(file, one, tmp_path / "r", "id-test")
    assert not again.new
    with pytest.raises(InputError, match='column "method" has no "mine", but right, always-ant'):
        import_predictions(file, target, tmp_path / "r", "id-test")


def test_of_several_models_all_or_none_are_imported(target, tmp_path):
    file = several(target, tmp_path / "a.csv", wrong="bat")
    with pytest.raises(InputError, match='"bat" is none of its classes'):
        import_predictions(file, replace(target, label=""), tmp_path / "r", "id-test")
    assert not (tmp_path / "r").exists()


def test_a_file_of_nobody_is_refused(target, tmp_path):
    file = write_csv(tmp_path / "a.csv", index=[0], prediction=[0])
    with pytest.raises(InputError, match=r'whose predictions\? add --method, or a column "method"'):
        import_predictions(file, replace(target, label=""), tmp_path / "r", "id-test")
    for name in (" ", "a\nb"):
        with pytest.raises(InputError, match=r"--method '.*' is no name"):
            import_predictions(file, replace(target, label=name), tmp_path / "r", "id-test")


def test_classes_alone_do_not_give_calibration(target, tmp_path):
    images = open_set(target, "id-test").images
    file = write_csv(tmp_path / "a.csv", id=images.ids.tolist(), prediction=["ant"] * 12)
    asked = EvaluationSet(source=source("test"), metric="ece:15")
    task = target.task.model_copy(update={"id_test": asked})
    with pytest.raises(InputError, match="needs logits, and these predictions are classes only"):
        import_predictions(file, replace(target, task=task), tmp_path / "r", "id-test")


def test_messages_are_one_short_line(target, tmp_path):
    """Also with a thousand classes, with rows of numbers, and with ids that are paths."""
    many = _opened(tuple(f"class number {k}" for k in range(1000)), None)
    with pytest.raises(InputError) as refused:
        class_positions(many, np.array(["n01440764"]), "x")
    assert '"n01440764" is none of its classes' in str(refused.value)
    faults = [str(refused.value)]
    long = "/data/" + "x" * 5000
    numbers = ",".join(["0.123456"] * 1500)
    bad = {
        "wide.csv": f"index,prediction\n{numbers}\n",
        "long.csv": f"id,prediction\n{long},ant\n",
        "name.csv": f"index,prediction\n0,{long}\n",
        "text.csv": f"index,prediction\n{long},ant\n",
    }
    for name, text in bad.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError) as refused:
            import_predictions(tmp_path / name, target, tmp_path / "r", "id-test")
        faults.append(str(refused.value).replace(str(tmp_path), ""))
    for fault in faults:
        assert "\n" not in fault
        assert len(fault) < 400


def test_ids_that_are_numbers_are_told_from_positions(target, tmp_path):
    file = write_csv(tmp_path / "a.csv", id=list(range(12)), prediction=["ant"] * 12)
    with pytest.raises(InputError, match=r'its ids are numbers: positions .* a column "index"'):
        import_predictions(file, target, tmp_path / "r", "id-test")


def test_an_absent_set_is_refused(target, tmp_path):
    file = write_csv(tmp_path / "a.csv", index=[0], prediction=[0])
    with pytest.raises(InputError, match="there is no folder"):
        import_predictions(file, target, tmp_path / "results", "absent")
    with pytest.raises(InputError, match=r'has no evaluation set "sone".*did you mean "some"'):
        import_predictions(file, target, tmp_path / "results", "sone")
    with pytest.raises(InputError, match='no evaluation set "ood-val"'):
        import_predictions(file, target, tmp_path / "results", "ood-val")
    assert not (tmp_path / "results").exists()


# Rows


def whole_file(target: Target, tmp_path: Path, name: str = "mine.parquet") -> Path:
    """Predictions of id-test and both shifts that are there."""
    parts = []
    for item in ("id-test", "some", "renamed"):
        opened = open_set(target, item)
        answers = logits_for(opened.images, len(opened.groups)).argmax(1)
        ids = opened.images.ids.tolist()
        parts.append(pa.table({"set": [item] * len(ids), "id": ids, "prediction": answers}))
    pq.write_table(pa.concat_tables(parts), tmp_path / name)
    return tmp_path / name


def test_an_import_is_a_run_that_can_be_verified(target, tmp_path):
    file, results = whole_file(target, tmp_path), tmp_path / "results"
    (imported,) = import_predictions(file, target, results)
    assert imported.new
    rows = store.read(results).to_pylist()
    assert [row["evaluation_set"] for row in rows] == ["id-test", "some", "renamed"]
    for row in rows:
        opened = open_set(target, row["evaluation_set"])
        answers = logits_for(opened.images, len(opened.groups)).argmax(1)
        assert row["value"] == np.mean(answers == opened.images.labels)
        assert row["data_fingerprint"] == opened.images.fingerprint
    row = rows[0]
    assert (row["origin"], row["method"], row["label"]) == ("imported", "mine", "mine")
    assert (row["selection"], row["seed"], row["seeded"], row["shots"]) == ("fixed", 0, False, None)
    assert row["train_seconds"] is None
    assert json.loads(row["details"])["imported"] == "mine.parquet"
    without = target.task.model_copy(update={"ood_val": None})
    assert row["task_digest"] == digest(without.model_dump(mode="json", exclude={*IN_NO_IDENTITY}))
    assert verify_run(results, imported.run_id).problems == ()


def test_the_same_import_twice_is_one_run(target, tmp_path):
    file, results = whole_file(target, tmp_path), tmp_path / "results"
    (first,) = import_predictions(file, target, results)
    before = (store.folder(results) / f"{first.run_id}.parquet").read_bytes()
    (second,) = import_predictions(file, target, results)
    assert (second.run_id, second.new) == (first.run_id, False)
    assert (store.folder(results) / f"{first.run_id}.parquet").read_bytes() == before
    RunFolder.of(results, first.run_id).predictions.unlink()
    assert import_predictions(file, target, results)[0].new
    assert verify_run(results, first.run_id).problems == ()
    others = [
        import_predictions(file, replace(target, **change), results)[0].run_id
        for change in (
            {"seed": 0},
            {"shots": 2},
            {"label": "yours"},
            {"backbone": "b"},
            {"selection": "oracle"},
        )
    ]
    others.append(import_predictions(file, target, results, "some")[0].run_id)
    assert len({first.run_id, *others}) == 7
    assert len(list(store.folder(results).iterdir())) == 7


def test_seeds_are_averaged_and_files_of_other_sets_are_lines_of_their_own(target, tmp_path):
    file, results = whole_file(target, tmp_path), tmp_path / "results"
    there = {name: of for name, of in target.task.shifts.items() if name != "absent"}
    target = replace(target, task=target.task.model_copy(update={"shifts": there}))
    for seed in (0, 1):
        import_predictions(file, replace(target, seed=seed), results)
    import_predictions(file, replace(target, seed=0), results, "some")
    (ranking,) = rank(rows(store.read(results)))
    whole, part = ranking.methods
    assert whole.label == 'mine (sets=["id-test", "renamed", "some"]) (imported)'
    assert (whole.rank, whole.seeds, whole.cost_seconds) == (1, (0, 1), None)
    assert part.label == 'mine (sets=["some"]) (imported)'
    assert part.rank is None
    assert part.scores.missing == ("renamed",)


def test_an_import_without_a_shift_of_the_task_has_no_mean_over_all(target, tmp_path):
    file, results = whole_file(target, tmp_path), tmp_path / "results"
    import_predictions(file, target, results)
    (ranking,) = rank(rows(store.read(results)))
    assert ranking.shifts == ("some", "renamed", "absent")
    (line,) = ranking.methods
    assert (line.rank, line.scores.mean_ood, line.scores.missing) == (None, None, ("absent",))


def test_a_refused_file_leaves_nothing(target, tmp_path):
    file, results = whole_file(target, tmp_path), tmp_path / "results"
    table = pq.read_table(file)
    pq.write_table(table.slice(0, len(table) - 1), file)
    with pytest.raises(InputError, match=r"renamed: 1 ids of the set are missing"):
        import_predictions(file, target, results)
    assert not results.exists()
