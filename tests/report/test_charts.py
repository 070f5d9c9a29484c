from __future__ import annotations

import json
import re
from html import unescape

import altair as alt
import numpy as np
import pyarrow as pa
import pytest
from shiftbench.leaderboard.published.schema import PUBLISHED_SCHEMA
from shiftbench.report.html import assets
from shiftbench.report.html.charts import drawn
from shiftbench.report.html.charts.figure import COLOURS, NEUTRAL, SHAPES, styles
from shiftbench.report.html.charts.labels import Point, placed
from shiftbench.report.html.charts.records import logit_of, ranking_records
from shiftbench.report.html.charts.trainings import STATES
from shiftbench.report.html.families import DERIVED, PRETRAINED, SEARCHED, TRAINED, family_of_each
from shiftbench.report.html.figures import write_figures
from shiftbench.report.html.legend import SHAPE_PATHS
from shiftbench.report.html.page import render
from shiftbench.report.model import build
from shiftbench.report.scores import MEAN

from tests.leaderboard.records import run
from tests.report.page_records import of_methods


def test_logits():
    assert logit_of(0.5) == 0
    assert logit_of(0.9) == pytest.approx(np.log(9))
    assert logit_of(1.0, n=100) == pytest.approx(np.log(0.995 / 0.005))
    assert logit_of(0.0, n=100) == pytest.approx(-logit_of(1.0, n=100))


def test_charts_are_valid_and_their_data_are_there(figures, report):
    assert len(figures) == len(drawn.all_figures(report))
    for kind in ("r1-id-ood", "r1-sets", "r1-alpha", "r1-cost", "mask-shares", "learned-weights"):
        assert kind in figures
    assert "search-5ea5c4" in figures
    for figure in figures.values():
        alt.Chart.from_dict(figure.chart)  # raises for what Vega-Lite does not know
        text = json.dumps(figure.spec(with_data=False))
        asked = set(re.findall(r'"data": \{"name": "([^"]+)"\}', text))
        assert asked
        assert asked <= figure.data.keys()
        assert "datasets" not in text


def undrawn(*tables, **options):
    """Why charts of a report on these runs are not drawn, by the kind of the chart."""
    report = build(pa.concat_tables(tables), published=PUBLISHED_SCHEMA.empty_table(), **options)
    page = unescape(render(report))
    found = {lack.title.partition(" · ")[0]: lack.reason for lack in drawn.all_undrawn(report)}
    assert all(reason in page for reason in found.values())
    return found, {figure.name: figure.text for figure in drawn.all_figures(report)}


def test_a_chart_that_is_not_drawn_says_what_is_missing(monkeypatch):
    monkeypatch.setattr("shiftbench.report.html.assets.vega", lambda: "")
    two = {"shifts": ("a", "b"), "task": "pets"}
    plain, figures = undrawn(run("x", {"id-test": 0.8, "a": 0.6, "b": 0.5}, label="x", **two))
    assert plain == {
        "Accuracy and calibration": "no method here has predictions with logits",
        "Alpha curves": "no method here has variants along alpha",
        "Cost and accuracy": "it compares methods, and 1 here has mean over shifts and a cost",
        "Where the masks are": "no run here trained under a mask",
        "What the searches found": "no run here searched its settings",
    }
    assert figures.keys() == {"r1-id-ood", "r1-sets"}
    bare, figures = undrawn(
        run("x", {"id-test": 0.8}, label="x", task="pets", shifts=()),
        run("y", {"id-test": 0.7}, label="y", task="pets", shifts=(), train_seconds=None),
    )
    assert bare["ID and OOD"] == "the task has no shift"
    assert "1 here has id-test and a cost; the cost of y is not known" in bare["Cost and accuracy"]
    lost, figures = undrawn(
        *(run(r, {"a": 0.6}, label=r, **two) for r in "xy"),
        run("s", {"a": 0.6}, label="s", search_id="f00d", searched={"seed": 1}, **two),
    )
    assert "no point on a: no method has id-test" in lost["ID and OOD"]
    assert "no point on mean over shifts: no method has all shifts" in lost["ID and OOD"]
    assert "no point on b: no method has a value" in lost["ID and OOD"]
    assert lost["Search f00d"] == "There is no results folder"
    assert lost["What the searches found"].startswith("no setting that was found")
    assert figures["r1-sets"].endswith("Nothing here has a value on mean over shifts, id-test, b.")
    nothing, figures = undrawn(run("x", {"id-val": 0.8}, label="x", **two))
    assert nothing["Charts"] == "no method here has a value on the ID test set or a shift"


