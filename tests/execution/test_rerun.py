"""Runs that are done again, and compared with what they were."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from rich.console import Console
from shiftbench.core.errors import InputError
from shiftbench.execution.in_process import InProcess
from shiftbench.execution.rerun import changes, only, rerun
from shiftbench.leaderboard import store
from shiftbench.leaderboard.schema import failed, rows
from shiftbench.suite.plan import Plan
from shiftbench.suite.suite import Suite

from tests.leaderboard.records import info
from tests.leaderboard.test_verify import store_run

SUITE = """
data: miniature
backbones: [miniature]
tasks: [cifar10, fmow]
methods:
  zero-shot: {}
  full: {}
  wise-ft: {alphas: [0, 0.5, 1]}
seeds: [0, 1]
shots: [4, full]
"""


@pytest.fixture
def suite(tmp_path) -> Suite:
    file = tmp_path / "x.yaml"
    file.write_text(SUITE)
    return Suite.load(file)


def test_a_suite_is_cut_down_to_a_run_and_what_it_builds_on(suite):
    plan = Plan.build(suite)
    runs = {key: run for key, run in plan.runs.items() if run.task.name == "fmow"}
    for run_id, run in runs.items():
        small = Plan.build(only(suite, run_id)).runs
        assert small[run_id] == run
        assert all(plan.runs[other] == small[other] for other in small)
        expected = {run_id, *(parent for _, parent in run.parents)}
        assert small.keys() == expected  # no parent here has parents
    with pytest.raises(InputError, match="f00d is no run of x as it is now"):
        only(suite, "f00d")


def test_a_repetition_is_compared_and_changes_nothing(suite, tmp_path, monkeypatch):
    results, into = tmp_path / "results", tmp_path / "again"
    run_id = next(r.id for r in Plan.build(suite).runs.values() if r.label == "wise-ft")
    store_run(results, run_id, ("0", "1"))
    before = {path: path.read_bytes() for path in results.rglob("*") if path.is_file()}
    asked = []

    def launch(small, folder, *arguments, **options):
        asked.append((small, folder, *arguments, options))
        store_run(folder, run_id, ("0", "1"), finished=datetime.now(UTC))

    monkeypatch.setattr("shiftbench.execution.rerun.launch", launch)
    console, executor = Console(quiet=True), InProcess()
    suite = replace(suite, loggers=("tensorboard",))
    (verdict,) = rerun(suite, [run_id], results, into, executor, console)
    assert verdict.problems == ()
    ((small, folder, *rest),) = asked
    assert run_id in Plan.build(small).runs
    assert len(Plan.build(small).runs) == 2
    assert small.loggers == ()  # they have the run already
    assert (folder, rest) == (into, [executor, console, {"allow_incomplete": False}])
    assert before == {path: path.read_bytes() for path in results.rglob("*") if path.is_file()}

    def other(small, folder, *arguments, **options):
        store_run(folder, run_id, ("0", "1"), seed=1)

    monkeypatch.setattr("shiftbench.execution.rerun.launch", other)
    (verdict,) = rerun(suite, [run_id], results, into, executor, console)
    assert any("this time 0." in problem for problem in verdict.problems)

    def broken(small, folder, *arguments, **options):
        store.forget(folder, run_id)
        store.write_run(folder, run_id, failed(info(run_id), "loss is NaN"))

    monkeypatch.setattr("shiftbench.execution.rerun.launch", broken)
    (verdict,) = rerun(suite, [run_id], results, tmp_path / "another", executor, console)
    assert verdict.problems == ("failed this time: loss is NaN",)


def test_changes_are_told_apart(tmp_path):
    store_run(tmp_path, "a1")
    of_run = rows(store.read(tmp_path))
    assert changes(of_run, of_run) == []
    nearly = [replace(row, value=row.value + 1e-9) for row in of_run]
    assert len(changes(of_run, nearly)) == len(of_run)
    assert changes(of_run, nearly, tolerance=1e-8) == []
    (text,) = changes(of_run, [*of_run[:-1], replace(of_run[-1], data_fingerprint="other")])
    assert "data files are others" in text
    (text,) = changes(of_run, of_run[:-1])
    assert "not measured this time" in text
    (text,) = changes(of_run[:-1], of_run)
    assert "was not measured before" in text
