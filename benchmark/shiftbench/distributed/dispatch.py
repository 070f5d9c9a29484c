"""The jobs of a launch on a cluster: all at once, as far as it has room."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any

import ray

from shiftbench.core.errors import InputError, RunFailedError, whole_text
from shiftbench.data.shared import remove_unused
from shiftbench.distributed.births import Births
from shiftbench.distributed.cluster import Cluster, beside_the_driver
from shiftbench.distributed.groups import Group, NotPlacedError
from shiftbench.distributed.metrics import Metrics
from shiftbench.distributed.nodes import ANSWER_S
from shiftbench.distributed.place import Home, stop_at
from shiftbench.distributed.pool import Events, Pool, WorkerLostError
from shiftbench.distributed.progress import ProgressActor
from shiftbench.distributed.tuning import Slots, run_trials
from shiftbench.execution.display import name_of
from shiftbench.execution.group_rules import bundle
from shiftbench.execution.jobs import Job
from shiftbench.execution.rooms import Rooms
from shiftbench.execution.saving import RecalledError
from shiftbench.execution.scheduler import Scheduler, priorities
from shiftbench.execution.search.record import account
from shiftbench.execution.search.search import search
from shiftbench.execution.search.trial import shared_folder
from shiftbench.execution.stalls import Watch, error_of
from shiftbench.leaderboard.runfolder import SearchFolder

if TYPE_CHECKING:
    from shiftbench.distributed.nodes import Nodes
    from shiftbench.execution.search.study import Study
    from shiftbench.execution.work import Work
    from shiftbench.suite.file import Resources

_TICK_S = 0.5
_SAY_EVERY_S = 60.0
_CLEAR_AFTER_S = 30.0
_LARGER_AFTER_S = 60.0
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
        self._could_grow: dict[Group, float] = {}  # since when
        self._recalls: Counter[Job] = Counter()
        self._losses: Counter[Job] = Counter()
        self._preemptions: Counter[Job] = Counter()
        self._watch = Watch(self._setup.resources.limits.stall_s)
        self._births = Births(self._setup.resources.limits.stall_s)
        self._hung: dict[Job, RunFailedError] = {}
        self._rooms = Rooms(self._setup.runs, self._setup.resources, self._setup.own_resources)
        self._scheduler = Scheduler(
            priorities(self._setup.runs), self._rooms, work.needed, work.begin
        )
        self._searching: set[Job] = set()
        self._waits_since: float | None = None
        self._said = float("-inf")

    def run(self) -> None:
        """Do all jobs."""
        try:
            self._loop()
        finally:
            self._cluster.ask_for(0)  # or an autoscaler would keep what was asked for
        for group in self._groups:
            group.close()
        self._pool.close()
        end = time.monotonic() + _LEAVE_S
        while self._groups and time.monotonic() < end:  # their threads use Ray until they are over
            self._await_events()

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
            self._cluster.ask_for(scheduler.wanted)
            self._make_room()
            self._let_grow()
            self._tell_what_waits()
            waiting, since = scheduler.waiting, time.monotonic()
            self._await_events()
            self._stop_what_hangs(self._tell_news())
            for line in self._births.stop_stuck():
                self._work.display.warn(line)
            self._metrics.waited(time.monotonic() - since, waiting)
            self._metrics.ended(self._work.ended)

    def _tell_news(self) -> dict[Job, Home]:
        """Show how far trainings are and what runs have printed; note which jobs go on.

        Returns:
            the trials that train now.
        """
        steps, signs, said, trials = ray.get(self._progress.news.remote())
        for run_id, line in said:
            self._work.display.said(run_id, line)
        self._work.display.steps(steps)
        self._metrics.steps(steps)
        for run_id, (step, _) in steps.items():
            self._watch.steps(run_id, step)
            for group in self._groups:
                if Job("fit", run_id) in group.jobs:
                    group.placed()
        for fields in signs:
            self._watch.sign(Job(*fields))
        searching = {job.run_id for job in self._searching}  # others may have died without a word
        there = {Job(*fields): where for fields, where in trials.items()}
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
            self._searching.add(job)
            # A thread that is no daemon would keep an interrupted driver alive.
            Thread(target=self._search, args=(job,), daemon=True).start()
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
        self._searching.discard(job)
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
            error = hung or error
        elif error is not None and hung is not None:  # its group was started again, in vain
            error.add_note(f"Before that: {whole_text(hung)}")
        self._work.settle(job, error)

    def _stop_what_hangs(self, trials: Mapping[Job, Home]) -> None:
        """Kill the processes whose jobs or trials show no progress; these count as lost."""
        groups = {job: group for group in self._groups for job in group.jobs}
        for job, seconds in self._watch.among([*self._pool.running, *groups, *trials]).items():
            self._watch.forget(job)
            if job in trials:
                self._progress.leave.remote(tuple(job))
                stack = stop_at([trials[job]])
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
            map(scheduler.held, self._searching)
        )
        self._pool.resize(scheduler.slots - elsewhere)
        self._pool.release_idle(limit)

    def _let_grow(self) -> None:
        """Recall trainings that have fewer workers than they asked for and could long have more.

        Nothing else waits for those, so they go on with them at once. One at a time: what is free
        is free for one. A training that is recalled again and again, as nodes come and go, is left
        alone for longer each time.
        """
        now = time.monotonic()
        if any(group.recalled or group.unplaced_s for group in self._groups):
            self._could_grow = {}
            return
        self._could_grow = {
            group: self._could_grow.get(group, now)
            for group in self._groups
            if group.training is not None and self._larger(group, group.training)
        }
        for group, since in self._could_grow.items():
            job = group.jobs[0]
            if now - since > _LARGER_AFTER_S * 2 ** self._recalls[job]:
                name = name_of(self._setup.runs[job.run_id])
                self._work.display.note(f"{name}: saved, to go on with more workers")
                self._recalls[job] += 1
                group.recall()
                return

    def _larger(self, group: Group, job: Job) -> bool:
        """True if the training of a group could have more workers."""
        own, there = self._setup.resources_of(job.run_id), group.resources.workers
        if there >= own.workers or self._scheduler.waiting or self._cluster.grows:
            return False
        fit = self._cluster.fit(own)
        slots = self._scheduler.free + group.slots
        more = self._rooms.workers(job, own, slots, fit) - there if fit > there else 0
        return more > 0 and self._cluster.room(own) >= more

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

    def _search(self, job: Job) -> None:
        """Search for the settings of a run, in a thread of its own."""
        run, display = self._setup.runs[job.run_id], self._work.display

        def tell(what: Any, text: str) -> None:
            self._events.put(partial(what, text))

        def show(study: str, ended: int, wanted: int, best: float) -> None:
            tell(display.busy, f"{name_of(run)}: {study} {ended}/{wanted}, best {best:.3f}")

        def trials(study: Study) -> None:
            run_trials(self._setup, run, study, slots, show, self._progress)

        slots = Slots(
            granted=lambda: self._scheduler.granted(job),
            taken=lambda n: self._events.put(partial(self._scheduler.takes, job, n)),
            ended=lambda trial: self._progress.leave.remote(("search", job.run_id, trial, "")),
            lost_a_node=self._cluster.lost_a_node,
        )
        tell(display.note, f"searching on OOD validation data for {name_of(run)}")
        error: Exception | None = None
        try:
            search(self._setup, run, trials, partial(tell, display.warn))
        except Exception as caught:  # recorded with the run
            error = caught
        finally:
            remove_unused(shared_folder())  # where no process of a trial did so
        if error is None and run.search is not None and run.searched:
            found = SearchFolder.of(self._setup.results, run.search.id).read_found()
            tell(display.note, f"{name_of(run)}: {account(found)}")
        self._events.put(partial(self._ended, job, error))
