"""What runs print in Ray's workers, on its way to the driver. Starts no cluster."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
from shiftbench.data.batches import WorkerPlace
from shiftbench.distributed import workers
from shiftbench.distributed.progress import ProgressActor
from shiftbench.distributed.workers import Speaker

from tests.execution.test_voice import taken_over


def test_what_a_worker_prints_has_reached_the_actor_when_its_job_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    actor, awaited = ProgressActor(), []

    def say(run_id: str, line: str) -> str:
        actor.say(run_id, line)
        return line

    handle = SimpleNamespace(say=SimpleNamespace(remote=say))
    monkeypatch.setattr(workers.ray, "get", awaited.extend)
    with taken_over():
        speaker = Speaker(handle)
        with speaker.at("a"):
            print("one")
            print("two", file=sys.stderr)
        with speaker.at("b", WorkerPlace(1, 2)), pytest.raises(KeyError):
            print("three", end="")
            raise KeyError
        with speaker.at("c"):
            pass
    actor.put("a", 1, 3)
    actor.sign(("fit", "a", "", ""))
    said = [("a", "one"), ("a", "two"), ("b", "worker 1: three")]
    assert actor.news() == ({"a": (1, 3)}, {("fit", "a", "", "")}, said, set(), set(), {})
    assert actor.news() == ({}, set(), [], set(), set(), {})
    assert awaited == ["two", "worker 1: three"]  # the last of each job: the actor keeps the order
