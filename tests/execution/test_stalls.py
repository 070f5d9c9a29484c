"""Which jobs hang."""

from __future__ import annotations

import pytest
from shiftbench.execution.jobs import Job
from shiftbench.execution.stalls import Course, Watch, error_of, patience, stalled

from tests.leaderboard.test_leases import Clock

A, B = Job("fit", "a"), Job("predict", "a", "", "id-test")


@pytest.mark.parametrize(
    ("slowest", "prepares", "stall_s", "expected"),
    [
        (None, False, None, 3600),
        (0.1, False, None, 600),
        (0.1, True, None, 3600),  # it has read a batch and not yet computed on it
        (30.0, False, None, 3000),
        (60.0, True, None, 6000),
        (None, True, 5.0, 5),
        (30.0, False, 5.0, 5),
    ],
)
def test_the_slower_its_steps_the_longer_a_job_is_waited_for(
    slowest: float | None, prepares: bool, stall_s: float | None, expected: float
) -> None:
    assert patience(Course(0, slowest, prepares), stall_s) == expected


def test_whoever_has_been_silent_for_too_long_hangs() -> None:
    courses = {A: Course(last=100, slowest=1), B: Course(last=0, slowest=8)}
    assert stalled(courses, 700, None) == []
    assert stalled(courses, 701, None) == [A]
    assert stalled(courses, 801, None) == [A, B]
    assert stalled(courses, 701, 1000) == []


def looked(watch: Watch, clock: Clock, until: float, running: list[Job]) -> dict[Job, float]:
    """Those that hang at some time, up to which a driver looks now and then."""
    while clock.now + 30 < until:
        clock.now += 30
        watch.among(running)
    clock.now = until
    return watch.among(running)


def test_a_job_is_watched_from_its_start_and_anew_when_it_is_done_again() -> None:
    clock = Clock()
    watch = Watch(None, clock)
    watch.sign(A)  # it does not run
    assert watch.among([A, B]) == {}
    clock.now = 10
    watch.sign(A)
    watch.steps("a", 1)
    assert looked(watch, clock, 1010.1, [A, B]) == pytest.approx({A: 1000.1})
    assert watch.among([B]) == {}
    assert looked(watch, clock, 3601, [A, B]) == {B: 3601}
    watch.forget(B)
    assert watch.among([A, B]) == {}


def test_a_training_has_an_hour_to_its_first_step() -> None:
    clock = Clock()
    watch = Watch(None, clock)
    watch.among([A])
    clock.now = 1
    watch.sign(A)  # it has read a batch
    assert looked(watch, clock, 3600, [A]) == {}
    watch.steps("a", 1)
    assert watch.among([A]) == {A: 3599}


def test_no_time_passes_for_jobs_while_the_driver_is_frozen() -> None:
    clock = Clock()
    watch = Watch(None, clock)
    watch.among([A, B])
    clock.now = 10
    watch.sign(A)
    watch.steps("a", 1)
    clock.now = 7200
    watch.sign(A)  # the first that is heard of what was said meanwhile
    assert watch.among([A, B]) == {}
    assert looked(watch, clock, 7200 + 599, [A, B]) == {}
    assert looked(watch, clock, 7200 + 1001, [A, B]) == {A: 1001}


def test_the_error_says_what_the_process_was_at() -> None:
    error = error_of(601.2, " File x, line 3 in stuck\n")
    assert str(error) == "no progress for 601 s; its process was stopped"
    assert error.__notes__ == ["File x, line 3 in stuck"]
    assert "no answer" in error_of(1, "").__notes__[0]
