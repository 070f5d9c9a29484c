from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from shiftbench.core.errors import InputError
from shiftbench.data.tasks.registry import builtin_tasks, miniature_tasks
from shiftbench.execution.schedule import make_schedule
from shiftbench.methods.builtin.autoft import AutoFt
from shiftbench.methods.registry import METHODS
from shiftbench.suite.dumping import dump
from shiftbench.suite.json_schema import SCHEMA_FILE, json_schema, schema_text, write
from shiftbench.suite.plan import Plan
from shiftbench.suite.suite import Suite

SUITES = sorted(SCHEMA_FILE.parent.glob("*.yaml"))

BASE = """\
backbones: [openai/ViT-B-16]
tasks:
  cifar10: {}
  iwildcam:
methods:
  zero-shot:
  full: {lr: 1e-4, max_grad_norm: 1.0}
  curve:
    method: wise-ft
    alphas: [0, 0.5, 1]
seeds: [0, 1]
"""

BIRDS = """\
  birds:
    classes: [crow, wren]
    train: {kind: parquet, path: birds.parquet, where: {place: garden}, part: [0, 0.8]}
    id_test:
      source: {kind: parquet, path: birds.parquet, where: {place: garden}, part: [0.8, 1]}
    shifts:
      forest: {source: {kind: image-folder, path: forest}}
      sea: {source: {kind: image-folder, path: sea}}
"""


