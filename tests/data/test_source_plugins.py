"""Sources of other packages: found by kind, validated, dumped and identified as ours are."""

from __future__ import annotations

import csv
import inspect
import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from pydantic import BaseModel, ValidationError
from shiftbench.core.errors import InputError
from shiftbench.core.plugins import VARIABLE
from shiftbench.data.audit import check_overlap
from shiftbench.data.sources.any_source import AnySource
from shiftbench.data.sources.base import Source
from shiftbench.data.sources.builtin.cifar import Cifar10
from shiftbench.data.sources.registry import SOURCES, plugin_origins
from shiftbench.data.tasks.definition import Task
from shiftbench.data.tasks.opening import open_task
from shiftbench.data.tasks.registry import TASKS, builtin_tasks
from shiftbench.data.verify import check
from shiftbench.execution.sizes import Sizes
from shiftbench.suite.plan import Plan
from shiftbench.suite.suite import Suite

from tests.data import layouts

MYLAB = Path(__file__).parents[1] / "fixtures/mylab"
SUITE = """
data: {data}
backbones: [openai/ViT-B-16]
tasks:
  cifar10: {{}}
  night:
    from: cifar10
    shifts:
      night: {{source: {{kind: night, light: 0.25}}}}
methods:
  zero-shot: {{}}
  tuned: {{of: full, space: {{lr: {{kind: log-uniform, low: 1.0e-6, high: 1.0e-4}}}}}}
"""


class Holder(BaseModel):
    source: AnySource


def install(site: Path, version: str = "1.2") -> None:
    """Leave what pip leaves of the package in a folder that Python looks into."""
    for old in site.glob("*.dist-info"):
        for file in old.iterdir():
            file.unlink()
        old.rmdir()
    folder = site / f"mylab_methods-{version}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: mylab\nVersion: {version}\n")
    points = (
        "[shiftbench.sources]\nnight = mylab.night:Night\nabsent-source = mylab.nowhere:Absent\n"
        "misnamed = mylab.night:Night\nplain = mylab.night:DarkImages\n"
        "[shiftbench.tasks]\ncifar10-night = mylab.night:TASK\n"
    )
    (folder / "entry_points.txt").write_text(points)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "site"
    folder.mkdir()
    install(folder)
    monkeypatch.syspath_prepend(MYLAB)
    monkeypatch.syspath_prepend(folder)
    return folder


@pytest.fixture
def root(tmp_path: Path) -> str:
    layouts.cifar10(tmp_path / "data")
    return str(tmp_path / "data")


def test_a_plugin_is_imported_when_its_kind_is_asked_for(site: Path) -> None:
    assert "night" in SOURCES.entries()
    Holder.model_validate({"source": {"kind": "cifar10.1"}})
    assert "mylab" not in sys.modules
    source = Holder.model_validate({"source": {"kind": "night"}}).source
    assert type(source).__module__ == "mylab.night"


def test_sources_need_no_heavy_import() -> None:
    code = (
        "import sys; import shiftbench.data.tasks.opening, shiftbench.data.tasks.registry as r; "
        "r.builtin_tasks(); r.miniature_tasks(); "
        "print([m for m in ('torch', 'ray', 'pyarrow', 'PIL', 'open_clip') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_task_keeps_the_settings_of_a_plugins_source(site: Path) -> None:
    task = TASKS.load("cifar10-night").model_copy(update={"name": "mine"})
    dumped = task.model_dump(mode="json")
    assert dumped["shifts"]["night"]["source"] == {
        "kind": "night", "light": 0.5, "part": [0.0, 1.0], "limit": None, "balanced": False,
    }  # fmt: skip
    again = Task.model_validate_json(task.model_dump_json(), strict=True)
    assert again == task
    assert type(again.shifts["night"].source) is type(task.shifts["night"].source)
    assert Task.model_validate(dumped) == task


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"kind": "nihgt"}, 'unknown source "nihgt" (did you mean "night"?)'),
        ({"kind": "absent-source"}, '"absent-source" of mylab 1.2 (mylab.nowhere:Absent) cannot'),
        ({"kind": "misnamed"}, 'its kind is "night"'),
        ({"kind": "plain"}, "not a subclass of shiftbench.Source"),
        ({"kind": 3}, 'unknown source "3"'),
        ({"light": 0.5}, "kind"),
        ({"kind": "night", "light": 2}, "less than 1"),
        ({"kind": "night", "ligth": 0.5}, "ligth"),
        ("night", "dictionary"),
    ],
)
def test_what_is_no_source_is_refused(site: Path, given: object, message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Holder.model_validate({"source": given})
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("kind: night", "kind: nihgt", 'unknown source "nihgt" (did you mean "night"?)'),
        ("light: 0.25", "ligth: 0.25", 'unknown key "ligth" (did you mean "light"?)'),
        ("light: 0.25", "light: dim", "light: must be a valid number"),
        ("kind: night, light: 0.25", "kind: absent-source", 'source "absent-source" of mylab 1.2'),
    ],
)
def test_a_suite_names_the_line(
    site: Path, tmp_path: Path, old: str, new: str, message: str
) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(SUITE.format(data="miniature").replace(old, new))
    with pytest.raises(InputError) as caught:
        Suite.load(file)
    text = str(caught.value)
    assert message in text
    assert ":9: tasks.night.shifts.night.source" in text
    assert "\n" not in text


