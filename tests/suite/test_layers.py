"""Choosing from what a suite inherits, and labels of equal settings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from shiftbench.cli import main
from shiftbench.core.errors import InputError
from shiftbench.execution.cost import plan_state
from shiftbench.execution.debugging import run_of
from shiftbench.execution.record import read_records, write_record
from shiftbench.execution.remarks import Remarks
from shiftbench.execution.rerun import only
from shiftbench.execution.setup import Setup
from shiftbench.leaderboard.schema import done
from shiftbench.leaderboard.store import write_run
from shiftbench.report.run_facts import facts_of
from shiftbench.suite.dumping import dump
from shiftbench.suite.plan import Plan
from shiftbench.suite.suite import Suite

from tests.data import layouts
from tests.leaderboard.records import info, results

BASE = """\
backbones: [miniature]
data: miniature
methods:
  zero-shot: {}
  full: {lr: 1e-4}
  linear-probe: {}
  lp-ft: {}
  probe: {method: linear-probe, lr: 1e-2}
  wise-ft: {}
  wise-ft-lp: {method: wise-ft, parent: lp-ft}
tasks:
  cifar10:
    methods:
      full: {lr: 2e-4}
      lp-ft: {epochs: 3}
      probe: null
      wise-ft: {alphas: [0.5]}
  fmow:
    methods: {lp-ft: {parent: probe}, wise-ft: null}
"""

Load = Callable[..., Suite]


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Loads a suite that extends ``BASE``: its text, the overrides."""
    monkeypatch.chdir(tmp_path)
    Path("base.yaml").write_text(BASE)

    def load(text: str = "", *overrides: str) -> Suite:
        Path("x.yaml").write_text(f"extends: base.yaml\n{text}")
        return Suite.load("x.yaml", overrides)

    return load


def labels(suite: Suite, task: str = "cifar10") -> list[str]:
    return list(suite.methods[task])


# Some of the methods


def test_a_list_picks_and_what_tasks_say_of_the_others_goes(child):
    suite = child("methods: [zero-shot, full]\n")
    assert labels(suite) == labels(suite, "fmow") == ["zero-shot", "full"]
    assert suite.methods["cifar10"]["full"].config.lr == 2e-4
    assert suite.methods["fmow"]["full"].config.lr == 1e-4


def test_methods_that_are_picked_bring_what_they_build_on(child):
    assert labels(child("methods: [zero-shot, wise-ft]\n")) == ["zero-shot", "wise-ft", "full"]
    # lp-ft builds on linear-probe, and for fmow on probe, which cifar10 leaves out.
    suite = child("methods: [wise-ft-lp]\n")
    assert labels(suite) == ["wise-ft-lp", "lp-ft", "linear-probe"]
    assert labels(suite, "fmow") == ["wise-ft-lp", "lp-ft", "linear-probe", "probe"]
    assert Plan.build(suite).runs


@pytest.mark.parametrize("text", ["methods=[zero-shot, wise-ft]", "methods=[wise-ft,zero-shot]"])
def test_the_command_line_picks_alike(child, text):
    suite = child("", text)
    assert set(labels(suite)) == {"zero-shot", "wise-ft", "full"}
    assert labels(suite, "fmow") == [label for label in labels(suite) if label != "wise-ft"]


def test_a_method_that_is_not_inherited_may_be_picked_with_its_defaults(child):
    suite = child("methods: [full, lora]\n")
    assert suite.methods["cifar10"]["lora"].config.rank
    with pytest.raises(InputError, match=r'^x\.yaml:2: methods\.ful: unknown method "ful"'):
        child("methods: [ful]\n")


def test_removing_a_method_removes_what_tasks_say_of_it(child):
    suite = child("methods: {wise-ft: null, probe: null}\ntasks: {fmow: null}\n")
    assert labels(suite) == ["zero-shot", "full", "linear-probe", "lp-ft", "wise-ft-lp"]
    assert labels(child("tasks: {fmow: null}\n", "methods.probe=null")) == [
        "zero-shot", "full", "linear-probe", "lp-ft", "wise-ft", "wise-ft-lp"
    ]  # fmt: skip


