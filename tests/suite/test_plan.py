from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field
from shiftbench.core import plugins
from shiftbench.core.errors import InputError
from shiftbench.data.tasks.definition import IN_NO_IDENTITY
from shiftbench.data.tasks.registry import builtin_tasks
from shiftbench.methods.base import DerivedMethod, Parent
from shiftbench.methods.builtin.full import Full
from shiftbench.methods.config import MethodConfig, StoreConfig, TrainingConfig
from shiftbench.methods.registry import METHODS
from shiftbench.suite.file import Budget
from shiftbench.suite.identity import IDENTITY_VERSION, identity, run_id
from shiftbench.suite.plan import Plan, Run, evaluation_metrics
from shiftbench.suite.suite import Suite

SUITE = """\
backbones: [openai/ViT-B-16]
tasks: [cifar10]
methods:
  zero-shot: {}
  full: {lr: 1e-5}
  linear-probe: {}
  lp-ft: {}
  wise-ft: {}
  wise-ft-lp: {method: wise-ft, parent: linear-probe}
"""


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """Plans a suite: the text, the overrides."""
    monkeypatch.chdir(tmp_path)

    def plan(text: str = SUITE, *overrides: str, data: str | None = None) -> Plan:
        Path("x.yaml").write_text(text)
        return Plan.build(Suite.load("x.yaml", overrides, data))

    return plan


def named(plan: Plan, *keys: str) -> dict[Any, Run]:
    """Runs by label, or by label and other attributes."""
    if not keys:
        return {run.label: run for run in plan.runs.values()}
    return {(run.label, *(getattr(run, key) for key in keys)): run for run in plan.runs.values()}


# The graph


def test_parents_come_before_their_children(plan):
    text = SUITE.replace("methods:\n", "methods:\n  first: {method: wise-ft, parent: lp-ft}\n")
    seen: set[str] = set()
    for key, run in plan(text, "seeds=[0, 1]").runs.items():
        assert key == run.id
        assert {parent for _, parent in run.parents} <= seen
        seen.add(run.id)


def test_parents_are_the_runs_of_the_same_cell(plan):
    found = plan(SUITE, "seeds=[0, 1]", "shots=[4, full]", "tasks=[cifar10, fmow]")
    for run in found.runs.values():
        for named, parent_id in run.parents:
            parent = found.runs[parent_id]
            assert (parent.label, None) == named
            assert (parent.task, parent.seed, parent.shots) == (run.task, run.seed, run.shots)


def test_the_grid_is_complete(plan):
    found = plan(
        SUITE,
        "seeds=[0, 1, 2]",
        "shots=[4, full]",
        "tasks=[cifar10, fmow]",
        "backbones=[openai/ViT-B-16, openai/ViT-B-32]",
    )
    # Of 6 methods only zero-shot does not vary with seed and shots.
    assert len(found.runs) == 2 * 2 * (5 * 3 * 2 + 1)


def test_a_parent_is_trained_once_for_all_that_need_it(plan):
    runs = named(plan(SUITE))
    assert runs["lp-ft"].parents == runs["wise-ft-lp"].parents
    assert runs["lp-ft"].parents == ((Parent("linear-probe"), runs["linear-probe"].id),)
    assert len(runs) == 6


def test_what_no_seed_can_change_is_one_run(plan):
    text = SUITE.replace("linear-probe}", "zero-shot}")
    found = plan(text, "seeds=[3, 4]", "shots=[2, full]")
    counts = {label: len(runs) for (_, _, label), runs in found.groups()}
    assert counts == {
        "zero-shot": 1,
        "full": 4,
        "linear-probe": 4,
        "lp-ft": 4,
        "wise-ft": 4,
        "wise-ft-lp": 1,
    }
    alone = named(found)["zero-shot"]
    assert (alone.seed, alone.shots) == (0, None)


SOUP = """\
backbones: [openai/ViT-B-16]
tasks: [cifar10]
methods:
  soup: {parents: [lp-ft], over_seeds: [0, 5]}
  linear-probe: {}
  lp-ft: {}
"""


