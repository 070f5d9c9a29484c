"""All charts of a report."""

from __future__ import annotations

from collections.abc import Mapping

from altair.utils.schemapi import debug_mode

from shiftbench.data.tasks.definition import ID_TEST
from shiftbench.report.html.charts.cost import cost_chart
from shiftbench.report.html.charts.figure import Figure, Style, styles
from shiftbench.report.html.charts.id_ood import id_ood
from shiftbench.report.html.charts.records import ranking_records
from shiftbench.report.html.charts.sets import alpha_curves, sets_chart
from shiftbench.report.html.charts.trainings import (
    learned_weights,
    mask_shares,
    positive_settings,
    search_history,
)
from shiftbench.report.model import RankingReport, Report
from shiftbench.report.scores import MEAN


def ranking_figures(
    of_ranking: RankingReport, report: Report, style: Mapping[str, Style], key: str
) -> list[Figure]:
    """The charts of one ranking.

    Args:
        of_ranking: the ranking.
        report: that it is in, for the published cloud.
        style: of ``styles``.
        key: tells the names of its data from those of others.
    """
    with debug_mode(False):  # without validating each piece; the tests do
        return _ranking_figures(of_ranking, report, style, key)


def report_figures(report: Report) -> list[Figure]:
    """The charts of a report that are of no single ranking."""
    figures = []
    with debug_mode(False):
        if report.layer_shares:
            figures.append(mask_shares(report.layer_shares))
        figures += [search_history(search) for search in report.searches if search.trials]
        if any(positive_settings(search) for search in report.searches):
            figures.append(learned_weights(report.searches))
    return figures


def all_figures(report: Report) -> list[Figure]:
    """Every chart of a report, with unique names."""
    style = styles(report)
    figures = [
        figure
        for number, of_ranking in enumerate(report.rankings, start=1)
        for figure in ranking_figures(of_ranking, report, style, f"r{number}")
    ]
    return [*figures, *report_figures(report)]


def _ranking_figures(
    of_ranking: RankingReport, report: Report, style: Mapping[str, Style], key: str
) -> list[Figure]:
    ranking = of_ranking.ranking
    records = ranking_records(of_ranking, style, key)
    if not records.points:
        return []
    figures = []
    # Both axes of this chart are logits of fractions.
    fractions = all(ranking.scale_on(name).percent for name in (ID_TEST, MEAN, *ranking.shifts))
    if ranking.shifts and fractions:
        figures.append(id_ood(records, report))
    figures.append(sets_chart(records))
    if records.curve:
        figures.append(alpha_curves(records))
    if len({p["method"] for p in records.points if p["cost"] is not None}) > 1:
        figures.append(cost_chart(records))
    return figures
