"""Trials that a journal keeps: deaths, and a journal whose end is cut off."""

from __future__ import annotations

import errno
import json
import os
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState
from ray.exceptions import RayTaskError
from shiftbench.core.errors import RunFailedError
from shiftbench.distributed.tuning import Proposals, Slots
from shiftbench.evaluation.metrics.registry import metric
from shiftbench.execution.search import record, serial
from shiftbench.execution.search.finalists import best_finalist, finalists
from shiftbench.execution.search.study import Study, open_journal
from shiftbench.leaderboard.runfolder import Found
from shiftbench.methods.search import SearchConfig

SEARCH = SimpleNamespace(config=SearchConfig(sampler="random"))
SPACE = {"lr": FloatDistribution(0, 1)}


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study(
        open_journal(tmp_path / "journal.log", 5), "search", SPACE, metric("accuracy"), 3, 0
    )


def proposals(study: Study, retries: int = 1) -> Proposals:
    return Proposals(study, Slots(granted=lambda: 9), retries=retries, metric="score", mode="max")


def test_a_trial_whose_process_died_is_tried_again_and_the_sampler_learns_nothing(
    study: Study,
) -> None:
    asked = proposals(study)
    first = asked.suggest("a")
    asked.on_trial_complete("a", error=True)
    asked.without_result("a", None)
    assert study.trials() == []
    assert asked.suggest("b") == first  # once more
    asked.on_trial_complete("b", error=True)
    asked.without_result("b", None)
    (given_up,) = study.trials()
    assert given_up.value is None and given_up.state == TrialState.FAIL
    assert asked.suggest("c") != first

    rows = list(record._rows("id", study))
    assert [(row["number"], row["state"], row["score"]) for row in rows] == [
        (0, "died", None),
        (1, "died", None),
    ]
    assert {row["error"] for row in rows} == {"its process or node died"}
    with pytest.raises(RunFailedError, match="got to its end: its process or node died"):
        finalists(study.trials(), SearchConfig(), study.measured)
    with pytest.raises(RunFailedError, match="all finalists"):
        best_finalist([given_up], study.trials(), study.measured)


def test_a_trial_is_tried_again_as_often_as_its_node_goes(study: Study) -> None:
    ended: list[str] = []
    slots = Slots(granted=lambda: 9, ended=ended.append, lost_a_node=lambda since: True)
    asked = Proposals(study, slots, retries=0, metric="score", mode="max")
    first = asked.suggest("a")
    for last, following in ("ab", "bc", "cd"):
        asked.without_result(last, None)
        assert asked.suggest(following) == first
    assert study.trials() == []
    assert ended == ["a", "b", "c"]  # what waits for nothing any more cannot hang


def test_deaths_count_over_interruptions(study: Study) -> None:
    asked = proposals(study)
    first = asked.suggest("a")
    asked.without_result("a", None)
    asked.suggest("b")  # under way when all is killed
    study.propose_interrupted()
    again = proposals(study)
    assert again.suggest("c") == first
    again.without_result("c", None)
    assert len(study.trials()) == 1
    assert again.suggest("d") != first


@pytest.mark.parametrize("retries", [0, 1])
@pytest.mark.parametrize("how", ["died", "interrupted", "interrupted as it was begun"])
def test_wherever_the_driver_is_killed_each_value_is_tried_once(
    study: Study, tmp_path: Path, how: str, retries: int
) -> None:
    """The journal may end behind any of its lines, and what it holds then is gone on with."""
    study.propose({"lr": 0.25})
    study.propose({"lr": 0.5})
    file = tmp_path / "journal.log"
    before = len(file.read_bytes().splitlines())
    asked = proposals(study, retries)
    assert asked.suggest("a") == {"lr": 0.25}
    if how == "died":
        asked.without_result("a", None)
    elif how == "interrupted":
        study.propose_interrupted()
    lines = file.read_bytes().splitlines(keepends=True)
    for left in range(before, len(lines) + 1):
        cut = tmp_path / f"cut-{left}.log"
        cut.write_bytes(b"".join(lines[:left]))
        again = Study(open_journal(cut, 5), "search", SPACE, metric("accuracy"), 2, 0)
        again.propose_interrupted()
        again.propose({"lr": 0.25})
        again.propose({"lr": 0.5})
        asked, tried = proposals(again), []
        for name in "xyz"[: 2 - len(again.trials())]:
            tried.append(asked.suggest(name))
            asked._ot_study.tell(asked._ot_trials[name], 1.0)
        tried += [trial.params for trial in again.trials() if again.values_of(trial) not in tried]
        assert sorted(one["lr"] for one in tried) == [0.25, 0.5], left
        assert not any(trial.state == TrialState.WAITING for trial in again._study.trials)


