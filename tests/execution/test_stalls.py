"""Which jobs hang."""

from __future__ import annotations

import pytest
from shiftbench.execution.jobs import Job
from shiftbench.execution.stalls import Course, Watch, error_of, patience, stalled

from tests.leaderboard.test_leases import Clock

A, B = Job("fit", "a"), Job("predict", "a", "", "id-test")


@pytest.mark.parametrize(
    ("slowest", "stall_s", "expected"),
    [
        (None, None, 3600),  # it prepares
        (0.1, None, 600),
        (30.0, None, 3000),
        (None, 5.0, 5),
        (30.0, 5.0, 5),
    ],
)
def test_the_slower_its_steps_the_longer_a_job_is_waited_for(
    slowest: float | None, stall_s: float | None, expected: float
) -> None:
    assert patience(slowest, stall_s) == expected


def test_whoever_has_been_silent_for_too_long_hangs() -> None:
    courses = {A: Course(last=100, slowest=1), B: Course(last=0, slowest=8)}
    assert stalled(courses, 700, None) == []
    assert stalled(courses, 701, None) == [A]
    assert stalled(courses, 801, None) == [A, B]
    assert stalled(courses, 701, 1000) == []


def test_a_job_is_watched_from_its_start_and_anew_when_it_is_done_again() -> None:
    clock = Clock()
    watch = Watch(None, clock)
    watch.sign(A)  # it does not run
    assert watch.among([A, B]) == {}
    clock.now = 10
    watch.sign(A)
    clock.now = 1010.1
    assert watch.among([A, B]) == pytest.approx({A: 1000.1})
    assert watch.among([B]) == {}
    clock.now = 3601
    assert watch.among([A, B]) == {B: 3601}
    watch.forget(B)
    assert watch.among([A, B]) == {}


def test_the_error_says_what_the_process_was_at() -> None:
    error = error_of(601.2, " File x, line 3 in stuck\n")
    assert str(error) == "no progress for 601 s; its process was stopped"
    assert error.__notes__ == ["File x, line 3 in stuck"]
    assert "no answer" in error_of(1, "").__notes__[0]
