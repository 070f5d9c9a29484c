from __future__ import annotations

import csv
import dataclasses
import io

from shiftbench.leaderboard.schema import done
from shiftbench.report.html.page import remark_of
from shiftbench.report.model import build
from shiftbench.report.scores import MEAN
from shiftbench.report.tables import escape_latex, to_csv, to_latex

from tests.leaderboard.records import info, results


def test_csv_has_every_number(report):
    rows = list(csv.DictReader(io.StringIO(to_csv(report))))
    expected = 0
    for of_ranking in report.rankings:
        ranking = of_ranking.ranking
        for method in ranking.methods:
            for name in (*method.scores.by_set, MEAN):
                (row,) = [
                    r
                    for r in rows
                    if (r["task"], r["label"], r["selection"], r["evaluation_set"])
                    == (ranking.task, method.label, method.selection, name)
                ]
                expected += 1
                estimate = method.scores.get(name)
                whole = remark_of(method, name) is None
                assert row["complete"] == ("true" if whole else "false")
                assert row["tied"] == of_ranking.ties.letters.get(method.name, "")
                assert row["runs"] == " ".join(member.run_id for member in method.members)
                if estimate is None:
                    assert row["value"] == ""
                else:
                    assert float(row["value"]) == estimate.mean
                    assert row["seeds"] == str(len(estimate.seeds))
                    assert row["seed_list"] == " ".join(map(str, estimate.seeds))
                assert row["shifts"] == (" ".join(ranking.shifts) if name == MEAN else "")
                assert row["origin"] == method.origin != ""
    assert len(rows) == expected


def test_numbers_of_images_in_csv_are_numbers():
    of_many = results({"id-test": 0.5})
    score = dataclasses.replace(of_many[0].score, n=10_000)
    table = done(info(), [dataclasses.replace(of_many[0], score=score)])
    (row,) = csv.DictReader(io.StringIO(to_csv(build(table))))
    assert row["n"] == "10000"


def test_latex_marks_the_best_and_escapes(report):
    text = to_latex(report)
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == len(report.rankings)
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}")
    zero_shot = next(line for line in text.splitlines() if "zero-shot" in line)
    assert r"\textbf{90.0}" in zero_shot  # the best on 10.1
    evil = next(line for line in text.splitlines() if "alert" in line)
    assert evil.count(" & ") == zero_shot.count(" & ")
    assert r"\textless{}script\textgreater{}" in evil


def test_latex_escapes():
    assert escape_latex(r"50 % & a_b $x^2 {~}\ #1") == (
        r"50 \% \& a\_b \$x\textasciicircum{}2 \{\textasciitilde{}\}\textbackslash{} \#1"
    )
    assert escape_latex("two\nlines") == "two lines"
