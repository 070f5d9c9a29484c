"""The driver's side of workers and of the cluster, without Ray."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
from ray.exceptions import ActorUnavailableError
from shiftbench.distributed import cluster, dispatch, pool
from shiftbench.distributed.jobs import Shown
from shiftbench.distributed.progress import News, ProgressActor
from shiftbench.execution.jobs import Job
from shiftbench.execution.stalls import Watch
from shiftbench.suite.file import Limits, Resources

from tests.leaderboard.test_leases import Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Moves the time on."""
    now = [0.0]
    for module in (pool, cluster):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def move(seconds: float) -> None:
        now[0] += seconds

    return move


def failed(error: Exception) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_exception(error)
    return future


def test_a_node_that_goes_while_workers_start_there_fails_no_job(
    clock: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "ray", MagicMock())
    ended: list[tuple[Job, BaseException | None]] = []
    workers = pool.Pool(
        SimpleNamespace(resources=Resources()),  # type: ignore[arg-type]
        None, SimpleQueue(), lambda job, error: ended.append((job, error)), lambda since: False,
    )  # fmt: skip
    workers.resize(8)
    for i in range(8):
        workers.submit(Job("fit", f"r{i}"))
    clock(5.0)
    for worker in [*workers._starting]:
        worker.since = 0.0
        workers._ready(worker, failed(RuntimeError("the node is gone")))
    assert ended == []
    assert workers.size == 8  # others are started in their place


def test_a_worker_whose_node_goes_as_it_starts_uses_up_no_retry(
    clock: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "ray", MagicMock())
    there = [{"NodeID": "a", "Resources": {"CPU": 4.0}, "Alive": True}]
    monkeypatch.setattr(cluster, "ray", SimpleNamespace(nodes=lambda: there))
    here = cluster.Cluster(Resources())
    here.look()
    ended: list[Job] = []
    workers = pool.Pool(
        SimpleNamespace(resources=Resources(limits=Limits(job_retries=0))),  # type: ignore[arg-type]
        None, SimpleQueue(), lambda job, error: ended.append(job), here.lost_a_node,
    )  # fmt: skip
    workers.resize(1)
    workers.submit(Job("fit", "a"))
    clock(1.0)
    there[0]["Alive"] = False
    workers._starting[0].since = 0.5
    workers._ready(workers._starting[0], failed(RuntimeError("the node is gone")))
    assert ended == [] and workers.size == 1
    clock(1.0)
    workers._starting[0].since = pool.time.monotonic()
    clock(1.0)
    workers._ready(workers._starting[0], failed(ActorUnavailableError("no answer", None)))
    assert ended == [] and workers.size == 1  # asked again
    workers._ready(workers._starting[0], failed(RuntimeError("no such module")))
    assert ended == [Job("fit", "a")]


def test_workers_that_can_never_start_end_the_jobs(
    clock: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "ray", MagicMock())
    ended: list[Job] = []
    workers = pool.Pool(
        SimpleNamespace(resources=Resources()),  # type: ignore[arg-type]
        None, SimpleQueue(), lambda job, error: ended.append(job), lambda since: False,
    )  # fmt: skip
    workers.resize(1)
    workers.submit(Job("fit", "a"))
    for _ in range(1 + Resources().limits.job_retries):
        assert ended == []
        clock(5.0)
        (worker,) = workers._starting
        worker.since = pool.time.monotonic() - 1.0
        workers._ready(worker, failed(RuntimeError("no such module")))
    assert ended == [Job("fit", "a")]


