"""A launch ends its threads that use Ray before the connection does, whatever it ends by."""

from __future__ import annotations

from queue import SimpleQueue
from threading import Event, Thread
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
from ray.exceptions import OutOfMemoryError, RayError, RpcError
from shiftbench.core.errors import InputError, whole_text
from shiftbench.distributed import dispatch, searches
from shiftbench.distributed.pool import Events, WorkerLostError
from shiftbench.distributed.searches import Searches
from shiftbench.distributed.tuning import AbandonedError, Slots, _Watch
from shiftbench.execution.jobs import Job

SEARCH = Job("search", "r")


def launch() -> Any:
    """A dispatcher that has nothing."""
    dispatcher: Any = dispatch.Dispatcher.__new__(dispatch.Dispatcher)
    dispatcher._events, dispatcher._groups = SimpleQueue(), []
    dispatcher._cluster, dispatcher._pool, dispatcher._loop = (MagicMock() for _ in range(3))
    dispatcher._searches = MagicMock(threads=[])
    return dispatcher


def test_a_launch_ends_after_the_threads_of_its_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    dispatcher, killed = launch(), MagicMock()
    monkeypatch.setattr(dispatch, "end_all", killed)
    leaves = SimpleNamespace(
        close=lambda: dispatcher._events.put(lambda: dispatcher._groups.remove(leaves))
    )
    dispatcher._groups = [leaves]
    dispatcher.run()
    assert dispatcher._groups == []
    killed.assert_not_called()


@pytest.mark.parametrize("error", [None, InputError("no space"), RayError("the head is gone")])
def test_what_does_not_end_of_itself_is_ended(
    error: Exception | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without an error: a group whose workers never come."""
    over, searched = Event(), Event()
    threads = [Thread(target=event.wait, args=(30,), daemon=True) for event in (over, searched)]
    for thread in threads:
        thread.start()
    monkeypatch.setattr(dispatch, "_LEAVE_S", 10.0 if error else 0.5)
    monkeypatch.setattr(dispatch, "end_all", over.set)
    dispatcher = launch()
    dispatcher._groups = [SimpleNamespace(close=MagicMock(), thread=threads[0])]
    dispatcher._searches = SimpleNamespace(abandon=searched.set, threads=[threads[1]])
    dispatcher._loop = MagicMock(side_effect=error)
    dispatcher._cluster.ask_for.side_effect = RpcError("no answer")  # it hides nothing
    if error is None:
        dispatcher.run()
    else:
        with pytest.raises(type(error), match=str(error)):
            dispatcher.run()
    assert not any(thread.is_alive() for thread in threads)


def test_a_search_that_is_abandoned_ends_at_the_next_step() -> None:
    over = False
    watch = _Watch(MagicMock(), MagicMock(), Slots(over=lambda: over), MagicMock())
    watch.on_step_begin(1, [])
    over = True
    with pytest.raises(AbandonedError):
        watch.on_step_begin(2, [])


def no_memory() -> None:
    """Tune ends by this where Ray's memory monitor has killed a trial."""
    raise RuntimeError("Caught unexpected exception") from OutOfMemoryError("a node is low on it")


def unreadable() -> None:
    raise ValueError("odd")


@pytest.mark.parametrize(("fault", "lost"), [(no_memory, True), (unreadable, False)])
def test_however_a_search_ends_the_launch_hears_of_it(
    fault: Any, lost: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What only killed its processes is no fault of its own: it is begun again."""
    ended: list[tuple[Job, Any]] = []
    events: Events = SimpleQueue()
    here = MagicMock()
    here.get_node_id = lambda: "here"
    monkeypatch.setattr(searches, "ray", SimpleNamespace(get_runtime_context=lambda: here))
    monkeypatch.setattr(searches, "name_of", str)
    monkeypatch.setattr(searches, "search", lambda *_: fault())
    progress = MagicMock()
    every = Searches(
        MagicMock(), MagicMock(), MagicMock(), progress, events,
        lambda *of: ended.append(of), lambda since: False,
    )  # fmt: skip
    every.submit(SEARCH)
    assert [*every.running] == [SEARCH]
    while not ended:
        events.get(timeout=10)()
    assert not every.running
    progress.forget.remote.assert_called_once_with("r")
    ((job, error),) = ended
    assert job == SEARCH and isinstance(error, WorkerLostError if lost else ValueError)
    if lost:
        assert error.node == "here" and "a node is low on it" in str(error)
        assert "in no_memory" in whole_text(error)
