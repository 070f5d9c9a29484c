"""Groups of workers as the driver sees them."""

from __future__ import annotations

import pickle
from queue import SimpleQueue
from threading import Event
from unittest.mock import MagicMock

import pytest
from shiftbench.core.errors import sendable, whole_text
from shiftbench.distributed import groups
from shiftbench.distributed.pool import Events
from shiftbench.execution.jobs import Job


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
        MagicMock(), None, events, lambda job, error: ended.append(job), gone.append
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
