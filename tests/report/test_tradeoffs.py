import re
from html import unescape

import pyarrow as pa
import pytest
from shiftbench.evaluation.robustness import AXES, baselines, standard_models
from shiftbench.leaderboard.published.reading import read_published
from shiftbench.report.cloud import applicable, shipped_baselines
from shiftbench.report.curves import curve_points
from shiftbench.report.html.page import render
from shiftbench.report.markdown import to_markdown
from shiftbench.report.model import build
from shiftbench.report.tradeoffs import tradeoffs

from tests.leaderboard.real_records import of_task, results, zero_shot
from tests.leaderboard.test_published import FOLDER
from tests.report.of_table import markdown, printed, rankings

SHIFTS = ("imagenet-v2", "imagenet-r")


def cells(id_test, *shifts):
    return {"id-test": id_test} | dict(zip(SHIFTS, shifts, strict=True))


def variants(points):
    found = []
    for alpha, values in points.items():
        selection = "fixed" if alpha == 0.5 else None
        found += results(values, "imagenet", f"alpha={alpha}", selection)
    return found


@pytest.fixture
def table():
    curve = {0.0: cells(0.68, 0.6, 0.7), 0.5: cells(0.78, 0.68, 0.72), 1.0: cells(0.8, 0.6, 0.6)}
    settings = {"method": "wise-ft", "label": "wise-ft", "seeded": False, "train_seconds": 0.0}
    return pa.concat_tables(
        [
            zero_shot(cells(0.68, 0.6, 0.7), train_seconds=0.0),
            of_task("a", cells(0.8, 0.6, 0.6), label="full", train_seconds=1800.0, device="x"),
            of_task("w", variants(curve), parents=[("full", "a")], **settings),
            of_task("b", cells(0.6, 0.5, 0.5), label="worse", train_seconds=None),
        ]
    )


def found(table, beta=None):
    (ranking,) = rankings(table)
    points = curve_points(ranking)
    return {t.method.label: t for t in tradeoffs(ranking, points, beta or {})}


def test_who_is_on_the_frontier(table):
    by_label = found(table)
    assert by_label["full"].frontier == ("selected",)
    assert by_label["wise-ft"].frontier == ("selected", "0.5", "1")
    assert by_label["zero-shot"].frontier == by_label["worse"].frontier == ()


def test_the_area_beyond_zero_shot(table):
    by_label = found(table)
    # Only alpha 0.5 is above zero-shot's mean OOD of 0.65: by 0.05, and by 0.1 in distribution.
    assert by_label["wise-ft"].area == pytest.approx(0.1 * 0.05)
    assert by_label["full"].area == by_label["worse"].area == 0
    without = table.filter(pa.compute.field("method") != "zero-shot")
    assert {t.area for t in found(without).values()} == {None}


def test_what_a_gain_costs(table):
    by_label = found(table)
    assert by_label["wise-ft"].gain == pytest.approx(0.05)
    assert by_label["wise-ft"].gain_per_hour == pytest.approx(0.05 / 0.5)  # its parent's time
    assert by_label["full"].gain_per_hour == pytest.approx(-0.05 / 0.5)
    assert by_label["worse"].gain_per_hour is None
    assert by_label["zero-shot"].gain_per_hour is None


def test_effective_robustness_needs_the_accuracy_on_the_shifts_classes(table):
    published = read_published(FOLDER)
    (ranking,) = rankings(table)
    beta = applicable(ranking, shipped_baselines([ranking], published)[0])
    assert set(beta) == set(SHIFTS)
    right = baselines(standard_models(published))["imagenet-v2"]
    robust = found(table, beta)["full"].rho
    assert robust == {"imagenet-v2": pytest.approx(float(right.rho(0.8, 0.6)))}

    more = cells(0.8, 0.6, 0.6) | {AXES["imagenet-r"]: 0.93}
    robust = found(pa.concat_tables([table, of_task("c", more, label="c")]), beta)["c"].rho
    right = baselines(standard_models(published))["imagenet-r"]
    assert robust["imagenet-r"] == pytest.approx(float(right.rho(0.93, 0.6)))
    others = rankings(table.filter(pa.compute.field("task") == "x"))
    assert shipped_baselines(others, published) == ({}, None)


def test_effective_robustness_outside_of_the_fit_is_marked(table):
    """The testbed's standard models end well below an ID accuracy of 99 %."""
    published = read_published(FOLDER)
    table = pa.concat_tables([table, of_task("high", cells(0.99, 0.9, 0.9), label="high")])
    text = markdown(table, published=published)
    (high,) = [line for line in text.splitlines() if line.startswith("| high | selected")]
    assert high.count("†") == 1
    assert "† outside of the ID accuracies" in text
    right = baselines(standard_models(published))["imagenet-v2"]
    assert not right.covers(0.99)
    assert right.covers(0.8)
    outside = {
        t.method.label: t.outside for t in build(table, published=published).rankings[0].tradeoffs
    }
    assert outside["high"] == {"imagenet-v2"}
    assert outside["full"] == frozenset()
    assert "†" in render(build(table, published=published))


@pytest.mark.parametrize(
    ("kept", "reason"),
    [
        (pa.compute.field("collection") == "papers", "imagenet-testbed, with its standard models"),
        (pa.compute.field("backbone") != "resnet50", 'the fit for imagenet-a needs.*"resnet50"'),
        (pa.compute.field("evaluation_set") != "imagenet-v2", "needs three models"),
    ],
)
def test_why_there_is_no_effective_robustness_is_told_in_every_printer(table, kept, reason):
    published = read_published(FOLDER).filter(kept)
    report = build(table, published=published)
    assert report.baselines == ()
    for text in (to_markdown(report), printed(table, 200, published=published)):
        (line,) = [line for line in text.splitlines() if line.lower().startswith("no ρ")]
        assert re.search(reason, line)
    page = unescape(render(report))
    assert re.search(rf"No effective robustness \(ρ\): [^<]*{reason}", page)
    assert re.search(rf"No trend: [^<]*{reason}", page)


def test_a_chart_says_which_values_a_trend_lacks(table):
    page = render(build(table, published=read_published(FOLDER)))
    assert f"No trend for imagenet-r: no run here has {AXES['imagenet-r']}." in page


def test_reports_have_them(table):
    text = markdown(table, published=read_published(FOLDER))
    assert "| method | on the frontier | area | gain | gain per hour | ρ V2 |" in text
    assert "| wise-ft | selected, 0.5, 1 | 50.0 | +5.0 | +10 |" in text