@pytest.mark.parametrize("kind", ["nihgt", "absent-source"])
def test_a_wrong_kind_for_validation_is_not_taken_for_a_holdout(
    site: Path, tmp_path: Path, kind: str
) -> None:
    file = tmp_path / "x.yaml"
    id_val = f"    from: cifar10\n    id_val: {{kind: {kind}}}\n"
    file.write_text(SUITE.format(data="miniature").replace("    from: cifar10\n", id_val))
    with pytest.raises(InputError, match=rf'tasks\.night\.id_val: (unknown )?source "{kind}"'):
        Suite.load(file)


def test_a_source_that_is_not_registered_is_refused() -> None:
    class Mine(Source):
        kind: str = "mine"

        def read(self, root: str) -> Any:
            raise NotImplementedError

    with pytest.raises(ValidationError, match='unknown source "mine"'):
        Holder(source=Mine())


def test_the_json_schema_has_the_settings_of_our_kinds_and_lets_others_pass(site: Path) -> None:
    validator = jsonschema.Draft202012Validator(Holder.model_json_schema())
    for source in ({"kind": "cifar10", "split": "test"}, {"kind": "night", "light": 0.1}):
        validator.validate({"source": source})
    for source in ({"kind": "cifar10", "split": "tset"}, {"kind": "parquet"}, {"light": 0.1}):
        with pytest.raises(jsonschema.ValidationError):
            validator.validate({"source": source})


# Verified, opened, counted, audited


def test_a_plugins_source_is_verified(site: Path, root: str) -> None:
    source = SOURCES.load("night")()
    finding = check(source, root, "all")
    assert (finding.name, finding.status, finding.detail) == ("night", "ok", "30 images")
    assert finding.fingerprint != check(Cifar10(split="test"), root).fingerprint
    assert check(source, root + "/nowhere").status == "absent"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("day.ids[:-1]", "30 labels, but 29 ids"),
        ("np.repeat(day.ids[:15], 2)", "the same id twice"),
        ("day.labels", "ids of dtype int64, not text"),
        ("day.nothing", "AttributeError: 'ImageSet' object has no attribute 'nothing'"),
    ],
)
def test_a_reader_with_a_bug_is_one_line_that_names_it(
    site: Path,
    root: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: str,
    message: str,
) -> None:
    text = (MYLAB / "mylab/night.py").read_text()
    text = text.replace("            day,\n", f"            day, ids={change},\n")
    (tmp_path / "buggy.py").write_text(text.replace('"night"] = "night"', '"bug"] = "bug"'))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv(VARIABLE, "sources/bug=buggy:Night")
    finding = check(SOURCES.load("bug")(), root)
    assert finding.status == "refused"
    assert message in finding.detail
    assert "\n" not in finding.detail
    if "Error" in message:
        assert finding.detail.startswith(f'source "bug" of {VARIABLE}')


def test_a_task_of_a_plugin_is_opened_and_audited(site: Path, root: str, tmp_path: Path) -> None:
    task = TASKS.load("cifar10-night")
    data = open_task(task, root, None, 0)
    assert data.classes == layouts.CIFAR_NAMES
    item, images = data.evaluation["night"]
    assert item.source.kind == "night"
    assert images.metadata["hour"][:3].tolist() == ["dusk", "night", "dusk"]
    light = [np.asarray(images.images[i]).mean() for i in (0, 1)]
    day = [np.asarray(data.evaluation["id-test"][1].images[i]).mean() for i in (0, 1)]
    assert light[0] / day[0] > 1.8 * light[1] / day[1]
    assert check_overlap(task, data, None, tmp_path / "cache") is None
    assert len(list((tmp_path / "cache/hashes").iterdir())) == 4  # train, id-val, id-test, night
    seen = task.model_copy(update={"train": task.shifts["night"].source})
    with pytest.raises(InputError, match="night has 29 images of train"):
        check_overlap(seen, open_task(seen, root, None, 0), None, tmp_path / "cache")