class Files:
    """Writes and loads suites in a folder, which is the working directory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, text: str, name: str = "x.yaml") -> str:
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return name

    def load(self, text: str = BASE, *overrides: str, data: str | None = None) -> Suite:
        return Suite.load(self.write(text), overrides, data)

    def child(self, text: str, *overrides: str) -> Suite:
        self.write(BASE, "base.yaml")
        return self.load(f"extends: base.yaml\n{text}", *overrides)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Files:
    monkeypatch.chdir(tmp_path)
    return Files(tmp_path)


def settings(suite: Suite, task: str, label: str) -> Any:
    return suite.methods[task][label].config


# What is meant


def test_a_suite_is_read_with_its_defaults(files):
    suite = files.load()
    assert (suite.name, suite.description, suite.data) == ("x", "", None)
    assert suite.tasks == {name: builtin_tasks()[name] for name in ("cifar10", "iwildcam")}
    assert suite.backbones == ("openai/ViT-B-16",)
    assert (suite.seeds, suite.shots) == ((0, 1), (None,))
    assert (suite.budget.steps, suite.budget.evaluation_images) == (None, None)
    assert suite.resources.workers == 1
    assert list(suite.methods["cifar10"]) == ["zero-shot", "full", "curve"]
    assert settings(suite, "cifar10", "full").lr == 1e-4
    assert settings(suite, "cifar10", "full").batch_size == 512
    assert suite.methods["cifar10"]["curve"].name == "wise-ft"
    assert suite.methods["cifar10"]["curve"].variants() == ("alpha=0.0", "alpha=0.5", "alpha=1.0")


def test_names_alone_mean_defaults(files):
    suite = files.load("backbones: [miniature]\ntasks: [fmow]\nmethods: [zero-shot, full]\n")
    assert list(suite.tasks) == ["fmow"]
    assert settings(suite, "fmow", "full").lr == 3e-5


def test_shots_may_be_all(files):
    assert files.load(BASE + "shots: [1, full, 16]\n").shots == (1, None, 16)


def test_miniature_data_bring_the_miniature_tasks(files):
    suite = files.load(BASE + "data: miniature\n")
    assert suite.tasks["cifar10"] == miniature_tasks()["cifar10"]
    assert suite.data_kind.startswith("miniature/")
    assert files.load(BASE + "data: miniature\n", data="/real").data_kind == "real"
    assert files.load(BASE, data="miniature").tasks == suite.tasks


def test_data_are_relative_to_where_they_are_named(files):
    files.write(BASE + "data: ../sets\n", "a/b/base.yaml")
    files.write("extends: b/base.yaml\n", "a/child.yaml")
    assert Suite.load("a/b/base.yaml").data == "a/sets"
    assert Suite.load("a/child.yaml").data == "a/sets"
    assert Suite.load("a/child.yaml", data="sets").data == "sets"
    assert Suite.load("a/child.yaml", ["data=sets"]).data == "sets"
    assert Suite.load("a/child.yaml", data="s3://bucket/sets").data == "s3://bucket/sets"
    assert Suite.load("a/child.yaml", data="/sets").data == "/sets"


def test_data_that_nobody_named_are_asked_for(files):
    with pytest.raises(InputError, match="--data"):
        files.load().require_data()
    assert files.load(data="/sets").require_data() == "/sets"


def test_backbone_folders_are_relative_to_the_file(files):
    files.write(BASE.replace("openai/ViT-B-16", "./clip, ../up, /top, openai/B"), "a/x.yaml")
    assert Suite.load("a/x.yaml").backbones == ("a/clip", "up", "/top", "openai/B")


def test_a_task_may_change_settings_for_itself(files):
    suite = files.child("tasks: {iwildcam: {methods: {full: {epochs: 20}}}}")
    assert settings(suite, "iwildcam", "full").epochs == 20
    assert settings(suite, "iwildcam", "full").lr == 1e-4
    assert settings(suite, "cifar10", "full").epochs == 10


def test_a_method_may_have_resources_of_its_own(files):
    """A task may change them once more; no run is another one for that."""
    common = "resources: {gpus_per_worker: 0.25, limits: {stall_s: 9}}"
    own = (
        "methods: {full: {resources: {workers: 4, gpus_per_worker: 1}}}",
        "tasks: {iwildcam: {methods: {full: {resources: {min_workers: 2, micro_batch: 8}}}}}",
    )
    plain, suite = files.child(common), files.child("\n".join([common, *own]))
    found = suite.resources_of("cifar10", "full")
    assert (found.workers, found.gpus_per_worker, found.min_workers) == (4, 1, None)
    assert found.limits.stall_s == 9
    there = suite.resources_of("iwildcam", "full")
    assert (there.workers, there.min_workers, there.micro_batch) == (4, 2, 8)
    assert suite.resources_of("cifar10", "zero-shot") == suite.resources
    elastic = "resources: {workers: 4, min_workers: 2}"
    alone = files.child(f"{elastic}\nmethods: {{full: {{resources: {{workers: 1}}}}}}")
    assert alone.resources_of("cifar10", "full").min_workers is None
    plan = Plan.build(suite)
    assert plan.runs == Plan.build(plain).runs
    assert {plan.resources_of(run).workers for run in plan.runs.values()} == {1, 4}
    again = files.load(dump(suite))
    assert again.own_resources == suite.own_resources and dump(again) == dump(suite)


def test_a_task_may_leave_a_method_out(files):
    suite = files.child("tasks: {iwildcam: {methods: {zero-shot: null}}}")
    assert list(suite.methods["iwildcam"]) == ["full", "curve"]
    assert list(suite.methods["cifar10"]) == ["zero-shot", "full", "curve"]


def test_a_registered_task_can_be_patched(files):
    suite = files.child(
        "tasks: {cifar10: {id_val: {holdout: 0.2}, "
        'shifts: {cifar10.1: null, "cifar10.2": {metric: macro-f1}}}}'
    )
    task = suite.tasks["cifar10"]
    assert task.id_val.holdout == 0.2
    assert {name: shift.metric for name, shift in task.shifts.items()} == {"cifar10.2": "macro-f1"}
    assert task.train == builtin_tasks()["cifar10"].train


def test_a_task_of_ones_own_needs_no_code(files):
    suite = files.load(BASE.replace("  iwildcam:\n", BIRDS))
    task = suite.tasks["birds"]
    assert (task.name, task.classes) == ("birds", ("crow", "wren"))
    assert task.train.where == {"place": "garden"}
    assert list(task.shifts) == ["forest", "sea"]


def test_an_inherited_task_of_ones_own_can_be_patched(files):
    files.write(BASE.replace("  iwildcam:\n", BIRDS), "base.yaml")
    suite = files.load("extends: base.yaml\ntasks: {birds: {shifts: {sea: null}}}\n")
    assert list(suite.tasks["birds"].shifts) == ["forest"]
    suite = files.load("extends: base.yaml\ntasks: [birds]\n")
    assert list(suite.tasks) == ["birds"]
    assert list(suite.tasks["birds"].shifts) == ["forest", "sea"]


# Extending


def test_a_suite_extends_another(files):
    suite = files.child(
        "seeds: [7]\n"
        "methods: {full: {max_grad_norm: null}, curve: null, probe: {method: linear-probe}}\n"
        "tasks: {iwildcam: null}\n"
    )
    assert suite.name == "x"
    assert suite.seeds == (7,)
    assert list(suite.tasks) == ["cifar10"]
    assert list(suite.methods["cifar10"]) == ["zero-shot", "full", "probe"]
    assert settings(suite, "cifar10", "full").max_grad_norm is None
    assert settings(suite, "cifar10", "full").lr == 1e-4


def test_suites_extend_over_several_levels(files):
    files.write(BASE + "description: base\n", "base.yaml")
    files.write("extends: ../base.yaml\nmethods: {full: {lr: 2e-4}}\n", "sub/middle.yaml")
    suite = files.load("extends: sub/middle.yaml\nmethods: {full: {epochs: 1}}\n")
    assert (settings(suite, "cifar10", "full").lr, settings(suite, "cifar10", "full").epochs) == (
        2e-4,
        1,
    )
    assert suite.description == ""


@pytest.mark.parametrize("base", ["miniature", "miniature.yaml"])
def test_a_shipped_suite_can_be_extended_from_anywhere(files, base):
    suite = files.load(f"extends: {base}\nname: mine\nmethods: [zero-shot, full]\n")
    shipped = Suite.load("miniature")
    assert suite.tasks == shipped.tasks
    assert suite.methods["cifar10"]["full"].config == shipped.methods["cifar10"]["full"].config
    files.write(BASE, base)
    beside = files.load(f"extends: {base}\nname: mine\n")
    assert list(beside.tasks) == ["cifar10", "iwildcam"]


def test_a_suite_may_have_the_name_of_the_shipped_one_it_extends(files):
    files.write("extends: quickstart\nseeds: [5]\n", "quickstart.yaml")
    assert Suite.load("quickstart.yaml").seeds == (5,)


def test_a_suite_is_found_by_name_here_then_among_those_that_are_shipped(files):
    assert Suite.load("quickstart").name == "quickstart"
    (files.folder / "quickstart").mkdir()  # is no suite
    assert Suite.load("quickstart", ["seeds=[3]"]).seeds == (3,)
    files.write(BASE, "suites/quickstart.yaml")
    assert list(Suite.load("quickstart").tasks) == ["cifar10", "iwildcam"]
    with pytest.raises(InputError, match=r'no file or suite "quickstar" \(did you mean "quickst'):
        Suite.load("quickstar")


@pytest.mark.parametrize("base", ["x.yaml", "y.yaml"])
def test_circles_of_suites_are_refused(files, base):
    files.write("extends: x.yaml\n", "y.yaml")
    with pytest.raises(InputError, match=r"\.yaml:1: extends: .* in turn"):
        files.load(f"extends: {base}\n")


# Overrides


@pytest.mark.parametrize(
    ("override", "label", "field", "value"),
    [
        ("methods.full.lr=1e-5", "full", "lr", 1e-5),
        ("methods.full={epochs: 2, lr: 3E-5}", "full", "epochs", 2),
        ("methods.full.max_grad_norm=null", "full", "max_grad_norm", None),
        ("methods.full.precision=bf16", "full", "precision", "bf16"),
        ("methods.curve.alphas=[0.5, 1]", "curve", "alphas", (0.5, 1.0)),
        ("tasks.cifar10.methods.full.lr=1e-6", "full", "lr", 1e-6),
    ],
)
def test_a_value_can_be_set(files, override, label, field, value):
    assert getattr(settings(files.load(BASE, override), "cifar10", label), field) == value


def test_later_settings_win_and_names_can_be_removed(files):
    suite = files.load(BASE, "seeds=[3]", "seeds=[4]", "methods.curve=null", "tasks=[cifar10]")
    assert suite.seeds == (4,)
    assert list(suite.methods["cifar10"]) == ["zero-shot", "full"]
    assert list(suite.tasks) == ["cifar10"]
    assert list(files.load(BASE, "methods=[full]").methods["cifar10"]) == ["full"]


# Bad input, by the text of a suite and the error it gives

BAD = {
    "misspelt top-level key": (
        BASE.replace("seeds", "sedes"),
        'x.yaml:11: unknown key "sedes" (did you mean "seeds"?)',
    ),
    "misspelt nested key": (
        BASE + "budget:\n  stepps: 3\n",
        'x.yaml:13: budget: unknown key "stepps" (did you mean "steps"?)',
    ),
    "misspelt key of a method": (
        BASE.replace("lr: 1e-4", "lrr: 1e-4"),
        'x.yaml:7: methods.full: unknown key "lrr" (did you mean "lr"?)',
    ),
    "resources of all methods in those of one": (
        BASE.replace("lr: 1e-4", "resources: {max_trials: 2}"),
        'x.yaml:7: methods.full.resources: unknown key "max_trials"',
    ),
    "more workers at least than at most": (
        BASE.replace("lr: 1e-4", "resources: {min_workers: 2}"),
        "x.yaml:7: methods.full.resources: Value error, min_workers 2 is more than 1 workers",
    ),
    "GPUs for trainings alone": (
        BASE.replace("lr: 1e-4", "resources: {gpus_per_worker: 1}"),
        "x.yaml:7: methods.full.resources.gpus_per_worker: its evaluations would have no GPU",
    ),
    "misspelt key of a method for one task": (
        BASE.replace("cifar10: {}", "cifar10: {methods: {full: {epoch: 1}}}"),
        'x.yaml:3: tasks.cifar10.methods.full: unknown key "epoch" (did you mean "epochs"?)',
    ),
    "misspelt key of a task": (
        BASE.replace("cifar10: {}", "cifar10: {shift: {}}"),
        'x.yaml:3: tasks.cifar10: unknown key "shift" (did you mean "shifts"?)',
    ),
    "misspelt key of a source": (
        BASE.replace("  iwildcam:\n", BIRDS.replace("where", "were", 1)),
        'x.yaml:6: tasks.birds.train: unknown key "were" (did you mean "where"?)',
    ),
    "misspelt key of a shift": (
        BASE.replace("  iwildcam:\n", BIRDS.replace("sea: {source", "sea: {sauce")),
        'x.yaml:11: tasks.birds.shifts.sea: unknown key "sauce" (did you mean "source"?)',
    ),
    "missing key of a source": (
        BASE.replace("  iwildcam:\n", BIRDS.replace("path: sea", "")),
        'x.yaml:11: tasks.birds.shifts.sea.source: the key "path" is missing',
    ),
    "unknown kind of source": (
        BASE.replace("  iwildcam:\n", BIRDS.replace("image-folder", "image-fodler")),
        "x.yaml:10: tasks.birds.shifts.forest.source: ",
    ),
    "missing key of a task": (
        BASE.replace("  iwildcam:\n", BIRDS.replace("classes: [crow, wren]", "")),
        'x.yaml:4: tasks.birds: the key "classes" is missing',
    ),
    "key of another part of a task": (
        BASE.replace("  iwildcam:\n", BIRDS.replace("id_test", "id_val")),
        'x.yaml:7: tasks.birds.id_val: the key "kind" is missing or the key "holdout" is missing',
    ),
    "name in a task": (
        BASE.replace("cifar10: {}", "cifar10: {name: cifar}"),
        "x.yaml:3: tasks.cifar10.name: ",
    ),
    "unknown task": (
        BASE.replace("cifar10", "cifar-10"),
        'x.yaml:3: tasks.cifar-10: "cifar-10" is not a registered task (did you mean "cifar10"?)',
    ),
    "parent without weights": (
        BASE.replace(
            "  curve:\n",
            "  mix: {method: output-ensemble}\n  soup: {parents: [full, mix]}\n  curve:\n",
        ),
        'x.yaml:9: methods.soup.parents: "mix" is an ensemble of outputs and has no weights',
    ),
    "unknown method": (
        BASE.replace("  full", "  ful"),
        'x.yaml:7: methods.ful: unknown method "ful" (did you mean "full"?)',
    ),
    "unknown method behind a label": (
        BASE.replace("method: wise-ft", "method: wiseft"),
        'x.yaml:9: methods.curve.method: unknown method "wiseft" (did you mean "wise-ft"?)',
    ),
    "method that is no name": (
        BASE.replace("method: wise-ft", "method: [wise-ft]"),
        "x.yaml:9: methods.curve.method: must be the name",
    ),
    "unknown label in a task": (
        BASE.replace("cifar10: {}", "cifar10: {methods: {ful: {lr: 1}}}"),
        'x.yaml:3: tasks.cifar10.methods.ful: this suite has no method "ful"',
    ),
    "list of methods in a task": (
        BASE.replace("cifar10: {}", "cifar10: {methods: [full]}"),
        "x.yaml:3: tasks.cifar10.methods: must map",
    ),
    "no method left for a task": (
        BASE.replace(
            "cifar10: {}", "cifar10: {methods: {full: null, curve: null, zero-shot: null}}"
        ),
        "x.yaml:3: tasks.cifar10: no method is left",
    ),
    "zero shots": (BASE + "shots: [full, 0]\n", "x.yaml:12: shots[1]: "),
    "negative shots": (BASE + "shots: [-1]\n", "x.yaml:12: shots[0]: "),
    "misspelt shots": (BASE + "shots: [ful]\n", "x.yaml:12: shots[0]: must be 'full' or "),
    "duplicate shots": (BASE + "shots: [4, 4]\n", "x.yaml:12: shots: holds 4 twice"),
    "duplicate seeds": (BASE.replace("[0, 1]", "[1, 1]"), "x.yaml:11: seeds: holds 1 twice"),
    "negative seed": (BASE.replace("[0, 1]", "[-1]"), "x.yaml:11: seeds[0]: "),
    "text as a seed": (BASE.replace("[0, 1]", "['1']"), "x.yaml:11: seeds[0]: "),
    "true as a seed": (BASE.replace("[0, 1]", "[true]"), "x.yaml:11: seeds[0]: "),
    "fraction as a seed": (BASE.replace("[0, 1]", "[0.5]"), "x.yaml:11: seeds[0]: "),
    "one seed without brackets": (BASE.replace("[0, 1]", "0"), "x.yaml:11: seeds: "),
    "duplicate backbones": (
        BASE.replace("[openai/ViT-B-16]", "[a/b, a/b]"),
        'x.yaml:1: backbones: holds "a/b" twice',
    ),
    "duplicate alphas": (
        BASE.replace("[0, 0.5, 1]", "[0, 0.5, 0.5]"),
        "x.yaml:8: methods.curve: alphas must differ",
    ),
    "alpha that is not evaluated": (
        BASE.replace("[0, 0.5, 1]", "[0, 1]"),
        "x.yaml:8: methods.curve: alpha 0.5 must be one of alphas",
    ),
    "duplicate tasks": (
        BASE.replace("tasks:\n  cifar10: {}\n  iwildcam:\n", "tasks: [fmow, fmow]\n"),
        'x.yaml:2: tasks[1]: "fmow" stands there twice',
    ),
    "no seeds": (BASE.replace("[0, 1]", "[]"), "x.yaml:11: seeds: "),
    "no shots": (BASE + "shots: []\n", "x.yaml:12: shots: "),
    "no backbones": (BASE.replace("[openai/ViT-B-16]", "[]"), "x.yaml:1: backbones: "),
    "no tasks": (
        BASE.replace("tasks:\n  cifar10: {}\n  iwildcam:\n", "tasks: []\n"),
        "x.yaml:2: tasks: ",
    ),
    "no methods": ("backbones: [a/b]\ntasks: [fmow]\nmethods: {}\n", "x.yaml:3: methods: "),
    "missing methods": (
        "backbones: [a/b]\ntasks: [fmow]\n",
        'x.yaml:1: the key "methods" is missing',
    ),
    "text as a learning rate": (
        BASE.replace("1e-4", "'1e-4'"),
        'x.yaml:7: methods.full.lr: must be a valid number, got "1e-4"',
    ),
    "learning rate that is not a number": (
        BASE.replace("1e-4", ".nan"),
        "x.yaml:7: methods.full.lr: must be a finite number",
    ),
    "infinite learning rate": (
        BASE.replace("1e-4", ".inf"),
        "x.yaml:7: methods.full.lr: must be a finite number",
    ),
    "negative learning rate": (
        BASE.replace("1e-4", "-1"),
        "x.yaml:7: methods.full.lr: must be greater than 0, got -1",
    ),
    "unknown precision": (
        BASE.replace("max_grad_norm: 1.0", "precision: fp8"),
        "x.yaml:7: methods.full.precision: must be 'fp32', 'tf32' or 'bf16', got \"fp8\"",
    ),
    "settings of a method that are none": (
        BASE.replace("{lr: 1e-4, max_grad_norm: 1.0}", "3"),
        "x.yaml:7: methods.full: ",
    ),
    "settings of a task that are none": (BASE.replace("{}", "3"), "x.yaml:3: tasks.cifar10: "),
    "label that no folder could have": (BASE.replace("  full", "  a/b"), "x.yaml:7: methods"),
    "zero steps": (BASE + "budget: {steps: 0}\n", "x.yaml:12: budget.steps: "),
    "zero workers": (BASE + "resources: {workers: 0}\n", "x.yaml:12: resources.workers: "),
    "empty data": (BASE + "data: ''\n", "x.yaml:12: data: "),
    "number as data": (BASE + "data: 3\n", "x.yaml:12: data: "),
    "missing base": ("extends: nowhere.yaml\n", "x.yaml:1: extends: there is no file"),
    "misspelt base": ("extends: minature\n", 'shipped suite (did you mean "miniature"?)'),
    "base that is no path": ("extends: 3\n", "x.yaml:1: extends: must be the path"),
    "YAML that is none": (BASE + "shots: [1\n", "not valid YAML"),
    "key that stands twice": (BASE + "seeds: [2]\n", 'x.yaml:12: the key "seeds" stands there'),
    "list instead of keys": ("- a\n", "x.yaml:1: a suite is a mapping"),
    "empty file": ("", "x.yaml:1: a suite is a mapping"),
}
BAD["unknown parent"] = (
    BASE.replace("    method: wise-ft\n", "    method: wise-ft\n    parent: ful\n"),
    'x.yaml:10: methods.curve.parent: there is no method "ful"',
)
BAD["default parent that is not in the suite"] = (
    BASE.replace("  full: {lr: 1e-4, max_grad_norm: 1.0}\n", ""),
    'x.yaml:7: methods.curve.parent: there is no method "full"',
)
BAD["parent that a task leaves out"] = (
    BASE.replace("cifar10: {}", "cifar10: {methods: {full: null}}"),
    'methods.curve.parent: there is no method "full" for task cifar10',
)
BAD["method that is its own parent"] = (
    BASE.replace("    method: wise-ft\n", "    method: wise-ft\n    parent: curve\n"),
    "x.yaml:10: methods.curve.parent: methods that need each other: curve → curve",
)


@pytest.mark.parametrize(("text", "message"), BAD.values(), ids=BAD)
def test_bad_suites_are_refused_in_one_line_that_names_the_place(files, text, message):
    with pytest.raises(InputError) as caught:
        files.load(text)
    assert message in str(caught.value)
    assert "x.yaml" in str(caught.value)
    assert all("x.yaml" in line for line in caught.value.lines)


BAD_OVERRIDES = {
    "method.full.lr=1": 'unknown key "method" (did you mean "methods"?)',
    "methods.full.lrr=1": 'methods.full: unknown key "lrr" (did you mean "lr"?)',
    "methods.ful.lr=1": 'unknown method "ful" (did you mean "full"?)',
    "methods.full.lr=fast": "methods.full.lr: must be a valid number",
    "methods.ful=null": 'there is no "ful" to remove (did you mean "full"?)',
    "tasks.fmow=null": 'there is no "fmow" to remove',
    "methods=null": "methods: ",
    "extends=other.yaml": "only a suite file",
    "seeds": "key.key=value",
    "seeds=[1": "not valid YAML",
    "seeds=0": "seeds: ",
}


@pytest.mark.parametrize(("text", "message"), BAD_OVERRIDES.items(), ids=BAD_OVERRIDES)
def test_bad_overrides_are_refused_by_their_text(files, text, message):
    with pytest.raises(InputError) as caught:
        files.load(BASE, text)
    assert f"--set {text}: " in str(caught.value)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_error_in_a_base_names_the_base(files):
    files.write(BASE.replace("1e-4", "fast"), "sub/base.yaml")
    with pytest.raises(InputError, match=r"^sub/base\.yaml:7: methods\.full\.lr: "):
        files.load("extends: sub/base.yaml\nseeds: [0]\n")


def test_a_missing_suite_is_refused(files):
    with pytest.raises(InputError, match=r"^nowhere\.yaml: there is no such file$"):
        Suite.load("nowhere.yaml")
    with pytest.raises(InputError, match="cannot be read"):
        Suite.load(files.folder)


# The suites that are shipped, and the schema


@pytest.mark.parametrize("file", SUITES, ids=lambda file: file.stem)
def test_every_shipped_suite_loads_and_plans(file):
    suite = Suite.load(file)
    assert suite.description
    assert Plan.build(suite).runs


@pytest.mark.parametrize("file", SUITES, ids=lambda file: file.stem)
def test_a_suite_that_is_spelled_out_means_the_same(file, tmp_path):
    suite = Suite.load(file)
    copy = tmp_path / "copy.yaml"
    copy.write_text(dump(suite))
    again = Suite.load(copy)
    assert Plan.build(again).runs.keys() == Plan.build(suite).runs.keys()
    assert dump(again) == dump(suite)


def test_settings_of_one_task_survive_being_spelled_out(files):
    text = "tasks: {iwildcam: {methods: {full: {epochs: 20}, zero-shot: null}}}"
    suite = files.child(text)
    again = files.load(dump(suite))
    assert settings(again, "iwildcam", "full").epochs == 20
    assert list(again.methods["iwildcam"]) == ["full", "curve"]
    assert dump(again) == dump(suite)


def test_the_shipped_schema_is_current():
    assert SCHEMA_FILE.read_text() == schema_text(), "run `make schema`"


def test_the_schema_is_written_where_it_is_shipped(tmp_path, monkeypatch):
    monkeypatch.setattr("shiftbench.suite.json_schema.SCHEMA_FILE", tmp_path / "s.json")
    write()
    assert [file.name for file in tmp_path.iterdir()] == ["s.json"]
    assert (tmp_path / "s.json").read_text() == SCHEMA_FILE.read_text()


def test_a_method_adds_its_definition_and_one_branch_to_the_schema(monkeypatch):
    whole = json_schema()
    entries = METHODS.entries()
    fewer = {name: entry for name, entry in entries.items() if name != "bitfit"}
    monkeypatch.setattr(METHODS, "entries", lambda: fewer)
    without = json_schema()

    assert whole["$defs"].pop("method bitfit")["properties"].keys() >= {"lr", "train_head"}
    branches = whole["$defs"]["methods"]["allOf"]
    added = [branch for branch in branches if branch not in without["$defs"]["methods"]["allOf"]]
    assert len(added) == 1
    branches.remove(added[0])
    assert whole == without
    assert len(json.dumps(added[0], indent=2).splitlines()) < 40


@pytest.fixture(scope="module")
def validator():
    schema = json.loads(schema_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("file", SUITES, ids=lambda file: file.stem)
def test_shipped_suites_follow_the_schema_and_point_to_it(file, validator):
    from shiftbench.core import document

    text = file.read_text()
    assert text.startswith("# yaml-language-server: $schema=suite.schema.json\n")
    validator.validate(document.read(file).plain)


@pytest.mark.parametrize("file", SUITES, ids=lambda file: file.stem)
def test_spelled_out_suites_follow_the_schema(file, validator):
    data = yaml.safe_load(dump(Suite.load(file)))
    validator.validate({key: value for key, value in data.items() if key != "extends"})


@pytest.mark.parametrize(
    "data",
    [
        {"sedes": [0]},
        {"methods": {"full": {"lrr": 1}}},
        {"methods": {"mine": {"method": "full", "lrr": 1}}},
        {"methods": {"full": {"method": "l2-sp", "density": 1}}},
        {"methods": {"full": {"lr": -1}}},
        {"tasks": {"cifar10": {"shift": {}}}},
        {"tasks": {"cifar10": {"methods": {"full": {"lrr": 1}}}}},
        {"shots": ["ful"]},
        {"resources": {"gpus": 1}},
    ],
    ids=str,
)
def test_the_schema_shows_mistakes_while_typing(data, validator):
    assert not validator.is_valid(data)


@pytest.mark.parametrize(
    "data",
    [
        {"extends": "nine-shifts.yaml"},
        {"methods": {"plugin": {"anything": 1}}},
        {"methods": {"full": None, "mine": {"method": "full", "lr": 1}}},
        {"methods": {"full": {"method": "l2-sp", "strength": 1}}},
        {"methods": {"full": {"method": "plugin", "anything": 1}}},
        {"tasks": ["cifar10"], "methods": ["full"]},
        {"tasks": {"cifar10": None, "fmow": {"methods": {"full": None}}}},
        {
            "tasks": {
                "cifar10": {"shifts": {"cifar10.1": None, "cifar10.2": {"metric": "macro-f1"}}}
            }
        },
    ],
    ids=str,
)
def test_the_schema_accepts_what_is_accepted(data, validator):
    validator.validate(data)


def test_the_released_autoft_takes_the_steps_of_its_code() -> None:
    suite = Suite.load(SCHEMA_FILE.parent / "autoft-released.yaml")
    images = {"fmow": 76_863, "iwildcam": 129_809, "imagenet": 1_281_167, "cifar10": 50_000}
    steps = {}
    for name, n in images.items():
        method = suite.methods[name]["autoft"]
        assert isinstance(method, AutoFt)
        steps[name] = make_schedule(n, method.training).steps
        assert method.training.peak_lr == 1e-5 and method.config.unit_loss == "flyp"
        search = method.config.search
        assert (search.scheduler, search.finalists, search.milestones()) == (
            ("none", 0, (10 if name == "cifar10" else 100,))
        )
    # The code counts batches of each epoch, and so rounds up once an epoch and not once in all.
    assert steps == pytest.approx(
        {"fmow": 96_080, "iwildcam": 20_300, "imagenet": 2_001_830, "cifar10": 3_920}, rel=4e-3
    )
    assert suite.tasks["cifar10"].templates == "simple"
    assert suite.tasks["fmow"].id_test.metric == "worst-region"
