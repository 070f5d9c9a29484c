"""What fine-tuning forgets, in a report."""

from __future__ import annotations

import altair as alt
import numpy as np
import pyarrow as pa
import pytest
from shiftbench.report.html.charts import drawn
from shiftbench.report.html.page import render
from shiftbench.report.markdown import to_markdown
from shiftbench.report.model import build

from tests.leaderboard.records import run
from tests.report.of_table import printed

SETS = ("id-test", "a", "b", "also-pets", "also-cars")
ZERO = (0.7, 0.6, 0.5, 0.9, 0.6)
FULL = {0: (0.9, 0.5, 0.4, 0.5, 0.3), 1: (0.92, 0.52, 0.42, 0.6, 0.4)}
PLACE = {"task": "birds", "data_kind": "miniature/2", "leakage": None, "shifts": ("a", "b")}


def table() -> pa.Table:
    reference = {"label": "zero-shot", "method": "zero-shot", "seeded": False, "reference": True}
    named = {"details": {"other_classes": "pretrained text tower"}}
    tables = [run("z", dict(zip(SETS, ZERO, strict=True)), **reference, **named, **PLACE)]
    for seed, values in FULL.items():
        tables.append(
            run(f"f{seed}", dict(zip(SETS, values, strict=True)), seed=seed, **named, **PLACE)
        )
    without = dict(zip(SETS[:3], FULL[0], strict=False))  # was run before the suite asked for more
    return pa.concat_tables([*tables, run("old", without, label="old", method="old", **PLACE)])


def test_the_change_is_the_mean_over_tasks_against_zero_shots():
    (of_ranking,) = build(table()).rankings
    found = of_ranking.forgetting
    assert found.tasks == ("pets", "cars")
    assert found.methods.keys() == {"zero-shot", "full"}
    full = found.methods["full"]
    assert full.mean.mean == pytest.approx(np.mean([values[3:] for values in FULL.values()]))
    assert full.change.value == pytest.approx(full.mean.mean - (0.9 + 0.6) / 2)
    assert full.change.low < full.change.value < full.change.high
    assert found.methods["zero-shot"].change.value == 0
    means = {method.label: method.scores.mean_ood.mean for method in of_ranking.ranking.methods}
    assert means == pytest.approx({"zero-shot": 0.55, "full": 0.46, "old": 0.45})


def test_corruptions_beside_a_task_are_no_other_task() -> None:
    sets = {"id-test": 0.9, "a": 0.5, "b": 0.4, "also-pets": 0.6, "also-fog-1": 0.1}
    (of_ranking,) = build(run("f", sets, **PLACE)).rankings
    assert of_ranking.forgetting.tasks == ("pets",)


def test_every_printer_has_a_column_and_a_table(monkeypatch):
    monkeypatch.setattr("shiftbench.report.html.assets.vega", lambda: "")
    report = build(table())
    text = to_markdown(report)
    assert "| OOD | 95 % of OOD | others | cost |" in text
    assert "| method | classes named by | pets | cars | mean | change |" in text
    assert "| full | pretrained text tower | 55.0 | 35.0 | 45.0 | -30.0 (" in text
    lines = printed(table(), width=120).splitlines()
    assert lines[1].split()[-2:] == ["others", "cost"]
    assert "others: mean score on pets, cars against zero-shot's." in lines
    assert "others" not in printed(table(), width=80).splitlines()[1]
    page = render(report)
    assert "What fine-tuning forgets: other tasks" in page
    assert ">−30.0</td>" in page
    (figure,) = [f for f in drawn.all_figures(report) if f.name == "r1-forgetting"]
    alt.Chart.from_dict(figure.chart)
    assert {(r["method"], r["set"]) for r in figure.data["r1-others"]} == {
        (method, name) for method in ("zero-shot", "full") for name in ("id-test", "mean OOD")
    }


def test_without_such_sets_nothing_is_said_of_them():
    report = build(run("a", {"id-test": 0.5, "a": 0.4}, task="birds"))
    assert not report.rankings[0].forgetting
    assert "| others |" not in to_markdown(report)
    assert not any("forgetting" in figure.name for figure in drawn.all_figures(report))
