"""What starts next, on how many slots, and that no order of events can leave jobs waiting."""

from __future__ import annotations

import random
from collections import defaultdict
from heapq import heappop, heappush
from types import SimpleNamespace
from typing import Any

import pytest
from shiftbench.execution.jobs import Job
from shiftbench.execution.scheduler import Room, Scheduler, closest, priorities

from tests.methods.settings import make_any

ROOMS = {
    "group": Room(2, 2),
    "elastic": Room.one_of([1, 2, 4]),
    "search": Room(1, 99),
    "single": Room(),
}


def room(job: Job) -> Room:
    return Room(brief=True) if job.stage in ("predict", "score") else ROOMS[job.variant or "single"]


def make(slots: int, order: str = "abcdefgh") -> Scheduler:
    scheduler = Scheduler({run: (2, i) for i, run in enumerate(order)}, room)
    scheduler.resize(slots)
    return scheduler


def fit(run: str, kind: str = "single") -> Job:
    return Job("fit", run, kind)


def predict(run: str, name: str = "") -> Job:
    return Job("predict", run, "", name)


def test_jobs_start_by_priority_as_far_as_there_is_room() -> None:
    scheduler = make(2)
    for run in "cab":
        scheduler.add(fit(run))
    assert scheduler.start() == [fit("a"), fit("b")]
    assert scheduler.start() == []
    scheduler.ended(fit("b"))
    assert scheduler.start() == [fit("c")]
    assert (scheduler.running, scheduler.waiting, scheduler.free) == (2, 0, 0)


def test_a_group_and_single_jobs_run_side_by_side() -> None:
    scheduler = make(4)
    for job in (fit("a", "group"), fit("b"), predict("c")):
        scheduler.add(job)
    assert len(scheduler.start()) == 3


def test_slots_are_kept_for_a_group_that_brief_jobs_will_soon_let_in() -> None:
    scheduler = make(2)
    scheduler.add(predict("a"))
    scheduler.add(predict("b"))
    scheduler.start()
    scheduler.add(fit("c", "group"))
    scheduler.add(predict("d"))
    scheduler.ended(predict("a"))
    assert scheduler.start() == []  # d would keep c out
    scheduler.ended(predict("b"))
    assert scheduler.start() == [fit("c", "group")]


def test_brief_jobs_fill_what_a_group_cannot_use_yet() -> None:
    scheduler = make(2)
    scheduler.add(fit("a"))
    scheduler.start()
    scheduler.add(fit("b", "group"))
    scheduler.add(fit("c"))
    scheduler.add(predict("d"))
    assert scheduler.start() == [predict("d")]  # c might last longer than a


def test_a_search_takes_what_nothing_waits_for_and_gives_it_back() -> None:
    scheduler = make(4)
    search = fit("a", "search")
    scheduler.add(search)
    assert scheduler.start() == [search]
    assert scheduler.granted(search) == 4
    scheduler.takes(search, 4)
    scheduler.add(fit("b", "group"))
    assert scheduler.start() == []
    assert scheduler.granted(search) == 2
    scheduler.takes(search, 3)
    assert scheduler.start() == []
    scheduler.takes(search, 2)
    assert scheduler.start() == [fit("b", "group")]
    scheduler.ended(fit("b", "group"))
    scheduler.start()
    assert scheduler.granted(search) == 4
    scheduler.ended(search)
    assert (scheduler.free, scheduler.granted(search)) == (4, 0)


def test_two_searches_share() -> None:
    scheduler = make(5)
    searches = [fit("a", "search"), fit("b", "search")]
    for search in searches:
        scheduler.add(search)
    assert scheduler.start() == searches
    assert sorted(map(scheduler.granted, searches)) == [2, 3]


def test_jobs_of_failed_runs_are_left_out() -> None:
    failed = {"a"}
    order = {run: (2, i) for i, run in enumerate("ab")}
    scheduler = Scheduler(order, needed=lambda job: job.run_id not in failed)
    scheduler.resize(1)
    for run in "ab":
        scheduler.add(fit(run))
    assert scheduler.start() == [fit("b")]
    assert scheduler.waiting == 0


def test_a_cluster_that_shrinks_under_its_jobs_grows_again() -> None:
    scheduler = make(3)
    for run in "abcd":
        scheduler.add(fit(run))
    scheduler.start()
    scheduler.resize(1)
    assert scheduler.free == -2
    for run in "ab":
        scheduler.ended(fit(run))
        assert scheduler.start() == []
    scheduler.resize(2)
    assert scheduler.start() == [fit("d")]


