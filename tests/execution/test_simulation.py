"""A launch in simulated time, against list scheduling written out and numbers done by hand."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from shiftbench.core.errors import InputError
from shiftbench.execution.jobs import Job
from shiftbench.execution.scheduler import Room, Scheduler
from shiftbench.execution.shares import Shares
from shiftbench.execution.simulation import Lasts, Preemptions, simulate


def single(job: Job) -> Room:
    return Room()


def orders(graph: dict[Job, set[Job]]) -> dict[str, tuple[int, int]]:
    return {run: (2, i) for i, run in enumerate(dict.fromkeys(job.run_id for job in graph))}


def by_lists(graph: dict[Job, set[Job]], seconds: dict[Job, float], slots: int) -> float:
    """List scheduling (Graham 1966): whenever a slot is free, the first job that may start."""
    ends: dict[Job, float] = {}
    waiting, clock = list(graph), 0.0
    while waiting or any(end > clock for end in ends.values()):
        for job in list(waiting):
            busy = sum(end > clock for end in ends.values())
            if busy < slots and all(ends.get(above, 1e300) <= clock for above in graph[job]):
                ends[job] = clock + seconds[job]
                waiting.remove(job)
        clock = min((end for end in ends.values() if end > clock), default=clock)
    return max(ends.values())


@pytest.mark.parametrize("seed", range(20))
def test_jobs_of_one_slot_are_scheduled_as_by_lists(seed: int) -> None:
    draw = random.Random(seed)  # noqa: S311
    jobs = [Job("fit", f"r{i}") for i in range(30)]
    graph = {
        job: set(draw.sample(jobs[:i], min(i, draw.randrange(3)))) for i, job in enumerate(jobs)
    }
    seconds = {job: draw.expovariate(0.1) for job in jobs}
    slots = draw.randint(1, 6)
    done = simulate(graph, orders(graph), single, lambda job: Lasts(seconds[job]), slots)
    assert done.seconds == pytest.approx(by_lists(graph, seconds, slots), rel=1e-12)
    assert done.work == pytest.approx(sum(seconds.values()))
    assert (done.again, done.preempted) == (0, 0)
    assert done.busy == pytest.approx(done.work / done.seconds / slots)


def test_a_group_waits_for_its_slots_and_a_search_takes_the_rest() -> None:
    rooms = {"fit": Room(2, 2), "search": Room(1, 8), "predict": Room(brief=True)}
    graph: dict[Job, set[Job]] = {
        Job("fit", "a"): set(),
        Job("search", "b"): set(),
        Job("predict", "a", "", "x"): {Job("fit", "a")},
        Job("score", "a"): {Job("predict", "a", "", "x")},
    }
    lasts = {"fit": Lasts(10.0), "search": Lasts(5.0, trials=12), "predict": Lasts(1.0)}
    done = simulate(
        graph,
        orders(graph),
        lambda job: rooms.get(job.stage, Room(brief=True)),
        lambda job: lasts.get(job.stage, Lasts(0.0)),
        slots=4,
    )
    # Two slots train, two search (4 trials in 10 s); then 3 trials begin beside the prediction,
    # and the other 5 on the four slots as these come free, at 11 and 15 s.
    assert done.seconds == 21.0
    assert done.first == 11.0
    assert done.work == 2 * 10 + 12 * 5 + 1


@pytest.mark.parametrize(("slots", "seconds"), [(8, 100.0), (4, 200.0), (2, 400.0)])
def test_a_group_that_starts_with_fewer_workers_takes_longer(slots: int, seconds: float) -> None:
    graph: dict[Job, set[Job]] = {Job("fit", "r"): set()}
    room = Room.one_of([2, 4, 8])
    done = simulate(graph, orders(graph), lambda _: room, lambda _: Lasts(100.0), slots)
    assert (done.seconds, done.work) == (seconds, 800.0)


def test_workers_start_once() -> None:
    graph: dict[Job, set[Job]] = {Job("fit", f"r{i}"): set() for i in range(4)}
    done = simulate(graph, orders(graph), single, lambda job: Lasts(2.0), 2, start_s=3.0)
    assert done.seconds == 3 + 2 + 2


def test_what_a_node_takes_away_is_done_again_from_what_was_saved() -> None:
    graph: dict[Job, set[Job]] = {Job("fit", "a"): set()}

    def with_saves(every: float, seed: int = 3) -> tuple[float, float, int]:
        done = simulate(
            graph,
            orders(graph),
            single,
            lambda job: Lasts(7200.0, saved_every=every),
            1,
            preemptions=Preemptions(per_hour=1.0, node=1, back_s=60.0, seed=seed),
        )
        assert done.work == pytest.approx(7200 + done.again)
        assert done.seconds == pytest.approx(done.work + 60 * done.preempted)
        return done.seconds, done.again, done.preempted

    for seed in range(5):
        _, again, lost = with_saves(10.0, seed)
        assert again <= 10 * lost
        assert with_saves(0.0, seed)[1] >= again
    assert any(with_saves(0.0, seed)[1] > 600 for seed in range(5))


@pytest.mark.parametrize("seed", range(10))
def test_all_is_done_whatever_is_taken_away(seed: int) -> None:
    rooms = {"fit": Room(2, 2), "search": Room(1, 8)}
    graph: dict[Job, set[Job]] = {}
    for i in range(12):
        fit = Job("fit", f"g{i}")
        graph[fit] = {Job("search", f"g{i}")} if i % 3 == 0 else set()
        graph |= {above: set() for above in graph[fit]}
        graph |= {Job("predict", fit.run_id, "", name): {fit} for name in "xyz"}
    lasts = {"fit": Lasts(900.0, saved_every=60.0), "search": Lasts(30.0, trials=20)}
    done = simulate(
        graph,
        orders(graph),
        lambda job: rooms.get(job.stage, Room(brief=True)),
        lambda job: lasts.get(job.stage, Lasts(20.0)),
        8,
        preemptions=Preemptions(per_hour=4.0, node=2, seed=seed),
    )
    assert done.work == pytest.approx(12 * 2 * 900 + 4 * 20 * 30 + 36 * 20 + done.again)
    assert done.preempted > 0


def test_what_can_never_be_done_is_refused() -> None:
    graph: dict[Job, set[Job]] = {Job("fit", "a"): set()}
    with pytest.raises(InputError, match="2 workers at once do not fit: there is room for 1"):
        simulate(graph, orders(graph), lambda job: Room(2, 2), lambda job: Lasts(1.0), 1)
    often = Preemptions(per_hour=60.0, node=1)
    with pytest.raises(InputError, match="so often that nothing is ever done"):
        simulate(graph, orders(graph), single, lambda job: Lasts(7200.0), 1, preemptions=often)


@pytest.mark.parametrize("seed", range(10))
def test_spare_slots_are_divided_evenly(seed: int) -> None:
    draw = random.Random(seed)  # noqa: S311
    shares, has, most = Shares(), Counter[Job](), {}
    for i in range(200):
        if draw.random() < 0.2 and most:
            gone = draw.choice([*most])
            shares.remove(gone)
            del most[gone], has[gone]
        elif draw.random() < 0.3:
            job = Job("search", f"s{i}")
            most[job] = draw.randrange(1, 9)
            shares.add(job, most[job])
            has[job] = 0
        spare = draw.randrange(40)
        has.update({job: now - has[job] for job, now in shares.divide(spare).items()})
        assert sum(has.values()) == min(spare, sum(most.values()))
        assert all(0 <= has[job] <= most[job] for job in most)
        can_grow = [has[job] for job in most if has[job] < most[job]]
        assert not can_grow or max(has.values()) <= min(can_grow) + 1


def test_only_who_was_granted_anew_is_told() -> None:
    scheduler = Scheduler({"a": (2, 0), "b": (2, 1)}, lambda job: Room(1, 9))
    scheduler.resize(3)
    a, b = Job("search", "a"), Job("search", "b")
    scheduler.add(a)
    scheduler.start()
    assert (scheduler.regranted(), scheduler.granted(a)) == ([a], 3)
    scheduler.start()
    assert scheduler.regranted() == []
    scheduler.add(b)
    scheduler.takes(a, 3)
    scheduler.start()
    assert (scheduler.regranted(), scheduler.granted(a)) == ([a], 2)