def test_a_parent_that_is_removed_is_missed_in_one_line(child):
    with pytest.raises(InputError) as caught:
        child("methods: {full: null}\n")
    expected = 'base.yaml:9: methods.wise-ft.parent: there is no method "full"'
    assert str(caught.value).startswith(expected)
    assert len(caught.value.lines) == 1


def test_what_a_suite_itself_says_of_a_method_that_it_does_not_pick_is_an_error(child):
    text = "methods: [full]\ntasks: {cifar10: {methods: {lora: {rank: 2}}}}\n"
    with pytest.raises(InputError, match=r"^x\.yaml:3: tasks\.cifar10\.methods\.lora: this suite"):
        child(text)


def test_replacing_leaves_all_inherited_methods_behind(child):
    text = "methods:\n  replace: true\n  full: {epochs: 2}\n  l2-sp:\n"
    suite = child(text)
    assert labels(suite) == labels(suite, "fmow") == ["full", "l2-sp"]
    assert suite.methods["cifar10"]["full"].config.lr == 3e-5  # neither the suite's nor the task's
    assert labels(child("", "methods={replace: true, full: {}}")) == ["full"]
    assert len(labels(child(text.replace("true", "false")))) == 7


def test_replacing_leaves_all_inherited_tasks_behind(child):
    text = "tasks: {replace: true, cifar10: {methods: {full: {lr: 1e-3}}}}\nmethods: [full]\n"
    suite = child(text)
    assert list(suite.tasks) == ["cifar10"]
    assert suite.methods["cifar10"]["full"].config.lr == 1e-3
    with pytest.raises(InputError, match=r"--set tasks\.replace=true: tasks: must not be empty"):
        child("", "tasks.replace=true")


def test_a_suite_that_extends_nothing_may_say_replace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("x.yaml").write_text(BASE.replace("methods:\n  zero", "methods:\n  replace: true\n  zero"))
    assert len(labels(Suite.load("x.yaml"))) == 6
    assert "replace" not in dump(Suite.load("x.yaml"))


def test_a_method_may_still_be_called_replace(child):
    assert "replace" in labels(child("methods: {replace: {method: full, lr: 1e-3}}\n"))


def test_picking_from_a_shipped_suite_whose_tasks_say_much():
    suite = Suite.load("nine-shifts", ["methods=[zero-shot, full, wise-ft-flyp]"])
    assert labels(suite, "fmow") == ["zero-shot", "full", "wise-ft-flyp", "flyp"]
    assert suite.methods["fmow"]["flyp"].config.epochs == 20
    Plan.build(suite)


# Two labels of equal settings

TWICE = """\
backbones: [miniature]
data: miniature
tasks: [cifar10]
methods:
  zero-shot: {}
  full: {lr: 1e-4}
  mine: {method: full, lr: 0.0001}
  wise-ft: {alphas: [0.5]}
  curve: {method: wise-ft, parent: mine, alphas: [0.5]}
seeds: [0, 1]
"""


@pytest.fixture
def twice(tmp_path, monkeypatch) -> Plan:
    monkeypatch.chdir(tmp_path)
    Path("x.yaml").write_text(TWICE)
    return Plan.build(Suite.load("x.yaml"))


def test_two_labels_of_equal_settings_are_one_run(twice):
    found = {(run.labels, run.seed) for run in twice.runs.values()}
    both = {(("full", "mine"), seed) for seed in (0, 1)}
    assert found == both | {(("wise-ft", "curve"), seed) for seed in (0, 1)} | {(("zero-shot",), 0)}
    groups = {label: [run.id for run in runs] for (_, _, label), runs in twice.groups()}
    assert groups["full"] == groups["mine"] and groups["wise-ft"] == groups["curve"]
    alone = Plan.build(Suite.load("x.yaml", ["methods=[zero-shot, full, wise-ft]"]))
    assert alone.runs.keys() == twice.runs.keys()


def test_labels_may_be_equal_for_one_task_and_differ_for_another(twice):
    tasks = "tasks={cifar10: {}, fmow: {methods: {mine: {lr: 1e-3}}}}"
    runs = Plan.build(Suite.load("x.yaml", [tasks])).runs.values()
    of_fmow = {run.labels for run in runs if run.task.name == "fmow"}
    assert of_fmow == {("zero-shot",), ("full",), ("mine",), ("wise-ft",), ("curve",)}