def test_parents_of_seeds_that_the_suite_does_not_have_are_added(plan):
    found = plan(SOUP, "seeds=[1]")
    runs = named(found, "seed")
    assert runs.keys() == {
        ("soup", 0), *((label, seed) for label in ("linear-probe", "lp-ft") for seed in (0, 5, 1))
    }  # fmt: skip
    assert runs["soup", 0].parents == (
        (Parent("lp-ft", 0), runs["lp-ft", 0].id),
        (Parent("lp-ft", 5), runs["lp-ft", 5].id),
    )
    assert runs["lp-ft", 5].parents == ((Parent("linear-probe"), runs["linear-probe", 5].id),)
    seen: set[str] = set()
    for run in found.runs.values():
        assert {parent for _, parent in run.parents} <= seen
        seen.add(run.id)


def test_a_run_over_given_seeds_is_the_same_in_every_cell(plan):
    one, several = plan(SOUP, "seeds=[1]"), plan(SOUP, "seeds=[0, 1, 2, 5]")
    assert named(one)["soup"].id == named(several)["soup"].id
    assert sum(run.label == "soup" for run in several.runs.values()) == 1
    other = plan(SOUP.replace("[0, 5]", "[0, 4]"), "seeds=[1]")
    assert named(other)["soup"].id != named(one)["soup"].id


def test_a_run_over_given_seeds_is_another_for_every_number_of_shots(plan):
    soups = [run for run in plan(SOUP, "shots=[2, full]").runs.values() if run.label == "soup"]
    assert [(run.seed, run.shots) for run in soups] == [(0, 2), (0, None)]


def test_what_builds_on_given_seeds_alone_needs_no_seed_either(plan):
    text = SOUP.replace("methods:\n", "methods:\n  curve: {method: wise-ft, parent: soup}\n")
    found = plan(text, "seeds=[1, 2]")
    assert [run.seed for run in found.runs.values() if run.label == "curve"] == [0]


def test_runs_make_their_methods(plan):
    run = named(plan(SUITE))["full"]
    assert isinstance(run.create(), Full)
    assert run.create().config == run.config


@pytest.mark.parametrize("name", ["nonsense", "./nowhere"])
def test_a_backbone_that_is_none_is_refused(plan, name):
    with pytest.raises(InputError, match=r"^x\.yaml:1: backbones\[0\]: "):
        plan(SUITE.replace("openai/ViT-B-16", name))


# Identity


class Settings(MethodConfig):
    """Settings of a method that has them all."""

    strength: float = 1.0
    names: tuple[str, ...] = ("a", "b")
    table: dict[str, int] = Field(default_factory=lambda: {"p": 1, "q": 2})
    parent: str = "full"
    parents: tuple[str, ...] = ("full", "lp-ft")


def spec(**changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "task": builtin_tasks()["cifar10"],
        "data_kind": "real",
        "backbone": "openai/ViT-B-16",
        "method": "full",
        "plugin": None,
        "config": Settings(),
        "parents": ("0123456789abcdef",),
        "seed": 0,
        "shots": None,
        "budget": Budget(),
    }
    return identity(**(values | changes))


def changed_task(**changes: Any) -> Any:
    return builtin_tasks()["cifar10"].model_copy(update=changes)


