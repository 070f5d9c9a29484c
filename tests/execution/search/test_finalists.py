"""The choice of a search: the best trials, and of those the best on fresh seeds."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from optuna.distributions import FloatDistribution
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState, create_trial
from shiftbench.core.errors import RunFailedError
from shiftbench.evaluation.metrics.registry import metric
from shiftbench.execution.search.finalists import best_finalist, finalists
from shiftbench.execution.search.study import Study
from shiftbench.methods.search import SearchConfig

ACCURACY, NLL = metric("accuracy"), metric("nll")
SPACE = {"lr": FloatDistribution(0, 1)}


def trial(
    lr: float, value: float, rungs: dict[int, float], error: str = "", pruned: bool = False
) -> FrozenTrial:
    return create_trial(
        params={"lr": lr},
        distributions=SPACE,
        value=value,
        intermediate_values=rungs,
        user_attrs={"error": error},
        state=TrialState.PRUNED if pruned else TrialState.COMPLETE,
    )


def test_finalists_are_the_best_that_trained_to_the_end() -> None:
    trials = [
        trial(0.1, 0.5, {1: 0.2, 3: 0.5}),
        trial(0.2, 0.9, {1: 0.9}, pruned=True),
        trial(0.3, 0.7, {1: 0.1, 3: 0.7}),
        trial(0.4, 0.0, {1: 0.0}, error="the loss is not finite"),
        trial(0.5, 0.6, {1: 0.1, 3: 0.6}),
    ]
    two = SearchConfig(finalists=2)
    assert [t.params["lr"] for t in finalists(trials, two, ACCURACY)] == [0.3, 0.5]
    assert [t.params["lr"] for t in finalists(trials, two, NLL)] == [0.1, 0.5]
    with pytest.raises(RunFailedError, match="got to its end: the loss is not finite"):
        finalists(trials[3:4], SearchConfig(), ACCURACY)


def test_the_finalist_with_the_best_mean_over_fresh_seeds_wins() -> None:
    best = [trial(0.1, 0.9, {}), trial(0.2, 0.8, {})]
    repeats = [
        SimpleNamespace(params={"finalist": finalist, "repeat": repeat}, value=value)
        for finalist, repeat, value in [(0, 0, 0.5), (1, 1, 0.7), (0, 1, 0.7), (1, 0, 0.6)]
    ]
    winner, score = best_finalist(best, repeats, ACCURACY)  # type: ignore[arg-type]
    assert winner is best[1]
    assert score == pytest.approx(0.65)
    winner, score = best_finalist(best, repeats, NLL)  # type: ignore[arg-type]
    assert winner is best[0]
    assert score == pytest.approx(0.6)


def test_a_study_of_a_loss_is_minimized() -> None:
    for measured, direction in ((ACCURACY, "MAXIMIZE"), (NLL, "MINIMIZE")):
        study = Study(InMemoryStorage(), "search", SPACE, measured, 1, 0)
        assert study._study.direction.name == direction
