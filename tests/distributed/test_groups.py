"""Groups of workers as the driver sees them."""

from __future__ import annotations

import pickle
from queue import SimpleQueue
from threading import Event
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
from ray.train import ControllerError
from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError
from shiftbench.core.errors import RunFailedError, sendable, whole_text
from shiftbench.distributed import dispatch, groups
from shiftbench.distributed.pool import Events, WorkerLostError
from shiftbench.execution.jobs import Job
from shiftbench.execution.stalls import error_of
from shiftbench.suite.file import Limits, Resources


def test_an_error_keeps_its_traceback_on_the_way_to_another_process() -> None:
    try:
        [].pop()
    except IndexError as error:
        sent = pickle.loads(pickle.dumps(sendable(error)))
    assert str(sent) == "IndexError: pop from empty list"
    assert "[].pop()" in whole_text(sent)


def test_a_group_that_is_to_end_is_given_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    over = Event()
    monkeypatch.setattr(groups, "_trainer_fit", lambda *_: over.wait())
    monkeypatch.setattr(groups, "ray", MagicMock())
    monkeypatch.setattr(groups, "beside_the_driver", dict)
    ended: list[Job] = []
    gone: list[groups.Group] = []
    events: Events = SimpleQueue()
    group = groups.Group(
        MagicMock(), None, events, lambda job, error: ended.append(job), gone.append, bool
    )
    assert group.idle
    group.submit(Job("fit", "a"))
    assert not group.idle
    group._trained(MagicMock(exception=lambda: None, result=lambda: None))
    assert group.idle
    group.close()
    assert not group.idle  # its workers may have gone: a run would wait for ever
    over.set()
    events.get(timeout=10)()
    assert (ended, gone) == ([Job("fit", "a")], [group])


def test_a_group_that_found_no_place_costs_its_run_no_try(monkeypatch: pytest.MonkeyPatch) -> None:
    def fit(*_: object) -> None:
        raise ControllerError(WorkerGroupStartupTimeoutError(8))

    monkeypatch.setattr(groups, "_trainer_fit", fit)
    monkeypatch.setattr(groups, "ray", MagicMock())
    monkeypatch.setattr(groups, "beside_the_driver", dict)
    job = Job("fit", "a")
    events: Events = SimpleQueue()
    dispatcher: Any = dispatch.Dispatcher.__new__(dispatch.Dispatcher)
    dispatcher._scheduler, dispatcher._watch, dispatcher._work = (MagicMock() for _ in range(3))
    dispatcher._searching, dispatcher._hung = set(), {}
    group = groups.Group(MagicMock(), None, events, dispatcher._ended, lambda group: None, bool)
    group.submit(job)
    events.get(timeout=10)()
    dispatcher._scheduler.add.assert_called_once_with(job)
    dispatcher._work.settle.assert_not_called()


def test_a_group_whose_nodes_keep_going_costs_its_run_no_try(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fit(*_: object) -> None:
        raise ControllerError(RuntimeError("its nodes have gone three times"))

    monkeypatch.setattr(groups, "_trainer_fit", fit)
    monkeypatch.setattr(groups, "ray", MagicMock())
    monkeypatch.setattr(groups, "beside_the_driver", dict)
    ended: list[BaseException | None] = []
    for lost in (lambda since: True, lambda since: False):
        events: Events = SimpleQueue()
        group = groups.Group(
            MagicMock(), None, events, lambda job, error: ended.append(error),
            lambda group: None, lost,
        )  # fmt: skip
        group.submit(Job("fit", "a"))
        events.get(timeout=10)()
    preempted, failed = ended
    assert isinstance(preempted, WorkerLostError) and preempted.node == ""
    assert isinstance(failed, RunFailedError)


def test_a_run_whose_group_ends_after_it_hung_keeps_what_it_hung_at() -> None:
    job, error = Job("fit", "a"), RunFailedError("the workers are gone")
    dispatcher: Any = dispatch.Dispatcher.__new__(dispatch.Dispatcher)
    dispatcher._scheduler, dispatcher._watch, dispatcher._work = (MagicMock() for _ in range(3))
    dispatcher._searching, dispatcher._hung = set(), {job: error_of(601, "in stuck")}
    dispatcher._ended(job, error)
    dispatcher._work.settle.assert_called_once_with(job, error)
    assert "no progress for 601 s" in whole_text(error) and "in stuck" in whole_text(error)


def test_idle_groups_do_not_keep_others_from_the_cluster() -> None:
    limits = Limits(idle_worker_s=60)
    made = [SimpleNamespace(idle=i > 0, idle_s=30.0 * i, close=MagicMock()) for i in range(4)]
    dispatcher: Any = dispatch.Dispatcher.__new__(dispatch.Dispatcher)
    resources = Resources(workers=2, limits=limits)
    dispatcher._setup, dispatcher._groups = SimpleNamespace(resources=resources), made
    dispatcher._pool, dispatcher._searching = MagicMock(), set()
    dispatcher._scheduler = SimpleNamespace(free=6, slots=8, held=lambda job: 0)
    dispatcher._make_room()
    assert [group.close.called for group in made] == [False, False, False, True]  # after a minute
    dispatcher._scheduler.free = 2
    dispatcher._make_room()
    assert [group.close.called for group in made] == [False, False, True, True]
