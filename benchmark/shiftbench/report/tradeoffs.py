"""Trade-offs: robustness beyond ID accuracy, against the other methods, and for its cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shiftbench.data.tasks.definition import ID_TEST
from shiftbench.evaluation.frontier import area, gain_per_gpu_hour, pareto
from shiftbench.evaluation.robustness import Cell, effective_robustness
from shiftbench.report.curves import CurvePoint
from shiftbench.report.ranking import RankedMethod, Ranking
from shiftbench.report.scale import ACCURACY
from shiftbench.report.scores import MEAN

if TYPE_CHECKING:
    from shiftbench.evaluation.robustness import Baseline

SELECTED = "selected"


@dataclass(frozen=True)
class Tradeoff:
    """A method of a ranking, in relation to the others and to what is published.

    Attributes:
        method: of the ranking.
        frontier: its points that no other method's beats in both ID accuracy and mean OOD:
            ``selected``, and alphas of its curve.
        area: that its curve, or its one point, dominates beyond zero-shot, in units of accuracy
            squared; ``None`` without a reference method.
        gain: mean OOD over zero-shot's; ``None`` without one.
        gain_per_hour: the same for each hour of device time, searches included; ``None`` where
            nothing was spent or that is not known.
        rho: effective robustness by shift, in (-1, 1), where there is a published baseline.
        outside: the shifts whose ρ extrapolates: the ID accuracy is not among those that the
            baseline was fitted on.
    """

    method: RankedMethod
    frontier: tuple[str, ...]
    area: float | None
    gain: float | None
    gain_per_hour: float | None
    rho: Mapping[str, float]
    outside: frozenset[str]


def tradeoffs(
    ranking: Ranking, points: Sequence[CurvePoint], baseline: Mapping[str, Baseline]
) -> list[Tradeoff]:
    """The trade-offs of a ranking's methods, in its order; none of partial ones and of oracles.

    They are of accuracies: a ranking by another kind of metric has none.

    Args:
        ranking: of one task.
        points: of its curves.
        baseline: what standard models would have on each shift, as ``cloud.applicable`` gives it.
    """
    methods = [m for m in ranking.methods if m.rank is not None and ID_TEST in m.scores.by_set]
    scales = {ranking.scale_on(name) for name in (ID_TEST, MEAN)}
    if not ranking.shifts or not methods or scales != {ACCURACY}:
        return []
    curve = [p for p in points if ID_TEST in p.scores and MEAN in p.scores]
    of_all = (*(m.scores.with_mean() for m in methods), *(p.scores for p in curve))
    pairs = [(scores[ID_TEST].mean, scores[MEAN].mean) for scores in of_all]
    best = pareto(pairs)
    references = [p for method, p in zip(methods, pairs, strict=False) if method.reference]
    reference = references[0] if references else None
    found = []
    for position, method in enumerate(methods):
        own = [k for k, p in enumerate(curve, start=len(methods)) if p.label == method.label]
        gain = extent = None
        if reference is not None:
            gain = pairs[position][1] - reference[1]
            ids, oods = zip(*(pairs[k] for k in own or [position]), strict=True)
            extent = area(ids, oods, reference)
        found.append(
            Tradeoff(
                method=method,
                frontier=(
                    *((SELECTED,) if best[position] else ()),
                    *(f"{curve[k - len(methods)].alpha:g}" for k in own if best[k]),
                ),
                area=extent,
                gain=gain,
                gain_per_hour=None
                if gain is None
                else gain_per_gpu_hour(gain, method.cost_seconds),
                rho=_rho(method, baseline),
                outside=_outside(method, baseline),
            )
        )
    return found


def _rho(method: RankedMethod, baseline: Mapping[str, Baseline]) -> dict[str, float]:
    cells = [Cell(None, name, score.mean) for name, score in method.scores.by_set.items()]
    values = effective_robustness(cells, baseline)
    return {
        cell.evaluation_set: rho for cell, rho in zip(cells, values, strict=True) if rho is not None
    }


def _outside(method: RankedMethod, baseline: Mapping[str, Baseline]) -> frozenset[str]:
    """The shifts whose baseline was not fitted on ID accuracies like the method's."""
    on_axis = {shift: method.scores.by_set.get(line.axis) for shift, line in baseline.items()}
    return frozenset(
        shift
        for shift, score in on_axis.items()
        if score is not None and not baseline[shift].covers(score.mean)
    )
