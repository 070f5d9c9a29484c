"""The record of jobs that have ended: what goes on, what fails with them, what is written."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console
from shiftbench.core.errors import InputError, RunFailedError
from shiftbench.execution.display import Display
from shiftbench.execution.jobs import Job
from shiftbench.execution.remarks import Remarks
from shiftbench.execution.setup import Setup
from shiftbench.execution.sharing import Sharing
from shiftbench.execution.work import Work
from shiftbench.leaderboard import store
from shiftbench.leaderboard.leases import Leases
from shiftbench.leaderboard.runfolder import Fit, RunFolder
from shiftbench.leaderboard.schema import failures
from shiftbench.leaderboard.store import read
from shiftbench.suite.plan import Plan
from shiftbench.suite.suite import Suite

SUITE = """
data: miniature
backbones: [miniature]
tasks: [cifar10]
methods:
  full: {}
  wise-ft: {}
"""


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    file = tmp_path / "s.yaml"
    file.write_text(SUITE)
    return Plan.build(Suite.load(file))


@pytest.fixture
def leases(tmp_path: Path) -> Iterator[Leases]:
    with Leases.of(tmp_path) as leases:
        yield leases


def make_work(plan: Plan, results: Path, leases: Leases, todo: set[str] | None = None) -> Work:
    parent, child = plan.runs
    fit = Job("fit", parent)
    graph = {fit: set(), Job("score", parent): {fit}, Job("score", child): {fit}}
    setup = Setup("s", plan.runs, results, "miniature", plan.suite.resources, Remarks())
    display = Display(Console(quiet=True), plan.runs, list(graph))
    sharing = Sharing(leases, results, plan.runs, graph, {}, lambda job: None)
    return Work(setup, graph, plan.runs.keys() if todo is None else todo, display, sharing)


def raised(error: Exception) -> Exception:
    try:
        raise error
    except type(error) as caught:
        return caught


def test_rows_are_copied_together_now_and_then(
    plan: Plan, tmp_path: Path, leases: Leases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "MANY", 2)
    monkeypatch.setattr(store.compact, "__defaults__", (0,))
    work = make_work(plan, tmp_path, leases)
    (fit,) = work.ready()
    assert work.begin(fit)
    work.settle(fit, RunFailedError("no way"))  # of both runs
    assert store.Files.of(tmp_path).copied().keys() == plan.runs.keys()


def test_a_failure_is_recorded_with_its_traceback(
    plan: Plan, tmp_path: Path, leases: Leases
) -> None:
    work = make_work(plan, tmp_path, leases)
    parent, child = plan.runs
    (fit,) = work.ready()
    assert work.begin(fit)
    work.settle(fit, raised(ZeroDivisionError("no\nway")))
    assert work.ready() == []
    assert not work.needed(Job("score", child))
    assert work.failures.keys() == {parent, child}
    assert work.ended == {"jobs": 1, "runs_done": 0, "runs_failed": 2}
    rows = {run.run_id: run for run in failures(read(tmp_path))}
    assert rows[parent].error == "ZeroDivisionError: no way"
    assert rows[parent].error_file == f"runs/{parent}/error.txt"
    text = (tmp_path / f"runs/{parent}/error.txt").read_text()
    assert "Traceback" in text
    assert "in raised" in text
    assert rows[child].error == f"it builds on run {parent}, which failed"
    assert rows[child].error_file == rows[parent].error_file


def test_a_full_disk_ends_all_and_fails_no_run(plan: Plan, tmp_path: Path, leases: Leases) -> None:
    work = make_work(plan, tmp_path, leases)
    (fit,) = work.ready()
    assert work.begin(fit)
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "weights.safetensors"))
    for error in (full, RunFailedError(f"weights.safetensors: cannot be written: {full}")):
        with pytest.raises(InputError, match=r"No space left .*weights.*; free some space") as told:
            work.settle(fit, error)
        assert len(told.value.lines) == 1
    assert read(tmp_path).num_rows == 0
    assert not RunFolder.of(tmp_path, fit.run_id).error.exists()


def test_the_traceback_goes_when_the_run_is_done(
    plan: Plan, tmp_path: Path, leases: Leases
) -> None:
    parent, _ = plan.runs
    file = RunFolder.of(tmp_path, parent).error
    file.parent.mkdir(parents=True)
    file.write_text("an earlier failure")
    work = make_work(plan, tmp_path, leases)
    (fit,) = work.ready()
    assert work.begin(fit)
    work.settle(fit)
    assert {job.stage for job in work.ready()} == {"score"}
    assert work.begin(Job("score", parent))
    work.settle(Job("score", parent))
    assert not file.exists()
    assert work.failures == {}


def test_a_run_that_is_done_stays_so_when_it_cannot_be_fitted_again(
    plan: Plan, tmp_path: Path, leases: Leases
) -> None:
    _, child = plan.runs
    work = make_work(plan, tmp_path, leases, todo={child})
    (fit,) = work.ready()
    assert work.begin(fit)
    work.settle(fit, RunFailedError("the loss is not finite"))
    assert work.failures.keys() == {child}
    assert [run.run_id for run in failures(read(tmp_path))] == [child]


@pytest.mark.parametrize(
    ("overrides", "waited", "expected"),
    [
        ([], 2.0, "full · seed 0 waited for data 20% of its training; methods.full.decoder=turbo"),
        (["methods.full.decoder=turbo", "resources.data_workers=2"], 2.0, "data_workers=null"),
        (["methods.full.decoder=turbo"], 2.0, "more processors for each GPU"),
        ([], 0.4, ""),
        (["resources.gpus_per_worker=0"], 2.0, ""),
    ],
)
def test_a_gpu_that_waited_for_data_is_told_with_the_setting_that_helps(
    overrides: list[str], waited: float, expected: str, tmp_path: Path, leases: Leases
) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(SUITE)
    suite = Suite.load(file, ["resources.gpus_per_worker=1", *overrides])
    work = make_work(Plan.build(suite), tmp_path, leases)
    stream = io.StringIO()
    work.display = Display(Console(file=stream, width=200), work.setup.runs, [])
    (fit,) = work.ready()
    assert work.begin(fit)
    RunFolder.of(tmp_path, fit.run_id).write_fit(
        Fit([1.0], {}, 12, 10.0, waited, 1, 1, "2026-01-01T00:00:00+00:00", 1, 0.5, {})
    )
    work.settle(fit)
    said = stream.getvalue()
    assert expected in said
    assert ("waited" in said) == bool(expected)
