"""Several processes do one suite in one results folder: shared, and whatever becomes of one."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
import torch
from rich.console import Console
from shiftbench.core.errors import RunFailedError
from shiftbench.execution import in_process, sharing
from shiftbench.execution.display import Display
from shiftbench.execution.doing import do
from shiftbench.execution.in_process import InProcess
from shiftbench.execution.jobs import Job
from shiftbench.execution.launch import launch
from shiftbench.execution.remarks import Remarks
from shiftbench.execution.runinfo import run_info
from shiftbench.execution.search.search import search as do_search
from shiftbench.execution.setup import Setup
from shiftbench.execution.sharing import Sharing
from shiftbench.execution.work import Work
from shiftbench.execution.workspace import Workspace
from shiftbench.leaderboard import store
from shiftbench.leaderboard.lease_storage import FOLDER, Folder
from shiftbench.leaderboard.leases import Leases, search_key, seen
from shiftbench.leaderboard.runfolder import Fit, Found, RunFolder, SearchFolder
from shiftbench.leaderboard.schema import done, failures
from shiftbench.methods.base import Batch
from shiftbench.methods.builtin.full import Full
from shiftbench.models.classifier import ImageClassifier
from shiftbench.suite.plan import Plan, evaluation_metrics
from shiftbench.suite.suite import Suite

from tests.leaderboard.records import results as scores
from tests.leaderboard.test_leases import Clock, Still

SUITE = """
data: miniature
backbones: [miniature]
tasks: [cifar10]
methods:
  zero-shot: {}
  full: {lr: 5e-4, epochs: 12, batch_size: 16, warmup_steps: 2}
  wise-ft: {alphas: [0.5]}
