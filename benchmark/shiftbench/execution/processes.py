"""All jobs of a launch on this machine, by processes that are forked from a warm server. No ray."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING

from shiftbench.core.cpus import available_cpus
from shiftbench.core.errors import InputError, RunFailedError
from shiftbench.core.memory import available_memory
from shiftbench.core.stacks import stop
from shiftbench.execution.scheduler import Room, Scheduler, closest, priorities, weights_of
from shiftbench.execution.stalls import Watch, error_of
from shiftbench.models.backbones import is_shipped

if TYPE_CHECKING:
    from shiftbench.core.stacks import Place
    from shiftbench.execution.jobs import Job
    from shiftbench.execution.scheduler import Weights
    from shiftbench.execution.server import Message
    from shiftbench.execution.setup import Setup
    from shiftbench.execution.work import Work
    from shiftbench.suite.file import Resources
    from shiftbench.suite.plan import Plan

_TICK_S = 0.5
_SAVE_S = 2.0
"""Seconds for which a process that is to end waits for trainings to save; it has three in all."""


def workers_that_fit(resources: Resources, cpus: float, memory: float) -> int:
    """Number of workers that a machine has room for.

    Args:
        resources: of a worker.
        cpus: processors of the machine.
        memory: its free memory, bytes.

    Raises:
        InputError: it has too few processors for one. Too little memory is no reason to refuse:
            what a worker needs is an estimate.
    """
    if resources.cpus_per_worker > cpus:
        raise InputError(
            f"resources: a worker with {resources.cpus_per_worker:g} CPUs, but this machine has "
            f"{cpus:g}"
        )
    fit = min(cpus / resources.cpus_per_worker, memory / resources.memory_per_worker)
    return max(1, min(int(fit), resources.max_concurrent or sys.maxsize))


@dataclass(eq=False)
class _Worker:
    """A process, at a job or idle."""

    connection: Connection
    place: Place | None = None
    last: Weights | None = None


class Processes:
    """Does the jobs of a launch by processes of this machine, on its processors.

    A process that dies, say for want of memory, loses its job only, which is done again.
    """

    def __init__(self) -> None:
        self._server: Server | None = None

    most = None

    def check(self, plan: Plan) -> None:
        """Nothing but the number of processors can be missing, of which ``execute`` tells."""

    def prepare(self, plan: Plan) -> None:
        """Start the server, which imports what workers need while the driver checks the data."""
        self._server = Server(plan.suite.resources, plan.suite.backbones)

    def execute(self, work: Work) -> None:
        """Do all jobs, as many at once as there is room for.

        Raises:
            InputError: this machine has too few processors.
        """
        resources = work.setup.resources
        size = workers_that_fit(resources, available_cpus(), available_memory())
        backbones = {run.backbone for run in work.setup.runs.values()}
        server = self._server or Server(resources, backbones)
        try:
            _Loop(work, server, size).run()
        finally:
            server.close()
            self._server = None

    def release(self) -> None:
        """End the server."""
        if self._server is not None:
            self._server.close()
            self._server = None


class Server:
    """The process that workers are forked from.

    Args:
        resources: of a worker.
        backbones: that workers may load.
    """

    def __init__(self, resources: Resources, backbones: Iterable[str]) -> None:
        self._control, theirs = socket.socketpair()
        life, self._life = os.pipe()
        threads = str(max(1, int(resources.cpus_per_worker)))
        command = [sys.executable, "-W", "ignore", "-m", "shiftbench.execution.server"]
        self._process = subprocess.Popen(
            [*command, str(theirs.fileno()), str(life), "01"[not all(map(is_shipped, backbones))]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(), life),
            env={**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", threads)},
        )
        theirs.close()
        os.close(life)

    def fork(self, setup: Setup) -> Connection:
        """A connection to a new worker."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                socket.send_fds(self._control, [b"1"], [theirs.fileno()])
            except OSError as error:
                raise RunFailedError("the process that workers are forked from died") from error
        connection = Connection(ours.detach())
        connection.send(setup)
        return connection

    def close(self) -> None:
        """End the server and all workers, whatever they are at."""
        os.close(self._life)
        self._control.close()
        self._process.kill()  # it may be in the midst of its imports
        self._process.wait()


