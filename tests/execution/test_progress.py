"""How far runs are, read from the results folder alone."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from rich.console import Console
from shiftbench.cli import main
from shiftbench.execution.display import Display
from shiftbench.execution.in_process import InProcess
from shiftbench.execution.launch import launch
from shiftbench.execution.progress import STALE_S, RunProgress, TrainingWriter, progress_of
from shiftbench.execution.runinfo import run_info
from shiftbench.leaderboard.runfolder import RunFolder
from shiftbench.leaderboard.schema import failed
from shiftbench.leaderboard.store import write_run
from shiftbench.suite.plan import Plan, Run
from shiftbench.suite.suite import Suite

SUITE = """
data: miniature
backbones: [miniature]
tasks: [cifar10]
methods:
  zero-shot: {}
  full: {lr: 5e-4, epochs: 1, batch_size: 8, warmup_steps: 1}
shots: [2]
budget: {evaluation_images: 20}
"""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    file = tmp_path / "small.yaml"
    file.write_text(SUITE)
    return file


@pytest.fixture
def plan(suite: Path) -> Plan:
    return Plan.build(Suite.load(suite))


@pytest.fixture
def full(plan: Plan) -> Run:
    (run,) = (run for run in plan.runs.values() if run.label == "full")
    return run


def of(plan: Plan, results: Path, run: Run, later: float = 0) -> RunProgress:
    found = progress_of(plan, results, now=lambda: time.time() + later)
    return next(progress for progress in found if progress.run is run)


def test_a_training_says_how_far_and_how_fast_it_is(plan: Plan, full: Run, tmp_path: Path) -> None:
    folder, clock = RunFolder.of(tmp_path, full.id), iter([0.0, 100.0, 101.0, 102.0, 110.0, 110.1])
    write = TrainingWriter(folder.progress, batch_size=32, clock=lambda: next(clock))
    write(0, 1000)
    assert of(plan, tmp_path, full) == RunProgress(full, "training", step=0, steps=1000)
    write(1, 1000)  # preparing took 100 s, which say nothing of its speed
    write(11, 1000)  # too soon to be written
    write(21, 1000)
    assert of(plan, tmp_path, full).step == 1
    write(101, 1000)
    at = of(plan, tmp_path, full)
    assert (at.step, at.steps, at.images_per_second) == (101, 1000, pytest.approx(10 * 32))
    assert at.seconds_left == pytest.approx(89.9)
    write(102, 1000)
    assert of(plan, tmp_path, full).step == 101


def test_a_training_that_writes_nothing_any_more_was_interrupted(
    plan: Plan, full: Run, tmp_path: Path
) -> None:
    TrainingWriter(RunFolder.of(tmp_path, full.id).progress, 32)(0, 10)
    at = of(plan, tmp_path, full, later=STALE_S + 1)
    assert (at.state, at.step, at.seconds_left) == ("waiting", 0, None)


def test_a_training_goes_on_where_the_storage_does_not_answer(full: Run, tmp_path: Path) -> None:
    folder = RunFolder.of(tmp_path, full.id)

    def held() -> bool:
        raise OSError("stale file handle")

    TrainingWriter(folder.progress, 32, held=held)(0, 10)
    TrainingWriter(folder.progress, 32, held=lambda: False)(0, 10)
    assert not folder.progress.exists()


def test_parts_of_predictions_and_failures_show(plan: Plan, full: Run, tmp_path: Path) -> None:
    folder = RunFolder.of(tmp_path, full.id)
    part = folder.part("", "cifar10.1")
    part.parent.mkdir(parents=True)
    part.write_bytes(b"")
    assert of(plan, tmp_path, full) == RunProgress(full, "evaluating", predicted=1, to_predict=4)
    write_run(tmp_path, full.id, failed(run_info("small", full), "out of luck"))
    assert of(plan, tmp_path, full) == RunProgress(full, "failed", reason="out of luck")
    TrainingWriter(folder.progress, 32)(0, 10)
    folder.drop_parts()
    assert of(plan, tmp_path, full).state == "training"  # it is tried again


def test_a_suite_from_start_to_end(
    plan: Plan,
    suite: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    world: Path,
) -> None:
    results = tmp_path / "results"
    words = ["status", str(suite), "--results", str(results)]
    seen: list[str] = []

    def steps(display: Display, steps: Mapping[str, tuple[int, int]]) -> None:
        seen.extend(progress.state for progress in progress_of(plan, results))

    assert {progress.state for progress in progress_of(plan, results)} == {"waiting"}
    monkeypatch.setattr(Display, "steps", steps)
    launch(Suite.load(suite), results, InProcess(), Console(quiet=True))
    assert "training" in seen
    assert not list(results.rglob("progress.json"))
    assert main([*words, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["counts"], document["device_seconds_left"]) == ({"done": 2}, 0)
    assert {run["label"]: run["state"] for run in document["runs"]} == {
        "zero-shot": "done",
        "full": "done",
    }
    assert main([*words, "--watch"]) == 0  # ends, as nothing is left
    assert "small: 2 runs: 2 done" in capsys.readouterr().out