shots: [8]
seeds: [0, 1]
budget: {evaluation_images: 40}
resources: {limits: {lease_s: 1}}
"""
QUIET = Console(quiet=True)
FIT = Fit([1.0], {}, 1, 1.0, 0.0, 1, 1, "2026-01-01T00:00:00+00:00", 1, 0.5, {})


def load(folder: Path, *overrides: str) -> Suite:
    file = folder / "small.yaml"
    file.write_text(SUITE)
    return Suite.load(file, overrides)


# Drivers that pretend: forked, since they would spend most of their time on imports otherwise.


def pretend(
    together: list[Barrier],
    log: Path,
    seconds: float,
    broken: str,
    job: Job,
    workspace: object,
    work: Work,
    *,
    raising: bool,
) -> None:
    """Note a job, take some time and leave what those look for that wait for it."""
    setup = work.setup
    with log.open("a") as file:
        file.write(json.dumps([os.getpid(), *job]) + "\n")
    while together:  # so that each driver has one, however late it started
        together.pop().wait(60)
    time.sleep(seconds)
    setup.check_held(job.run_id)
    folder = RunFolder.of(setup.results, job.run_id)
    if job.stage == "fit" and setup.runs[job.run_id].label == broken:
        raise OSError("no such disk")
    if job.stage == "fit":
        folder.write_fit(FIT)
    if job.stage == "score":
        info = run_info(setup.suite, setup.runs[job.run_id])
        store.write_run(setup.results, job.run_id, done(info, scores({"id-test": 0.5})))


def drive(suite: Suite, results: Path, answer: Path) -> None:
    outcome = launch(suite, results, InProcess(), QUIET)
    answer.write_text(json.dumps({"left": len(outcome.executed), "failed": dict(outcome.failed)}))


class Drivers:
    """Two processes that do the same suite at once."""

    def __init__(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, *, seconds: float, broken: str = ""
    ) -> None:
        self.results, self.log, self.folder = folder / "results", folder / "log", folder
        monkeypatch.setattr(sharing, "LOOK_EVERY_S", 0.1)
        monkeypatch.setattr(in_process, "_TICK_S", 0.05)
        suite, context = load(folder), multiprocessing.get_context("fork")
        do_one = partial(pretend, [context.Barrier(2)], self.log, seconds, broken)
        monkeypatch.setattr(in_process, "_do", do_one)
        self.plan = Plan.build(suite)
        self.processes = [
            context.Process(target=drive, args=(suite, self.results, folder / f"{i}.json"))
            for i in range(2)
        ]
        self.log.touch()
        for process in self.processes:
            process.start()

    def jobs(self) -> list[tuple[int, Job]]:
        """The jobs so far, each with the process that did it."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [(pid, Job(*job)) for pid, *job in lines]

    def wait(self, i: int) -> dict[str, object]:
        """How a driver ended."""
        self.processes[i].join(60)
        assert self.processes[i].exitcode == 0
        answer: dict[str, object] = json.loads((self.folder / f"{i}.json").read_text())
        return answer

    def until(self, enough: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not enough():
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_two_drivers_finish_one_suite_together_and_do_every_run_once(
    tmp_path: Path, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drivers = Drivers(tmp_path, monkeypatch, seconds=0.02)
    for i in range(2):
        assert drivers.wait(i) == {"left": len(drivers.plan.runs), "failed": {}}
    jobs = drivers.jobs()
    assert {pid for pid, _ in jobs} == {process.pid for process in drivers.processes}
    assert len({job for _, job in jobs}) == len(jobs)
    assert len({(pid, job.run_id) for pid, job in jobs}) == len(drivers.plan.runs)
    statuses = store.statuses(drivers.results)
    assert statuses == dict.fromkeys(drivers.plan.runs, "done")
    with Leases.of(drivers.results) as leases:
        endings = {key: leases.look(key) for key in seen(drivers.results)}
    assert endings.keys() == statuses.keys()
    assert {lease.ended for lease in endings.values() if lease} == {"done"}


def test_what_a_killed_driver_had_is_done_by_the_other_at_once(
    tmp_path: Path, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drivers = Drivers(tmp_path, monkeypatch, seconds=0.05)
    victim = drivers.processes[0]
    drivers.until(lambda: [pid for pid, _ in drivers.jobs()].count(victim.pid) > 2)
    victim.kill()
    assert drivers.wait(1)["failed"] == {}
    victim.join()
    times = Counter(job for _, job in drivers.jobs())
    again = {job.run_id for job, count in times.items() if count > 1}
    assert len(again) <= 1  # the run that it was at
    assert max(times.values()) <= 2
    assert store.statuses(drivers.results) == dict.fromkeys(drivers.plan.runs, "done")


def test_a_frozen_driver_finds_what_it_lost_done_when_it_wakes_up(
    tmp_path: Path, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drivers = Drivers(tmp_path, monkeypatch, seconds=0.05)
    frozen = drivers.processes[0]
    drivers.until(lambda: [pid for pid, _ in drivers.jobs()].count(frozen.pid) > 2)
    os.kill(frozen.pid, signal.SIGSTOP)
    assert drivers.wait(1)["failed"] == {}
    assert store.statuses(drivers.results) == dict.fromkeys(drivers.plan.runs, "done")
    before = files(drivers.results / "leaderboard"), len(drivers.jobs())
    os.kill(frozen.pid, signal.SIGCONT)
    assert drivers.wait(0)["failed"] == {}
    assert (files(drivers.results / "leaderboard"), len(drivers.jobs())) == before


def test_what_fails_in_one_driver_fails_in_the_other_and_is_tried_once(
    tmp_path: Path, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drivers = Drivers(tmp_path, monkeypatch, seconds=0.02, broken="full")
    first, second = drivers.wait(0), drivers.wait(1)
    assert first["failed"] == second["failed"]
    fits = Counter(job.run_id for _, job in drivers.jobs() if job.stage == "fit")
    assert len(fits) == 2 and max(fits.values()) == 1
    rows = {run.run_id: run for run in failures(store.read(drivers.results))}
    assert {run_id: run.error for run_id, run in rows.items()} == first["failed"]
    reasons = sorted({run.error for run in rows.values() if run.label == "full"})
    assert reasons == ["OSError: no such disk"]
    assert {run.label for run in rows.values()} == {"full", "wise-ft"}


# One driver, and another whose leases are in the test's hands.


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return Plan.build(load(tmp_path, "seeds=[0]", "methods.zero-shot=null"))


def work_of(plan: Plan, results: Path, leases: Leases, clock: Clock) -> Work:
    parent, child = plan.runs
    fit = Job("fit", parent)
    graph = {fit: set(), Job("score", parent): {fit}, Job("score", child): {fit}}
    return work_on(graph, plan, results, leases, clock)


def work_on(
    graph: Mapping[Job, set[Job]],
    plan: Plan,
    results: Path,
    leases: Leases,
    clock: Clock,
    *,
    current: Callable[[Job], bool] = lambda job: True,
    prepare: Callable[[Job], None] = lambda job: None,
) -> Work:
    setup = Setup("s", plan.runs, results, "miniature", plan.suite.resources, Remarks())
    known = store.stamps(results)
    shared = Sharing(leases, results, plan.runs, graph, known, prepare, clock, current)
    return Work(setup, graph, plan.runs, Display(QUIET, plan.runs, list(graph)), shared)


def leases_of(results: Path, clock: Clock) -> Leases:
    return Still(Folder(results / FOLDER), 60, clock)


def test_a_fit_that_is_done_elsewhere_lets_what_builds_on_it_begin(
    plan: Plan, tmp_path: Path
) -> None:
    clock = Clock()
    work, other = (
        work_of(plan, tmp_path, leases_of(tmp_path, clock), clock),
        leases_of(tmp_path, clock),
    )
    parent, child = plan.runs
    other.take(parent)
    (fit,) = work.ready()
    assert not work.begin(fit)
    assert work.ready() == [] and work.awaits_others()
    RunFolder.of(tmp_path, parent).write_fit(FIT)
    clock.now = 5
    assert set(work.ready()) == {Job("score", parent), Job("score", child)}
    assert not work.begin(Job("score", parent)) and work.begin(Job("score", child))
    other.end(parent, "done")
    clock.now = 10
    assert work.ready() == [] and not work.awaits_others()
    assert work.failures == {}


def test_what_another_gives_back_is_done_here(plan: Plan, tmp_path: Path) -> None:
    clock = Clock()
    mine, other = leases_of(tmp_path, clock), leases_of(tmp_path, clock)
    work = work_of(plan, tmp_path, mine, clock)
    (fit,) = work.ready()
    other.take(fit.run_id)
    assert not work.begin(fit)
    other.end(fit.run_id, "released")
    clock.now = 5
    assert work.ready() == [fit]
    assert work.begin(fit) and mine.held(fit.run_id)


@pytest.mark.parametrize("error", [None, OSError("no such disk")])
def test_whoever_lost_a_run_records_nothing_of_it(
    plan: Plan, tmp_path: Path, error: Exception | None
) -> None:
    clock, later = Clock(), Clock()
    work = work_of(plan, tmp_path, leases_of(tmp_path, clock), clock)
    (fit,) = work.ready()
    assert work.begin(fit)
    other = leases_of(tmp_path, later)
    other.look(fit.run_id)
    later.now = 60
    assert other.take(fit.run_id) is None
    work.settle(fit, error)
    assert work.failures == {} and store.statuses(tmp_path) == {}
    assert not (tmp_path / "runs").exists()
    assert work.ready() == [] and work.awaits_others()
    other.end(fit.run_id, "failed", "no luck")
    clock.now = 5
    assert work.ready() == []
    assert work.failures[fit.run_id] == "no luck"
    _, child = plan.runs  # which builds on it
    assert store.statuses(tmp_path) == {child: "failed"}


def test_rows_that_came_since_the_launch_count(plan: Plan, tmp_path: Path) -> None:
    clock = Clock()
    mine = leases_of(tmp_path, clock)
    work = work_of(plan, tmp_path, mine, clock)
    parent, child = plan.runs
    info = run_info("s", plan.runs[parent])
    store.write_run(tmp_path, parent, done(info, scores({"id-test": 0.5})))
    (fit,) = work.ready()
    assert not work.begin(fit) and not mine.held(parent)
    clock.now = 5
    assert work.ready() == [Job("score", child)]


@pytest.fixture
def searched(tmp_path: Path) -> Plan:
    drawn = "methods={autoft: {search: {n_trials: 0}}}"
    few = [f"methods.{name}=null" for name in ("zero-shot", "full", "wise-ft")]
    return Plan.build(load(tmp_path, "seeds=[0]", drawn, *few))


def test_a_search_has_a_lease_of_its_own_and_is_done_once(tmp_path: Path, searched: Plan) -> None:
    plan, clock = searched, Clock()
    (run,) = plan.runs.values()
    assert run.search is not None
    search, fit = Job("search", run.id), Job("fit", run.id)
    mine, other = leases_of(tmp_path, clock), leases_of(tmp_path, clock)
    work = work_on({search: set(), fit: {search}}, plan, tmp_path, mine, clock)
    other.take(search_key(run.search.id))
    assert work.ready() == [search]
    assert not work.begin(search) and work.awaits_others()
    SearchFolder.of(tmp_path, run.search.id).write_found(Found({}, None, 0, 0, 0, 0.0))
    clock.now = 5
    assert work.ready() == [fit]
    assert work.begin(fit) and mine.held(run.id)


def test_a_search_on_other_data_files_is_no_result(tmp_path: Path, searched: Plan) -> None:
    (run,) = searched.runs.values()
    assert run.search is not None
    SearchFolder.of(tmp_path, run.search.id).write_found(Found({}, None, 0, 0, 0, 0.0))
    search, clock = Job("search", run.id), Clock()
    mine = leases_of(tmp_path, clock)
    work = work_on({search: set()}, searched, tmp_path, mine, clock, current=lambda job: False)
    assert work.ready() == [search]
    assert work.begin(search) and mine.held(search_key(run.search.id))


def test_a_search_that_fails_elsewhere_fails_the_run_here_which_may_be_another(
    tmp_path: Path, searched: Plan
) -> None:
    (run,) = searched.runs.values()
    assert run.search is not None
    search, fit, clock = Job("search", run.id), Job("fit", run.id), Clock()
    mine, other = leases_of(tmp_path, clock), leases_of(tmp_path, clock)
    work = work_on({search: set(), fit: {search}}, searched, tmp_path, mine, clock)
    other.take(search_key(run.search.id))
    assert work.ready() == [search] and not work.begin(search)
    other.end(search_key(run.search.id), "failed", "no trial got to its end")
    clock.now = 5
    assert work.ready() == [] and not work.awaits_others()
    assert work.failures == {run.id: "no trial got to its end"}
    (row,) = failures(store.read(tmp_path))
    assert (row.run_id, row.error) == (run.id, "no trial got to its end")


def test_a_search_that_was_taken_over_records_nothing(tmp_path: Path, searched: Plan) -> None:
    (run,) = searched.runs.values()
    assert run.search is not None
    mine = leases_of(tmp_path, Clock())
    setup = Setup(
        "s", searched.runs, tmp_path, "miniature", searched.suite.resources, Remarks(),
        token=mine.token,
    )  # fmt: skip
    with pytest.raises(RunFailedError, match="taken over"):
        do_search(setup, run)
    assert not SearchFolder.of(tmp_path, run.search.id).finished
    mine.take(search_key(run.search.id))
    do_search(setup, run)
    assert SearchFolder.of(tmp_path, run.search.id).finished


def test_a_parent_that_is_only_fitted_elsewhere_is_awaited_no_longer(
    plan: Plan, tmp_path: Path
) -> None:
    clock = Clock()
    mine, other = leases_of(tmp_path, clock), leases_of(tmp_path, clock)
    parent, child = plan.runs
    fit, last = Job("fit", parent), Job("score", child)
    made = [False]
    work = work_on(
        {fit: set(), last: {fit}}, plan, tmp_path, mine, clock, current=lambda job: made[0]
    )
    other.take(parent)
    assert work.ready() == [fit] and not work.begin(fit)
    RunFolder.of(tmp_path, parent).write_fit(FIT)  # of other data files: it is about to go
    clock.now = 5
    assert work.ready() == [] and work.awaits_others()
    made[0] = True
    clock.now = 10
    assert work.ready() == [last]
    clock.now = 15
    assert work.ready() == [] and not work.awaits_others()
    assert work.begin(last)


def test_a_run_that_fails_before_its_first_job_is_no_longer_what_it_was_on_other_data(
    plan: Plan, tmp_path: Path
) -> None:
    clock = Clock()
    parent, child = plan.runs
    rows = done(run_info("s", plan.runs[child]), scores({"id-test": 0.5}))
    store.write_run(tmp_path, child, rows)
    fit = Job("fit", parent)
    graph = {fit: set(), Job("score", child): {fit}}
    for again in (False, True):  # the second time another process has done it meanwhile
        forgotten: list[str] = []

        def prepare(job: Job, forgotten: list[str] = forgotten) -> None:
            forgotten.append(job.run_id)
            store.forget(tmp_path, job.run_id)

        mine = leases_of(tmp_path, clock)
        work = work_on(graph, plan, tmp_path, mine, clock, prepare=prepare)
        assert work.ready() == [fit] and work.begin(fit)
        if again:
            store.write_run(tmp_path, child, rows)
        work.settle(fit, OSError("no such disk"))
        assert work.failures.keys() == {parent, child}
        assert forgotten == ([parent] if again else [parent, child])
        statuses = {parent: "failed", child: "done" if again else "failed"}
        assert store.statuses(tmp_path) == statuses


# The stages themselves.


def test_a_training_that_another_process_took_over_writes_nothing_more(
    tmp_path: Path, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite, results = load(tmp_path, "seeds=[0]", "methods.zero-shot=null"), tmp_path / "results"
    clock, before = Clock(), {}
    other = leases_of(results, clock)
    full, child = Plan.build(suite).runs

    def steps(display: Display, steps: Mapping[str, tuple[int, int]]) -> None:
        if steps == {full: (7, 60)}:
            other.look(full)
            clock.now = 1  # the lease_s of the suite
            assert other.take(full) is None
            before.update(files(results / "runs" / full))

    def note(display: Display, text: str) -> None:
        assert text.startswith("1 run is being done by another process on ")
        other.end(full, "failed", "no luck")

    monkeypatch.setattr(Display, "steps", steps)
    monkeypatch.setattr(Display, "note", note)
    monkeypatch.setattr(sharing, "LOOK_EVERY_S", 0.1)
    monkeypatch.setattr(in_process, "_TICK_S", 0.05)
    outcome = launch(suite, results, InProcess(), QUIET)
    assert outcome.failed == {full: "no luck", child: f"it builds on run {full}, which failed"}
    assert before and files(results / "runs" / full) == before
    assert store.statuses(results) == {child: "failed"}


@pytest.mark.parametrize("stage", ["fit", "predict", "score"])
def test_no_stage_leaves_anything_of_a_run_that_was_taken_over(
    stage: str, tmp_path: Path, world: Path
) -> None:
    suite, results = load(tmp_path, "methods.full.epochs=1", "budget.steps=1"), tmp_path / "results"
    plan = Plan.build(suite)
    full = next(run_id for run_id, run in plan.runs.items() if run.label == "full")
    leases = leases_of(results, Clock())
    setup = Setup(
        "s", plan.runs, results, "miniature", suite.resources, Remarks(), token=leases.token
    )
    leases.take(full)
    workspace = Workspace(setup, torch.device("cpu"))
    jobs = [
        Job("fit", full),
        *(Job("predict", full, "", name) for name in evaluation_metrics(plan.runs[full].task)),
        Job("score", full),
    ]
    for job in jobs:
        if job.stage == stage:
            leases.end(full, "released")
            before = files(results / "runs") | files(results / "leaderboard")
            with pytest.raises(RunFailedError, match="taken over"):
                do(job, workspace, lambda step, steps: None)
            assert files(results / "runs") | files(results / "leaderboard") == before
            if stage == "score":
                leases.take(full)
                do(job, workspace, lambda step, steps: None)
                before = files(results / "runs") | files(results / "leaderboard")
                do(job, workspace, lambda step, steps: None)  # as if its worker had died then
                assert files(results / "runs") | files(results / "leaderboard") == before
            return
        do(job, workspace, lambda step, steps: None)


def test_a_training_that_diverges_when_it_has_been_taken_over_leaves_no_curve(
    tmp_path: Path, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite, results = load(tmp_path, "budget.steps=1"), tmp_path / "results"
    plan = Plan.build(suite)
    full = next(run_id for run_id, run in plan.runs.items() if run.label == "full")
    original = Full.loss

    def loss(method: Full, model: ImageClassifier, batch: Batch) -> dict[str, torch.Tensor]:
        return {"loss": original(method, model, batch)["loss"] * float("nan")}

    monkeypatch.setattr(Full, "loss", loss)
    leases = leases_of(results, Clock())
    setup = Setup(
        "s", plan.runs, results, "miniature", suite.resources, Remarks(), token=leases.token
    )
    for held in (False, True):
        if held:
            leases.take(full)
        with pytest.raises(RunFailedError, match="not finite"):
            do(Job("fit", full), Workspace(setup, torch.device("cpu")), lambda step, steps: None)
        assert RunFolder.of(results, full).metrics.exists() == held


def test_an_interrupted_launch_leaves_what_its_runs_need(tmp_path: Path, world: Path) -> None:
    class Interrupted(InProcess):
        def execute(self, work: Work) -> None:
            raise KeyboardInterrupt

    suite, results = load(tmp_path, "seeds=[0]"), tmp_path / "results"
    with pytest.raises(KeyboardInterrupt):
        launch(suite, results, Interrupted(), QUIET)
    assert all(RunFolder.of(results, run_id).record.exists() for run_id in Plan.build(suite).runs)


def files(folder: Path) -> dict[Path, tuple[int, int]]:
    """Every file below a folder, and what it is."""
    found = [(file, file.stat()) for file in folder.rglob("*") if file.is_file()]
    return {file: (stat.st_mtime_ns, stat.st_ino) for file, stat in found}
