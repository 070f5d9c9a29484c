"""All charts of a report."""

from __future__ import annotations

from collections.abc import Mapping

from altair.utils.schemapi import debug_mode

from shiftbench.report.html.charts.calibration import calibration_chart
from shiftbench.report.html.charts.cost import cost_chart
from shiftbench.report.html.charts.figure import Figure, Style, Undrawn, styles
from shiftbench.report.html.charts.forgetting import forgetting_chart
from shiftbench.report.html.charts.id_ood import id_ood
from shiftbench.report.html.charts.records import ranking_records
from shiftbench.report.html.charts.sets import alpha_curves, sets_chart
from shiftbench.report.html.charts.trainings import (
    learned_weights,
    mask_shares,
    search_history,
)
from shiftbench.report.model import RankingReport, Report
from shiftbench.report.words import title_of


def ranking_charts(
    of_ranking: RankingReport, report: Report, style: Mapping[str, Style], key: str
) -> list[Figure | Undrawn]:
    """The charts of one ranking, and why others cannot be drawn.

    Args:
        of_ranking: the ranking.
        report: that it is in, for the published cloud.
        style: of ``styles``.
        key: tells the names of its data from those of others.
    """
    records = ranking_records(of_ranking, style, key)
    if not records.points:
        reason = "no method here has a value on the ID test set or a shift"
        return [Undrawn(f"Charts · {title_of(of_ranking.ranking)}", reason)]
    with debug_mode(False):  # without validating each piece; the tests do
        return [
            id_ood(records, report),
            sets_chart(records),
            alpha_curves(records),
            cost_chart(records),
            calibration_chart(records),
            *([forgetting_chart(records)] if of_ranking.forgetting else []),
        ]


def report_charts(report: Report) -> list[Figure | Undrawn]:
    """The charts of a report that are of no single ranking, and why others cannot be drawn."""
    with debug_mode(False):
        return [
            mask_shares(report.layer_shares),
            *map(search_history, report.searches),
            learned_weights(report.searches),
        ]


def all_figures(report: Report) -> list[Figure]:
    """Every chart of a report that can be drawn, with unique names."""
    return [chart for chart in _all_charts(report) if isinstance(chart, Figure)]


def all_undrawn(report: Report) -> list[Undrawn]:
    """Every chart of a report that cannot be drawn, with what is missing for it."""
    return [chart for chart in _all_charts(report) if isinstance(chart, Undrawn)]


def _all_charts(report: Report) -> list[Figure | Undrawn]:
    style = styles(report)
    of_rankings = [
        chart
        for number, of_ranking in enumerate(report.rankings, start=1)
        for chart in ranking_charts(of_ranking, report, style, f"r{number}")
    ]
    return [*of_rankings, *report_charts(report)]
