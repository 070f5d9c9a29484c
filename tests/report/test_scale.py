"""Metrics of another unit or direction than accuracy, and such as are not installed here."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import altair as alt
import pyarrow as pa
import pytest
from shiftbench.evaluation.results import Score
from shiftbench.leaderboard.schema import done
from shiftbench.report.html.charts import drawn
from shiftbench.report.html.charts.records import point_records
from shiftbench.report.html.page import render
from shiftbench.report.model import build
from shiftbench.report.over_tasks import overall
from shiftbench.report.scale import ACCURACY, Scale, common_scale, metric_title, scale_of
from shiftbench.report.tables import to_csv, to_latex
from shiftbench.report.terminal import score_text

from tests.leaderboard.records import info, results
from tests.report.of_table import markdown, printed, rankings

NLL = Scale(percent=False, higher_is_better=False)


def measured(run_id, values, metric, variant="", selection="fixed", **changes):
    """A run whose sets have a metric, or each its own."""
    rows = []
    for name, value in values.items():
        (row,) = results({name: 0.5}, variant, selection)
        text = metric if isinstance(metric, str) else metric[name]
        score = Score(value, value - 0.1, value + 0.1, 100, "by hand")
        rows.append(replace(row, metric=text, score=score))
    return done(info(run_id, **({"label": run_id} | changes)), rows)


@pytest.fixture
def losses():
    """A is better under shift, B in distribution."""
    return pa.concat_tables(
        [
            measured("b", {"id-test": 0.5, "x": 3.0, "y": 2.0}, "nll"),
            measured("a", {"id-test": 0.7, "x": 1.5, "y": 2.1}, "nll", train_seconds=6.0),
        ]
    )


def test_units_and_directions_are_the_metrics_own():
    assert scale_of("accuracy") == scale_of("macro-f1") == ACCURACY
    assert scale_of("nll") == NLL
    assert metric_title("ece:10") == "ECE (10 bins)"
    assert common_scale(["accuracy", "worst-region"]) == ACCURACY
    assert common_scale(["accuracy", "nll"]) is None


def test_an_interval_shows_values_that_there_can_be():
    assert ACCURACY.interval(-0.474, 1.564) == "0.0 to 100.0"
    assert ACCURACY.interval(0.25, 0.75) == "25.0 to 75.0"
    assert ACCURACY.interval(None, None) == ""
    assert scale_of("nll").interval(-0.5, 9.0) == "0.000 to 9.000"
    assert scale_of("gone").interval(-0.5, 9.0) == "-0.500 to 9.000"
    mean = common_scale(["brier", "nll"])
    assert mean is not None and mean.range == (0.0, math.inf)
    assert ACCURACY.difference(-1.5) == "-150.0"


def test_seeds_that_lie_far_apart_reach_no_further_than_the_metric():
    runs = [
        measured(f"r{seed}", {"id-test": value, "x": value}, "accuracy", label="a", seed=seed)
        for seed, value in enumerate((0.2, 0.9))
    ]
    table = pa.concat_tables(runs)
    text = markdown(table)
    assert "0.0 to 100.0" in text and "-" not in re.findall(r"\S+ to \S+ \|", text)[0]
    (ranking,) = rankings(table)
    assert ranking.methods[0].scores.by_set["x"].low < 0  # what is computed with stays whole
    for point in point_records(ranking.methods, build(table).rankings[0]):
        assert point["low"] >= 0 and point["high"] <= 1


def test_the_lowest_loss_ranks_first(losses):
    (ranking,) = rankings(losses)
    assert [(m.rank, m.label) for m in ranking.methods] == [(1, "a"), (2, "b")]
    assert score_text(ranking, ranking.methods[0], "x") == "1.500"
    text = markdown(losses)
    assert (
        "| 1 | – | a | fixed | 1 | 0.700 | 1.500 | 2.100 | 1.800 | 1.729 to 1.871 | 6 s |" in text
    )
    assert "NLL: id-test, x, y" in text
    assert "Frontier" not in text  # of accuracies only
    assert "1.500" in printed(losses)


def test_an_oracle_has_the_lowest_loss():
    points = {"alpha=0.0": 2.0, "alpha=0.5": 1.0, "alpha=1.0": 3.0}
    tables = [
        measured(
            *("w", {"id-test": 1.0, "x": value}, "nll", variant),
            "fixed" if variant == "alpha=0.0" else None,
        )
        for variant, value in points.items()
    ]
    (ranking,) = rankings(pa.concat_tables(tables))
    assert [(m.selection, m.variants) for m in ranking.methods] == [
        ("fixed", ("alpha=0.0",)),
        ("oracle", ("alpha=0.5",)),
    ]
    assert [v.variant for v in ranking.variants] == ["alpha=0.5", "alpha=0.0", "alpha=1.0"]


def test_tables_and_charts_of_losses(losses):
    report = build(losses)
    latex = to_latex(report)
    assert r"\textbf{1.500}" in latex
    assert r"\textbf{0.500}" in latex  # B's, in distribution
    assert "percent" not in latex
    assert "nll,1.5," in to_csv(report)
    figures = {figure.name: figure for figure in drawn.all_figures(report)}
    assert figures.keys() == {"r1-sets", "r1-cost"}
    (lack,) = [lack for lack in drawn.all_undrawn(report) if lack.title.startswith("ID and OOD")]
    assert (
        lack.reason == "its axes are of fractions, and NLL of id-test, NLL of x, NLL of y is none"
    )
    (point,) = figures["r1-cost"].data["r1-frontier"]  # A is cheaper, and better
    assert point == {"cost": 6.0, "value": 1.8}
    for figure in figures.values():
        alt.Chart.from_dict(figure.chart)


def test_the_page_of_losses(losses, monkeypatch):
    monkeypatch.setattr("shiftbench.report.html.assets.vega", lambda: "")
    page = render(build(losses))
    assert "1.500" in page
    assert "x: NLL" in page
    assert "in percent; NLL" not in page


def test_means_over_tasks_are_of_one_scale():
    tables = [
        measured("a", {"id-test": 0.8, "x": 0.6}, "accuracy", label="m"),
        measured("b", {"id-test": 0.8, "y": 1.6}, "nll", task="other", label="m"),
    ]
    assert overall(rankings(pa.concat_tables(tables))) == []
    tables.append(measured("c", {"id-test": 0.6, "z": 0.4}, "accuracy", task="third", label="m"))
    (across,) = overall(rankings(pa.concat_tables(tables)))
    assert across.tasks == ("imagenet", "third")


def test_shifts_without_a_common_scale_have_no_mean_and_do_not_rank():
    metrics = {"id-test": "accuracy", "x": "accuracy", "y": "nll"}
    unranked([measured(run_id, dict.fromkeys(metrics, 0.5), metrics) for run_id in "ab"])


def test_a_metric_of_a_plugin_that_is_gone_does_not_rank():
    table = pa.concat_tables([measured(r, {"id-test": 0.5, "x": 0.4}, "accuracy") for r in "ab"])
    names = pa.array(["gone"] * len(table))
    unranked([table.set_column(table.schema.names.index("metric"), "metric", names)])


def unranked(tables):
    (ranking,) = rankings(pa.concat_tables(tables))
    assert [(m.rank, m.scores.mean_ood) for m in ranking.methods] == [(None, None)] * 2
    text = markdown(pa.concat_tables(tables))
    assert "|  | – | a | fixed | 1 | " in text
    assert "There is nothing to compare with." in text
