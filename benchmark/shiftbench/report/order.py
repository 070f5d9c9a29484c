"""Whether methods come in the published order: our gains over zero-shot beside published ones.

Backbones and data may differ, as the miniature world's do, so values are not compared but ranks. A
published gain is a line's mean over the shifts that it has, less that of the zero-shot line of the
same source, or where that has none, of open_clip's table. Several lines of a method are averaged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shiftbench.evaluation.intervals import RESAMPLES, SEED, Floats, percentiles
from shiftbench.leaderboard.published.reading import (
    PublishedLine,
    average_of_cells,
    published_lines,
)
from shiftbench.report.ranking import RankedMethod, Ranking
from shiftbench.report.references import ID_VAL, Key

BACKBONE = "openai/ViT-B-16"
"""The backbone about which most methods have published values on ImageNet's shifts."""

_ZERO_SHOT = "openclip-zero-shot"
_FEWEST_SHIFTS = 4  # many papers leave ObjectNet out
_FEWEST_METHODS = 5


@dataclass(frozen=True)
class Gain:
    """A method's gain over zero-shot on the mean over shifts, ours and the published one.

    Attributes:
        name: of the method in our ranking.
        ours: ours minus zero-shot's, in [-1, 1].
        published: mean of the published gains, in [-1, 1].
        sources: what was published where.
    """

    name: str
    ours: float
    published: float
    sources: tuple[str, ...]


@dataclass(frozen=True)
class Order:
    """How far the methods of a ranking come in the published order.

    Attributes:
        task: of the ranking.
        backbone: of the ranking.
        data_kind: of the ranking.
        gains: the methods that there are published gains of, best of ours first.
        rho: Spearman's rank correlation of our gains and the published ones, zero-shot included.
        low: lower end of its 95 % interval, of a bootstrap over methods.
        high: upper end.
    """

    task: str
    backbone: str
    data_kind: str
    gains: tuple[Gain, ...]
    rho: float
    low: float
    high: float


def orders(rankings: Sequence[Ranking], published: pa.Table) -> list[Order]:
    """The order of each ranking that has enough methods with published values.

    Args:
        rankings: of all rows; of the miniature world too.
        published: as ``read_published`` gives it.
    """
    table = published.filter(
        pc.field("config").is_null()  # others are points of a search
        & (pc.field("backbone") == BACKBONE)
        & pc.field("shots").is_null()
    )
    found = (_order(ranking, table) for ranking in rankings if ranking.shots is None)
    return [order for order in found if order is not None]


def _order(ranking: Ranking, published: pa.Table) -> Order | None:
    headlines = pa.array(sorted(set(ranking.metrics.values())), pa.string())
    of_task = published.filter(
        (pc.field("task") == ranking.task)
        & pc.field("metric").isin(headlines)  # papers have tables of calibration errors, too
    )
    gains = _gains(ranking, published_lines(of_task))
    if len(gains) < _FEWEST_METHODS:
        return None
    pairs = np.array([[gain.ours, gain.published] for gain in gains])
    rho, low, high = rank_correlation(pairs)
    key = (ranking.task, ranking.backbone, ranking.data_kind)
    return Order(*key, tuple(sorted(gains, key=lambda gain: -gain.ours)), rho, low, high)


def rank_correlation(pairs: Floats) -> tuple[float, float, float]:
    """Spearman's ρ with its 95 % interval, of a bootstrap over pairs.

    Args:
        pairs: (n ≥ 3, 2) float64. Where all values of a column are equal, nothing has an order.
    """
    from scipy.stats import spearmanr

    if not np.ptp(pairs, axis=0).all():
        return math.nan, math.nan, math.nan
    generator = np.random.default_rng(SEED)
    resampled: list[float] = []
    while len(resampled) < RESAMPLES:
        drawn = pairs[generator.integers(len(pairs), size=len(pairs))]
        if np.ptp(drawn, axis=0).all():  # ranks of equal values have no correlation
            resampled.append(spearmanr(*drawn.T).statistic)
    low, high = percentiles(np.array(resampled))
    return float(spearmanr(*pairs.T).statistic), low, high


def _gains(ranking: Ranking, lines: Sequence[PublishedLine]) -> list[Gain]:
    """A gain of each of our methods that is published about."""
    ranked = [m for m in ranking.methods if m.rank is not None]
    reference = next((method for method in ranked if method.reference), None)
    if reference is None or reference.scores.mean_ood is None:
        return []
    zero_shot: dict[str, dict[str, float]] = {}
    table: dict[str, float] = {}
    for line in (line for line in lines if line.first.method == reference.method):
        of_source = zero_shot.setdefault(line.first.source, {})
        of_source.update({**line.cells, **of_source})
        # In the table, ObjectNet is scored by other class names, as a note says.
        if line.first.collection == _ZERO_SHOT and line.first.note is None:
            table.update(line.cells)
    gains: dict[str, Gain] = {}
    for method in sorted(ranked, key=_how_plain):
        changes: list[tuple[str, float]] = []
        for line in lines:
            if _key(method, ranking).fits(line.first):
                base = zero_shot.get(line.first.source, table)
                change = _change(line.cells, base, ranking.shifts)
                if change is not None:
                    changes.append((line.first.source, change))
        told = " | ".join(f"{source} {change:.6f}" for source, change in changes)
        if told and told not in gains and method.scores.mean_ood is not None:
            ours = method.scores.mean_ood.mean - reference.scores.mean_ood.mean
            sources = tuple(dict.fromkeys(source for source, _ in changes))
            gains[told] = Gain(method.name, ours, mean(each for _, each in changes), sources)
    return [*gains.values()]


def _key(method: RankedMethod, ranking: Ranking) -> Key:
    chosen = method.selection if method.selection == ID_VAL else None
    variant = "" if chosen else next(iter(method.variants), "")
    return Key.of(method, ranking, variant, chosen)


def _how_plain(method: RankedMethod) -> tuple[bool, int, str]:
    """Sorts what is called as its method first, before the same method with other settings."""
    return method.label != method.method, len(method.label), method.label


def _change(
    cells: Mapping[str, float], base: Mapping[str, float], shifts: Sequence[str]
) -> float | None:
    """A line's mean gain over the shifts that it has; ``None`` if those are too few."""
    there = [shift for shift in shifts if shift in cells and shift in base]
    if len(there) < min(_FEWEST_SHIFTS, len(shifts)):
        return None
    after, before = average_of_cells(cells, there), average_of_cells(base, there)
    return None if after is None or before is None else after - before