def test_a_plan_counts_its_images(site: Path, root: str, tmp_path: Path) -> None:
    run = next(run for run in planned(tmp_path, root).runs.values() if run.task.name == "night")
    run_alone = Plan.build(Suite.load(tmp_path / "x.yaml", ["tasks=[night]"]))
    assert run.id in run_alone.runs
    counted = [0.1 * 50_000, 10_000, 30, 2_000, 2_000]
    assert sorted(Sizes(root).evaluated(run).values()) == sorted(counted)


# Identity


def planned(folder: Path, data: str = "miniature", *overrides: str) -> Plan:
    file = folder / "x.yaml"
    file.write_text(SUITE.format(data=data))
    return Plan.build(Suite.load(file, overrides))


def ids(plan: Plan, task: str) -> dict[str, tuple[str, str | None]]:
    return {
        run.label: (run.id, run.search and run.search.id)
        for run in plan.runs.values()
        if run.task.name == task
    }


def test_another_version_of_a_source_is_another_run_of_its_tasks_alone(
    site: Path, tmp_path: Path
) -> None:
    before = planned(tmp_path)
    assert ids(before, "night") == ids(planned(tmp_path), "night")
    install(site, "1.3")
    after = planned(tmp_path)
    assert ids(after, "cifar10") == ids(before, "cifar10")
    assert not set(ids(after, "night").values()) & set(ids(before, "night").values())
    other = planned(tmp_path, "miniature", "tasks.night.shifts.night.source.light=0.125")
    assert not set(ids(other, "night").values()) & set(ids(after, "night").values())


@pytest.mark.parametrize("role", ["train", "id_val", "id_test", "shift"])
def test_a_source_counts_in_whatever_role(site: Path, role: str) -> None:
    source = {"kind": "night"}
    task = builtin_tasks()["cifar10"]
    assert plugin_origins(task) == {}
    change = {
        "train": {"train": source},
        "id_val": {"id_val": source},
        "id_test": {"id_test": {"source": source}},
        "shift": {"shifts": {"dark": {"source": source}}},
    }[role]
    changed = Task.model_validate(task.model_dump() | change)
    assert plugin_origins(changed) == {"night": SOURCES.entry("night").origin}


def test_a_search_counts_what_it_looks_at(site: Path, tmp_path: Path) -> None:
    override = "tasks.cifar10.ood_val.source={kind: night}"
    before = ids(planned(tmp_path, "miniature", override), "cifar10")
    install(site, "1.3")
    after = ids(planned(tmp_path, "miniature", override), "cifar10")
    assert before["zero-shot"] == after["zero-shot"]
    assert before["tuned"][0] != after["tuned"][0]
    assert before["tuned"][1] != after["tuned"][1]


def test_an_edit_under_development_is_another_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (MYLAB / "mylab/night.py").read_text()
    (tmp_path / "darkness.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv(VARIABLE, "sources/night=darkness:Night")
    before = planned(tmp_path)
    (tmp_path / "darkness.py").write_text(text + "# edited\n")
    assert ids(planned(tmp_path), "night") != ids(before, "night")
    assert ids(planned(tmp_path), "cifar10") == ids(before, "cifar10")


def test_the_example_for_authors_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = textwrap.dedent(inspect.getdoc(Source) or "")
    code = textwrap.dedent(text.split("the images::\n")[1].split("\nand register it")[0])
    (tmp_path / "scanslab.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv(VARIABLE, "sources/scans=scanslab:Scans")
    with (tmp_path / "scans.csv").open("w") as file:
        rows = [(f"{i}.png", i % 2, "ns"[i % 3 > 1]) for i in range(6)]
        csv.writer(file).writerows([("file", "label", "hospital"), *rows])
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans.csv").rename(tmp_path / "scans/scans.csv")
    for i in range(6):
        layouts.write_image(tmp_path / f"scans/{i}.png", i)
    spec = json.dumps({"source": {"kind": "scans", "hospital": "n", "limit": 3}})
    source = Holder.model_validate_json(spec).source
    assert len(source.open(str(tmp_path))) == 3
    finding = check(source, str(tmp_path))
    assert (finding.status, finding.detail) == ("ok", "4 images")
    assert check(source, str(tmp_path / "nowhere")).status == "absent"
