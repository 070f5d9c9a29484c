"""Calibration and selective classification in a report, against obvious code."""

from __future__ import annotations

import csv
import io
import re

import altair as alt
import numpy as np
import pyarrow as pa
import pytest
from scipy.special import log_softmax
from shiftbench.evaluation import predictions
from shiftbench.evaluation.examples import of_logits
from shiftbench.leaderboard.runfolder import RunFolder
from shiftbench.leaderboard.schema import done
from shiftbench.leaderboard.store import write_run
from shiftbench.report.html.charts import drawn
from shiftbench.report.html.page import render
from shiftbench.report.markdown import to_markdown
from shiftbench.report.model import build
from shiftbench.report.reading import by_variant_and_set
from shiftbench.report.scores import MEAN
from shiftbench.report.tables import to_csv

from tests.leaderboard.records import info, results
from tests.report.of_table import printed

N, CLASSES = 80, 7
SETS = ("id-test", "a", "b")
OTHERS = "outliers-cars"
SEEDS = (0, 1, 2)


def slow(logits, labels):
    """Every measure from the logits, in float64, by the formulas of their papers."""
    p = np.exp(log_softmax(logits.astype(np.float64), axis=1))
    confidence, right = p.max(axis=1), p.argmax(axis=1) == labels
    n = len(labels)
    ece = 0.0
    for j in range(15):
        inside = [i for i in range(n) if j / 15 < confidence[i] <= (j + 1) / 15]
        if inside:
            ece += len(inside) / n * abs(right[inside].mean() - confidence[inside].mean())
    pieces = np.array(sorted(zip(confidence, right, strict=True)))
    adaptive = 0.0  # each example is cut in 15, so that all bins have equally many pieces
    each = np.repeat(pieces, 15, axis=0).reshape(15, n, 2)
    for of_bin in each:
        adaptive += abs((of_bin[:, 1] - of_bin[:, 0]).mean()) / 15
    order = np.argsort(-confidence)
    errors = np.cumsum(~right[order])
    return {
        "ece:15": ece,
        "ece-adaptive:15": adaptive,
        "nll": -np.log(p[np.arange(n), labels]).mean(),
        "brier": ((p - np.eye(p.shape[1])[labels]) ** 2).sum(axis=1).mean(),
        "aurc": (errors / np.arange(1, n + 1)).mean(),
    }


