"""``shiftbench init``: suites for data of one's own."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
from pydantic import BaseModel
from shiftbench.cli import main
from shiftbench.core import document
from shiftbench.data.sources.registry import SOURCES
from shiftbench.data.tasks.definition import EvaluationSet, Holdout, Task
from shiftbench.methods.registry import METHODS
from shiftbench.suite.explained import Section, explained
from shiftbench.suite.file import Budget, Limits, Resources, SuiteFile
from shiftbench.suite.suite import Suite

from tests.data import layouts

SMALL = ["--backbone", "miniature"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with pictures of three classes and of two shifts."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    for name, each in (("pets/train", 8), ("pets/test", 2), ("drawings", 2), ("loose", 10)):
        layouts.class_folders(tmp_path / name, ["ant", "bee", "sea_cow"], each, ".png")
    layouts.parquet(tmp_path / "night.parquet", [0, 1, 2], ["ant", "bee", "sea_cow"])
    return tmp_path


def test_a_suite_for_folders_is_accepted_at_once(capsys):
    shifts = ["--shift", "drawings=drawings", "--shift", "night=night.parquet"]
    assert main(["init", "suites/pets.yaml", "--images", "pets", *shifts, *SMALL]) == 0
    assert "shiftbench plan suites/pets.yaml" in capsys.readouterr().out
    assert main(["plan", "suites/pets.yaml"]) == 0
    suite = Suite.load("suites/pets.yaml")
    (task,) = suite.tasks.values()
    assert (task.name, suite.data, list(task.shifts)) == ("pets", ".", ["drawings", "night"])
    assert (task.train.path, task.id_test.source.path) == ("pets/train", "pets/test")
    assert list(suite.methods["pets"]) == ["zero-shot", "linear-probe", "full", "wise-ft"]
    assert suite.methods["pets"]["full"].config.batch_size == 64
    assert suite.methods["pets"]["linear-probe"].config.lr == 1e-3


def test_folders_of_splits_count_before_files_beside_them():
    layouts.parquet(Path("pets/night.parquet"), [0, 1, 2], ["ant", "bee", "sea_cow"])
    assert main(["init", "--images", "pets", "--shift", "night=pets/night.parquet", *SMALL]) == 0
    task = Suite.load("suite.yaml").tasks["pets"]
    assert (task.train.kind, task.train.path) == ("image-folder", "train")


def test_one_folder_is_cut_in_two():
    assert main(["init", "--images", "loose", *SMALL, "--methods", "zero-shot"]) == 0
    task = Suite.load("suite.yaml").tasks["loose"]
    assert (task.train.part, task.id_test.source.part) == ((0, 0.8), (0.8, 1))
    assert main(["plan", "suite.yaml"]) == 0


def test_every_key_is_explained_by_the_models():
    assert main(["init", "--images", "pets", *SMALL, "--all"]) == 0
    lines = Path("suite.yaml").read_text().splitlines()
    said = " ".join(line.strip().lstrip("# ") for line in lines)
    full = METHODS.load("full").Config
    source = SOURCES.load("image-folder")
    for model in (SuiteFile, Budget, Resources, Limits, Task, EvaluationSet, source, full):
        for name, info in model.model_fields.items():
            if (model, name) in {(SuiteFile, "extends"), (SuiteFile, "name"), (Task, "name")}:
                continue
            assert f"{name}:" in said, (model, name)
            assert " ".join((info.description or "").split()) in said, (model, name)
    # A default that is shown can be made a setting by taking the # away.
    text = "\n".join(line.replace("#", "", 1) if _is_default(line) else line for line in lines)
    Path("all.yaml").write_text(text + "\n")
    assert Suite.load("all.yaml").tasks == Suite.load("suite.yaml").tasks
    assert Suite.load("all.yaml").resources == Suite.load("suite.yaml").resources


def _is_default(line: str) -> bool:
    text = line.strip()
    return text.startswith("#") and text[1:2].isalpha() and text.partition(":")[1] == ":"


def test_every_key_of_the_reference_has_a_description():
    models: list[type[BaseModel]] = [SuiteFile, Budget, Resources, Limits, Task, EvaluationSet]
    models += [Holdout, *(SOURCES.load(name) for name in SOURCES.entries())]
    bare = [
        (model.__name__, name)
        for model in models
        for name, info in model.model_fields.items()
        if not info.description and name != "kind"
    ]
    assert not bare


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "say where the training images are"),
        (["--images", "nowhere"], "nowhere: there is no such file or folder"),
        (["--images", "pets/train/ant"], "neither a folder with a folder for each class"),
        (["--images", "pets", "--parquet", "night.parquet"], "--images, --parquet and --hub"),
        (["--images", "pets", "--shift", "drawings"], "is not of the form NAME=PATH"),
        (["--images", "pets", "--shift", "a=drawings", "--shift", "a=loose"], "named twice"),
        (["--images", "pets", "--shift", "id-val=drawings"], 'cannot be called "id-val"'),
        (["--images", "pets", "--methods", "ful"], 'no method "ful" (did you mean "full"?)'),
        (["--images", "pets", "--methods", "autoft"], "searches on OOD validation data"),
        (["--images", "pets", "--backbone", "nonsense"], "suite.yaml:"),
        (["--parquet", "bare.parquet"], "--classes FILE"),
        (["--parquet", "broken.parquet"], "cannot be read as Parquet"),
    ],
)
def test_what_cannot_be_planned_is_not_written(words, message, capsys):
    layouts.parquet(Path("bare.parquet"), [0, 1, 1, 0])
    Path("broken.parquet").write_text("no")
    before = {*Path().rglob("*")}
    assert main(["init", *words]) == 2
    error = capsys.readouterr().err
    assert message in error and ".tmp" not in error
    assert {*Path().rglob("*")} == before


def test_nothing_is_overwritten(capsys):
    Path("suite.yaml").write_text("mine")
    assert main(["init", "--images", "pets", *SMALL]) == 2
    assert "is not overwritten" in capsys.readouterr().err
    assert Path("suite.yaml").read_text() == "mine"


def test_classes_may_be_named_by_a_file_and_columns_are_found():
    Path("names.txt").write_text("ant\nbee\n")
    layouts.parquet(Path("data.parquet"), [0, 1, 1, 0] * 5)
    table = pq.read_table("data.parquet").rename_columns({"image": "img", "label": "fine_label"})
    pq.write_table(table, "data.parquet")
    words = ["--parquet", "data.parquet", "--classes", "names.txt", "--methods", "zero-shot"]
    assert main(["init", *words, *SMALL]) == 0
    task = Suite.load("suite.yaml").tasks["data"]
    assert (task.train.image, task.train.label) == ("img", "fine_label")
    assert task.classes == ("ant", "bee")
    assert main(["plan", "suite.yaml"]) == 0


def test_a_data_set_of_the_hub_is_downloaded(monkeypatch):
    """Its files are those that the Hub's client puts into the folder."""
    held = {"data/train-00000-of-00001.parquet": 8, "data/test-00000-of-00001.parquet": 2}

    def list_repo_files(self, name, *, repo_type, revision=None):
        assert (name, repo_type) == ("org/pets", "dataset")
        return ["README.md", *held] if revision is None else []

    def snapshot_download(name, *, repo_type, revision, allow_patterns, local_dir):
        assert sorted(allow_patterns) == sorted(held)
        for file, each in held.items():
            path = Path(local_dir, file)
            path.parent.mkdir(parents=True, exist_ok=True)
            layouts.parquet(path, [0, 1, 2] * each, ["ant", "bee", "sea_cow"])

    monkeypatch.setattr("huggingface_hub.HfApi.list_repo_files", list_repo_files)
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert main(["init", "--hub", "org/pets", *SMALL, "--methods", "zero-shot"]) == 0
    (task,) = Suite.load("suite.yaml").tasks.values()
    assert (task.train.split, task.id_test.source.split) == ("train", "test")
    assert task.name == "org--pets"
    assert main(["plan", "suite.yaml"]) == 0


