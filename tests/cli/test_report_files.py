from __future__ import annotations

import csv
import sys

import pytest
from shiftbench import execution
from shiftbench.cli import main
from shiftbench.execution.launch import Outcome
from shiftbench.leaderboard.store import write_run
from shiftbench.report.html import assets
from shiftbench.report.ranking import rank
from shiftbench.suite.plan import Plan
from shiftbench.suite.suite import Suite

from tests.leaderboard.records import run

SUITE = """
data: miniature
tasks: [cifar10]
backbones: [miniature]
methods: {plain: {method: full}}
seeds: [0, 1]
"""


@pytest.fixture(autouse=True)
def suite(tmp_path, monkeypatch):
    """A suite and its two finished runs in ./results."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(assets, "vega", lambda: "window.vegaEmbed = null;")
    file = tmp_path / "toy.yaml"
    file.write_text(SUITE)
    for run_id, of in Plan.build(Suite.load(file)).runs.items():
        scores = {"id-test": 0.5, "cifar10.1": 0.4}
        changes = {"task": "cifar10", "data_kind": of.data_kind, "seed": of.seed, "label": "other"}
        write_run(tmp_path / "results", run_id, run(run_id, scores, **changes))
    return file


def test_a_page_of_a_suite(tmp_path, capsys):
    assert main(["report", "toy.yaml", "--html", "deep/report.html"]) == 0
    page = (tmp_path / "deep" / "report.html").read_text()
    assert "<title>Leaderboard: toy</title>" in page
    assert "shiftbench run toy --data miniature" in page  # the suite's own file is looked at
    assert "There is no results folder" not in page
    assert "Predictions are missing" not in page  # of one method alone nothing is compared
    assert "Written to deep/report.html" in capsys.readouterr().out


def test_tables_and_figures(tmp_path, capsys):
    arguments = ["--csv", "r.csv", "--latex", "r.tex", "--figures", "figures"]
    assert main(["report", *arguments]) == 0
    with (tmp_path / "r.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {(row["label"], row["evaluation_set"]) for row in rows} >= {("other", "cifar10.1")}
    assert r"\toprule" in (tmp_path / "r.tex").read_text()
    assert {file.suffix for file in (tmp_path / "figures").iterdir()} == {".svg", ".png"}
    assert not list(tmp_path.glob("*.html"))
    assert capsys.readouterr().out.count("Written to") == 4


def test_nothing_more_is_written_unasked(tmp_path):
    assert main(["report"]) == 0
    assert [file.name for file in (tmp_path / "results").glob("[!.]*.*")] == ["report.md"]


def test_a_file_that_cannot_be_written_is_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for option in ("--html", "--csv", "--latex", "--figures"):
        assert main(["report", option, "file/x"]) == 2
        assert capsys.readouterr().err.startswith("error: file/x: cannot be written (")


def test_one_report_ranks_once(tmp_path, monkeypatch):
    """However many forms it is printed in."""
    calls = []

    def counted(rows):
        calls.append(rows)
        return rank(rows)

    for name, module in list(sys.modules.items()):
        if name.startswith("shiftbench.") and getattr(module, "rank", None) is rank:
            monkeypatch.setattr(module, "rank", counted)
    assert main(["report", "--html", "r.html", "--csv", "r.csv", "--latex", "r.tex"]) == 0
    assert len(calls) == 1
    assert {file.name for file in tmp_path.glob("r.*")} == {"r.html", "r.csv", "r.tex"}


def test_run_ends_with_the_report_of_its_suite(tmp_path, monkeypatch, capsys):
    """To the letter: with ties, and the same in the terminal."""

    def launch(suite, *_, **__):
        return Outcome(Plan.build(suite), frozenset(), {})

    file = tmp_path / "results" / "toy.md"
    monkeypatch.setattr(execution.launch, "launch", launch)
    assert main(["report", "toy.yaml"]) == 0
    reported, shown = file.read_text(), capsys.readouterr().out
    assert "| # | tied | method |" in reported
    file.unlink()
    assert main(["run", "toy.yaml"]) == 0
    assert file.read_text() == reported
    assert shown.startswith(capsys.readouterr().out.rpartition("Results: ")[0])
