"""Trainings that began on a part of a cluster, and go on with more workers once they are there."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from shiftbench.execution.under_way import Courses

if TYPE_CHECKING:
    from shiftbench.distributed.cluster import Cluster
    from shiftbench.distributed.groups import Group
    from shiftbench.execution.jobs import Job
    from shiftbench.execution.rooms import Rooms
    from shiftbench.execution.scheduler import Scheduler
    from shiftbench.execution.setup import Setup

_AFTER_S = 60.0
_SAVES_S = 60.0
"""Starting a group again costs half of it."""
_NODE_S = 300.0
"""A node that is asked for takes so long to come."""


class Growth:
    """Says which groups of workers are to make way for larger ones.

    Args:
        setup: of the launch.
        rooms: the slots that jobs can use.
        scheduler: knows what waits and what is free.
        cluster: that the groups are on.
    """

    def __init__(self, setup: Setup, rooms: Rooms, scheduler: Scheduler, cluster: Cluster) -> None:
        self._setup = setup
        self._rooms = rooms
        self._scheduler = scheduler
        self._cluster = cluster
        self._courses = Courses()
        self._since: dict[Group, float] = {}
        self._recalls: Counter[Job] = Counter()

    def steps(self, steps: Mapping[str, tuple[int, int]]) -> None:
        """Trainings are so far: steps done and in all, by run."""
        self._courses.steps(steps, time.monotonic())

    def due(self, groups: Sequence[Group]) -> Group | None:
        """The group to be recalled now: its training could long have had more workers.

        Nothing else waits for those, so it goes on with them at once. One at a time: what is free
        is free for one. A training that is recalled again and again, as nodes come and go, is left
        alone for longer each time.
        """
        now = time.monotonic()
        if any(group.recalled or group.unplaced_s for group in groups):
            self._since = {}
            return None
        self._since = {
            group: self._since.get(group, now)
            for group in groups
            if group.training is not None and self._larger(group, group.training)
        }
        for group, since in self._since.items():
            job = group.jobs[0]
            if now - since > self._patience(job):
                self._recalls[job] += 1
                self._courses.forget(job.run_id)
                return group
        return None

    def lacking(self, groups: Sequence[Group]) -> int:
        """The slots that trainings would have beside theirs, if only the cluster had them."""
        lacking = 0
        for group in groups:
            if (job := group.training) is None:
                continue
            asked, there = self._setup.resources_of(job.run_id).workers, group.resources.workers
            waits = _NODE_S + self._patience(job)
            if asked > there and self._saved_s(job, there, asked) > _SAVES_S + waits:
                lacking += self._rooms(job).wanted - group.slots
        return lacking

    def _larger(self, group: Group, job: Job) -> bool:
        """True if the training of a group could have more workers, and would gain by them."""
        own, there = self._setup.resources_of(job.run_id), group.resources.workers
        if there >= own.workers or self._scheduler.waiting or self._cluster.grows:
            return False
        fit = self._cluster.fit(own)
        if fit <= there:
            return False
        could = self._rooms.workers(job, own, self._scheduler.free + group.slots, fit)
        return (
            could > there
            and self._saved_s(job, there, could) > _SAVES_S
            and self._cluster.room(own) >= could - there
        )

    def _patience(self, job: Job) -> float:
        """Seconds for which there must be room for more workers before a training is recalled."""
        return _AFTER_S * 2.0 ** self._recalls[job]

    def _saved_s(self, job: Job, there: int, more: int) -> float:
        """Seconds by which a training ends sooner with more workers; 0 while nobody knows."""
        left = self._courses.left(job.run_id)
        return 0.0 if left is None else left * (1 - there / more)