CHANGES: dict[str, dict[str, Any]] = {
    "task": {"task": builtin_tasks()["fmow"]},
    "task name": {"task": changed_task(name="cifar")},
    "classes": {"task": changed_task(classes=("a", "b"))},
    "templates": {"task": changed_task(templates="simple")},
    "train": {"task": changed_task(train=builtin_tasks()["fmow"].train)},
    "id_val": {"task": changed_task(id_val=builtin_tasks()["fmow"].id_val)},
    "id_test": {"task": changed_task(id_test=builtin_tasks()["fmow"].id_test)},
    "ood_val": {"task": changed_task(ood_val=None)},
    "shifts": {"task": changed_task(shifts={})},
    "class_split": {"task": changed_task(class_split="base-to-new")},
    "overlap": {"task": changed_task(overlap="label")},
    "also_metrics": {"task": changed_task(also_metrics=("nll",))},
    "data_kind": {"data_kind": "miniature/1"},
    "backbone": {"backbone": "openai/ViT-B-32"},
    "method": {"method": "l2-sp"},
    "plugin": {"plugin": "mylab 1.0"},
    "setting": {"config": Settings(strength=2)},
    "order of a list": {"config": Settings(names=("b", "a"))},
    "setting in a table": {"config": Settings(table={"p": 1, "q": 3})},
    "parent": {"parents": ("fedcba9876543210",)},
    "no parent": {"parents": ()},
    "seed": {"seed": 1},
    "shots": {"shots": 1},
    "steps": {"budget": Budget(steps=1)},
    "evaluation images": {"budget": Budget(evaluation_images=1)},
    "search": {"search": "0123456789abcdef"},
    "source of a plugin": {"sources": {"scans": "mylab 1.0"}},
    "its version": {"sources": {"scans": "mylab 1.1"}},
    "metric of a plugin": {"metrics": {"scans": "mylab 1.0"}},
    "version of the metric": {"metrics": {"scans": "mylab 1.1"}},
    "revision": {"revision": 1},
    "next revision": {"revision": 2},
}


def test_the_identity_is_the_golden_one():
    """A change here means that old results are no longer found: raise ``IDENTITY_VERSION``."""
    frozen = {
        "version": 1,
        "task": {"name": "birds", "classes": ["crow", "wren"]},
        "config": {"lr": 1e-5, "epochs": 10.0, "clip": None},
        "shots": 4,
        "name": "é",
    }
    assert run_id(frozen) == "795af8a6c95586c8"
    assert IDENTITY_VERSION == 4


def test_a_store_is_part_of_the_identity_where_it_is_asked_for():
    """Runs without one keep the identity that they had before there were any."""
    config = TrainingConfig()
    assert "store" not in spec(config=config)["config"]
    ids = {
        run_id(spec(config=config.model_copy(update={"store": store})))
        for store in (
            None,
            StoreConfig(side=256),
            StoreConfig(side=288),
            StoreConfig(side=256, format="jpeg"),
        )
    }
    assert len(ids) == 4


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_all_that_can_change_the_outcome_changes_the_identity(change):
    assert run_id(spec(**change)) != run_id(spec())


def test_every_field_is_covered():
    changed = {key for change in CHANGES.values() for key in change}
    plugins = {"scans": "mylab 1.0"}
    assert changed == spec(sources=plugins, metrics=plugins, revision=1).keys() - {"version"}
    fields = type(builtin_tasks()["fmow"]).model_fields
    of_task = {name for name in CHANGES if name in fields}
    assert of_task | {"name"} | IN_NO_IDENTITY == set(fields)


def test_all_changes_differ_from_each_other():
    ids = [run_id(spec(**change)) for change in CHANGES.values()]
    assert len(set(ids)) == len(ids)


def test_the_version_is_part_of_the_identity():
    assert run_id(spec() | {"version": IDENTITY_VERSION + 1}) != run_id(spec())


@pytest.mark.parametrize(
    "config",
    [
        Settings(parent="other"),
        Settings(parents=("other",)),
        Settings(strength=1),
        Settings(table={"q": 2, "p": 1}),
    ],
    ids=["parent's label", "parents' labels", "whole number", "order of keys"],
)
def test_nothing_else_changes_the_identity(config):
    assert run_id(spec(config=config)) == run_id(spec())


def reordered(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: reordered(item) for key, item in reversed(value.items())}
    return [reordered(item) for item in value] if isinstance(value, list | tuple) else value


def test_the_order_of_keys_does_not_count():
    assert run_id(reordered(json.loads(json.dumps(spec())))) == run_id(spec())


