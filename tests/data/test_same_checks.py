"""``data verify``, ``plan`` and ``run`` refuse the same data, each before anything is computed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from shiftbench.cli import main
from shiftbench.data.sources.files import FileImages
from shiftbench.execution.preflight import preflight
from shiftbench.leaderboard.store import read
from shiftbench.suite.plan import Plan
from shiftbench.suite.suite import Suite

from tests.data import layouts

SUITE = """
tasks:
  t:
    classes: from-data
    train: {kind: image-folder, path: train}
    id_test: {source: {kind: image-folder, path: test}}
    shifts: {s: {source: {kind: image-folder, path: shift}}}
backbones: [miniature]
methods: {zero-shot: {}}
"""
NAMES = ("circle", "square")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for seed, split in enumerate(("train", "test", "shift")):
        for k, name in enumerate(NAMES):
            for i in range(6):
                layouts.write_image(tmp_path / split / name / f"{i}.png", 100 * seed + 10 * k + i)
    (tmp_path / "x.yaml").write_text(SUITE)
    return tmp_path


def twin(world: Path) -> None:
    shutil.copytree(world / "shift/circle", world / "train/Circle")


def empty(world: Path) -> None:
    (world / "test/aaa").mkdir()


def link(world: Path) -> None:
    (world / "train/circle/gone.png").symlink_to("../.annex/xx.png")


def no_text(world: Path) -> None:
    folder = os.fsencode(world / "test/square")
    os.rename(folder + b"/0.png", folder + b"/caf\xe9.png")  # noqa: PTH104


def nothing(world: Path) -> None:
    (world / "shift/circle/3.png").write_bytes(b"")


def stranger(world: Path) -> None:
    (world / "shift/circle").rename(world / "shift/triangle")


FAULTS = {
    twin: '"Circle" and "circle" are the same class',
    empty: "aaa",
    link: "train/circle/gone.png: is a link that leads nowhere",
    no_text: "test/square/caf\\xe9.png: its name is not UTF-8",
    nothing: "shift/circle/3.png: is empty",
    stranger: 'the label "triangle" is none of',
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_what_run_refuses_verify_and_plan_refuse_too(
    world: Path,
    fault: Callable[[Path], None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert main(["data", "verify", "x.yaml", "--data", str(world)]) == 0
    fault(world)
    message = FAULTS[fault]
    assert main(["data", "verify", "x.yaml", "--data", str(world)]) == 1
    assert message in capsys.readouterr().out
    assert main(["run", "x.yaml", "--data", str(world), "--executor", "in-process"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line
    monkeypatch.setattr(FileImages, "__getitem__", lambda *_: pytest.fail("decoded an image"))
    assert main(["plan", "x.yaml", "--data", str(world)]) == 2
    (planned,) = capsys.readouterr().err.strip().splitlines()
    assert planned == line


def test_rows_say_what_was_not_read_and_what_was_left_out(world: Path) -> None:
    (world / "test/circle/notes.txt").write_text("x")
    for i in range(2):  # of which at most one is held out
        (world / f"train/circle/{i}.png").write_bytes(b"\x89PNG broken")
    plan = Plan.build(Suite.load("x.yaml", [], str(world)))
    checked = preflight(plan, str(world), allow_incomplete=True)
    assert checked.remarks.files == {
        ("t", "id-test"): "image-folder test: files not read: 1 .txt",
    }
    assert all("train/circle/" in why for why in checked.remarks.incomplete.values())
    assert set(checked.remarks.incomplete) == {("t", "id-val"), ("t", "id-test"), ("t", "s")}


def test_plan_names_an_unknown_backbone(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = SUITE.replace("miniature", "openai/ViT-B-99")
    (world / "x.yaml").write_text(text)
    assert main(["plan", "x.yaml"]) == 2
    assert "unknown backbone 'openai/ViT-B-99'" in capsys.readouterr().err


def test_fewer_images_than_shots_are_told_by_plan_and_in_every_row_of_them(
    world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    methods = "{zero-shot: {}, full: {epochs: 1, batch_size: 4, warmup_steps: 0}}"
    text = SUITE.replace("{zero-shot: {}}", methods) + "shots: [2, 16]\ndata: .\n"
    (world / "x.yaml").write_text(text)
    assert main(["plan", "x.yaml"]) == 0
    few = "2 of 2 classes have fewer than 16 images (circle 5, square 5)"
    of_val = "2 of 2 classes have fewer than 4 ID validation images (circle 1, square 1)"
    assert f"remark: task t, 16 shots: {few}; {of_val}\n" in capsys.readouterr().out
    assert main(["run", "x.yaml", "--executor", "in-process", "--results", "out"]) == 0
    found = {(row["shots"], row["data_remark"]) for row in read(world / "out").to_pylist()}
    of_two = of_val.replace("than 4", "than 2")
    assert found == {(None, None), (2, of_two), (16, f"{few}; {of_val}")}
    assert f"t · id-test: {few}; {of_val}" in " ".join(capsys.readouterr().out.split())