def test_a_group_that_the_cluster_cannot_hold_is_told() -> None:
    scheduler = make(1)
    scheduler.add(fit("a", "group"))
    assert scheduler.start() == []
    assert scheduler.starved == Room(2, 2)
    scheduler.resize(2)
    assert scheduler.starved is None
    assert scheduler.start() == [fit("a", "group")]


def test_a_group_starts_smaller_where_there_are_fewer_slots() -> None:
    scheduler = Scheduler(
        {run: (2, i) for i, run in enumerate("abc")},
        lambda job: Room(brief=True) if job.stage == "predict" else Room.one_of([2, 4, 8]),
    )
    group, other = fit("a"), fit("b")
    scheduler.add(group)
    scheduler.resize(6, grows=True)  # it would rather have all
    assert scheduler.start() == [] and scheduler.wanted == 8
    scheduler.resize(6)
    assert scheduler.start() == [group]
    assert (scheduler.held(group), scheduler.free) == (4, 2)
    scheduler.add(other)
    assert scheduler.start() == [other] and scheduler.held(other) == 2
    scheduler.ended(group)
    scheduler.ended(other)
    scheduler.resize(9)
    assert scheduler.free == 9
    scheduler.add(predict("c"))
    assert scheduler.start() == [predict("c")]
    scheduler.add(group)
    assert scheduler.start() == [group] and scheduler.held(group) == 8  # nobody has the last slot
    scheduler.ended(predict("c"))
    scheduler.resize(1)
    scheduler.ended(group)
    scheduler.add(other)
    assert scheduler.start() == []
    assert scheduler.starved is not None and scheduler.starved.least == 2


def test_a_group_waits_for_what_soon_ends_rather_than_start_smaller() -> None:
    scheduler = Scheduler(
        {run: (i, i) for i, run in enumerate("ab")},
        lambda job: Room(brief=True) if job.stage == "predict" else Room.one_of([2, 4]),
    )
    scheduler.resize(4)
    scheduler.add(predict("a"))
    assert scheduler.start() == [predict("a")]
    scheduler.add(fit("b"))
    assert scheduler.start() == []
    scheduler.ended(predict("a"))
    assert scheduler.start() == [fit("b")] and scheduler.held(fit("b")) == 4


def test_cheap_parents_come_first() -> None:
    def run(name: str, method: str, *parents: str) -> Any:
        above = tuple((None, parent) for parent in parents)
        return SimpleNamespace(id=name, parents=above, create=lambda: make_any(method))

    runs = [run("full", "full"), run("probe", "linear-probe"), run("zero", "zero-shot"),
            run("wise", "wise-ft", "full"), run("lp-ft", "lp-ft", "probe"),
            run("soup", "soup", "full", "lp-ft")]  # fmt: skip
    order = priorities({one.id: one for one in runs})
    assert sorted(order, key=lambda name: order[name]) == [
        *("zero", "probe", "full", "lp-ft", "wise", "soup"),
    ]


@pytest.mark.parametrize("seed", range(30))
def test_whatever_happens_all_jobs_run_and_no_slot_is_given_twice(seed: int) -> None:
    """Jobs of all kinds arrive, last, grow, shrink and end at random on a cluster that changes."""
    draw = random.Random(seed)  # noqa: S311
    runs = [f"r{i}" for i in range(40)]
    scheduler = Scheduler({run: (draw.randrange(3), i) for i, run in enumerate(runs)}, room)
    size = draw.randint(2, 9)
    scheduler.resize(size)
    arriving = [
        predict(run) if draw.random() < 0.5 else fit(run, draw.choice(list(ROOMS))) for run in runs
    ]
    done: set[Job] = set()
    holds: dict[Job, int] = defaultdict(int)
    clock, ends = 0.0, []
    while len(done) < len(runs):
        for _ in range(min(len(arriving), draw.randrange(4))):
            scheduler.add(arriving.pop())
        for job in scheduler.start():
            holds[job] = scheduler.held(job)
            assert room(job).grows or holds[job] in (room(job).sizes or [room(job).least])
            heappush(ends, (clock + draw.expovariate(1.0 if room(job).brief else 0.1), job))
        for job in holds:
            if room(job).grows:  # a search follows its grant, both ways
                holds[job] = scheduler.granted(job)
                scheduler.takes(job, holds[job])
        assert sum(holds.values()) <= size
        if ends and (not arriving or draw.random() < 0.7):
            clock, job = heappop(ends)
            scheduler.ended(job)
            del holds[job]
            done.add(job)
    assert (scheduler.running, scheduler.waiting, scheduler.free) == (0, 0, size)


