"""A process that hangs before its actor is made is stopped, too."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from shiftbench.core.stacks import Place
from shiftbench.distributed import births
from shiftbench.distributed.births import Births
from shiftbench.distributed.place import Home


def actor(pid: int, kind: str = "WarmWorker") -> dict[str, Any]:
    return {"Address": {"NodeID": f"node-{pid}"}, "Pid": pid, "ActorClassName": kind}


def test_a_process_that_does_not_start_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []
    # c has no process yet; d and e are workers of a group, of which e has said where it is
    there = {"a": actor(7), "b": actor(8), "c": actor(0)}
    made = {"d": actor(10), "e": actor(11)}

    def own_actors(*of: str) -> dict[str, Any]:
        asked.append(of)
        return made if of == ("ALIVE", "RayTrainWorker") else there

    monkeypatch.setattr(births, "own_actors", own_actors)
    stopped: list[Home] = []
    monkeypatch.setattr(births, "stop_at", stopped.extend)
    clock = SimpleNamespace(now=0.0)
    watch = Births(30.0, lambda: clock.now)
    assert watch.stop_stuck() == []
    assert asked == [("PENDING_CREATION",), ("ALIVE", "RayTrainWorker")]
    clock.now = 3.0
    assert watch.stop_stuck() == []
    assert len(asked) == 2  # not at every turn of the loop
    watch.heard([Home("node-8", Place(8, 3, "")), Home("node-11", Place(11, 3, ""))])
    clock.now = 59.0
    assert watch.stop_stuck() == []
    clock.now = 118.0
    assert watch.stop_stuck() == []  # they may be loading torch from a slow disk
    clock.now = 126.0
    assert watch.stop_stuck() == ["a process had no work after 126 s and was stopped"] * 2
    assert stopped == [Home("node-7", Place(7, -1, "")), Home("node-10", Place(10, -1, ""))]
    clock.now = 132.0
    assert watch.stop_stuck() == []  # what comes in its place has as long
    there["f"] = actor(0, "RayTrainWorker")  # d waits for it, which waits for its packages
    for clock.now in (180.0, 240.0):
        assert watch.stop_stuck() == []
    clock.now = 260.0
    assert watch.stop_stuck() == ["a process had no work after 128 s and was stopped"]
    assert stopped[2:] == [Home("node-7", Place(7, -1, ""))]
