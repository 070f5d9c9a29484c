"""What is told of processes of a cluster that were to be stopped."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, GetTimeoutError
from shiftbench.core.stacks import Place
from shiftbench.distributed import place
from shiftbench.distributed.place import Home, stop_at


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        (["at a", "", None, "at b"], "at a\nat b"),
        ([None, ""], ""),  # it was there, and frozen
        ([None, GetTimeoutError()], ""),  # its node may be frozen
        ([None, ActorDiedError()], None),
        ([], None),
    ],
)
def test_stacks_are_those_of_the_processes_that_were_there(
    answers: list[Any], told: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def get(answer: Any, timeout: float) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    left = [*answers]
    function = SimpleNamespace(remote=lambda of: left.pop(0))
    ray = SimpleNamespace(get=get, remote=lambda **options: lambda stop: function)
    monkeypatch.setattr(place, "ray", ray)
    monkeypatch.setattr(place, "NodeAffinitySchedulingStrategy", lambda node, soft: node)
    assert stop_at([Home("node", Place(1, 2, "3"))] * len(answers)) == told
