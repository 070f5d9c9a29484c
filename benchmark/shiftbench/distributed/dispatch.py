"""The jobs of a launch on a cluster: all at once, as far as it has room."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

import ray
from ray.exceptions import RayError

from shiftbench.core.errors import InputError, RunFailedError, whole_text
from shiftbench.distributed.births import Births
from shiftbench.distributed.cluster import Cluster, beside_the_driver
from shiftbench.distributed.groups import Group, NotPlacedError, end_all
from shiftbench.distributed.growth import Growth
from shiftbench.distributed.leftovers import Leftovers
from shiftbench.distributed.metrics import Metrics
from shiftbench.distributed.nodes import ANSWER_S
from shiftbench.distributed.place import Home, stop_at
from shiftbench.distributed.pool import Events, Pool, WorkerLostError
from shiftbench.distributed.progress import News, ProgressActor
from shiftbench.distributed.searches import Searches
from shiftbench.execution.display import name_of
from shiftbench.execution.group_rules import bundle
from shiftbench.execution.jobs import Job
from shiftbench.execution.rooms import Rooms
from shiftbench.execution.saving import RecalledError
from shiftbench.execution.scheduler import Scheduler, priorities
from shiftbench.execution.stalls import Watch, error_of

if TYPE_CHECKING:
    from shiftbench.distributed.nodes import Nodes
    from shiftbench.execution.work import Work
    from shiftbench.suite.file import Resources

_TICK_S = 0.5
_SAY_EVERY_S = 60.0
_CLEAR_AFTER_S = 30.0
_LEAVE_S = 30.0


def dispatch(work: Work, nodes: Nodes) -> None:
    """Do all jobs, side by side. Needs a connection to Ray (``session``).

    Args:
        work: the jobs.
        nodes: of the cluster; those that it has now must answer first.

    Raises:
        InputError: the cluster stays too small for a job for ``limits.cluster_wait_s``, or a node
            does not see what this process does.
    """
    nodes.check(ANSWER_S)
    Dispatcher(work, nodes.check).run()


class Dispatcher:
    """Starts what the scheduler says, and settles what has ended.

    Workers, groups and searches report by putting calls into one queue, which the loop makes; so
    nothing here is shared between threads.

    Args:
        work: the jobs.
        check_nodes: sees that nodes which have come can work.
    """

    def __init__(self, work: Work, check_nodes: Callable[[], None] = lambda: None) -> None:
        self._work = work
        self._setup = work.setup
        self._check_nodes = check_nodes
        self._events: Events = SimpleQueue()
        self._cluster = Cluster(self._setup.resources)
        self._metrics = Metrics(self._setup.suite, self._setup.runs)
        self._progress = ray.remote(**beside_the_driver())(ProgressActor).remote()
        lost_a_node = self._cluster.lost_a_node
        self._pool = Pool(self._setup, self._progress, self._events, self._ended, lost_a_node)
        self._groups: list[Group] = []
        self._losses: Counter[Job] = Counter()
        self._preemptions: Counter[Job] = Counter()
        self._watch = Watch(self._setup.resources.limits.stall_s)
        self._births = Births(self._setup.resources.limits.stall_s)
        self._leftovers = Leftovers()
        self._hung: dict[Job, RunFailedError] = {}
        self._rooms = Rooms(self._setup.runs, self._setup.resources, self._setup.own_resources)
        self._scheduler = Scheduler(
            priorities(self._setup.runs), self._rooms, work.needed, work.begin
        )
        self._growth = Growth(self._setup, self._rooms, self._scheduler, self._cluster)
        self._searches = Searches(
            self._setup,
            self._scheduler,
            work.display,
            self._progress,
            self._events,
            self._ended,
            lost_a_node,
        )
        self._waits_since: float | None = None
        self._said = float("-inf")

    def run(self) -> None:
        """Do all jobs."""
        try:
            self._loop()
            self._end_groups()
        except Exception:
            with suppress(RayError):  # the first error says more
                self._abandon()
            raise
        finally:
            with suppress(RayError):
                self._cluster.ask_for(0)  # or an autoscaler would keep what was asked for

    def _end_groups(self) -> None:
        """Let all workers go, none of which has anything to do."""
        for group in self._groups:
            group.close()
        self._pool.close()
        end = time.monotonic() + _LEAVE_S
        while self._groups and time.monotonic() < end:
            self._await_events()
        if self._groups:
            self._abandon()

    def _abandon(self) -> None:
        """Have the threads end that use Ray, whatever they are at.

        Ray ends this process without a word where one does so while the connection is shut down.
        """
        self._searches.abandon()
        threads = [*self._searches.threads, *(group.thread for group in self._groups)]
        end = time.monotonic() + _LEAVE_S
        while (left := [one for one in threads if one.is_alive()]) and time.monotonic() < end:
            end_all()
            left[0].join(_TICK_S)

    def _loop(self) -> None:
        scheduler = self._scheduler
        while True:
            for job in self._work.ready():
                scheduler.add(job)
            scheduler.resize(self._cluster.slots(), grows=self._cluster.grows)
            self._check_nodes()
            for job in () if self._clears_a_place() else scheduler.start():
                self._start(job)
            busy = scheduler.running or scheduler.waiting
            if not busy and not self._work.awaits_others():
                break
            self._cluster.ask_for(scheduler.wanted + self._growth.lacking(self._groups))
            self._make_room()
            self._let_grow()
            self._tell_what_waits()
            waiting, since = scheduler.waiting, time.monotonic()
            self._await_events()
            self._stop_what_hangs(self._tell_news())
            for line in self._births.stop_stuck():
                self._work.display.warn(line)
            self._leftovers.remove()
            self._metrics.waited(time.monotonic() - since, waiting)
            self._metrics.ended(self._work.ended)

    def _tell_news(self) -> dict[Job, list[Home]]:
        """Show how far trainings are and what runs have printed; note which jobs go on.

        Returns:
            the trials that have been proposed and not ended, and the processes that they may be in.
        """
        news: News = ray.get(self._progress.news.remote())
        for run_id, line in news.said:
            self._work.display.said(run_id, line)
        self._work.display.steps(news.steps)
        self._metrics.steps(news.steps)
        self._growth.steps(news.steps)
        self._births.heard(news.came)
        for run_id, (step, _) in news.steps.items():
            self._watch.steps(run_id, step)
            for group in self._groups:
                if Job("fit", run_id) in group.jobs:
                    group.placed()
        for fields in news.begun:  # it was not its own time that it waited for a process
            self._watch.forget(Job(*fields))
        for fields in news.signs:
            self._watch.sign(Job(*fields))
        # Of a search that has ended, a late word may arrive.
        searching = {job.run_id for job in self._searches.running}
        there = {Job(*fields): where for fields, where in news.trials.items()}
        return {trial: where for trial, where in there.items() if trial.run_id in searching}

    def _clears_a_place(self) -> bool:
        """True while nothing is started, so that workers of an own size find a place for them.

        Others that come and go would always leave too little in one place.
        """
        alike = bundle(self._setup.resources)
        waits = (group for group in self._groups if bundle(group.resources) != alike)
        clears = any(group.unplaced_s > _CLEAR_AFTER_S for group in waits)
        if clears:
            self._pool.release_idle(0.0)
        return clears

    def _start(self, job: Job) -> None:
        if self._rooms.by_trials(job):
            self._searches.submit(job)
        elif (own := self._rooms.shared(job)) is not None:
            self._group_for(job, own).submit(job)
        elif (lender := self._lender(job)) is not None:
            lender.lend(job)
        else:
            self._pool.submit(job)

    def _lender(self, job: Job) -> Group | None:
        """The group to lend a worker for a job, which may have its weights; ``None``: the pool.

        Those that have lent some come first, since a training waits until all are back.
        """
        alike = bundle(self._setup.resources)
        lenders = [
            group
            for group in self._groups
            if group.to_lend and bundle(group.resources) == alike and self._rooms(job).brief
        ]
        best = max(lenders, key=lambda group: (group.last == job.run_id, group.lent), default=None)
        if best is None or (best.last != job.run_id and self._pool.idle):
            return None
        return best

    def _group_for(self, job: Job, own: Resources) -> Group:
        """A group for the slots that a job was granted: one that is idle, or a new one."""
        slots = self._scheduler.granted(job)
        workers = self._rooms.workers(job, own, slots, self._cluster.fit(own))
        for group in sorted(self._groups, key=lambda group: group.lent):
            if group.idle and group.slots == slots and bundle(group.resources) == bundle(own):
                return group
        fewer = "" if workers == own.workers else f" in place of {own.workers}"
        self._work.display.note(f"starting a group of {workers} training workers{fewer}")
        group = Group(
            self._setup,
            own.model_copy(update={"workers": workers}),
            slots,
            self._progress,
            self._events,
            self._ended,
            self._groups.remove,
            self._cluster.lost_a_node,
        )
        self._groups.append(group)
        return group

    def _ended(self, job: Job, error: BaseException | None) -> None:
        """A job has ended; one whose worker was lost is done again.

        A node that went away is no fault of the job, so ``limits.max_preemptions`` of those may,
        any number by default; of workers that died on a node that is still there, or that hung,
        ``limits.job_retries``. Nor is it the job's fault that a group found no place, since others
        hold the cluster: that is waited for.
        """
        self._scheduler.ended(job)
        self._watch.forget(job)
        hung = self._hung.pop(job, None)
        if isinstance(error, RecalledError):
            self._scheduler.add(job)
            return
        if isinstance(error, NotPlacedError):
            own = self._setup.resources_of(job.run_id)
            alike = bundle(own) == bundle(self._setup.resources)  # else nobody else waits for it
            if alike or self._cluster.fit(own) >= (own.min_workers or own.workers):
                self._scheduler.add(job)
                return
            error = RunFailedError(f"its {own.workers} workers do not fit on the cluster")
        if isinstance(error, WorkerLostError):
            limits = self._setup.resources.limits
            there = self._cluster.has(error.node)
            lost, most = (
                (self._losses, limits.job_retries)
                if there
                else (self._preemptions, limits.max_preemptions)
            )
            lost[job] += 1
            if most is None or lost[job] <= most:
                self._scheduler.add(job)
                return
            if hung is not None:
                hung.add_note(f"Then: {whole_text(error)}")
            error = hung or error
        elif error is not None and hung is not None:  # its group was started again, in vain
            error.add_note(f"Before that: {whole_text(hung)}")
        self._work.settle(job, error)

    def _stop_what_hangs(self, trials: Mapping[Job, list[Home]]) -> None:
        """Kill the processes whose jobs or trials show no progress; these count as lost."""
        groups = {job: group for group in self._groups for job in group.jobs}
        for job, seconds in self._watch.among([*self._pool.running, *groups, *trials]).items():
            self._watch.forget(job)
            if job in trials:
                if (stack := stop_at(trials[job])) is None:  # no process is there yet
                    continue
                self._progress.leave.remote(tuple(job))
            elif job not in groups:
                stack = self._pool.stop(job)
            elif (stack := groups[job].stop(job)) is None:  # it is being started
                continue
            self._hung[job] = error_of(seconds, stack)
            self._work.note_hung(job, self._hung[job])

    def _make_room(self) -> None:
        """Let go of idle groups and workers where a job that was started needs their place.

        After some time do so in any case: those whose runs are awaited here may need it, too.
        """
        scheduler = self._scheduler
        limit = self._setup.resources.limits.idle_worker_s
        idle = sorted((group for group in self._groups if group.idle), key=lambda g: g.idle_s)
        owed = sum(group.spare for group in self._groups if not group.idle)
        while idle and (
            owed + sum(group.spare for group in idle) > scheduler.free or idle[-1].idle_s > limit
        ):
            idle.pop().close()
        elsewhere = sum(group.slots for group in self._groups) + sum(
            map(scheduler.held, self._searches.running)
        )
        self._pool.resize(scheduler.slots - elsewhere)
        self._pool.release_idle(limit)

    def _let_grow(self) -> None:
        """Recall a training that has fewer workers than it asked for and could long have more."""
        group = self._growth.due(self._groups)
        if group is not None:
            name = name_of(self._setup.runs[group.jobs[0].run_id])
            self._work.display.note(f"{name}: saved, to go on with more workers")
            group.recall()

    def _await_events(self) -> None:
        """Wait until something happens, for half a second at most, and deal with all that has."""
        try:
            self._events.get(timeout=_TICK_S)()
            while True:
                self._events.get_nowait()()
        except Empty:
            pass

    def _tell_what_waits(self) -> None:
        """Say what the cluster has no room for, and give up where that does not change."""
        room, now = self._scheduler.starved, time.monotonic()
        unplaced = self._pool.unplaced(_SAY_EVERY_S)
        if room is None:
            self._waits_since = None
        elif self._waits_since is None:
            self._waits_since = now
        resources = self._setup.resources
        memory = f"{resources.memory_per_worker / 2**30:.3g} GiB"
        worker = (
            f"{resources.cpus_per_worker:g} CPUs, {resources.gpus_per_worker:g} GPUs and {memory}"
        )
        if (room or unplaced) and now - self._said > _SAY_EVERY_S:
            self._said = now
            wanted = unplaced if room is None else room.least
            there = f"{self._scheduler.slots} fit on it" if room else "others may hold them"
            self._work.display.note(
                f"waiting for the cluster: {wanted} workers of {worker} each; {there}"
            )
        limit = resources.limits.cluster_wait_s
        if room and self._waits_since is not None and now - self._waits_since > limit:
            raise InputError(
                f"resources: {room.least} workers of {worker} each do not fit on the cluster, "
                f"which has had room for {self._scheduler.slots} for {limit:g} s"
            )