def test_a_copy_of_a_data_set_of_the_hub_has_its_files_one_deeper(capsys):
    for split, each in (("train-00000-of-00001", 8), ("test-00000-of-00001", 2)):
        layouts.parquet(Path(f"birds/data/{split}.parquet"), [0, 1] * each, ["crow", "wren"])
    words = ["--methods", "zero-shot", *SMALL]
    assert main(["init", "--parquet", "birds", *words]) == 0
    suite = Suite.load("suite.yaml")
    task = suite.tasks["birds"]
    assert (suite.data, task.train.path) == ("birds", "data")
    assert (task.train.split, task.id_test.source.split) == ("train", "test")
    layouts.parquet(Path("cut/plain/x.parquet"), [0, 1] * 8, ["crow", "wren"])
    assert main(["init", "other.yaml", "--parquet", "cut", *words]) == 2
    assert "cut: its .parquet files are in cut/plain: name that folder" in capsys.readouterr().err


def test_the_hub_says_in_one_line_what_it_has_not(monkeypatch, capsys):
    monkeypatch.setattr(
        "huggingface_hub.HfApi.list_repo_files",
        lambda *_, **options: ["a/x.parquet", "b/y.parquet"] if options.get("revision") else [],
    )
    assert main(["init", "--hub", "org/pets"]) == 2
    assert "2 folders (a, b)" in capsys.readouterr().err
    monkeypatch.setattr("huggingface_hub.HfApi.list_repo_files", lambda *_, **__: 1 / 0)
    assert main(["init", "--hub", "org/pets"]) == 2
    assert "org/pets: cannot be downloaded (ZeroDivisionError" in capsys.readouterr().err


