"""What a method's robustness is worth: beyond its ID accuracy, against the others, and its cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from shiftbench.core.errors import InputError
from shiftbench.data.tasks.definition import ID_TEST
from shiftbench.evaluation.frontier import area, gain_per_gpu_hour, pareto
from shiftbench.evaluation.robustness import (
    Cell,
    baselines,
    effective_robustness,
    standard_models,
)
from shiftbench.leaderboard.published import read_published
from shiftbench.report.curves import MEAN, Point, with_mean
from shiftbench.report.ranking import ORACLE, Line, Ranking
from shiftbench.report.references import REAL, ZERO_SHOT

if TYPE_CHECKING:
    from shiftbench.evaluation.robustness import Baseline

SELECTED = "selected"


@dataclass(frozen=True)
class Tradeoff:
    """A line of a ranking, in relation to the others and to what is published.

    Attributes:
        line: of the ranking.
        frontier: its points that no other method's beats in both ID accuracy and mean OOD:
            ``selected``, and alphas of its curve.
        area: that its curve, or its one point, dominates beyond zero-shot, in units of accuracy
            squared; ``None`` without a zero-shot line.
        gain: mean OOD over zero-shot's; ``None`` without one.
        gain_per_hour: the same for each hour of device time, searches included; ``None`` where
            nothing was spent or that is not known.
        rho: effective robustness by shift, in (-1, 1), where there is a published baseline.
    """

    line: Line
    frontier: tuple[str, ...]
    area: float | None
    gain: float | None
    gain_per_hour: float | None
    rho: Mapping[str, float]


def tradeoffs(
    ranking: Ranking, points: Sequence[Point], baseline: Mapping[str, Baseline]
) -> list[Tradeoff]:
    """The trade-offs of a ranking's lines, in its order; partial ones and oracles are left out.

    Args:
        ranking: of one task.
        points: of its curves.
        baseline: of ``shipped_baselines``; what standard models would have on each shift.
    """
    lines = [
        line
        for line in ranking.lines
        if line.rank is not None and line.selection != ORACLE and ID_TEST in line.cells
    ]
    if not ranking.shifts or not lines:
        return []
    curve = [p for p in points if ID_TEST in p.cells and MEAN in p.cells]
    pairs = [(c[ID_TEST].mean, c[MEAN].mean) for c in map(with_mean, lines)]
    pairs += [(p.cells[ID_TEST].mean, p.cells[MEAN].mean) for p in curve]
    best = pareto(pairs)
    references = [p for line, p in zip(lines, pairs, strict=False) if line.method == ZERO_SHOT]
    reference = references[0] if references else None
    found = []
    for position, line in enumerate(lines):
        own = [k for k, p in enumerate(curve, start=len(lines)) if p.name == line.label]
        gain = extent = None
        if reference is not None:
            gain = pairs[position][1] - reference[1]
            ids, oods = zip(*(pairs[k] for k in own or [position]), strict=True)
            extent = area(ids, oods, reference)
        found.append(
            Tradeoff(
                line=line,
                frontier=(
                    *((SELECTED,) if best[position] else ()),
                    *(f"{curve[k - len(lines)].alpha:g}" for k in own if best[k]),
                ),
                area=extent,
                gain=gain,
                gain_per_hour=None if gain is None else gain_per_gpu_hour(gain, line.cost_seconds),
                rho=_rho(line, baseline),
            )
        )
    return found


def shipped_baselines(
    found: Sequence[Ranking], published: pa.Table | None = None
) -> Mapping[str, Baseline]:
    """What standard ImageNet models have under each shift, where a ranking is of the real ImageNet.

    Args:
        found: the rankings.
        published: as ``read_published`` gives it, which is the default.

    Returns:
        β by shift; empty for other rankings, and where nothing is published.
    """
    if not any(ranking.data_kind == REAL and ranking.task == "imagenet" for ranking in found):
        return {}
    try:
        return baselines(standard_models(read_published() if published is None else published))
    except (InputError, ValueError):  # there is none, or without the testbed
        return {}


def applicable(ranking: Ranking, baseline: Mapping[str, Baseline]) -> Mapping[str, Baseline]:
    """The baselines that a ranking's shifts may be held against."""
    if ranking.data_kind != REAL or ranking.task != "imagenet":
        return {}
    return {
        shift: line
        for shift, line in baseline.items()
        if shift in ranking.shifts and ranking.metrics[shift] == "accuracy"
    }


def _rho(line: Line, baseline: Mapping[str, Baseline]) -> dict[str, float]:
    cells = [Cell(None, name, estimate.mean) for name, estimate in line.cells.items()]
    values = effective_robustness(cells, baseline)
    return {
        cell.evaluation_set: rho for cell, rho in zip(cells, values, strict=True) if rho is not None
    }