def outliers(*seed):
    """Predictions on images of none of the classes: their highest logit is the example's number."""
    logits = np.zeros((N, CLASSES), np.float32)
    logits[:, 0] = np.arange(N) / N + sum(seed)
    examples = of_logits(np.zeros(N, np.int64), logits, {})
    ids = np.array([f"{OTHERS}/{i}" for i in range(N)])
    return predictions.table_of(OTHERS, "", ids, examples)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two methods of three seeds, their zero-shot, and one with classes only; what is expected."""
    folder = tmp_path_factory.mktemp("measured")
    expected = {}
    tables = []
    for label in ("full", "lora", "zero-shot", "imported"):
        for seed in SEEDS if label in ("full", "lora") else (0,):
            run_id = f"{label}{seed}"
            parts, scores = [], {}
            for name in SETS:
                rng = np.random.default_rng([len(label), seed, SETS.index(name)])
                labels = rng.integers(0, CLASSES, N)
                logits = rng.normal(size=(N, CLASSES)).astype(np.float32)
                logits[np.arange(N), labels] += 1.5
                examples = of_logits(labels, logits, {})
                scores[name] = float(examples.correct.mean())
                if label == "imported":
                    examples = of_logits(labels, logits, {}, ())
                expected[label, seed, name] = slow(logits, labels)
                ids = np.array([f"{name}/{i}" for i in range(N)])
                parts.append(predictions.table_of(name, "", ids, examples))
            parts.append(outliers(len(label), seed))
            scores[OTHERS] = 0.5
            facts = {"label": label, "method": label, "seed": seed, "task": "pets"}
            facts |= {"seeded": label != "zero-shot", "reference": label == "zero-shot"}
            table = done(info(run_id, shifts=SETS[1:], **facts), results(scores))
            write_run(folder, run_id, table)
            predictions.write(RunFolder.of(folder, run_id).predictions, predictions.concat(parts))
            tables.append(table)
    return build(pa.concat_tables(tables), folder), expected, pa.concat_tables(tables), folder


def test_measures_are_those_of_the_papers_on_every_set(made):
    report, expected, _, _ = made
    (of_ranking,) = report.rankings
    found = of_ranking.measures
    assert found.sets == ("id-test", MEAN, "a", "b", OTHERS)
    assert (found.single_sets, found.outliers) == (("a", "b"), (OTHERS,))
    assert found.estimates.keys() == {"full", "lora", "zero-shot"}  # classes have no confidence
    for label, seeds in (("full", SEEDS), ("lora", SEEDS), ("zero-shot", (0,))):
        for text in expected[label, 0, "a"]:
            for name in SETS:
                each = [expected[label, seed, name][text] for seed in seeds]
                estimate = found.get(label, name, text)
                assert estimate.mean == pytest.approx(np.mean(each), rel=1e-6)
                sd = pytest.approx(np.std(each, ddof=1), rel=1e-4) if len(seeds) > 1 else None
                assert estimate.sd == sd
            shifts = [expected[label, s, name][text] for s in seeds for name in SETS[1:]]
            assert found.get(label, MEAN, text).mean == pytest.approx(np.mean(shifts), rel=1e-6)


def test_every_printer_shows_calibration_beside_accuracy(made):
    report, _, table, folder = made
    (of_ranking,) = report.rankings
    estimates = of_ranking.measures.estimates["full"]
    ends = [f"{100 * estimates[name]['ece:15'].mean:.1f}" for name in ("id-test", MEAN)]
    assert "→".join(ends) in printed(table, results=folder)
    assert "ECE" not in printed(table, width=80, results=folder)  # no room for it
    text = to_markdown(report)
    header = next(line for line in text.splitlines() if line.startswith("| # "))
    assert "| ECE ID | ECE OOD | cost |" in header
    lines = [line.split(" | ") for line in text.splitlines() if line.startswith("| full |")]
    assert [line[1:3] for line in lines if len(line) == 11] == [ends]
    page = render(report)
    assert f">{'→'.join(ends)}</td>" in page
    rows = list(csv.DictReader(io.StringIO(to_csv(report))))
    (row,) = [
        r for r in rows if (r["label"], r["evaluation_set"], r["metric"]) == ("full", "b", "aurc")
    ]
    assert float(row["value"]) == estimates["b"]["aurc"].mean
    assert (row["seeds"], row["interval"]) == ("3", "Student's t over seeds")


def test_images_of_no_class_are_told_from_the_tasks_own(made):
    report, _, _, folder = made
    (of_ranking,) = report.rankings
    each = []
    for seed in SEEDS:
        table = predictions.read(RunFolder.of(folder, f"full{seed}").predictions)
        told = {
            name: predictions.examples_of(part).log_sum_exp
            for (_, name), part in by_variant_and_set(table).items()
        }
        wins = [
            (own > other) + (own == other) / 2 for own in told["id-test"] for other in told[OTHERS]
        ]
        each.append(np.mean(wins))
    estimate = of_ranking.measures.get("full", OTHERS, "auroc:energy")
    assert estimate.mean == pytest.approx(np.mean(each))
    assert estimate.sd == pytest.approx(np.std(each, ddof=1))
    assert of_ranking.measures.get("full", OTHERS, "auroc:mcm") is None  # it was not kept
    number = f"{100 * estimate.mean:.1f}"
    line = next(s for s in to_markdown(report).splitlines() if s.startswith("| full | cars |"))
    assert line.split(" | ")[4] == number
    page = render(report)
    assert "OOD detection" in page
    assert re.search(rf'data-order="{estimate.mean}"[^>]*over seeds[^>]*>{number}</td>', page)


def test_the_figure_has_a_panel_for_id_and_one_for_the_mean(made):
    report, _, _, _ = made
    (figure,) = [f for f in drawn.all_figures(report) if f.name == "r1-calibration"]
    alt.Chart.from_dict(figure.chart)
    (records,) = figure.data.values()
    assert {(r["method"], r["set"]) for r in records} == {
        (method, name) for method in ("full", "lora", "zero-shot") for name in ("id-test", MEAN)
    }


def test_parts_of_a_table_are_found_wherever_they_stand():
    table = pa.table({"variant": list("aabba"), "set": list("xyxxx"), "id": list("01234")})
    found = {key: of["id"].to_pylist() for key, of in by_variant_and_set(table).items()}
    assert found == {("a", "x"): ["0", "4"], ("a", "y"): ["1"], ("b", "x"): ["2", "3"]}
    assert by_variant_and_set(table.slice(0, 0)) == {}
