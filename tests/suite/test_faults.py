"""All faults of a suite are said at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict
from shiftbench.cli import main
from shiftbench.core.document import Place, parse
from shiftbench.core.errors import InputError, Problems
from shiftbench.core.validation import validate
from shiftbench.suite.plan import Plan
from shiftbench.suite.suite import Suite

BASE = """\
backbones: [miniature, openai/ViT-B-16]
data: miniature
tasks:
  cifar10: {methods: {ful: {lr: 1}, lora: {rank: 0}}}
methods:
  zero-shot: {}
  full: {lr: fast, epochs: -1}
  lora: {}
  wise-ft: {parent: elsewhere}
  soup: {parents: [full, nobody], kind: uniform}
budget: {stepps: 3}
"""
CHILD = """\
extends: base.yaml
sedes: [0]
shots: [0, 4]
tasks:
  cifar10: {templates: openai-81}
  birds: {classes: [a], train: {kind: image-fodler, path: x}, id_test: {sauce: {}}, extra: 1}
methods:
  l2-sp: {strenght: 1}
  mine: {method: fulll}
"""
EXPECTED = [
    'x.yaml:2: unknown key "sedes" (did you mean "seeds"?)',
    "x.yaml:3: shots[0]: must be 'full' or greater than or equal to 1, got 0",
    'base.yaml:11: budget: unknown key "stepps" (did you mean "steps"?)',
    'x.yaml:5: tasks.cifar10.templates: "openai-81" is none of',
    'base.yaml:4: tasks.cifar10.methods.ful: this suite has no method "ful"',
    "base.yaml:4: tasks.cifar10.methods.lora.rank: must be greater than",
    'base.yaml:7: methods.full.lr: must be a valid number, got "fast"',
    "base.yaml:7: methods.full.epochs: must be greater than 0, got -1",
    'base.yaml:9: methods.wise-ft.parent: there is no method "elsewhere" (',
    'base.yaml:10: methods.soup.parents: there is no method "nobody" (',
    'x.yaml:8: methods.l2-sp: unknown key "strenght" (did you mean "strength"?)',
    'x.yaml:9: methods.mine.method: unknown method "fulll" (did you mean "full"?)',
    'x.yaml:6: tasks.birds: unknown key "extra"',
    "x.yaml:6: tasks.birds.classes: name at least two classes",
    'x.yaml:6: tasks.birds.train: unknown source "image-fodler"',
    'x.yaml:6: tasks.birds.id_test: unknown key "sauce" (did you mean "source"?)',
]


def test_all_faults_of_all_files_are_said_a_line_each(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("base.yaml").write_text(BASE)
    Path("x.yaml").write_text(CHILD)
    assert main(["plan", "x.yaml"]) == 2
    lines = capsys.readouterr().err.splitlines()
    missing = [text for text in EXPECTED if not any(f"error: {text}" in line for line in lines)]
    assert not missing, lines
    assert all(line.startswith("error: ") for line in lines)
    # What follows from another fault, or is said of another task too, is not said again.
    assert not [line for line in lines if not any(text in line for text in EXPECTED)]
    assert len(lines) == len(set(lines))


def test_faults_of_the_plan_are_said_together_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("x.yaml").write_text(
        "backbones: [nonsense, ./nowhere, openai/ViT-B-16]\ntasks: [cifar10, fmow]\n"
        "methods: {tuned: {of: full}, autoft: {}}\n"
    )
    searched = ["tasks.cifar10.ood_val=null", "tasks.fmow={}"]
    with pytest.raises(InputError) as caught:
        Plan.build(Suite.load("x.yaml", searched))
    places = [line.split(": ")[1] for line in caught.value.lines]
    assert places == ["backbones[0]", "backbones[1]", "methods.tuned", "methods.autoft"]


def test_several_overrides_may_be_wrong(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as caught:
        Suite.load("quickstart", ["seeds", "methods.nobody=null", "seeds=[1]"])
    assert [line.split(": ")[0] for line in caught.value.lines] == [
        "--set seeds", "--set methods.nobody=null"
    ]  # fmt: skip


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    weight: float
    name: str


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")
    kind: str
    either: str | Inner
    count: int | None = None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{}", ['x:1: the key "kind" is missing', 'x:1: the key "either" is missing']),
        (
            "{knid: a, either: b, other: 1}",
            [
                'x:1: unknown key "knid" (did you mean "kind"?)',
                'x:1: unknown key "other" (did you mean "either"?)',
            ],
        ),
        (
            "kind: 3\neither: {weight: x, name: y}\ncount: two",
            [
                "x:1: kind: must be a valid string, got 3",
                'x:2: either.weight: must be a valid number, got "x"',
                'x:3: count: must be a valid integer, got "two"',
            ],
        ),
        (
            "{kind: a, either: {weihgt: 1}}",
            [
                'x:1: either: unknown key "weihgt" (did you mean "weight"?)',
                'x:1: either: the key "name" is missing',
            ],
        ),
        ("{kind: a, either: 3}", ["x:1: either: must be a valid string or a mapping, got 3"]),
    ],
)
def test_a_fault_is_said_once_and_not_what_follows_from_it(text, expected):
    with pytest.raises(InputError) as caught:
        validate(Outer, parse(text, Place("x", 1, Path())))
    assert list(caught.value.lines) == expected
    assert str(caught.value) == "\n".join(expected)


def test_problems_are_collected_and_other_errors_are_not():
    problems = Problems()
    for text in ("one", "two", "one"):
        with problems:
            raise InputError(text)
    with pytest.raises(InputError) as caught:
        problems.check()
    assert caught.value.lines == ("one", "two")
    with pytest.raises(ZeroDivisionError), problems:
        raise ZeroDivisionError
    Problems().check()