def test_such_runs_are_counted_once(twice, tmp_path, capsys):
    state = plan_state(twice, tmp_path / "none", None)
    assert {group.label: group.left for group in state.groups} == {
        "zero-shot": 1, "full": 2, "mine": 2, "wise-ft": 2, "curve": 2
    }  # fmt: skip
    assert state.count("left") == 5
    once = plan_state(
        Plan.build(Suite.load("x.yaml", ["methods=[zero-shot, full, wise-ft]"])), tmp_path, None
    )
    assert state.cost == once.cost
    assert main(["status", "x.yaml"]) == 0
    shown = capsys.readouterr().out
    assert "0 of 5 runs done" in shown and "full 0/2, mine 0/2" in shown


def test_a_second_label_may_have_runs_of_its_own(twice, tmp_path):
    """A soup asks for a seed of it that the suite does not have."""
    soup = "methods={soup: {parents: [mine], over_seeds: [0, 1, 2]}}"
    plan = Plan.build(Suite.load("x.yaml", [soup]))
    state = plan_state(plan, tmp_path / "none", None)
    assert state.count("left") == len(plan.runs) == 5 + 1 + 1
    mine = {group.same_as: group.left for group in state.groups if group.label == "mine"}
    assert mine == {"full": 2, None: 1}


def test_a_run_of_two_labels_is_cut_out_and_recorded_with_both(twice, tmp_path):
    curve = next(run for run in twice.runs.values() if run.labels == ("wise-ft", "curve"))
    small = only(twice.suite, curve.id)
    assert list(small.methods["cifar10"]) == ["full", "wise-ft"]
    other = next(run for run in twice.runs.values() if "full" in run.labels and run.seed == 1)
    setup = Setup("x", twice.runs, tmp_path, "miniature", twice.suite.resources, Remarks({}, {}))
    write_record(setup, other.id)
    assert read_records(tmp_path, other.id).runs[other.id] == other


def test_a_run_of_two_labels_is_meant_by_either(twice, tmp_path):
    run = next(run for run in twice.runs.values() if run.labels == ("full", "mine") and run.seed)
    names = [run.id, run.id[:8], *(f"{label}/cifar10/1" for label in run.labels)]
    assert {run_of(twice, name) for name in names} == {run.id}
    setup = Setup("x", twice.runs, tmp_path, "miniature", twice.suite.resources, Remarks({}, {}))
    write_record(setup, run.id)
    for name in names:
        found = facts_of(tmp_path, name)
        assert (found.run_id, found.name, found.state) == (run.id, "full/cifar10/1", "begun")
    facts = {"label": "full", "also_called": ("mine",), "task": "cifar10", "seed": 1}
    write_run(tmp_path, run.id, done(info(run.id, **facts), results({"id-test": 0.5})))
    assert {facts_of(tmp_path, name).state for name in names} == {"done"}


def test_a_run_whose_parent_has_another_label_first_is_cut_out_with_it(twice):
    suite = Suite.load("x.yaml", ["methods={wise-ft: null}"])
    run = next(run for run in Plan.build(suite).runs.values() if run.label == "curve")
    assert set(only(suite, run.id).methods["cifar10"]) == {"mine", "curve"}


# The example of the documentation


def test_the_suite_of_the_tutorial_is_accepted(tmp_path, monkeypatch, capsys):
    page = (Path(__file__).parents[2] / "docs/tutorial/own-data.md").read_text(encoding="utf-8")
    text = page.partition("```yaml\n# birds.yaml\n")[2].partition("```")[0]
    monkeypatch.chdir(tmp_path)
    Path("birds.yaml").write_text(text)
    for name, each in (("train", 8), ("test", 2), ("drawings", 2)):
        layouts.class_folders(Path("pictures", name), ["crow", "wren"], each, ".png")
    layouts.parquet(Path("pictures/night.parquet"), [0, 1], ["crow", "wren"])
    assert main(["plan", "birds.yaml", "--set", "backbones=[miniature]"]) == 0
    assert "wise-ft-saft" in capsys.readouterr().out
    suite = Suite.load("birds.yaml")
    assert list(suite.tasks) == ["birds"]
    assert labels(suite, "birds") == ["zero-shot", "linear-probe", "full", "wise-ft-saft", "saft"]
    assert len(Plan.build(suite).runs) == 1 + 4 * 3
