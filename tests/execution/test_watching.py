"""What all workers of a group learn of one of them."""

from __future__ import annotations

import pytest
import torch
from shiftbench.core.errors import RunFailedError
from shiftbench.execution import watching

CPU = torch.device("cpu")


def fail() -> None:
    raise RunFailedError("the logits are not finite")


def nothing() -> None:
    pass


def test_what_fails_on_one_worker_fails_on_all(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []

    def reduced(there: int):
        def all_reduce(flag: torch.Tensor, operation: object) -> None:
            told.append(int(flag))
            flag.fill_(max(int(flag), there))

        return all_reduce

    monkeypatch.setattr(watching.dist, "all_reduce", reduced(1))
    with pytest.raises(RunFailedError, match="another worker"):
        watching.all_agree(nothing, 2, CPU)
    monkeypatch.setattr(watching.dist, "all_reduce", reduced(0))
    with pytest.raises(RunFailedError, match="not finite"):
        watching.all_agree(fail, 2, CPU)
    watching.all_agree(nothing, 2, CPU)
    assert told == [0, 1, 0]  # the one that fails tells the others before it raises


def test_one_worker_asks_nobody() -> None:
    watching.all_agree(nothing, 1, CPU)
    with pytest.raises(RunFailedError, match="not finite"):
        watching.all_agree(fail, 1, CPU)