@pytest.mark.parametrize(
    "override",
    [
        "name=other",
        "description=other",
        "resources.workers=4",
        "resources.gpus_per_worker=1",
        "resources.cpus_per_worker=2",
        "resources.micro_batch=8",
        "resources.data_workers=2",
        "data=/elsewhere",
        "methods.full.epochs=10",
        "methods.full.max_grad_norm=1",
        "methods.full.lr=0.00001",
        "seeds=[0]",
        "tasks=[cifar10]",
    ],
)
def test_what_cannot_change_the_outcome_leaves_all_runs_as_they_are(plan, override):
    assert plan(SUITE, override).runs.keys() == plan(SUITE).runs.keys()


def test_labels_are_names_only(plan):
    text = SUITE.replace("  full: {", "  tuned: {method: full, ")
    renamed = plan(text.replace("wise-ft: {}", "wise-ft: {parent: tuned}"))
    assert renamed.runs.keys() == plan(SUITE).runs.keys()


@pytest.mark.parametrize(
    ("override", "stay"),
    [
        ("methods.full.lr=1", {"zero-shot", "linear-probe", "lp-ft", "wise-ft-lp"}),
        ("methods.linear-probe.lr=1", {"zero-shot", "full", "wise-ft"}),
        ("methods.wise-ft.alpha=1", {"zero-shot", "full", "linear-probe", "lp-ft", "wise-ft-lp"}),
        ("seeds=[1]", {"zero-shot"}),
        ("shots=[4]", {"zero-shot"}),
        ("budget.steps=1", {"zero-shot"}),
        ("budget.evaluation_images=1", set()),
        ("tasks.cifar10.templates=simple", set()),
        ("data=miniature", set()),
        ("backbones=[openai/ViT-B-32]", set()),
    ],
)
def test_a_change_is_felt_by_what_builds_on_it_and_by_nothing_else(plan, override, stay):
    before, after = named(plan(SUITE)), named(plan(SUITE, override))
    assert {label for label in before if before[label].id == after[label].id} == stay


def test_ood_validation_data_are_no_part_of_a_run(plan):
    assert all(run.task.ood_val is None for run in plan(SUITE).runs.values())
    override = "tasks.cifar10.ood_val.metric=macro-f1"
    assert plan(SUITE, override).runs.keys() == plan(SUITE).runs.keys()


def test_ids_are_the_same_in_every_process(plan):
    expected = list(plan(SUITE).runs)
    code = (
        "from shiftbench.suite.suite import Suite\nfrom shiftbench.suite.plan import Plan\n"
        "print(*Plan.build(Suite.load('x.yaml')).runs)"
    )
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.split() == expected


class Toy(DerivedMethod[MethodConfig]):
    """A method of another package."""

    name = "toy"
    Config = MethodConfig
    seeded = False

    def derive(self, variant, derivation):
        return derivation.zero_shot


def test_another_version_of_a_plugin_makes_other_runs(plan, monkeypatch):
    def entry(version: str) -> plugins.Entry:
        return plugins.Entry("toy", f"{__name__}:Toy", "toys", version)

    ids = set()
    for version in ("1.0", "1.0", "1.1"):
        found = {**METHODS.entries(), "toy": entry(version)}
        monkeypatch.setattr(METHODS, "entries", lambda found=found: found)
        text = "backbones: [a/b]\ntasks: {t: {}}\nmethods: [toy]\n".replace("{t: {}}", TASK)
        ids |= set(plan(text).runs)
    assert len(ids) == 2


TASK = (
    "{t: {classes: [a, b], train: {kind: image-folder, path: x}, "
    "id_test: {source: {kind: image-folder, path: y}}}}"
)


def test_a_run_is_evaluated_on_all_sets_but_those_of_a_search(plan):
    run = named(plan(SUITE.replace("cifar10", "fmow")))["full"]
    assert evaluation_metrics(run.task) == {
        "id-val": "accuracy",
        "id-test": "accuracy",
        "fmow-ood": "worst-region",
    }


# Searches

SEARCHED = """\
backbones: [openai/ViT-B-16]
tasks: [cifar10]
methods:
  tuned: {of: full}
seeds: [0, 1]
"""


def searches(plan: Plan) -> set[str]:
    return {run.search.id for run in plan.runs.values() if run.search is not None}


