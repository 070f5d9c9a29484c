"""A process of trials is known to the driver for as long as one has work there."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
from shiftbench.distributed import trainable
from shiftbench.distributed.trainable import SearchTrial


def test_a_trial_says_where_it_is_before_it_loads_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is stuck there is as stuck as one that trains."""
    happened: list[Any] = []
    told = SimpleNamespace(remote=lambda trial, home: happened.append((trial, home)))
    progress = SimpleNamespace(enter=told)

    def load(given: object) -> Any:
        happened.append("loads")
        return MagicMock(), SimpleNamespace(id="r"), None

    monkeypatch.setattr(trainable, "ray", SimpleNamespace(get=load))
    monkeypatch.setattr(trainable, "home", lambda: "here")
    monkeypatch.setattr(trainable, "signs", lambda progress, job: nullcontext())
    for name in ("Trials", "workspace_here", "Speaker", "TrialSettings"):
        monkeypatch.setattr(trainable, name, MagicMock())
    trial = SearchTrial.__new__(SearchTrial)
    trial._trial_info = SimpleNamespace(trial_id="t1")
    trial.setup({}, "r", ["given"], progress)
    assert happened == [(("search", "r", "t1", ""), "here"), "loads"]
    trial._trial_info = SimpleNamespace(trial_id="t2")
    assert trial.reset_config({})
    assert happened[2:] == [(("search", "r", "t2", ""), "here")]
