"""Checks of data are remembered, and made again when anything that they look at has changed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from shiftbench.core.errors import InputError
from shiftbench.core.stamps import observed
from shiftbench.data.sources.base import read_once
from shiftbench.data.tasks.registry import miniature_tasks
from shiftbench.execution import checked, preflight
from shiftbench.execution.checked import Checked, SetState
from shiftbench.suite.plan import Plan
from shiftbench.suite.suite import Suite

SUITE = """
tasks:
  own:
    classes: [cat, dog]
    train: {kind: image-folder, path: train}
    id_test: {source: {kind: image-folder, path: test}}
    shifts:
      drawn: {source: {kind: image-folder, path: drawn}}
backbones: [miniature]
methods:
  zero-shot: {}
  full: {epochs: 1, batch_size: 8}
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SHIFTBENCH_CACHE", str(tmp_path / "cache"))
    for shade, name in enumerate(("train", "test", "drawn")):
        for position, label in enumerate(("cat", "dog")):
            folder = tmp_path / "data" / name / label
            folder.mkdir(parents=True)
            for i in range(12):
                image = Image.new("RGB", (8, 8), (80 * shade, 100 * position, 10 * i))
                image.save(folder / f"{i}.png")
                os.utime(folder / f"{i}.png", (1e9, 1e9))
    # Files that were written just now could still change unseen.
    monkeypatch.setattr("shiftbench.core.stamps.FINE_S", 0.0)
    monkeypatch.setattr("shiftbench.core.stamps.COARSE_S", 0.0)
    return tmp_path / "data"


def plan_of(root: Path, *overrides: str) -> Plan:
    (root / "suite.yaml").write_text(SUITE)
    return Plan.build(Suite.load(root / "suite.yaml", overrides, str(root)))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """A list that grows whenever the checks are really made."""
    made: list[int] = []
    real = preflight.check_images

    def check(*arguments: object) -> object:
        made.append(1)
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(preflight, "check_images", check)
    yield made


def test_what_passed_is_not_checked_again(root: Path, decoded: list[int]) -> None:
    first = preflight.preflight(plan_of(root), str(root))
    assert preflight.preflight(plan_of(root), str(root)) == first
    assert len(decoded) == 1
    for other in ("methods.full.lr=1e-3", "resources.workers=2", "tasks.own.overlap=label"):
        preflight.preflight(plan_of(root, other), str(root))
    preflight.preflight(plan_of(root), str(root), allow_incomplete=True)
    assert len(decoded) == 5


def test_an_edited_image_is_seen(root: Path, decoded: list[int]) -> None:
    plan = plan_of(root)
    preflight.preflight(plan, str(root))
    image = root / "drawn" / "dog" / "7.png"
    image.write_bytes(b"\0" * image.stat().st_size)  # neither name, size nor time tells
    os.utime(image, (1e9, 1e9))
    with pytest.raises(InputError, match=r"dog/7\.png"):
        preflight.preflight(plan, str(root))


def test_what_was_refused_is_refused_again(root: Path) -> None:
    (root / "drawn" / "dog" / "7.png").write_bytes(b"no image")
    for _ in range(2):
        with pytest.raises(InputError, match=r"dog/7\.png"):
            preflight.preflight(plan_of(root), str(root))


def test_other_packages_and_code_are_checked_again(
    root: Path, decoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    preflight.preflight(plan_of(root), str(root))
    monkeypatch.setattr(checked, "package_versions", lambda: {"pillow": "0"})
    preflight.preflight(plan_of(root), str(root))
    monkeypatch.setattr(checked, "own_code", lambda: "edited")
    preflight.preflight(plan_of(root), str(root))
    assert len(decoded) == 3


def test_sources_of_other_packages_are_not_remembered(
    root: Path, decoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checked, "plugin_origins", lambda *_: {"scans": "mylab 1"})
    for _ in range(2):
        preflight.preflight(plan_of(root), str(root))
    assert len(decoded) == 2


def test_a_damaged_or_unwritable_memory_costs_time_only(root: Path, decoded: list[int]) -> None:
    first = preflight.preflight(plan_of(root), str(root))
    (file,) = (root.parent / "cache" / "checks").iterdir()
    for text in ("{", json.dumps({"stamps": {}, "checked": {}}), "[]"):
        file.write_text(text)
        assert preflight.preflight(plan_of(root), str(root)) == first
    assert len(decoded) == 4


def test_it_comes_back_as_it_was() -> None:
    sets = {("a", "id-val"): SetState("t", "f", "one is missing", None)}
    found = Checked("root", sets, {("a", True): "seen"}, {"f": frozenset({"x", "y"})})
    assert Checked.from_json("root", json.loads(json.dumps(found.to_json()))) == found


def test_every_file_that_a_source_reads_is_looked_at(world: Path) -> None:
    """Whatever file of the miniature world changes, a set that holds it is checked again.

    Those of every kind of source are in ``tests/data/test_sources.py``.
    """
    with observed() as seen, read_once():
        for task in miniature_tasks().values():
            searched = [] if task.ood_val is None else [task.ood_val.source]
            for source in (*task.sources().values(), *searched):
                source.whole(str(world))
                source.label_names(str(world))
                source.documented(str(world))
    unseen = {
        path
        for path in world.rglob("*")
        if path.is_file() and not {f"content {path}", f"entries {path.parent}"} & seen.stamps.keys()
    }
    other_labels = {
        path for path in unseen if path.parent.name in ("plus_sign", "spiral", "zigzag")
    }
    assert {path.name for path in unseen - other_labels} == {"RELEASE_v2.0.txt", "RELEASE_v1.1.txt"}
