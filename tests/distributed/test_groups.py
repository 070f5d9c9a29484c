"""Groups of workers as the driver sees them."""

from __future__ import annotations

import errno
import pickle
import subprocess
import sys
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Event
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
from ray.exceptions import RayActorError
from ray.train import ControllerError
from ray.train.v2._internal.exceptions import (
    WorkerGroupStartupTimeoutError,
    WorkerHealthCheckFailedError,
)
from ray.train.v2.api.exceptions import WorkerGroupError
from shiftbench.core.errors import RunFailedError, disk_full, sendable, whole_text
from shiftbench.distributed import dispatch, feed, groups, notices, place, progress
from shiftbench.distributed.feed import Feed, Outcome
from shiftbench.distributed.notices import Recall
from shiftbench.distributed.place import Home
from shiftbench.distributed.pool import Events, WorkerLostError
from shiftbench.distributed.progress import ProgressActor
from shiftbench.execution.group_rules import group_sizes, slots_of_worker
from shiftbench.execution.jobs import Job
from shiftbench.execution.rooms import Rooms
from shiftbench.execution.scheduler import Room
from shiftbench.execution.stalls import Watch, error_of
from shiftbench.methods.base import TrainedMethod
from shiftbench.methods.config import TrainingConfig
from shiftbench.suite.file import Limits, Resources


