"""Workers that are forked from a warm server: how many, what they do, and what when one dies."""

from __future__ import annotations

import io
import os
import signal
import time
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import pytest
from rich.console import Console
from shiftbench.core.errors import InputError
from shiftbench.distributed.executor import RayExecutor
from shiftbench.execution import processes
from shiftbench.execution.jobs import Job
from shiftbench.execution.launch import launch
from shiftbench.execution.processes import Processes, workers_that_fit
from shiftbench.leaderboard.store import read
from shiftbench.suite.file import Limits, Resources
from shiftbench.suite.plan import Plan
from shiftbench.suite.suite import Suite

from tests.core.test_stacks import Hung

SUITE = """
data: miniature
backbones: [miniature]
tasks: [cifar10]
methods:
  zero-shot: {}
  full: {epochs: 1, batch_size: 24, warmup_steps: 0}
budget: {steps: 3, evaluation_images: 30}
"""
GIB = 2**30


def suite_of(folder: Path, *overrides: str) -> Suite:
    (folder / "suite.yaml").write_text(SUITE)
    return Suite.load(folder / "suite.yaml", overrides)


@pytest.mark.parametrize(
    ("resources", "fit"),
    [
        (Resources(), 8),
        (Resources(cpus_per_worker=3), 2),
        (Resources(memory_per_worker=6 * GIB), 2),
        (Resources(memory_per_worker=60 * GIB), 1),  # it may do with less
        (Resources(max_concurrent=3), 3),
    ],
)
def test_as_many_work_as_there_are_processors_and_memory_for(
    resources: Resources, fit: int
) -> None:
    assert workers_that_fit(resources, cpus=8, memory=16 * GIB) == fit


def test_too_few_processors_are_said() -> None:
    with pytest.raises(InputError, match="16 CPUs, but this machine has 8"):
        workers_that_fit(Resources(cpus_per_worker=16), cpus=8, memory=GIB)


def test_ray_is_started_where_it_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared: list[Plan] = []
    monkeypatch.setattr(Processes, "prepare", lambda self, plan: prepared.append(plan))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    def without_ray(*overrides: str, address: str | None = None) -> bool:
        prepared.clear()
        RayExecutor(address).prepare(Plan.build(suite_of(tmp_path, *overrides)))
        return bool(prepared)

    assert without_ray()
    assert without_ray("resources.cpus_per_worker=4")
    assert not without_ray("resources.workers=2")
    assert not without_ray("resources.gpus_per_worker=1")
    assert not without_ray("methods.autoft={}")
    assert not without_ray(address="host:6379")
    monkeypatch.setenv("RAY_ADDRESS", "host:6379")
    assert not without_ray()


class Answering:
    """A server whose workers are threads that end every job at once; a number of them are dead."""

    def __init__(self, dead: int) -> None:
        self.dead = dead

    def fork(self, setup: object) -> Connection:
        ours, theirs = Pipe()
        self.dead -= 1
        if self.dead >= 0:
            theirs.close()
        else:
            Thread(target=self._answer, args=(theirs,), daemon=True).start()
        return ours

    def _answer(self, theirs: Connection) -> None:
        with suppress(EOFError):
            while theirs.recv():
                theirs.send(("ended", None))


class Jobs:
    """Work of which nothing is recorded but how each job ended."""

    def __init__(self, jobs: list[Job], limits: Limits | None = None) -> None:
        self.setup = SimpleNamespace(runs={}, resources=Resources(limits=limits or Limits()))
        self.hung: list[tuple[Job, Exception]] = []
        self._jobs = jobs
        self.ended: dict[Job, Exception | None] = {}

    def ready(self) -> list[Job]:
        ready, self._jobs = self._jobs, []
        return ready

    def needed(self, job: Job) -> bool:
        return True

    def begin(self, job: Job) -> bool:
        return True

    def awaits_others(self) -> bool:
        return False

    def note_hung(self, job: Job, error: Exception) -> None:
        self.hung.append((job, error))

    def settle(self, job: Job, error: Exception | None) -> None:
        self.ended[job] = error


def loop_of(jobs: Jobs, server: Answering, monkeypatch: pytest.MonkeyPatch) -> processes._Loop:
    monkeypatch.setattr(processes, "priorities", lambda runs: {"a": (0, 0)})
    return processes._Loop(jobs, server, 1)  # type: ignore[arg-type]


def test_workers_that_died_idle_cost_no_job_and_end_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = Job("fit", "a")
    jobs = Jobs([job])
    loop = loop_of(jobs, Answering(dead=0), monkeypatch)
    for _ in range(3):
        ours, theirs = Pipe()
        theirs.close()
        loop._idle.append(processes._Worker(ours))
    loop.run()
    assert jobs.ended == {job: None}