def test_a_panel_that_would_be_empty_is_left_out_and_named(monkeypatch):
    monkeypatch.setattr("shiftbench.report.html.assets.vega", lambda: "")
    task = {"shifts": ("a", "b"), "task": "pets"}
    tables = [run(r, {"id-test": 0.8, "a": 0.6}, label=r, **task) for r in "xy"]
    _, figures = undrawn(*tables, run("z", {"id-test": 0.8}, label="z", **task))
    assert "No panel for mean over shifts: no method has all shifts" in figures["r1-id-ood"]
    assert "No panel for b: no method has a value" in figures["r1-id-ood"]


def test_a_method_far_from_all_others_does_not_squeeze_them(monkeypatch):
    monkeypatch.setattr("shiftbench.report.html.assets.vega", lambda: "")
    task = {"shifts": ("a",), "task": "pets"}
    tables = [
        run(f"x{i}", {"id-test": 0.8 + i / 100, "a": 0.6 + i / 100}, label=f"x{i}", **task)
        for i in range(9)
    ]
    broken = run("b", {"id-test": 0.8, "a": 0.1}, label="broken", **task)
    _, figures = undrawn(*tables, broken)
    assert figures["r1-id-ood"].endswith("Below the axes, since far worse than all others: broken.")
    _, figures = undrawn(*tables)
    assert "Below" not in figures["r1-id-ood"]
    best = run("b", {"id-test": 0.99, "a": 0.99}, label="best", **task)
    _, figures = undrawn(*tables, best)
    assert "Below" not in figures["r1-id-ood"]


def test_no_name_is_drawn_outside_of_the_axes():
    task = {"shifts": ("a",), "task": "pets"}
    tables = [
        run(f"x{i}", {"id-test": 0.8 + i / 100, "a": 0.6 + i / 100}, label=f"x{i}", **task)
        for i in range(9)
    ]
    low = run("z", {"id-test": 0.1, "a": 0.1}, label="zero-shot", reference=True, **task)
    report = build(pa.concat_tables([*tables, low]), published=PUBLISHED_SCHEMA.empty_table())
    figure, *_ = drawn.ranking_charts(report.rankings[0], report, styles(report), "r1")
    assert figure.text.endswith("far worse than all others: zero-shot.")
    assert [label["method"] for label in figure.data["r1-named"]] == ["x8"]


def test_equal_names_of_data_mean_equal_data(figures):
    seen = {}
    for figure in figures.values():
        for name, records in figure.data.items():
            assert seen.setdefault(name, records) == records


def test_the_frontier_is_what_nothing_beats(figures):
    data = figures["r1-cost"].data
    points = [(r["cost"], r["value"]) for r in data["r1-points"] if r["set"] == MEAN]
    beaten = {
        (cost, value)
        for cost, value in points
        for c, v in points
        if c <= cost and v >= value and (c, v) != (cost, value)
    }
    frontier = {(r["cost"], r["value"]) for r in data["r1-frontier"]}
    assert frontier == set(points) - beaten


def test_many_methods_have_looks_of_their_own():
    report = build(of_methods(97))  # 48 of a kind
    looks = styles(report)
    assert len({(look.colour, look.shape, look.fill) for look in looks.values()}) == 97
    assert len({looks[name].colour for name in [*looks][:8]}) == 8


def test_shapes_tell_families_apart(report):
    looks, found = styles(report), family_of_each(report)
    assert {found["zero-shot"], found["full"], found["wise-ft"]} == {PRETRAINED, TRAINED, DERIVED}
    assert found["autoft · ood-val"] == SEARCHED
    shapes = {}
    for name, look in looks.items():
        shapes.setdefault(look.shape, set()).add(found[name])
    assert all(len(families) == 1 for families in shapes.values())
    assert {shape for of in SHAPES.values() for shape in of} == SHAPE_PATHS.keys()