def test_questions_are_asked_at_a_terminal(monkeypatch):
    answers = iter(["pets", "", "drawings=drawings", "", "zero-shot, full", "miniature"])
    asked: list[str] = []

    def prompt(question: str, **_: object) -> str:
        asked.append(question)
        return next(answers)

    monkeypatch.setattr("typer.prompt", prompt)
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    assert main(["init"]) == 0
    suite = Suite.load("suite.yaml")
    assert list(suite.methods["pets"]) == ["zero-shot", "full"]
    assert list(suite.tasks["pets"].shifts) == ["drawings"]
    assert len(asked) == 6


class Thing(BaseModel):
    number: int = 3


class Whole(BaseModel):
    budget: Budget = Budget()
    seeds: tuple[int, ...] = (0,)


def test_a_section_of_defaults_is_a_comment_of_its_own():
    text = explained(Section(Whole, {"budget": Section(Budget), "seeds": [1]}))
    assert text.startswith("#budget:\n") and text.endswith("\nseeds: [1]\n")
    assert "\n  #steps: null\n" in text
    assert explained(Section(Thing, {"number": 4})) == "number: 4\n"
    assert explained(Section(Thing)) == "#number: 3\n"
    inner = {"budget": Section(Thing, named=True), "seeds": {"a": {"b": 1}, "c": {}}}
    assert explained(Section(Whole, inner)).split() == (
        ["budget:", "#number:", "3", "seeds:", "a:", "{b:", "1}", "c:", "{}"]
    )


def test_values_on_one_line_read_back_equal():
    value = {"a": [1e-5, "no", None, "x: y"], "lr": 3e-5, "empty": {}}
    assert document.parse(document.inline(value), document.Place("x", 1, Path())).plain == value


def test_names_that_yaml_would_take_for_something_else_are_quoted(folder: Path):
    (folder / "drawings").rename(folder / "#1")
    shifts = ["--shift", "rain: heavy=#1", "--shift", "no=night.parquet"]
    assert main(["init", "--images", "pets", *shifts, *SMALL, "--methods", "zero-shot"]) == 0
    (task,) = Suite.load("suite.yaml").tasks.values()
    assert [*task.shifts] == ["rain: heavy", "no"]
    assert task.shifts["rain: heavy"].source.path == "#1"
