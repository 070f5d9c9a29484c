"""The few methods that charts name: with many, all others are paler."""

from __future__ import annotations

from shiftbench.data.tasks.definition import ID_TEST
from shiftbench.evaluation.frontier import pareto
from shiftbench.report.html.charts.figure import Records
from shiftbench.report.model import RankingReport
from shiftbench.report.ranking import Ranking
from shiftbench.report.scores import MEAN
from shiftbench.report.tradeoffs import SELECTED

MANY = 24  # methods, among which a mark no longer stands out


def prominent(of_ranking: RankingReport, points: Records) -> tuple[str, ...]:
    """Names of the methods that a reader looks for, those first that matter most.

    They are the recommended recipe, zero-shot, the best out of and in distribution, those that no
    other one beats in both, and those that no other one beats in accuracy and cost.

    Args:
        of_ranking: the ranking.
        points: a record for each method and evaluation set.
    """
    answer, methods = of_ranking.answer, of_ranking.ranking.methods
    found = [] if answer.recipe is None else [answer.recipe.name]
    found += [method.name for method in methods if method.reference]
    found += [method.name for method in methods if method.rank == 1]
    found += [answer.best_id]
    found += [of.method.name for of in of_ranking.tradeoffs if SELECTED in of.frontier]
    found += unbeaten(of_ranking.ranking, points)
    there = {record["method"] for record in points}
    return tuple(name for name in dict.fromkeys(found) if name in there)


def headline_set(ranking: Ranking) -> str:
    """The evaluation set of the scores that are put against costs."""
    shifts = ranking.shifts
    return shifts[0] if len(shifts) == 1 else MEAN if shifts else ID_TEST


def unbeaten(ranking: Ranking, points: Records) -> list[str]:
    """Names of the methods that no other one beats in both cost and score."""
    target = headline_set(ranking)
    of_target = [r for r in points if r["set"] == target and r["cost"] is not None]
    if not of_target:
        return []
    gain = ranking.scale_on(target).gain
    best = pareto([(-r["cost"], gain(r["value"])) for r in of_target])
    return [r["method"] for r, on_it in zip(of_target, best, strict=True) if on_it]