def test_all_values_of_a_trial_that_died_are_tried_again(tmp_path: Path) -> None:
    """Those that were asked for, and those that were drawn beside them."""
    journal, space = open_journal(tmp_path / "journal.log", 5), SPACE | {"wd": SPACE["lr"]}
    study = Study(journal, "search", space, metric("accuracy"), 3, 0)
    study.propose({"lr": 0.25})
    asked = proposals(study)
    first = asked.suggest("a")
    assert first is not None and first.keys() == {"lr", "wd"}
    asked.without_result("a", None)
    assert asked.suggest("b") == first


def test_a_trial_that_raised_an_error_has_the_worst_score_and_says_why(study: Study) -> None:
    asked = proposals(study)
    asked.suggest("a")
    asked.without_result("a", RayTaskError("step", "Traceback", ValueError("odd")))
    (failed,) = study.trials()
    assert (failed.value, failed.user_attrs["error"]) == (0.0, "ValueError: odd")
    assert not study.deaths()


def test_a_trial_that_found_no_space_has_not_failed(study: Study) -> None:
    """Else what a full disk was the cause of would stay when there is space again."""
    asked = proposals(study)
    first = asked.suggest("a")
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(RunFailedError, match="No space left on device"):
        asked.without_result("a", RayTaskError("step", f"Traceback\n{full}", full))
    assert study.trials() == []
    study.propose_interrupted()
    assert proposals(study).suggest("b") == first


@pytest.mark.parametrize(("code", "ended"), [(errno.ENOSPC, 0), (errno.EIO, 3)])
def test_nor_has_one_in_a_single_process(
    study: Study, code: int, ended: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*trial: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(serial, "Trials", MagicMock(return_value=MagicMock(search=SEARCH)))
    monkeypatch.setattr(serial, "_run", run)
    with pytest.raises(OSError, match="space") if not ended else nullcontext():
        serial.run_trials(MagicMock(), MagicMock(), study)
    assert len(study.trials()) == ended  # others have failed


def test_a_journal_without_its_last_bytes_is_repaired_and_the_search_goes_on(
    study: Study, tmp_path: Path
) -> None:
    for value in (0.25, 0.5):
        trial = study._study.ask(SPACE)
        study._study.tell(trial, value)
    file = tmp_path / "journal.log"
    file.write_bytes(file.read_bytes()[:-20])

    lines: list[str] = []
    journal = open_journal(file, 5, lines.append)
    assert len(lines) == 1 and "journal.log: its end was cut short" in lines[0]
    again = Study(journal, "search", SPACE, metric("accuracy"), 3, 0)
    assert [trial.value for trial in again.trials()] == [0.25]
    again.propose_interrupted()  # the second trial's end was lost
    asked = proposals(again)
    assert asked.suggest("b") == trial.params
    asked._ot_study.tell(asked._ot_trials["b"], 0.5)
    assert all(json.loads(line) for line in file.read_text().splitlines())
    lines.clear()
    open_journal(file, 5, lines.append)
    assert not lines
    assert optuna.load_study(study_name="search", storage=journal).best_value == 0.5


def test_a_search_says_what_its_time_went_to() -> None:
    found = Found({}, 0.5, n_trials=100, steps=9, images=9, seconds=50.0, waited=1.0, computed=48.0)
    assert record.account(found) == (
        "100 trials and the finalists' took 50 s: 96% of it arithmetic, 2% waiting for images"
    )
    older = replace(found, waited=None, computed=None)
    assert record.account(older) == "100 trials and the finalists' took 50 s"
