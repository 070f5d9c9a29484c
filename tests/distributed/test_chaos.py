"""A suite on two nodes, whose parts die, freeze and fill up one after the other."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.distributed.blows import EVENTS, MOMENTS, Blow, blows, summary
from tests.distributed.chaos import Machine, differences, one_round, undisturbed, written

SEED = 38


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.chaos
def test_whatever_is_killed_the_same_comes_out(tmp_path: Path, world: Path) -> None:
    suite = written(tmp_path)
    with undisturbed(suite, tmp_path / "undisturbed") as expected, Machine(suite) as machine:
        struck, outcomes = one_round(machine, tmp_path / "disturbed", SEED)
        assert [blow for blow in struck if blow.recovered_s is None] == []
        assert [differences(expected(), found) for found in outcomes] == [[]] * len(outcomes)
    if {blow.event for blow in struck} != {*EVENTS}:
        pytest.skip("nothing differs, but this user may not mount a disk to fill it up")


def test_every_event_comes_in_each_round_at_moments_of_its_own() -> None:
    rounds = [blows(seed) for seed in range(40)]
    for each in rounds:
        assert {blow.event for blow in each} == {*EVENTS}
        assert all(EVENTS[blow.event] in (None, blow.moment) for blow in each)
        assert each[-1].event == "worker frozen"
    assert {blow.moment for each in rounds for blow in each if blow.event == "head killed"} == {
        *("searching", "training", "predicting")
    }
    for each in rounds:
        at = [blow.moment for blow in each]
        assert [at.count(moment) for moment in MOMENTS] == [3, 3, 3]


def test_what_differs_lacks_or_is_too_much_is_named() -> None:
    expected = {"row a": [1.0], "trial b": ["complete", 0.5], "weights c": "d0"}
    assert differences(expected, expected) == []
    found = {"row a": [1.5], "weights c": "d0", "row e": [2.0]}
    assert differences(expected, found) == [
        "row a: [1.0] became [1.5]",
        "row e: None became [2.0]",
        "trial b: ['complete', 0.5] became None",
    ]


def test_the_summary_has_a_line_for_each_event() -> None:
    every = [Blow("disk full", "training", 1, at=0.0, recovered_s=s) for s in (1.0, 2.0, 9.0)]
    every.append(Blow("driver killed", "training", 1))  # it never came
    lines = {line[:26].strip(): line.split()[-3:] for line in summary(every).splitlines()}
    assert lines["disk full"] == ["3", "2.0", "9.0"]
    assert lines["driver killed"] == lines["head killed"] == ["0", "-", "-"]
