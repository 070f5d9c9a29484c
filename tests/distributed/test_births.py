"""A process that hangs before its actor is made is stopped, too."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from shiftbench.core.stacks import Place
from shiftbench.distributed import births
from shiftbench.distributed.births import Births
from shiftbench.distributed.place import Home


def actor(pid: int) -> dict[str, Any]:
    return {"Address": {"NodeID": f"node-{pid}"}, "Pid": pid}


def test_a_process_that_does_not_start_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    there = {"a": actor(7), "b": actor(8), "c": actor(0)}  # c has no process yet

    def actors(**of: Any) -> dict[str, Any]:
        asked.append(of)
        return there

    context = SimpleNamespace(get_job_id=lambda: "01000000")
    monkeypatch.setattr(births, "ray", SimpleNamespace(get_runtime_context=lambda: context))
    monkeypatch.setattr(births, "actors", actors)
    stopped: list[Home] = []
    monkeypatch.setattr(births, "stop_at", stopped.extend)
    clock = SimpleNamespace(now=0.0)
    watch = Births(30.0, lambda: clock.now)
    assert watch.stop_stuck() == []
    assert asked[0]["actor_state_name"] == "PENDING_CREATION"
    clock.now = 3.0
    assert watch.stop_stuck() == []
    assert len(asked) == 1  # not at every turn of the loop
    del there["b"]  # it works
    clock.now = 29.0
    assert watch.stop_stuck() == []
    clock.now = 36.0
    assert watch.stop_stuck() == []  # it may be loading torch from a slow disk
    clock.now = 66.0
    (line,) = watch.stop_stuck()
    assert line == "a process had not started after 66 s and was stopped"
    assert stopped == [Home("node-7", Place(7, -1, ""))]
    clock.now = 72.0
    assert watch.stop_stuck() == []  # what comes in its place has as long
