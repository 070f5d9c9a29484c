"""How far runs are, read from the results folder alone."""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from platform import node
from typing import Any

import pytest
from rich.console import Console
from shiftbench.cli import main, status
from shiftbench.core.errors import StorageError
from shiftbench.execution.display import Display
from shiftbench.execution.in_process import InProcess
from shiftbench.execution.jobs import Job
from shiftbench.execution.launch import launch
from shiftbench.execution.progress import (
    STALE_S,
    RunProgress,
    TrainingWriter,
    progress_in,
    progress_of,
)
from shiftbench.execution.runinfo import run_info
from shiftbench.execution.spent import Spent, hours, in_words, spent_on
from shiftbench.execution.under_way import Courses, UnderWay
from shiftbench.leaderboard.leases import Leases
from shiftbench.leaderboard.runfolder import RunFolder
from shiftbench.leaderboard.schema import done, failed
from shiftbench.leaderboard.store import write_run
from shiftbench.suite.plan import Plan, Run
from shiftbench.suite.suite import Suite

from tests.leaderboard.records import info, results

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
    so_far = document["hours_so_far"]["processor-hours"]
    assert 3600 * so_far == pytest.approx(sum(run["worker_seconds"] for run in document["runs"]))
    assert so_far > 0 and not any(run["holder"] for run in document["runs"])
    assert {run["label"]: run["state"] for run in document["runs"]} == {
        "zero-shot": "done",
        "full": "done",
    }
    assert main([*words, "--watch"]) == 0  # ends, as nothing is left
    assert "small: 2 runs: 2 done; 0.0" in capsys.readouterr().out
    with monkeypatch.context() as patch:
        away = iter([StorageError("s3://b/r: cannot be listed (no route)")])
        real = status._look

        def look(*arguments: Any) -> Any:
            for error in away:
                raise error
            return real(*arguments)

        patch.setattr(status, "_look", look)
        assert main([*words, "--watch", "--every", "0.1"]) == 0
    told = capsys.readouterr()
    assert "2 runs: 2 done" in told.out
    assert told.err.startswith("warning: s3://b/r: cannot be listed (no route); looked at again")
    # A folder where nothing is done yet changes nothing; one of JSON's lines is all that is left.
    (tmp_path / "other").mkdir()
    assert main([*words, "--results", str(tmp_path / "other"), "--watch", "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["counts"] == {"done": 2}
    assert main([*words, "--results", str(tmp_path / "nowhere")]) == 2
    assert main([*words[:2], "--results", "nosuch://bucket/results"]) == 2


def test_whoever_does_a_run_is_named(plan: Plan, full: Run, tmp_path: Path) -> None:
    with Leases.of(tmp_path) as leases:
        assert leases.take(full.id) is None
        at = of(plan, tmp_path, full)
        assert (at.state, at.holder) == ("preparing", f"process {os.getpid()} on {node()}")
        clock = iter([0.0, 10.0, 20.0])
        write = TrainingWriter(RunFolder.of(tmp_path, full.id).progress, 8, lambda: next(clock))
        for step in (1, 11, 21):
            write(step, 41)
        at = of(plan, tmp_path, full)
        assert (at.state, at.holder is None) == ("training", False)
        assert at.spent == Spent(pytest.approx(21.0), "processor")  # a step a second
    assert of(plan, tmp_path, full).holder is None


def test_of_several_results_the_one_counts_where_a_run_is_furthest(
    plan: Plan, full: Run, tmp_path: Path
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    write_run(here, full.id, failed(run_info("small", full), "out of luck"))
    TrainingWriter(RunFolder.of(there, full.id).progress, 32)(3, 10)
    found = progress_in(plan, {"here": here, "there": there})
    assert {(at.run.label, at.state, at.results) for at in found} == {
        ("zero-shot", "waiting", "here"),
        ("full", "training", "there"),
    }


def test_time_of_workers_is_that_of_trainings_searches_and_evaluations(tmp_path: Path) -> None:
    gpus = {"device": "H100", "hardware": {"gpus": ["H100"]}}
    searched = {"search_id": "s", "search_seconds": 1000.0, "world_size": 4, "train_seconds": 90.0}
    for name in ("a", "b"):
        record = info(name, **gpus, **searched)
        twice = results({"id-test": 0.5}) + results({"id-test": 0.5}, selection="id-val")
        write_run(tmp_path, name, done(record, twice))
    write_run(tmp_path, "c", done(info("c", train_seconds=None), results({"id-test": 0.5})))
    evaluation = results({"id-test": 0.5})[0].evaluation_seconds
    found = spent_on(tmp_path, ["a", "b", "c", "d"])
    assert found["a"] == Spent(4 * 90 + 1000 + evaluation, "GPU")
    assert found["b"] == Spent(4 * 90 + evaluation, "GPU")
    assert found["c"] == Spent(evaluation, "processor")
    assert in_words(hours(found.values())).startswith("0.48 GPU-hours, 0.00 processor-hours")
    assert in_words({}) == ""


def test_trainings_are_drawn_with_their_speed(plan: Plan, full: Run) -> None:
    courses = Courses()
    for now, step in ((0.0, 0), (50.0, 1), (60.0, 21), (61.0, 4), (63.0, 10)):
        courses.steps({full.id: (step, 100)}, now)
        if now == 0.0:
            assert courses.shown(str, lambda run_id: 8)[0].state == "preparing"
        if now == 60.0:
            (at,) = courses.shown(str, lambda run_id: 8)
            assert (at.images_per_second, at.seconds_left) == (16.0, 39.5)
    (at,) = courses.shown(str, lambda run_id: 8)  # it was interrupted, and went on
    assert at == UnderWay(full.id, "training", 10, 100, 24.0, 30.0)
    courses.steps({full.id: (100, 100)}, 90.0)
    assert courses.shown(str, lambda run_id: 8) == []


def test_a_terminal_shows_trainings_above_the_bar(plan: Plan, full: Run) -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=100)
    with Display(console, plan.runs, [Job("fit", full.id), Job("score", full.id)]) as display:
        display.steps({full.id: (1, 40)})
        display.steps({full.id: (2, 40)})
        console.print(display._drawn())
        assert "2/40" in stream.getvalue() and "images/s" in stream.getvalue()
        display.done(Job("fit", full.id))
        assert display._trainings() == []
