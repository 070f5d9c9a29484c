"""Trials of a search in one process: what is reset, what is scored, what a failure does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from shiftbench.execution.remarks import Remarks
from shiftbench.execution.search.trial import Trials, shared_folder
from shiftbench.execution.setup import Setup
from shiftbench.execution.validation import score_of
from shiftbench.execution.workspace import Workspace
from shiftbench.methods.base import Context
from shiftbench.suite.plan import Plan, Run
from shiftbench.suite.suite import Suite

SUITE = """
data: miniature
backbones: [miniature]
tasks: [cifar10]
methods:
  {method}
budget: {{evaluation_images: 40}}
resources: {{limits: {{shared_batches_bytes: {shared}}}}}
"""
AUTOFT = "autoft: {batch_size: 12, search: {n_trials: 2, inner_steps: 3}}"
LORA = (
    "tuned: {of: lora, settings: {lr: 1e-2, batch_size: 12}, search: {n_trials: 2, inner_steps: 3}}"
)
LDIFS = "tuned: {of: ldifs, settings: {batch_size: 12}, search: {n_trials: 3, inner_steps: 3}}"
PROBE = (
    "tuned: {of: linear-probe, settings: {batch_size: 12}, search: {n_trials: 2, inner_steps: 3}}"
)
WEIGHTS = ("dcm", "entropy", "flyp", "hinge", "l1_init", "l1_zero", "l2_init", "l2_zero")


@pytest.fixture
def make_trials(tmp_path: Path, world: Path):  # type: ignore[no-untyped-def]
    made = []

    def make(method: str, shared: int = 2**30) -> tuple[Trials, Run]:
        file = tmp_path / "suite.yaml"
        file.write_text(SUITE.format(method=method, shared=shared))
        plan = Plan.build(Suite.load(file))
        (run,) = plan.runs.values()
        setup = Setup("s", plan.runs, tmp_path, "miniature", plan.suite.resources, Remarks())
        made.append(Trials(Workspace(setup, torch.device("cpu")), run))
        return made[-1], run

    yield make
    for trials in made:
        trials.close()


def test_every_trial_starts_from_the_pretrained_weights(make_trials) -> None:  # type: ignore[no-untyped-def]
    trials, _ = make_trials(AUTOFT)
    good = dict.fromkeys(WEIGHTS, 0.01) | {"lr": 1e-4, "weight_decay": 0.1}
    ruinous = {**good, "lr": 10.0, "l1_zero": 10.0}
    trials.start(good, seed=3)
    model = trials._model
    first = [trials.advance(1), trials.advance(3)]
    assert [progress.steps for progress in first] == [1, 3]
    assert [progress.images for progress in first] == [12, 36]
    trials.start(ruinous, seed=3)
    trials.advance(3)
    trials.start(good, seed=3)
    again = [trials.advance(1), trials.advance(3)]
    assert [p.score for p in again] == [p.score for p in first]
    assert trials._model is model  # reset in place, not built again
    losses = trials._trainer.done.losses
    trials.start(good, seed=4)
    trials.advance(3)
    assert trials._trainer.done.losses != losses


def test_the_learned_rate_holds_in_every_step_of_a_trial(make_trials) -> None:  # type: ignore[no-untyped-def]
    trials, _ = make_trials(AUTOFT)
    trials.start(dict.fromkeys(WEIGHTS, 1e-3) | {"lr": 3e-4, "weight_decay": 0.25}, seed=0)
    trials.advance(3)
    (group,) = trials._trainer._optimizer.param_groups
    assert (group["lr"], group["weight_decay"]) == (3e-4, 0.25)


def test_a_trial_that_diverges_says_so_and_the_next_one_works(make_trials) -> None:  # type: ignore[no-untyped-def]
    trials, _ = make_trials(AUTOFT)
    values = dict.fromkeys(WEIGHTS, 1e-3) | {"weight_decay": 0.0}
    trials.start({**values, "lr": 1e30}, seed=0)
    failed = trials.advance(3)
    assert failed.score == 0
    assert "not finite" in failed.error
    trials.start({**values, "lr": 1e-5}, seed=0)
    worked = trials.advance(3)
    assert worked.error == ""
    assert worked.score > 0.5


def test_a_method_that_changes_the_model_gets_a_new_one(make_trials) -> None:  # type: ignore[no-untyped-def]
    trials, _ = make_trials(LORA)
    scores = []
    for _ in range(2):
        trials.start({"lr": 1e-3, "weight_decay": 0.1}, seed=0)
        scores.append(trials.advance(2).score)
    assert scores[0] == scores[1] > 0.5


def test_hooks_of_one_trial_are_not_called_in_the_next(make_trials) -> None:  # type: ignore[no-untyped-def]
    trials, _ = make_trials(LDIFS)
    reports = []
    for _ in range(3):
        trials.start({"lr": 1e-3, "weight_decay": 0.1, "strength": 10.0}, seed=0)
        reports.append(trials.advance(2).score)
        hooks = [len(module._forward_hooks) for module in trials._model.modules()]
        assert max(hooks) == 1
        assert sum(hooks) == len(trials._method._layers(trials._model.visual))
    assert len({*reports}) == 1


def test_shared_batches_change_no_number_and_go_with_the_search(make_trials) -> None:  # type: ignore[no-untyped-def]
    values = dict.fromkeys(WEIGHTS, 1e-3) | {"lr": 3e-4, "weight_decay": 0.25}

    def course(trials: Trials) -> tuple[list[float], float]:
        trials.start(values, seed=5)
        trials.advance(1)
        report = trials.advance(3)
        return trials._trainer.done.losses, report.score

    plain, _ = make_trials(AUTOFT, shared=0)
    expected = course(plain)
    assert not shared_folder().exists() or not list(shared_folder().iterdir())
    one, _ = make_trials(AUTOFT)
    assert course(one) == expected
    other, _ = make_trials(AUTOFT)  # as another process would
    assert course(other) == expected
    assert len(list(shared_folder().glob("*/*.bin"))) == 3
    for trials in (one, other):
        trials.close()
    assert not list(shared_folder().iterdir())


def test_a_trial_says_what_of_its_time_was_arithmetic(make_trials) -> None:  # type: ignore[no-untyped-def]
    trials, _ = make_trials(AUTOFT)
    trials.start(dict.fromkeys(WEIGHTS, 1e-3) | {"lr": 3e-4, "weight_decay": 0.25}, seed=0)
    first, last = trials.advance(1), trials.advance(3)
    done = trials._trainer.done
    assert 0 < last.waited == done.waited
    # Scoring is arithmetic too, and that of every rung counts.
    assert last.computed > first.computed > 0
    assert last.computed > done.seconds - done.waited
    assert last.computed + last.waited < last.seconds


def test_trials_of_a_linear_probe_share_one_pass_over_the_images(  # type: ignore[no-untyped-def]
    make_trials, monkeypatch
) -> None:
    trials, run = make_trials(PROBE)
    workspace = trials._workspace

    def of(lr: float) -> float:
        trials.start({"lr": lr, "weight_decay": 0.1}, seed=0)
        return trials.advance(3).score

    scores = []
    for lr in (1e-3, 0.1):
        scores.append(of(lr))
        assert scores[-1] == score_of(workspace, run, trials._model, trials._metric, trials._images)
    assert scores[0] != scores[1]

    def pass_again(self: Workspace, *_: object) -> None:
        raise AssertionError("the images go through the frozen tower again")

    monkeypatch.setattr(Workspace, "features", pass_again)
    assert of(0.1) == scores[1]


def test_a_trial_that_looks_at_too_many_examples_looks_at_fewer(make_trials, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """As a run's method does while it prepares; the next trial begins with what was found."""
    trials, _ = make_trials(AUTOFT)
    sizes: list[int] = []

    def prepare(self: object, model: object, context: Context) -> None:
        sizes.append(len(next(iter(context.examples())).labels))
        if sizes[-1] > 6:
            raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("shiftbench.methods.builtin.autoft.AutoFt.prepare", prepare)
    for seed in (0, 1):
        trials.start(dict.fromkeys(WEIGHTS, 1e-3) | {"lr": 1e-3, "weight_decay": 0.1}, seed)
    assert sizes == [12, 6, 6]