def test_an_autoscaler_is_told_again_and_in_the_end_that_nothing_is_wanted(
    clock: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(cluster, "request_resources", lambda bundles: asked.append(len(bundles)))
    here = cluster.Cluster(Resources())
    for workers in (8, 8, 3):
        here.ask_for(workers)
    assert asked == [8, 3]
    clock(11.0)  # another driver may have said 0 meanwhile
    here.ask_for(3)
    here.ask_for(0)
    clock(11.0)
    here.ask_for(0)
    assert asked == [8, 3, 3, 0]

    dispatcher = dispatch.Dispatcher.__new__(dispatch.Dispatcher)
    dispatcher._cluster = here
    here.ask_for(5)
    monkeypatch.setattr(dispatch.Dispatcher, "_loop", MagicMock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        dispatcher.run()
    assert asked[-1] == 0


def test_output_that_comes_again_is_shown_once() -> None:
    written: list[str] = []
    shown = Shown(written.append)
    shown.begin()
    shown.add("one ")
    shown.add("two ")
    shown.begin()  # the connection broke
    for text in ("one", " two th", "ree"):
        shown.add(text)
    assert "".join(written) == "one two three"


def test_a_trial_that_hangs_is_stopped_so_that_the_search_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    dispatcher: Any = dispatch.Dispatcher.__new__(dispatch.Dispatcher)
    dispatcher._watch, dispatcher._hung, dispatcher._groups = Watch(5, clock), {}, []
    dispatcher._pool = SimpleNamespace(running=[])
    dispatcher._progress, dispatcher._work = MagicMock(), MagicMock()
    stopped: list[object] = []

    def stop_at(homes: list[str]) -> str | None:
        stopped.extend(homes)
        return "in stuck" if homes else None

    monkeypatch.setattr(dispatch, "stop_at", stop_at)
    hung, well = Job("search", "r", "trial-1"), Job("search", "r", "trial-2")
    trials: Any = {hung: ["here"], well: ["there"], Job("search", "r", "starts"): []}
    dispatcher._stop_what_hangs(trials)
    clock.now = 4
    dispatcher._watch.sign(well)
    clock.now = 6
    dispatcher._stop_what_hangs(trials)
    assert stopped == ["here"]
    dispatcher._progress.leave.remote.assert_called_once_with(tuple(hung))
    ((of, error),) = (call.args for call in dispatcher._work.note_hung.call_args_list)
    assert of == hung and error.__notes__ == ["in stuck"]


def test_the_driver_knows_where_trials_are_and_where_those_may_be_that_are_to_begin() -> None:
    """A process that is stuck between two trials has not said that it has the second."""
    actor: Any = ProgressActor()
    first, second, third = (("search", "r", f"trial-{i}", "") for i in range(3))
    actor.expect(first)
    assert actor.news().trials == {first: []}  # its process is being started
    actor.enter(first, "here")
    actor.enter(second, "there")
    news = actor.news()
    assert news.trials == {first: ["here"], second: ["there"]}
    assert news.came == {"here", "there"} and news.begun == {first, second}
    actor.leave(second)
    actor.expect(third)
    news = actor.news()
    assert news.trials == {first: ["here"], third: ["there"]}
    assert news.came == news.begun == set()
    actor.enter(third, "there")
    assert actor.news().trials == {first: ["here"], third: ["there"]}
    actor.expect(second)
    actor.forget("r")
    assert actor.news().trials == {}
    actor.expect(first)
    assert actor.news().trials == {first: []}  # what is begun again has processes of its own


def test_trials_of_a_search_that_has_ended_are_not_watched_and_steps_are_noted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dispatcher: Any = dispatch.Dispatcher.__new__(dispatch.Dispatcher)
    dispatcher._progress, dispatcher._work, dispatcher._watch = (MagicMock() for _ in range(3))
    dispatcher._metrics, dispatcher._growth, dispatcher._births = (MagicMock() for _ in range(3))
    dispatcher._searches, dispatcher._groups = SimpleNamespace(running={Job("search", "r")}), []
    trials: Any = {
        ("search", "r", "trial-1", ""): ["here"],
        ("search", "over", "trial-9", ""): ["there"],
    }
    came: Any = {"here"}
    begun: Any = {("search", "r", "trial-1", "")}
    news = News({"a": (1, 3)}, {("fit", "a", "", "")}, [], came, begun, trials)
    monkeypatch.setattr(dispatch, "ray", SimpleNamespace(get=lambda asked: news))
    assert dispatcher._tell_news() == {Job("search", "r", "trial-1"): ["here"]}
    dispatcher._watch.steps.assert_called_once_with("a", 1)
    dispatcher._metrics.steps.assert_called_once_with({"a": (1, 3)})
    dispatcher._growth.steps.assert_called_once_with({"a": (1, 3)})
    dispatcher._births.heard.assert_called_once_with(came)
    dispatcher._watch.forget.assert_called_once_with(Job("search", "r", "trial-1"))
    dispatcher._watch.sign.assert_called_once_with(Job("fit", "a"))