def test_a_job_whose_worker_dies_is_tried_again_and_then_recorded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = Job("fit", "a")
    jobs = Jobs([job])
    loop_of(jobs, Answering(dead=1), monkeypatch).run()
    assert jobs.ended == {job: None}
    jobs = Jobs([job])
    loop_of(jobs, Answering(dead=2), monkeypatch).run()
    assert "its process died" in str(jobs.ended[job])


class Hanging(Answering):
    """A server whose first worker is a process that hangs."""

    def __init__(self, process: Hung) -> None:
        super().__init__(dead=0)
        self._places = [process.place]

    def fork(self, setup: object) -> Connection:
        if not self._places:
            return super().fork(setup)
        ours, self._theirs = Pipe()
        self._theirs.send(("here", self._places.pop()))
        self._theirs.send(("sign", None))
        return ours


@pytest.mark.parametrize("hangs_again", [False, True])
def test_a_job_that_hangs_is_stopped_noted_and_tried_again(
    hangs_again: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "_TICK_S", 0.02)
    job = Job("fit", "a")
    jobs = Jobs([job], Limits(stall_s=0.1, job_retries=0 if hangs_again else 1))
    with Hung() as hung:
        loop_of(jobs, Hanging(hung), monkeypatch).run()
        assert hung.process.wait(20) == -signal.SIGKILL
    ((of, error),) = jobs.hung
    assert of == job and str(error).startswith("no progress for 0 s")
    assert "in stuck" in error.__notes__[0]
    assert jobs.ended == {job: error if hangs_again else None}


def test_trainings_may_save_before_this_process_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_SAVE_S", 0.2)
    with Hung() as training:
        loop = loop_of(Jobs([Job("fit", "a")]), Hanging(training), monkeypatch)

        def interrupt() -> None:
            if any(worker.place for worker, _ in loop._busy.values()):
                raise KeyboardInterrupt

        monkeypatch.setattr(loop, "_stop_what_hangs", interrupt)
        with pytest.raises(KeyboardInterrupt):
            loop.run()
        assert training.process.wait(20) == -signal.SIGTERM


LOUD = """
import logging
import warnings
from typing import ClassVar

from shiftbench.methods.builtin.full import Full


class Loud(Full):
    \"\"\"Full fine-tuning that says so.\"\"\"

    name: ClassVar[str] = "loud"

    def prepare(self, model, context):
        print("preparing [all]")
        warnings.warn("this is slow")
        logging.getLogger("lab").warning("and loud")
"""


def test_a_worker_that_is_killed_costs_its_job_only(
    tmp_path: Path, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "loud_lab.py").write_text(LOUD)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setenv("SHIFTBENCH_PLUGINS", "loud=loud_lab:Loud")
    monkeypatch.syspath_prepend(tmp_path)
    executor = Processes()
    killed: list[int] = []

    def kill_one() -> None:
        while not killed:
            server = executor._server
            for pid in [] if server is None else children(server._process.pid):
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
                break
            time.sleep(0.02)

    thread = Thread(target=kill_one, daemon=True)
    thread.start()
    outcome = launch(suite_of(tmp_path), tmp_path / "results", executor, Console(quiet=True))
    assert killed
    assert outcome.failed == {}
    assert len(outcome.executed) == 2
    assert set(read(tmp_path / "results")["status"].to_pylist()) == {"done"}
    assert executor._server is None
    settings = "{lr: 1e+30, max_grad_norm: null, epochs: 1, batch_size: 24, warmup_steps: 0}"
    console = Console(file=io.StringIO(), width=200)
    outcome = launch(
        suite_of(tmp_path, "methods.full=null", f"methods.loud={settings}"),
        tmp_path / "results",
        executor,
        console,
    )
    (reason,) = outcome.failed.values()
    assert "not finite" in reason
    said = [line for line in console.file.getvalue().splitlines() if "│" in line]  # type: ignore[attr-defined]
    name = "cifar10 · miniature · loud · seed 0 │ "
    assert said[0] == f"{name}preparing [all]"
    assert said[1].startswith(f"{name}UserWarning: this is slow (") and "loud_lab.py" in said[1]
    assert said[2] == f"{name}and loud"


def children(of: int) -> list[int]:
    """Ids of the processes that a process has forked."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            text = (folder / "stat").read_text()
        except OSError:
            continue
        if text.rpartition(")")[2].split()[1] == str(of):
            found.append(int(folder.name))
    return found