class _Loop:
    """Starts what the scheduler says, and settles what has ended.

    Args:
        work: the jobs.
        server: that workers are forked from.
        size: number of workers.
    """

    def __init__(self, work: Work, server: Server, size: int) -> None:
        self._work = work
        self._server = server
        self._scheduler = Scheduler(priorities(work.setup.runs), _room, work.needed, work.begin)
        self._scheduler.resize(size)
        self._idle: list[_Worker] = []
        self._busy: dict[Connection, tuple[_Worker, Job]] = {}
        self._losses: Counter[Job] = Counter()
        self._watch = Watch(work.setup.resources.limits.stall_s)
        self._hung: dict[Job, RunFailedError] = {}

    def run(self) -> None:
        """Do all jobs; if this process is to end, trainings save what they have done."""
        try:
            self._run()
        except (SystemExit, KeyboardInterrupt):
            self._have_saved()
            raise

    def _have_saved(self) -> None:
        """Tell the workers that train to end, which they do when they have saved their state."""
        training = {
            connection: worker.place
            for connection, (worker, job) in self._busy.items()
            if job.stage == "fit" and worker.place is not None
        }
        for place in training.values():
            with suppress(ProcessLookupError):
                os.kill(place.pid, signal.SIGTERM)
        deadline = time.monotonic() + _SAVE_S
        while training and (left := deadline - time.monotonic()) > 0:
            ready = wait(list(training), timeout=left)
            for connection in [one for one in training if one in ready]:
                try:
                    connection.recv()
                except (EOFError, OSError):
                    del training[connection]

    def _run(self) -> None:
        while True:
            for job in self._work.ready():
                self._scheduler.add(job)
            started = self._scheduler.start()
            for job in started:
                self._give(job)
            if not started and not self._busy and not self._work.awaits_others():
                break
            for connection in wait(list(self._busy), timeout=_TICK_S):
                self._listen(self._busy[connection][0])  # type: ignore[index]
            self._stop_what_hangs()
        for worker in self._idle:
            worker.connection.close()

    def _give(self, job: Job) -> None:
        """Give a job to the idle worker that is closest to having its weights, or to a new one."""
        while self._idle:
            worker = self._idle.pop(closest(job, [worker.last for worker in self._idle]))
            if self._sent(worker, job):
                return
            worker.connection.close()  # it died while it was idle, which is no loss of the job
        worker = _Worker(self._server.fork(self._work.setup))
        self._busy[worker.connection] = (worker, job)
        if not self._sent(worker, job):
            self._lost(worker)

    def _sent(self, worker: _Worker, job: Job) -> bool:
        """Give a job to a worker; false if the worker is gone."""
        worker.last = weights_of(job)
        try:
            worker.connection.send(job)
        except OSError:
            return False
        self._busy[worker.connection] = (worker, job)
        return True

    def _listen(self, worker: _Worker) -> None:
        """Take one message of a worker that is at a job."""
        _, job = self._busy[worker.connection]
        try:
            message: Message = worker.connection.recv()
        except (EOFError, OSError):
            self._lost(worker)
            return
        if message[0] == "here":
            worker.place = message[1]
            return
        if message[0] == "sign":
            self._watch.sign(job)
            return
        if message[0] == "step":
            self._watch.steps(job.run_id, message[1][0])
            self._work.display.steps({job.run_id: message[1]})
            return
        if message[0] == "said":
            self._work.display.said(job.run_id, message[1])
            return
        self._watch.forget(job)
        del self._busy[worker.connection]
        self._idle.append(worker)
        self._scheduler.ended(job)
        self._work.settle(job, message[1])

    def _lost(self, worker: _Worker) -> None:
        """A worker is gone; its job is done again, ``limits.job_retries`` times."""
        _, job = self._busy.pop(worker.connection)
        self._watch.forget(job)
        worker.connection.close()
        self._scheduler.ended(job)
        self._losses[job] += 1
        hung = self._hung.pop(job, None)
        if self._losses[job] <= self._work.setup.resources.limits.job_retries:
            self._scheduler.add(job)
        else:
            message = "its process died: it was killed, or there was too little memory"
            self._work.settle(job, hung or RunFailedError(message))

    def _stop_what_hangs(self) -> None:
        """End the workers whose jobs show no progress; the jobs count as lost."""
        running = {job: worker for worker, job in self._busy.values()}
        for job, seconds in self._watch.among(running).items():
            place = running[job].place
            self._hung[job] = error_of(seconds, stop(place) if place else None)
            self._work.note_hung(job, self._hung[job])
            self._lost(running[job])


def _room(job: Job) -> Room:
    return Room(brief=job.stage in ("predict", "score"))