def test_an_error_keeps_its_traceback_on_the_way_to_another_process() -> None:
    try:
        [].pop()
    except IndexError as error:
        sent = pickle.loads(pickle.dumps(sendable(error)))
    assert str(sent) == "IndexError: pop from empty list"
    assert "[].pop()" in whole_text(sent)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_full_disk_is_no_reason_to_start_a_group_again(
    rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever meets it says so: the others may wait for that worker, and the launch ends."""
    told: list[RunFailedError | None] = []
    runs = [("fit", "a", "", ""), None]
    feed = SimpleNamespace(
        join=SimpleNamespace(remote=lambda *of: None),
        first=SimpleNamespace(remote=lambda: 0),
        get=SimpleNamespace(remote=lambda rank, index: runs[index]),
        ended=SimpleNamespace(remote=lambda index, error: told.append(error)),
    )
    context = SimpleNamespace(get_world_rank=lambda: rank, get_world_size=lambda: 2)
    told_of_ray = SimpleNamespace(
        get=lambda answer: answer, train=SimpleNamespace(get_context=lambda: context)
    )
    monkeypatch.setattr(groups, "ray", told_of_ray)
    for name in ("Speaker", "Workspace", "get_device", "home", "signs", "torch"):
        monkeypatch.setattr(groups, name, MagicMock())
    raised: list[OSError] = [OSError(errno.ENOSPC, "No space left on device", "state")]
    monkeypatch.setattr(groups, "fit", MagicMock(side_effect=raised))
    config = {"setup": None, "feed": feed, "progress": MagicMock(), "threads": 1}
    groups._group_loop(config)
    (error,) = told
    assert error is not None and disk_full(error)
    monkeypatch.setattr(groups, "fit", MagicMock(side_effect=OSError(errno.EIO, "Input/output")))
    with pytest.raises(OSError, match="Input/output"):  # which may not be met again
        groups._group_loop(config)


def test_actors_beside_the_driver_stay_small() -> None:
    """One for each group: torch would cost each of them seconds and most of a gigabyte."""
    program = (
        "import sys; from shiftbench.distributed import feed, place, progress; "
        "assert 'torch' not in sys.modules and 'pandas' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    small = {feed.__name__, place.__name__, progress.__name__}
    assert {Feed.__module__, Home.__module__, ProgressActor.__module__} == small


def test_a_group_that_is_to_end_is_given_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    over = Event()
    monkeypatch.setattr(groups, "_trainer_fit", lambda *_: over.wait())
    monkeypatch.setattr(groups, "ray", MagicMock())
    monkeypatch.setattr(groups, "beside_the_driver", dict)
    ended: list[Job] = []
    gone: list[groups.Group] = []
    events: Events = SimpleQueue()
    group = groups.Group(
        *(MagicMock(), Resources(workers=2), 2, None, events),
        lambda job, error: ended.append(job),
        gone.append,
        bool,
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
    dispatcher._hung = {}
    own = Resources(workers=2, cpus_per_worker=3)
    dispatcher._setup = SimpleNamespace(
        resources=Resources(workers=2), resources_of=lambda run: own
    )
    dispatcher._cluster = SimpleNamespace(fit=lambda resources: 2)
    group = groups.Group(
        MagicMock(), own, 6, None, events, dispatcher._ended, lambda group: None, bool
    )
    group.submit(job)
    events.get(timeout=10)()
    dispatcher._scheduler.add.assert_called_once_with(job)
    dispatcher._work.settle.assert_not_called()
    dispatcher._cluster.fit = lambda resources: 1
    dispatcher._ended(job, groups.NotPlacedError())
    (_, error), _ = dispatcher._work.settle.call_args
    assert str(error) == "its 2 workers do not fit on the cluster"


def test_workers_of_an_own_size_are_counted_in_slots_and_get_a_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Small workers share GPUs; those of a method's trainings have whole ones."""
    base = Resources(gpus_per_worker=0.25, cpus_per_worker=1)
    whole = Resources(gpus_per_worker=1, cpus_per_worker=2, workers=2)
    assert slots_of_worker(whole, base) == 4
    assert slots_of_worker(base, base) == 1
    dispatcher: Any = dispatch.Dispatcher.__new__(dispatch.Dispatcher)
    dispatcher._pool = MagicMock()
    dispatcher._setup = SimpleNamespace(resources=base)
    waits = SimpleNamespace(resources=whole, unplaced_s=31.0)
    dispatcher._groups = [SimpleNamespace(resources=base, unplaced_s=99.0), waits]
    assert dispatcher._clears_a_place()
    dispatcher._pool.release_idle.assert_called_once_with(0.0)
    waits.unplaced_s = 0.0
    assert not dispatcher._clears_a_place()


def test_a_group_is_as_large_as_its_job_was_granted(monkeypatch: pytest.MonkeyPatch) -> None:
    made = MagicMock(
        side_effect=lambda setup, resources, slots, *_: SimpleNamespace(
            resources=resources, slots=slots, idle=True, lent=0
        )
    )
    monkeypatch.setattr(dispatch, "Group", made)
    dispatcher: Any = dispatch.Dispatcher.__new__(dispatch.Dispatcher)
    own = Resources(workers=8, min_workers=2)
    dispatcher._setup = SimpleNamespace(resources=own)
    dispatcher._work, dispatcher._scheduler = MagicMock(), MagicMock(granted=lambda job: 4)
    dispatcher._groups, job = [], Job("fit", "a")
    dispatcher._progress = dispatcher._events = None
    dispatcher._cluster = MagicMock(fit=lambda own: 9)
    run = MagicMock(create=lambda: MagicMock(spec=TrainedMethod, training=TrainingConfig()))
    dispatcher._rooms = Rooms({"a": run}, own)
    group = dispatcher._group_for(job, own)
    assert (group.resources.workers, group.slots) == (4, 4)
    assert dispatcher._group_for(job, own) is group
    dispatcher._scheduler.granted = lambda job: 8
    assert dispatcher._group_for(job, own).slots == 8
    dispatcher._groups, dispatcher._cluster.fit = [], lambda own: 7  # and 7 divide no batch
    assert dispatcher._group_for(job, own).resources.workers == 4
    notes = [call.args[0] for call in dispatcher._work.display.note.call_args_list]
    assert notes == [
        "starting a group of 4 training workers in place of 8",
        "starting a group of 8 training workers",
        "starting a group of 4 training workers in place of 8",
    ]


@pytest.mark.parametrize(
    ("changes", "sizes"),
    [
        ({}, [8]),
        ({"min_workers": 2}, [2, 3, 4, 6, 8]),
        ({"min_workers": 2, "micro_batch": 8}, [2, 3, 6, 8]),
    ],
)
def test_a_group_has_as_many_workers_as_divide_the_batch(
    changes: dict[str, int], sizes: list[int]
) -> None:
    assert [*group_sizes(Resources(workers=8, **changes), 48)] == sizes  # type: ignore[arg-type]


ODD = WorkerGroupError("it failed", {0: ValueError("odd")})


@pytest.mark.parametrize(
    ("error", "lost_a_node", "without_feed", "node"),
    [
        (ControllerError(RuntimeError("its nodes have gone three times")), True, False, ""),
        (ControllerError(RayActorError()), False, False, "here"),  # a worker, as it was started
        (RayActorError(), False, False, "here"),  # what leads the group
        (ODD, True, False, None),
        (ODD, False, False, None),
        (ODD, False, True, "here"),  # its workers could not be told what to do
        (ControllerError(OSError(28, "No space left on device")), False, False, None),
        (WorkerGroupError("it failed", {0: RayActorError()}), False, False, None),  # again, again
    ],
)
def test_what_is_none_of_a_runs_doing_is_tried_again(
    error: Exception,
    lost_a_node: bool,
    without_feed: bool,
    node: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nodes that go cost it no try, what dies on one that stays does; its own errors end it."""

    def fit(*_: object) -> None:
        raise error

    ray = MagicMock()
    ray.get_runtime_context().get_node_id = lambda: "here"
    monkeypatch.setattr(groups, "_trainer_fit", fit)
    monkeypatch.setattr(groups, "ray", ray)
    monkeypatch.setattr(groups, "beside_the_driver", dict)
    ended: list[BaseException | None] = []
    events: Events = SimpleQueue()
    group = groups.Group(
        MagicMock(), Resources(workers=2), 2, None, events,
        lambda job, error: ended.append(error), lambda group: None, lambda since: lost_a_node,
    )  # fmt: skip
    group.submit(Job("fit", "a"))
    if without_feed:
        gone: Future[Any] = Future()
        gone.set_exception(RayActorError())
        group._trained(gone)
        assert ended == []  # its end says it
    events.get(timeout=10)()
    (why,) = ended
    if node is None:
        assert isinstance(why, RunFailedError)
    else:
        assert isinstance(why, WorkerLostError) and why.node == node
    if node == "here":
        assert type(error).__name__ in whole_text(why)


@pytest.mark.parametrize(
    ("failures", "own"),
    [
        ({0: ValueError("odd"), 1: ValueError("odd")}, True),
        ({0: RuntimeError("connection closed by peer"), 1: RayActorError()}, False),
        ({0: WorkerHealthCheckFailedError("gone", RuntimeError("gone"))}, False),
    ],
)
def test_what_a_run_raises_is_its_own_whatever_nodes_do(
    failures: dict[int, Exception], own: bool
) -> None:
    assert groups._of_the_run(WorkerGroupError("it failed", failures)) is own
    assert not groups._of_the_run(ControllerError(RuntimeError("no workers")))


def test_a_run_whose_group_ends_after_it_hung_keeps_what_it_hung_at() -> None:
    job, error = Job("fit", "a"), RunFailedError("the workers are gone")
    dispatcher: Any = dispatch.Dispatcher.__new__(dispatch.Dispatcher)
    dispatcher._scheduler, dispatcher._watch, dispatcher._work = (MagicMock() for _ in range(3))
    dispatcher._hung = {job: error_of(601, "in stuck")}
    dispatcher._ended(job, error)
    dispatcher._work.settle.assert_called_once_with(job, error)
    assert "no progress for 601 s" in whole_text(error) and "in stuck" in whole_text(error)


def test_a_group_that_is_being_started_does_not_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever that takes, no worker is there to be stopped: neither at first nor once more."""
    killed: list[object] = []
    monkeypatch.setattr(groups, "stop_at", lambda homes: killed.extend(homes) or None)
    monkeypatch.setattr(groups, "ray", SimpleNamespace(get=lambda asked: asked))
    feed = SimpleNamespace(homes=SimpleNamespace(remote=lambda: {0: "gone"}))
    group: Any = groups.Group.__new__(groups.Group)
    group._job, group._lent, group._feed = Job("fit", "a"), {}, feed
    clock = SimpleNamespace(now=0.0)
    dispatcher: Any = dispatch.Dispatcher.__new__(dispatch.Dispatcher)
    dispatcher._watch = Watch(20, lambda: clock.now)
    dispatcher._groups, dispatcher._hung = [group], {}
    dispatcher._pool, dispatcher._work = SimpleNamespace(running=[]), MagicMock()
    for clock.now in (0.0, 19.0, 21.0, 40.0):  # the time begins anew at 21
        dispatcher._stop_what_hangs({})
    assert killed == ["gone"]
    dispatcher._work.note_hung.assert_not_called()
    assert dispatcher._hung == {}


def test_idle_groups_do_not_keep_others_from_the_cluster() -> None:
    limits = Limits(idle_worker_s=60)
    made = [
        SimpleNamespace(idle=i > 0, idle_s=30.0 * i, slots=2, spare=2 * (i > 0), close=MagicMock())
        for i in range(4)
    ]
    dispatcher: Any = dispatch.Dispatcher.__new__(dispatch.Dispatcher)
    resources = Resources(workers=2, limits=limits)
    dispatcher._setup, dispatcher._groups = SimpleNamespace(resources=resources), made
    dispatcher._pool, dispatcher._searches = MagicMock(), SimpleNamespace(running=())
    dispatcher._scheduler = SimpleNamespace(free=6, slots=8, held=lambda job: 0)
    dispatcher._make_room()
    assert [group.close.called for group in made] == [False, False, False, True]  # after a minute
    dispatcher._scheduler.free = 2
    dispatcher._make_room()
    assert [group.close.called for group in made] == [False, False, True, True]


def lending(monkeypatch: pytest.MonkeyPatch, ended: list[tuple[Job, Any]]) -> groups.Group:
    """A group of two that has trained a run, whose workers are at the end of it when told."""
    monkeypatch.setattr(groups, "_trainer_fit", lambda *_: Event().wait())
    monkeypatch.setattr(groups, "ray", MagicMock())
    monkeypatch.setattr(groups, "beside_the_driver", dict)
    group = groups.Group(
        *(MagicMock(), Resources(workers=2), 2, None, SimpleQueue()),
        lambda job, error: ended.append((job, error)),
        lambda group: None,
        bool,
    )
    assert group.to_lend == 0  # its workers may still be starting
    group.submit(Job("fit", "a"))
    assert group.to_lend == 0
    group._trained(MagicMock(exception=lambda: None, result=lambda: None))
    ended.clear()
    return group


def answer(outcome: Outcome) -> Any:
    return MagicMock(exception=lambda: None, result=lambda: outcome)


def test_workers_are_lent_between_trainings(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[tuple[Job, Any]] = []
    group = lending(monkeypatch, ended)
    jobs = [Job("predict", "a", "", name) for name in "xyz"]
    assert (group.to_lend, group.spare, group.last) == (2, 2, "a")
    for job in jobs[:2]:
        group.lend(job)
    assert (group.to_lend, group.spare, group.jobs, group.idle_s) == (0, 0, jobs[:2], 0.0)
    error = RunFailedError("odd")
    group._returned(0, answer(Outcome(error)))
    assert ended == [(jobs[0], error)]
    group.lend(jobs[2])
    group.submit(Job("fit", "b"))  # as soon as both are back
    assert (group.to_lend, group.spare, group.idle) == (0, -2, False)
    for rank in range(2):
        group._returned(rank, answer(Outcome()))
    assert ended[1:] == [(jobs[2], None), (jobs[1], None)]
    assert group.jobs == [Job("fit", "b")] and group.spare == 0


def test_a_lent_worker_that_is_lost_is_the_last_that_its_group_lends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended: list[tuple[Job, Any]] = []
    group = lending(monkeypatch, ended)
    jobs = [Job("predict", "a", "", name) for name in "xy"]
    for job in jobs:
        group.lend(job)
    group._returned(0, answer(Outcome(lost_at="n")))
    ((job, error),) = ended
    assert job == jobs[0] and isinstance(error, WorkerLostError) and error.node == "n"
    assert (group.to_lend, group.idle) == (0, False)
    monkeypatch.setattr(groups.ray, "get", lambda _: {1: SimpleNamespace(node="m")})
    group._ended(None)
    job, error = ended[1]
    assert job == jobs[1] and isinstance(error, WorkerLostError) and error.node == "m"
    group._returned(1, answer(Outcome()))  # too late
    assert len(ended) == 2


def test_a_job_goes_to_its_weights_else_to_the_pool_else_to_whoever_is_there() -> None:
    def group(last: str, lent: int = 0, to_lend: int = 1, cpus: int = 1) -> Any:
        own = Resources(workers=2, cpus_per_worker=cpus)
        return SimpleNamespace(last=last, lent=lent, to_lend=to_lend, resources=own)

    dispatcher: Any = dispatch.Dispatcher.__new__(dispatch.Dispatcher)
    dispatcher._setup = SimpleNamespace(resources=Resources())
    dispatcher._rooms = lambda job: Room(brief=job.stage == "predict")
    dispatcher._pool = SimpleNamespace(idle=1)
    of_a, of_b, partly = group("a"), group("b"), group("c", lent=1)
    dispatcher._groups = [of_a, of_b, partly, group("b", to_lend=0), group("d", cpus=2)]
    predict = Job("predict", "b", "", "x")
    assert dispatcher._lender(predict) is of_b
    assert dispatcher._lender(Job("fit", "b")) is None  # methods may wait for the other workers
    other = Job("predict", "d", "", "x")
    assert dispatcher._lender(other) is None
    dispatcher._pool.idle = 0
    assert dispatcher._lender(other) is partly  # so that the others can train


def test_a_training_that_waits_for_lent_workers_sends_no_other_group_away() -> None:
    """One slot of each of two groups is lent, and the training has got the two others."""
    trains = SimpleNamespace(idle=False, idle_s=0.0, slots=2, spare=-1, close=MagicMock())
    lends = SimpleNamespace(idle=True, idle_s=0.0, slots=2, spare=1, close=MagicMock())
    dispatcher: Any = dispatch.Dispatcher.__new__(dispatch.Dispatcher)
    dispatcher._setup = SimpleNamespace(resources=Resources(workers=2))
    dispatcher._groups = [trains, lends]
    dispatcher._pool, dispatcher._searches = MagicMock(), SimpleNamespace(running=())
    dispatcher._scheduler = SimpleNamespace(free=0, slots=4, held=lambda job: 0)
    dispatcher._make_room()
    lends.close.assert_not_called()
    trains.spare = 0  # a search has got the slot of the worker that was back
    dispatcher._make_room()
    lends.close.assert_called_once_with()


def test_a_lent_worker_that_hangs_is_stopped_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    group = lending(monkeypatch, [])
    jobs = [Job("predict", "a", "", name) for name in "xy"]
    for job in jobs:
        group.lend(job)
    stopped: list[Any] = []
    monkeypatch.setattr(groups, "stop_at", lambda homes: stopped.extend(homes) or "in stuck")
    monkeypatch.setattr(groups.ray, "get", lambda _: {0: "here", 1: "there"})
    assert group.stop(jobs[1]) == "in stuck" and stopped == ["there"]
    stopped.clear()
    group.stop(Job("fit", "b"))
    assert stopped == ["here", "there"]


def test_a_training_that_was_recalled_waits_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[tuple[Job, Any]] = []
    group = lending(monkeypatch, ended)
    job = Job("fit", "b")
    group.submit(job)
    assert group.training == job
    group.recall()
    assert group.training is None and not group.idle
    group._ended(None)
    ((of, error),) = ended
    dispatcher: Any = dispatch.Dispatcher.__new__(dispatch.Dispatcher)
    dispatcher._scheduler, dispatcher._watch, dispatcher._work = (MagicMock() for _ in range(3))
    dispatcher._hung = {}
    dispatcher._ended(of, error)
    dispatcher._scheduler.add.assert_called_once_with(job)
    dispatcher._work.settle.assert_not_called()


def test_who_asks_whether_it_is_recalled_never_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Any] = []

    def get(answer: Any) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(
        notices, "ray", SimpleNamespace(wait=lambda asked, timeout: (answers[:1], asked), get=get)
    )
    feed = SimpleNamespace(recalled=MagicMock())
    recall = Recall(feed)
    assert not recall() and not recall()
    assert feed.recalled.remote.call_count == 1  # it is still to be answered
    answers[:] = [RayActorError()]
    assert not recall()
    answers[:] = [True]
    assert recall()
