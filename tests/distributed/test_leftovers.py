"""What Ray Train leaves of a group that does not get as far as to train is cleared away."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
import ray
import shiftbench
from ray.core.generated.gcs_pb2 import PlacementGroupTableData as Record
from shiftbench import Leaderboard
from shiftbench.distributed import leftovers
from shiftbench.distributed.leftovers import Leftovers

from tests.distributed.chaos import processes_called

JOB, OTHER_JOB = "01000000", "02000000"
DRIVER = ray.ActorID.nil().binary()


def actor(name: str) -> bytes:
    """The id of an actor."""
    return name.encode().ljust(len(DRIVER), b"0")


def record(name: str, made_by: bytes, at: int = 0, job: str = JOB, **of: Any) -> bytes:
    """A placement group as Ray notes it."""
    noted: bytes = Record(
        placement_group_id=name.encode(),
        creator_job_id=bytes.fromhex(job),
        creator_actor_id=made_by,
        placement_group_creation_timestamp_ms=at,
        **{"state": Record.CREATED} | of,
    ).SerializeToString()
    return noted


def test_what_nobody_uses_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    leads, other = actor("leads"), actor("other")
    noted = [
        record("of trials", DRIVER, creator_actor_dead=True),  # Ray says so of no actor, too
        record("of the dead", actor("dead"), creator_actor_dead=True),
        record("detached", actor("dead"), creator_actor_dead=True, is_detached=True),
        record("another driver's", actor("dead"), job=OTHER_JOB, creator_actor_dead=True),
        record("removed", leads, at=3, state=Record.REMOVED),
        record("before", leads, at=1),
        record("now", leads, at=2, state=Record.PENDING),
        record("a plugin's first", other, at=1),
        record("a plugin's second", other, at=2),
    ]
    here = SimpleNamespace(
        get_runtime_context=lambda: SimpleNamespace(get_job_id=lambda: JOB), ActorID=ray.ActorID
    )
    monkeypatch.setattr(leftovers, "ray", here)
    gcs = MagicMock()
    gcs._connect_and_get_accessor().get_placement_group_table = lambda: noted
    monkeypatch.setattr(leftovers, "state", gcs)
    monkeypatch.setattr(leftovers, "own_actors", lambda *of: {leads.hex(): {}})
    assert leftovers.leftovers() == [b"of the dead", b"before"]


def test_it_is_looked_for_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0, takes=0.0)
    looked: list[float] = []

    def look() -> list[bytes]:
        looked.append(clock.now)
        clock.now += clock.takes
        return []

    monkeypatch.setattr(leftovers, "leftovers", look)
    here = Leftovers(lambda: clock.now)
    for now in (0, 1, 4, 5, 6):
        clock.now = now
        here.remove()
    assert looked == [0, 5]
    clock.takes = 0.25  # there are many: a hundredth of the time at most goes to it
    for now in (10, 16, 35, 36, 60):
        clock.now = now
        here.remove()
    assert looked[2:] == [10, 36]


SUITE = """
data: miniature
backbones: [miniature]
tasks: [cifar10]
methods: {full: {epochs: 1, batch_size: 24, warmup_steps: 0}}
budget: {steps: 12, evaluation_images: 20}
resources: {workers: 2, max_concurrent: 2, limits: {job_retries: 9, group_restarts: 1}}
"""


@pytest.mark.slow
@pytest.mark.cluster
def test_workers_that_die_as_they_are_started_take_no_room(
    tmp_path: Path, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At four moments: from when the process is there to when it trains."""
    monkeypatch.setenv("RAY_worker_niceness", "0")
    suite, results = tmp_path / "suite.yaml", tmp_path / "results"
    suite.write_text(SUITE, encoding="utf-8")
    boards: list[Leaderboard] = []
    thread = Thread(
        target=lambda: boards.append(shiftbench.run(suite, results, "ray")), daemon=True
    )
    thread.start()
    killed: set[int] = set()
    for after_s in (0.0, 3.0, 6.0, 9.0):
        there: set[int] = set()
        while thread.is_alive() and not there:
            time.sleep(0.05)
            there = {*processes_called(b"ray::RayTrainWorker")} - killed
        time.sleep(after_s)
        killed |= there
        for pid in [*there][:1]:
            if Path(f"/proc/{pid}").exists():
                os.kill(pid, signal.SIGKILL)
    thread.join(240)
    (board,) = boards
    assert not board.failures()
    assert {row.status for row in board.records()} == {"done"}