def test_seeds_share_a_search_unless_its_trials_depend_on_the_seed(plan):
    assert len(plan(SEARCHED).runs) == 2
    assert len(searches(plan(SEARCHED))) == 1
    assert len(searches(plan(SEARCHED, "methods.tuned.search={per_seed: true}"))) == 2
    assert len(searches(plan(SEARCHED, "shots=[4]"))) == 2
    of_parent = "methods={linear-probe: {}, tuned: {of: lp-ft}}"
    assert len(searches(plan(SEARCHED, of_parent))) == 2


@pytest.mark.parametrize(
    "override",
    [
        "tasks={cifar10: {ood_val: {source: {limit: 50}}}}",
        "methods.tuned.search={n_trials: 3}",
        "methods.tuned.settings={lr: 1e-4}",
        "methods.tuned.space={lr: {kind: uniform, low: 0.1, high: 0.2}}",
    ],
)
def test_what_changes_a_search_changes_its_runs(plan, override):
    before, after = plan(SEARCHED), plan(SEARCHED, override)
    assert searches(before).isdisjoint(searches(after))
    assert before.runs.keys().isdisjoint(after.runs.keys())


def test_a_search_needs_ood_validation_data_and_a_draw_does_not(plan):
    no_data = "tasks={cifar10: {ood_val: null}}"
    with pytest.raises(
        InputError, match="tuned: searches on OOD validation data, but task cifar10"
    ):
        plan(SEARCHED, no_data)
    drawn = plan(SEARCHED, no_data, "methods.tuned.search={n_trials: 0}")
    assert {run.searched for run in drawn.runs.values()} == {False}
    assert {run.searched for run in plan(SEARCHED).runs.values()} == {True}


def test_the_label_of_a_wrapped_methods_parent_is_a_name_only(plan):
    text = SEARCHED.replace(
        "tuned: {of: full}", "linear-probe: {}\n  tuned: {of: lp-ft, settings: {parent: PARENT}}"
    )
    one = plan(text.replace("PARENT", "linear-probe"))
    renamed = text.replace("linear-probe: {}", "probe: {method: linear-probe}")
    assert plan(renamed.replace("PARENT", "probe")).runs.keys() == one.runs.keys()


# Training sets


WHOLE = """\
backbones: [openai/ViT-B-16]
tasks:
  cifar10:
    id_val: {holdout: 0.1, withheld_from: selecting}
methods:
  zero-shot: {}
  full: {}
  wise-ft: {}
  flyp: {checkpoint: id-val}
  wise-ft-flyp: {method: wise-ft, parent: flyp}
  soup: {parents: [full, flyp], kind: uniform}
"""


def test_methods_that_select_nothing_train_on_the_whole_training_set(plan):
    runs = named(plan(WHOLE))
    seen = {"full", "wise-ft", "soup"}  # or build on what has seen all of it
    assert {label for label, run in runs.items() if run.whole} == seen
    parts = {label: run.held_out for label, run in runs.items()}
    assert parts == dict.fromkeys(seen, 0.0) | {
        "zero-shot": None,
        "flyp": 0.1,
        "wise-ft-flyp": 0.1,
    }


def test_runs_from_which_all_is_withheld_are_those_of_the_plain_task(plan):
    plain = named(plan(WHOLE, "tasks.cifar10.id_val.withheld_from=all"))
    runs = named(plan(WHOLE))
    same = {label for label, run in runs.items() if run.id == plain[label].id}
    assert same == {"zero-shot", "flyp", "wise-ft-flyp"}
    assert {run.task.model_dump_json() for run in runs.values()} == {
        plain["full"].task.model_dump_json()
    }


def test_nothing_is_selected_on_images_that_were_trained_on(plan):
    text = WHOLE.replace("uniform", "greedy")
    message = r'soup: selects on ID validation images that its parent "full" trains on; leave'
    with pytest.raises(InputError, match=message):
        plan(text)
    assert not named(plan(text, "tasks.cifar10.id_val.withheld_from=all"))["soup"].whole
