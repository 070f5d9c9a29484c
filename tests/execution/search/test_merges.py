"""Searches of methods that derive weights: no training, no Ray, and the same after a kill."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from shiftbench.execution.in_process import InProcess
from shiftbench.execution.launch import Outcome, launch
from shiftbench.execution.remarks import Remarks
from shiftbench.execution.search import merges
from shiftbench.execution.setup import Setup
from shiftbench.execution.validation import score_of
from shiftbench.execution.workspace import Workspace
from shiftbench.leaderboard.runfolder import SearchFolder
from shiftbench.leaderboard.schema import rows
from shiftbench.leaderboard.store import read
from shiftbench.models.weights import interpolate
from shiftbench.report.searches import searches
from shiftbench.suite.plan import Run
from shiftbench.suite.suite import Suite

SUITE = """
data: miniature
backbones: [miniature]
tasks: [cifar10]
methods:
  zero-shot: {}
  full: {lr: 2e-3, epochs: 1, batch_size: 48, warmup_steps: 1}
  curve: {method: tuned, of: wise-ft, search: {n_trials: 6, n_startup_trials: 3}}
budget: {steps: 4, evaluation_images: 60}
"""


def run(folder: Path) -> Outcome:
    file = folder / "suite.yaml"
    file.write_text(SUITE)
    return launch(Suite.load(file), folder / "results", InProcess(), Console(quiet=True))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, world: Path) -> tuple[Path, Outcome]:
    folder = tmp_path_factory.mktemp("merges")
    outcome = run(folder)
    assert outcome.failed == {}
    return folder, outcome


def found(outcome: Outcome, label: str) -> Run:
    (run,) = (run for run in outcome.plan.runs.values() if run.label == label)
    return run


def trials(folder: Path) -> list[tuple[float, float]]:
    """Alpha and score of every trial, in order."""
    table = rows(read(folder / "results"))
    (search,) = searches([row for row in table if row.label == "curve"], folder / "results")
    assert {trial.state for trial in search.trials} == {"complete"}
    assert (search.steps, {trial.steps for trial in search.trials}) == (0, {0})
    assert [trial.score for trial in search.trials] != [None] * 6
    return [(trial.values["alpha"], trial.score or 0.0) for trial in search.trials]


def test_the_best_merge_on_ood_validation_is_kept_and_the_row_says_so(
    done: tuple[Path, Outcome],
) -> None:
    folder, outcome = done
    tried = trials(folder)
    best = max(tried, key=lambda trial: trial[1])[0]
    of_curve = [row for row in rows(read(folder / "results")) if row.label == "curve"]
    assert {(row.variant, row.selection) for row in of_curve} == {("", "ood-val")}
    assert {tuple((row.searched or {}).items()) for row in of_curve} == {(("alpha", best),)}

    full, curve = found(outcome, "full"), found(outcome, "curve")
    setup = Setup("s", outcome.plan.runs, folder / "results", "miniature",
                  outcome.plan.suite.resources, Remarks())  # fmt: skip
    workspace = Workspace(setup, torch.device("cpu"))
    start, tuned = workspace.start(full), workspace.stored(full)
    for name, tensor in interpolate(start, tuned, best).items():
        torch.testing.assert_close(workspace.stored(curve)[name], tensor)
    assert curve.search is not None and curve.search.ood_val is not None
    measured, images = workspace.ood_val(curve, curve.search.ood_val)
    for alpha, score in tried:
        model = workspace.loaded(curve, interpolate(start, tuned, alpha))
        assert score == pytest.approx(score_of(workspace, curve, model, measured, images))


def test_a_search_that_was_killed_goes_on_as_if_it_had_not_been(
    done: tuple[Path, Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    original = merges.score_of_weights

    def interrupted(*arguments: object) -> float:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(merges, "score_of_weights", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    assert run(tmp_path).failed == {}
    assert len(calls) == 4 + 3  # the one that was under way, and those that were left
    (search,) = (run.search for run in done[1].plan.runs.values() if run.search)
    one, two = (
        SearchFolder.of(folder / "results", search.id).read_found()
        for folder in (done[0], tmp_path)
    )
    assert np.isclose(one.score or 0, two.score or 1) and one.values == two.values
