"""The runs that other processes do on the same results folder. No ray, no torch.

A run is taken when its first job is about to start, never before, so that whoever comes later finds
work. Jobs of runs that others do are set aside until those are done or have failed, which counts as
if it had been so here; or until nobody is at them any more, when they are done here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from shiftbench.core.mirror import refresh_file
from shiftbench.execution.jobs import Job
from shiftbench.leaderboard import store
from shiftbench.leaderboard.leases import Lease, Leases, search_key
from shiftbench.leaderboard.runfolder import RunFolder, SearchFolder
from shiftbench.leaderboard.schema import failures

if TYPE_CHECKING:
    from shiftbench.leaderboard.files import Stamp
    from shiftbench.leaderboard.leases import Ending
    from shiftbench.suite.plan import Run

LOOK_EVERY_S = 2.0


@dataclass
class News:
    """What has become of jobs that were set aside.

    Attributes:
        here: those that are to be tried here.
        done: those that others have done.
        failed: jobs whose runs, or whose search, failed elsewhere, each with the reason.
    """

    here: list[Job] = field(default_factory=list)
    done: list[Job] = field(default_factory=list)
    failed: list[tuple[Job, str]] = field(default_factory=list)


class Sharing:
    """Says which jobs may be done here, and what has become of the others.

    Args:
        leases: of the results folder.
        results: the results folder.
        runs: all runs by id.
        jobs: all jobs of this launch.
        known: what the rows of runs were when the jobs were chosen.
        prepare: called with the first job of a run or a search before it starts, under its lease.
        clock: gives seconds.
        current: whether what there is of a job's run, or its search, was made of the data files of
            this launch.
    """

    def __init__(
        self,
        leases: Leases,
        results: Path,
        runs: Mapping[str, Run],
        jobs: Iterable[Job],
        known: Mapping[str, Stamp],
        prepare: Callable[[Job], None],
        clock: Callable[[], float] = time.monotonic,
        current: Callable[[Job], bool] = lambda job: True,
    ) -> None:
        self._leases = leases
        self._results = results
        self._runs = runs
        self._known = known
        self._prepare = prepare
        self._clock = clock
        self._current = current
        self._left: dict[str, set[Job]] = {}
        for job in jobs:
            self._left.setdefault(self._key(job), set()).add(job)
        self._aside: dict[str, list[Job]] = {}
        self._over: set[str] = set()  # keys of what others have done
        self._hosts: dict[str, str] = {}
        self._looked = float("-inf")

    def begin(self, job: Job) -> bool:
        """True if a job may start here; else it is set aside."""
        key = self._key(job)
        if key in self._aside:
            self._aside[key].append(job)
            return False
        if self._leases.held(key):
            return True
        if self._ended_meanwhile(job) is None:
            lease = self._leases.take(key)
            ended = self._ended_meanwhile(job)
            if lease is None and ended is None:
                self._prepare(job)
                return True
            if lease is None:
                self._leases.end(key, ended or "released")
            else:
                self._hosts[key] = lease.host
        self.set_aside(job)
        if key not in self._hosts:
            self._looked = float("-inf")  # it has ended, which need not wait for the next look
        return False

    def set_aside(self, job: Job) -> None:
        """A job is another process's to do."""
        self._aside.setdefault(self._key(job), []).append(job)

    def done_elsewhere(self, job: Job) -> bool:
        """True if another process has done all that a job is a part of."""
        return self._key(job) in self._over

    def lost(self, job: Job) -> bool:
        """True if another process has taken over what a job that was started here is a part of."""
        return not self._leases.held(self._key(job))

    def done(self, job: Job, *, finishes: bool) -> None:
        """A job was done here; what it is a part of is given back with the last one.

        Args:
            job: that was started here.
            finishes: whether its run is done with it.
        """
        key = self._key(job)
        left = self._left[key]
        left.discard(job)
        if not left or finishes:
            ended: Ending = "done" if finishes or job.stage == "search" else "released"
            self._leases.end(key, ended)

    def fail(self, job: Job, reason: str) -> None:
        """What a job is a part of has failed here, and is recorded."""
        self._leases.end(self._key(job), "failed", reason)

    def record_failure(self, run_id: str, reason: str, record: Callable[[], None]) -> None:
        """Record that a run failed, unless another process is at it or has ended it meanwhile."""
        if not self._leases.held(run_id) and not self._begun_to_fail(run_id):
            return
        try:
            record()
        finally:
            self._leases.end(run_id, "failed", reason)

    def _begun_to_fail(self, run_id: str) -> bool:
        """Take a run that fails before its first job, and forget it as it was on other data."""
        first = Job("score", run_id)
        if self._leases.take(run_id) is not None:
            return False
        ended = self._ended_meanwhile(first)
        if ended is not None:
            self._leases.end(run_id, ended)
            return False
        self._prepare(first)
        return True

    @property
    def awaited(self) -> Mapping[str, str]:
        """Names of the machines on which others do what is awaited, by its lease's key."""
        return {key: self._hosts.get(key, "?") for key in self._aside}

    def look(self) -> News:
        """See what has become of the jobs that were set aside, every few seconds."""
        news = News()
        now = self._clock()
        if not self._aside or now - self._looked < LOOK_EVERY_S:
            return news
        self._looked = now
        for key, jobs in [*self._aside.items()]:
            left: list[Job] = []
            if not self._settled(key, jobs, news):
                for job in jobs:  # others may build on what is fitted
                    (news.done if self._fitted(job) else left).append(job)
            self._aside[key] = left
        self._aside = {key: left for key, left in self._aside.items() if left}
        return news

    def _settled(self, key: str, jobs: list[Job], news: News) -> bool:
        """Whether jobs of a lease need to be awaited no longer; how they go on."""
        lease = self._leases.look(key) or Lease(ended="released")
        meanwhile = self._ended_meanwhile(jobs[0])
        if "done" in (meanwhile, lease.ended):
            self._over.add(key)
            news.done += jobs
        elif lease.ended is None:
            self._hosts[key] = lease.host
            return False
        elif "failed" in (meanwhile, lease.ended):
            news.failed.append((jobs[0], self._reason(jobs[0].run_id, lease)))
        else:
            news.here += jobs
        return True

    def _ended_meanwhile(self, job: Job) -> store.Status | None:
        """How a job's run, or its search, has ended since the jobs were chosen, if it has."""
        run = self._runs[job.run_id]
        search = run.search if job.stage == "search" else None
        if search is not None:
            SearchFolder.of(self._results, search.id).look()
        finished = search is not None and SearchFolder.of(self._results, search.id).finished
        if finished and self._current(job):
            return "done"
        file = store.folder(self._results) / f"{run.id}.parquet"
        refresh_file(file)
        try:
            found = file.stat()
        except FileNotFoundError:
            return None
        if (found.st_mtime_ns, found.st_size) == self._known.get(run.id):
            return None
        return store.status_of(self._results, run.id)

    def _reason(self, run_id: str, lease: Lease) -> str:
        """Why a run failed in another process."""
        if lease.ended == "failed" and lease.reason:
            return lease.reason
        recorded = failures(store.read(self._results, [run_id]))
        return recorded[0].error if recorded else lease.reason

    def _fitted(self, job: Job) -> bool:
        if job.stage != "fit":
            return False
        folder = RunFolder.of(self._results, job.run_id)
        folder.look()
        return folder.fitted and self._current(job)

    def _key(self, job: Job) -> str:
        search = self._runs[job.run_id].search
        if job.stage == "search" and search is not None:
            return search_key(search.id)
        return job.run_id
