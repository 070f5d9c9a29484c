"""The records that a ranking's charts draw: numbers of methods and of curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from shiftbench.data.tasks.definition import ID_TEST
from shiftbench.report.html.charts.figure import Records, Style
from shiftbench.report.html.charts.prominent import MANY, prominent
from shiftbench.report.model import RankingReport
from shiftbench.report.ranking import ORACLE, RankedMethod, Ranking
from shiftbench.report.scale import Scale
from shiftbench.report.scores import MEAN, Estimate
from shiftbench.report.words import duration


@dataclass(frozen=True)
class RankingRecords:
    """The data and styles that the charts of one ranking share.

    Attributes:
        of_ranking: the ranking with all that belongs to it.
        styles: of all methods.
        key: tells the names of its data from those of other rankings.
        points: a record for each method and evaluation set, and for the mean over shifts.
        curve: a record for each point of a curve and each evaluation set.
        prominent: names of the methods to name, those first that matter most.
    """

    of_ranking: RankingReport
    styles: Mapping[str, Style]
    key: str
    points: Records
    curve: Records
    prominent: tuple[str, ...]

    @property
    def ranking(self) -> Ranking:
        """The ranking itself."""
        return self.of_ranking.ranking

    @property
    def data(self) -> dict[str, Records]:
        """The records by name."""
        return {f"{self.key}-points": self.points, f"{self.key}-curve": self.curve}

    @property
    def names(self) -> list[str]:
        """Names of all methods that have a record."""
        return list(dict.fromkeys(r["method"] for r in (*self.points, *self.curve)))

    def marked(self, method: str) -> dict[str, Any]:
        """What the record of a mark has if the method is one of many, and not of those to name."""
        many = len({r["method"] for r in self.points}) > MANY
        return {"muted": True} if many and method not in self.prominent else {}


def ranking_records(
    of_ranking: RankingReport, styles: Mapping[str, Style], key: str
) -> RankingRecords:
    """The records of a ranking; none of oracles."""
    shown = [method for method in of_ranking.ranking.methods if method.selection != ORACLE]
    points, curve = point_records(shown, of_ranking), curve_records(of_ranking)
    to_name = prominent(of_ranking, points)
    records = RankingRecords(of_ranking, styles, key, points, curve, to_name)
    points, curve = (
        [record | records.marked(record["method"]) for record in of] for of in (points, curve)
    )
    return replace(records, points=points, curve=curve)


def point_records(methods: Sequence[RankedMethod], of_ranking: RankingReport) -> Records:
    """A record for each method and evaluation set, and for the mean over shifts."""
    ranking = of_ranking.ranking
    records = []
    for method in methods:
        for set_name, estimate in method.scores.with_mean().items():
            if set_name not in (ID_TEST, *ranking.shifts, MEAN):
                continue
            reference = method.scores.get(of_ranking.axes.get(set_name, ID_TEST))
            record = _record(method.name, set_name, reference)
            record |= _numbers(estimate, ranking.scale_on(set_name))
            records.append(
                record
                | {
                    "kind": estimate.interval or "",
                    "n": " or ".join(f"{size:,}" for size in estimate.n),
                    "seeds": len(estimate.seeds),
                    "selection": method.selection,
                    "cost": method.cost_seconds,
                    "spent": duration(method.cost_seconds),
                    "note": estimate.remark or "",
                }
            )
    return records


def curve_records(of_ranking: RankingReport) -> Records:
    """A record for each point of a curve and each evaluation set."""
    ranking = of_ranking.ranking
    records = []
    for point in of_ranking.curves:
        for set_name, estimate in point.scores.items():
            if set_name not in (ID_TEST, *ranking.shifts, MEAN):
                continue
            reference = point.scores.get(of_ranking.axes.get(set_name, ID_TEST))
            record = _record(point.label, set_name, reference)
            record |= _numbers(estimate, ranking.scale_on(set_name))
            records.append(record | {"alpha": point.alpha, "seeds": len(estimate.seeds)})
    return records


def logit_of(value: float, n: int | None = None) -> float:
    """The logit, of 0 and 1 as if half an image were otherwise."""
    least = 0.5 / (n or 1000)
    inside = min(max(value, least), 1 - least)
    return math.log(inside / (1 - inside))


def rounded(value: float | None) -> float | None:
    """With five decimals, which is more than a screen shows."""
    return None if value is None else round(value, 5)


def _record(method: str, set_name: str, reference: Estimate | None) -> dict[str, Any]:
    mean = None if reference is None else reference.mean
    return {
        "method": method,
        "set": set_name,
        "id": rounded(mean),
        "x": None if mean is None else rounded(logit_of(mean)),
    }


def _numbers(estimate: Estimate, scale: Scale) -> dict[str, Any]:
    mean = estimate.mean
    known = estimate.low is not None and estimate.high is not None
    # Without an interval the bar has no length: Vega warns of axes without any number.
    low = mean if estimate.low is None else scale.inside(estimate.low)
    high = mean if estimate.high is None else scale.inside(estimate.high)
    unit = " %" if scale.percent else ""
    return {
        "value": rounded(mean),
        "low": rounded(low),
        "high": rounded(high),
        "interval": f"{scale.text(low)}{unit} to {scale.text(high)}{unit}" if known else "none",
        "y": rounded(logit_of(mean)),
        "ylow": rounded(logit_of(low)),
        "yhigh": rounded(logit_of(high)),
    }