def variants(run: str, names: str = "vw", sets: str = "123") -> list[Job]:
    return [Job("predict", run, variant, name) for variant in names for name in sets]


def test_slots_keep_to_the_weights_that_they_have() -> None:
    scheduler = make(2)
    v1, v2, v3, w1, w2, w3 = jobs = variants("a")
    for job in jobs:
        scheduler.add(job)
    assert scheduler.start() == [v1, w1]
    for ended, next_one in [(w1, w2), (v1, v2), (w2, w3), (w3, v3)]:  # the last has no other work
        scheduler.ended(ended)
        assert scheduler.start() == [next_one]
    for job in (v2, v3):
        scheduler.ended(job)
    assert (scheduler.start(), scheduler.waiting, scheduler.wanted) == ([], 0, 0)


def test_weights_do_not_come_before_the_order_of_runs() -> None:
    scheduler = make(1)
    (first,), later = variants("a", "v", "1"), variants("b", "v", "12")
    for job in later:
        scheduler.add(job)
    assert scheduler.start() == later[:1]
    scheduler.add(first)
    scheduler.ended(later[0])
    assert scheduler.start() == [first]


def test_a_lost_job_that_had_started_early_starts_again() -> None:
    scheduler = make(2)
    v1, v2, w1, w2 = variants("a", sets="12")
    for job in (v1, v2, w1, w2):
        scheduler.add(job)
    assert scheduler.start() == [v1, w1]
    scheduler.ended(w1)
    scheduler.add(w1)
    done = []
    while started := scheduler.start():
        done += started
        for job in started:
            scheduler.ended(job)
    assert sorted(done) == [v2, w1, w2]
    assert (scheduler.waiting, scheduler.wanted) == (0, 1)


def test_jobs_of_a_failed_run_are_left_out_whatever_started_early() -> None:
    failed: set[str] = set()
    scheduler = Scheduler({"a": (2, 0), "b": (2, 1)}, room, lambda job: job.run_id not in failed)
    scheduler.resize(2)
    for job in [*variants("a"), *variants("b", "v", "1")]:
        scheduler.add(job)
    started = scheduler.start()
    failed.add("a")
    for job in started:
        scheduler.ended(job)
    assert scheduler.start() == variants("b", "v", "1")
    assert (scheduler.waiting, scheduler.wanted) == (0, 1)


@pytest.mark.parametrize("seed", range(20))
def test_every_job_starts_once_in_any_order_of_events(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311
    scheduler, running, done = make(3), [], []
    jobs = [job for run in "abc" for job in variants(run)]
    chance.shuffle(jobs)
    for job in jobs:
        scheduler.add(job)
    while running or scheduler.waiting:
        running += scheduler.start()
        assert len(running) == scheduler.running <= 3
        job = running.pop(chance.randrange(len(running)))
        scheduler.ended(job)
        done.append(job)
    assert sorted(done) == sorted(jobs)
    assert scheduler.wanted == 0


def test_a_job_goes_to_the_worker_that_is_closest_to_having_its_weights() -> None:
    job = Job("predict", "a", "alpha=0.5", "id-test")
    assert closest(job, [("a", "alpha=0.5"), ("a", ""), ("b", ""), None]) == 0
    assert closest(job, [("b", "alpha=0.5"), ("a", ""), ("b", ""), None]) == 1
    assert closest(job, [None, ("b", "alpha=0.5")]) == 1
    assert closest(job, [None]) == 0


@pytest.mark.parametrize("stage", ["fit", "predict"])
def test_jobs_that_others_do_are_left_out_when_their_turn_comes(stage: str) -> None:
    asked: list[Job] = []
    elsewhere = {"a"}

    def begin(job: Job) -> bool:
        asked.append(job)
        return job.run_id not in elsewhere

    order = {run: (2, i) for i, run in enumerate("abc")}
    scheduler = Scheduler(order, lambda job: Room(brief=job.stage == "predict"), begin=begin)
    scheduler.resize(1)
    jobs = [Job(stage, run, "", name) for run in "abc" for name in ("x", "y")]  # type: ignore[arg-type]
    for job in jobs:
        scheduler.add(job)
    assert scheduler.start() == [jobs[2]]
    assert asked == jobs[:3]  # no run is asked for before its turn
    assert (scheduler.waiting, scheduler.wanted) == (3, 4)
    elsewhere.clear()
    scheduler.add(jobs[0])
    scheduler.ended(jobs[2])
    assert scheduler.start() == [jobs[0]]