def test_among_many_methods_those_on_the_frontiers_are_named_and_the_others_pale():
    report = build(of_methods(40))
    (of_ranking,) = report.rankings
    records = ranking_records(of_ranking, styles(report), "r1")
    score = {(r["method"], r["set"]): r["value"] for r in records.points}
    both = {r["method"]: (score[r["method"], "id-test"], score[r["method"], MEAN])
            for r in records.points}  # fmt: skip
    unbeaten = {
        name
        for name, own in both.items()
        if not any(a >= own[0] and b >= own[1] and (a, b) != own for a, b in both.values())
    }
    assert {"zero-shot", of_ranking.answer.recipe.name, *unbeaten} <= {*records.prominent}
    pale = {r["method"] for r in records.points if r.get("muted")}
    assert pale == both.keys() - {*records.prominent}
    assert records.prominent[0] == of_ranking.answer.recipe.name
    few = build(of_methods(10))
    assert not any("muted" in r for r in ranking_records(few.rankings[0], styles(few), "r1").points)


def test_names_cover_no_other_name_and_no_mark():
    draw = np.random.default_rng(0)
    spots = [Point(*draw.uniform(0.1, 0.9, 2), {"method": f"method-{i}"}) for i in range(40)]
    found = placed(spots, [p.method for p in spots], (0.0, 1.0), (0.0, 1.0), (400.0, 300.0))
    assert 4 < len(found) < 40  # not all have room
    crowd = [Point(0.5, 0.5 + 0.001 * i, {"method": f"m{i}"}) for i in range(30)]
    args = ((0.0, 1.0), (0.0, 1.0), (400.0, 300.0))
    assert placed(crowd, ["m7"], *args) != []  # beside the others
    corner = [Point(0.99, 0.5, {"method": "at-the-right-end"})]
    assert placed(corner, ["at-the-right-end"], *args)[0]["side"] == "left"
    offsets = [(dx, dy) for dx in (-0.06, 0, 0.06) for dy in (-0.05, 0, 0.05) if dx or dy]
    around = [Point(0.5 + dx, 0.5 + dy, {"method": f"{dx} {dy}"}) for dx, dy in offsets]
    middle = Point(0.5, 0.5, {"method": "middle"})
    assert placed([middle, *around], ["middle"], *args) == []
    pale = [p._replace(record={**p.record, "muted": True}) for p in around]
    assert placed([middle, *pale], ["middle"], *args) != []


def test_oracles_are_in_no_chart(figures):
    for figure in figures.values():
        assert "oracle" not in json.dumps(figure.spec(with_data=True))


def luminance(colour):
    parts = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


def contrast(first, second):
    low, high = sorted([luminance(first), luminance(second)])
    return (high + 0.05) / (low + 0.05)


def test_contrast_in_light_and_dark():
    css = assets.static("page.css")
    light, dark = [
        dict(re.findall(r"(--[\w-]+): (#\w{6});", css.split("prefers-color-scheme")[i]))
        for i in (0, 1)
    ]
    for theme in (light, dark):
        for name in ("--ink", "--soft", "--link", "--bad", "--good"):
            assert contrast(theme[name], theme["--page"]) >= 4.5, name
        for colour in (*COLOURS, *STATES.values(), NEUTRAL):
            assert contrast(colour, theme["--page"]) >= 3, colour


def test_figures_are_images(report, figures, tmp_path, monkeypatch):
    of_two_pages = [figures["r1-sets"]] * 2
    module = "shiftbench.report.html.figures"
    monkeypatch.setattr(f"{module}.all_figures", lambda report: of_two_pages)
    files = write_figures(tmp_path / "new", report)
    stem = "each-evaluation-set-cifar10-miniature-all-training-data-miniature-2-data"
    assert [file.name for file in files] == [
        f"{name}.{kind}" for name in (stem, f"{stem}-2") for kind in ("svg", "png")
    ]
    svg, png = (file.read_bytes() for file in files[:2])
    assert svg.startswith(b"<svg")
    assert b"&lt;script&gt;" in svg
    assert b"<script" not in svg
    assert png.startswith(b"\x89PNG")
