"""Trainings that are recalled, to go on with more workers; and what a cluster is asked for them."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
from shiftbench.distributed import growth
from shiftbench.distributed.growth import Growth
from shiftbench.execution.jobs import Job
from shiftbench.execution.rooms import Rooms
from shiftbench.methods.base import TrainedMethod, TrainingConfig
from shiftbench.suite.file import Resources


class World:
    """Two trainings on groups of 2 workers that would have 8, and what says what is free.

    Both have done 100 of 1,000 steps after 100 seconds.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(growth, "time", SimpleNamespace(monotonic=lambda: self.now))
        own = Resources(workers=8, min_workers=2)
        method = MagicMock(spec=TrainedMethod, training=TrainingConfig(), inputs="images")
        run = MagicMock(create=lambda: method)
        self.cluster: Any = SimpleNamespace(fit=lambda own: 9, room=lambda own: 2, grows=False)
        self.scheduler: Any = SimpleNamespace(free=2, waiting=0)
        setup: Any = SimpleNamespace(resources_of=lambda run: own)
        rooms = Rooms({"a": run, "b": run}, own)
        self.growth = Growth(setup, rooms, self.scheduler, self.cluster)
        self.groups = [self.group("a", own), self.group("b", own)]
        self.train(0)
        self.now = 100.0
        self.train(100)

    def group(self, name: str, own: Resources) -> Any:
        return MagicMock(
            resources=own.model_copy(update={"workers": 2}), slots=2, recalled=False,
            unplaced_s=0.0, training=Job("fit", name), jobs=[Job("fit", name)],
        )  # fmt: skip

    def train(self, step: int) -> None:
        self.growth.steps({name: (max(step, 1), 1000) for name in "ab"})

    def due(self, now: float) -> str | None:
        self.now = now
        group = self.growth.due(self.groups)
        if group is None:
            return None
        group.recalled = True
        return str(group.jobs[0].run_id)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def test_a_training_gets_the_workers_that_were_long_free(here: World) -> None:
    assert here.due(100) is here.due(160) is None
    assert here.due(161) == "a"
    assert here.due(162) is None  # what is free is free for one
    first = here.groups.pop(0)
    assert here.due(200) is here.due(260) is None
    assert here.due(261) == "b"
    first.recalled = False
    here.groups = [first]
    assert here.due(270) is None
    here.train(101)  # how fast it is now is to be seen
    here.now = 280
    here.train(110)
    assert here.due(300) is here.due(420) is None  # once more, after twice the time
    assert here.due(421) == "a"


@pytest.mark.parametrize(
    "taken",
    [
        lambda w: setattr(w.scheduler, "free", 0),
        lambda w: setattr(w.scheduler, "waiting", 1),
        lambda w: setattr(w.cluster, "grows", True),  # it would wait for all eight
        lambda w: setattr(w.cluster, "fit", lambda own: 1),  # a node has gone
        lambda w: setattr(w.cluster, "room", lambda own: 1),  # another launch has the others
        lambda w: setattr(w.groups[1], "unplaced_s", 1.0),  # that one may need them
        lambda w: (setattr(w, "now", 900.0), w.train(900)),  # it ends in 100 s
    ],
)
def test_a_training_keeps_its_workers_where_there_are_no_more_or_little_is_gained(
    taken: Callable[[World], None], here: World
) -> None:
    assert here.due(100) is None and here.growth._since
    taken(here)
    assert here.due(here.now + 100) is None and here.growth._since == {}


def test_a_cluster_is_asked_for_what_trainings_lack(here: World) -> None:
    """Six more for each, while they have long to go: with eight they end in a quarter of 900 s."""
    assert here.growth.lacking(here.groups) == 12
    here.groups[0].training = None  # it is to end
    assert here.growth.lacking(here.groups) == 6
    here.now = 500.0
    here.train(500)
    assert here.growth.lacking(here.groups) == 0  # 375 s are saved, and nodes take as long to come
