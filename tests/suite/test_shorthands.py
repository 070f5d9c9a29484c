"""Sources that stand alone, and class names and prompts that are files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from shiftbench.core import document
from shiftbench.core.errors import InputError
from shiftbench.data.tasks.definition import Task
from shiftbench.data.tasks.opening import open_task
from shiftbench.suite.dumping import dump
from shiftbench.suite.json_schema import json_schema
from shiftbench.suite.plan import Plan
from shiftbench.suite.suite import Suite

from tests.data import layouts

HEAD = """\
backbones: [miniature]
data: .
methods: [zero-shot]
tasks:
"""
BIRDS = """\
  birds:
    classes: [crow, sea eagle]
    train: {kind: image-folder, path: train}
    id_test: {kind: image-folder, path: test}
    shifts:
      far: {kind: image-folder, path: far, metric: macro-f1}
"""
Loaded = Callable[..., Task]


@pytest.fixture
def birds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Loaded:
    """Loads the suite and gives its task: replacements in its text, and overrides."""
    monkeypatch.chdir(tmp_path)

    def load(*changes: tuple[str, str], overrides: tuple[str, ...] = ()) -> Task:
        text = HEAD + BIRDS
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        Path("sub").mkdir(exist_ok=True)
        Path("sub/x.yaml").write_text(text)
        return Suite.load("sub/x.yaml", overrides).tasks["birds"]

    return load


def ids(overrides: tuple[str, ...] = ()) -> set[str]:
    return set(Plan.build(Suite.load("sub/x.yaml", overrides)).runs)


# Sources that stand alone


def test_a_set_may_name_a_source_directly(birds):
    task = birds()
    test = "{kind: image-folder, path: test}"
    spelled = birds(
        (f"id_test: {test}", f"id_test: {{source: {test}}}"),
        ("{kind: image-folder, path: far,", "{source: {kind: image-folder, path: far},"),
    )
    assert task == spelled
    assert task.shifts["far"].metric == "macro-f1"


def test_a_source_alone_replaces_an_inherited_one_and_nothing_else(birds):
    birds()
    Path("sub/y.yaml").write_text(
        "extends: x.yaml\ntasks: {birds: {shifts: {far: {kind: parquet, path: far.parquet}}}}\n"
    )
    far = Suite.load("sub/y.yaml").tasks["birds"].shifts["far"]
    assert (far.source.kind, far.metric) == ("parquet", "macro-f1")
    again = birds(overrides=("tasks.birds.id_test={kind: parquet, path: t.parquet, split: test}",))
    assert again.id_test.source.split == "test"
    patched = Suite.load(
        "miniature",
        [
            "tasks=[iwildcam]",
            "methods=[zero-shot]",
            "tasks.iwildcam.id_test={kind: image-folder, path: t}",
        ],
    ).tasks["iwildcam"]
    assert (patched.id_test.source.kind, patched.id_test.metric) == ("image-folder", "macro-f1")


def test_faults_of_a_source_alone_name_its_line(birds):
    with pytest.raises(InputError) as caught:
        birds(("path: far, metric", "pth: far, metric"), ("path: test", "path: test, metrik: x"))
    assert [line.partition(" (")[0] for line in caught.value.lines] == [
        'sub/x.yaml:8: tasks.birds.id_test: unknown key "metrik"',
        'sub/x.yaml:10: tasks.birds.shifts.far: unknown key "pth"',
    ]


def test_the_schema_takes_sources_alone():
    validator = jsonschema.Draft202012Validator(json_schema())
    good = {"tasks": {"birds": {"id_test": {"kind": "image-folder", "path": "x", "metric": "nll"}}}}
    validator.validate(good)
    validator.validate({"tasks": {"replace": True, "birds": {"classes": {"n01": "crow"}}}})
    validator.validate({"methods": {"replace": True, "full": {"lr": 1e-5}}})
    validator.validate({"tasks": {"birds": {"templates": {"crow": ["a crow."]}}}})
    assert not validator.is_valid({"methods": {"replace": "yes"}})
    assert not validator.is_valid({"tasks": {"birds": {"shifts": {"x": {"metrik": "nll"}}}}})


# Class names in files


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("names.txt", "\ufeffcrow\n\n  sea eagle \n"),
        ("names.json", '["crow", "sea eagle"]'),
        ("names.yaml", "- crow\n- sea eagle\n"),
        ("names.yml", "[crow, sea eagle]"),
        ("index.json", '{"1": "sea eagle", "0": "crow"}'),
        ("index.yaml", "0: crow\n1: sea eagle\n"),
    ],
)
def test_class_names_may_be_a_file(birds, name, text):
    plain = birds()
    expected = ids()
    Path("sub").joinpath(name).write_text(text, encoding="utf-8")
    assert birds(("[crow, sea eagle]", f"./{name}")) == plain
    assert ids() == expected  # of what it says, not of where it is
    assert name not in dump(Suite.load("sub/x.yaml"))


def test_a_file_may_name_the_class_of_each_folder(birds):
    for folder, each in (("sub/train", 4), ("sub/test", 2)):
        layouts.class_folders(Path(folder), ["n01", "n02", "n03", "odd"], each, ".png")
    layouts.class_folders(Path("sub/far"), ["n02"], 2, ".png")
    names = {"n01": "crow", "n02": "sea eagle", "n03": "crow", "odd": None}
    Path("sub/names.json").write_text(json.dumps(names))
    task = birds(("[crow, sea eagle]", "names.json"))
    assert task.classes == ("crow", "sea eagle")
    assert task.train.rename == task.shifts["far"].source.rename == names
    data = open_task(task, "sub", None, 0)
    assert data.train.labels.tolist().count(0) > data.train.labels.tolist().count(1) > 0
    assert data.evaluation["far"][1].labels.tolist() == [1, 1]
    inline = birds(("[crow, sea eagle]", json.dumps(names)))
    assert inline == task
    kept = birds(
        ("[crow, sea eagle]", "names.json"),
        ("path: far,", "path: far, rename: {n02: crow},"),
    )
    assert kept.shifts["far"].source.rename == {"n02": "crow"}


def test_a_shift_with_names_of_its_own_has_its_own_file(birds):
    Path("sub").mkdir()
    Path("sub/own.txt").write_text("owl\ngull\n")
    Path("sub/names.yaml").write_text("{a: crow, b: sea eagle}")
    task = birds(
        ("[crow, sea eagle]", "names.yaml"), ("path: far,", "path: far, classes: own.txt,")
    )
    assert task.shifts["far"].classes == ("owl", "gull")
    assert task.shifts["far"].source.rename == {}
    assert task.id_test.source.rename == {"a": "crow", "b": "sea eagle"}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("none.txt", None, 'there is no file "sub/none.txt"'),
        ("x.json", "[1", 'the file "sub/x.json" cannot be read: '),
        ("x.json", '{"a": "b", "a": "c"}', 'the key "a" stands there twice'),
        ("n.yaml", "a: [", "not valid YAML"),
        ("n.yaml", "a: crow\na: gull\n", "stands there twice"),
        ("x.json", '"crow"', "must hold a list of names"),
        ("x.json", '{"0": "crow", "2": "gull"}', "must go from 0 to 1"),
        ("x.json", '{"0": ["n01", "crow"]}', "must map every label to the name of its class"),
        ("x.txt", "crow\n", "name at least two classes"),
        ("x.txt", "crow\nCrow\n", "are the same class"),
        ("x.json", "[1, 2]", "must be a valid string"),
    ],
)
def test_files_that_name_no_classes_are_refused_where_they_are_named(birds, name, text, message):
    Path("sub").mkdir()
    if text is not None:
        Path("sub").joinpath(name).write_text(text)
    with pytest.raises(InputError) as caught:
        birds(("[crow, sea eagle]", name))
    assert caught.value.lines[0].startswith("sub/x.yaml:6: tasks.birds.classes")
    assert message in caught.value.lines[0]


# Prompts of each class


def cupl(**said: Any) -> str:
    return json.dumps({name.replace("_", " "): texts for name, texts in said.items()})


def test_each_class_may_have_sentences_of_its_own(birds):
    plain = birds()
    expected = ids()
    for folder in ("sub/train", "sub/test", "sub/far"):
        layouts.class_folders(Path(folder), ["crow", "sea eagle"], 4, ".png")
    text = cupl(Sea_Eagle=["An eagle by the sea."], crow=["A black bird.", "It has {} wings."])
    Path("sub/cupl.json").write_text(text)
    change = ("    classes: [crow", "    templates: cupl.json\n    classes: [crow")
    task = birds(change)
    assert task.templates == {
        "Sea Eagle": ("An eagle by the sea.",), "crow": ("A black bird.", "It has {} wings.")
    }  # fmt: skip
    data = open_task(task, "sub", None, 0)
    assert data.prompts == (("A black bird.", "It has {} wings."), ("An eagle by the sea.",))
    assert Task.model_validate_json(task.model_dump_json(), strict=True) == task
    found = ids()
    assert found.isdisjoint(expected) and plain.templates == "simple"
    Path("sub/cupl.json").write_text(text.replace("wings", "wing"))
    assert ids().isdisjoint(found)  # the content counts,
    Path("sub/other.json").write_text(text)
    birds((change[0], change[1].replace("cupl", "other")))
    assert ids() == found  # and not its path
    again = Path("again.yaml")
    again.write_text(dump(Suite.load("sub/x.yaml")))
    assert set(Plan.build(Suite.load(again, data="sub")).runs) == found


def test_templates_may_be_a_file_too(birds):
    Path("sub").mkdir()
    Path("sub/texts.txt").write_text("a photo of a {}.\nthe {}.\n")
    task = birds(("    classes:", "    templates: texts.txt\n    classes:"))
    assert task.templates == ("a photo of a {}.", "the {}.")


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (cupl(crow=["A bird."]), 'there are no prompts for the class "sea eagle"'),
        (cupl(crow=["A bird."], sea_eagle=[]), 'there are no prompts for the class "sea eagle"'),
        (cupl(crow=["A bird."], sea_eagle=["One.", ""]), "no prompts for the class"),
        (
            cupl(crow=["A bird."], sea_eagle=["One."], crwo=["Two."]),
            '"crwo" is none of the classes (did you mean "crow"?)',
        ),
        (cupl(crow=["A."], Crow=["B."], sea_eagle=["C."]), "are the same class"),
        ("{}", "is empty"),
        ("3", "must hold a list of texts, or texts for every class"),
        (cupl(crow="A bird.", sea_eagle=["One."]), "crow: must be a list"),
    ],
)
def test_prompts_that_do_not_fit_the_classes_are_refused(birds, said, message):
    Path("sub").mkdir()
    Path("sub/cupl.json").write_text(said)
    with pytest.raises(InputError) as caught:
        birds(("    classes:", "    templates: cupl.json\n    classes:"))
    (line,) = caught.value.lines
    assert line.startswith("sub/x.yaml:") and "tasks.birds" in line and message in line


def test_prompts_are_checked_against_classes_that_come_from_the_data(birds):
    for folder in ("sub/train", "sub/test", "sub/far"):
        layouts.class_folders(Path(folder), ["crow", "gull"], 4, ".png")
    Path("sub/cupl.json").write_text(cupl(crow=["A."], gull=["B."], owl=["C."]))
    task = birds(("classes: [crow, sea eagle]", "classes: from-data\n    templates: cupl.json"))
    with pytest.raises(InputError, match=r'^task birds: templates: "owl" is none of the classes'):
        open_task(task, "sub", None, 0)


def test_a_shift_of_other_classes_needs_other_prompts(birds):
    Path("sub").mkdir()
    Path("sub/cupl.json").write_text(cupl(crow=["A."], sea_eagle=["B."]))
    changes = [
        ("    classes: [crow", "    templates: cupl.json\n    classes: [crow"),
        ("path: far,", "path: far, classes: [owl, gull],"),
    ]
    with pytest.raises(InputError, match="shift far has classes of its own, and the task's"):
        birds(*changes)
    own = ("classes: [owl, gull],", "classes: [owl, gull], templates: {owl: [O.], gull: [G.]},")
    assert birds(*changes, own).shifts["far"].templates == {"owl": ("O.",), "gull": ("G.",)}


def test_files_are_read_before_the_documents_are_merged_with_registered_tasks(tmp_path):
    names = "\n".join(f"class {k}" for k in range(10))
    (tmp_path / "names.txt").write_text(names)
    file = tmp_path / "x.yaml"
    file.write_text(
        "extends: nine-shifts\ntasks: {replace: true, cifar10: {classes: names.txt}}\n"
        "methods: [zero-shot]\n"
    )
    assert Suite.load(file).tasks["cifar10"].classes[9] == "class 9"
    assert document.read(file).children["tasks"].children["cifar10"].plain["classes"] == "names.txt"
