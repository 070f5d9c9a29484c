from __future__ import annotations

import csv
from pathlib import Path

import pytest
from shiftbench.cli import main
from shiftbench.leaderboard.store import write_run
from shiftbench.suite.plan import Plan
from shiftbench.suite.suite import Suite

from tests.leaderboard.real_records import B16, golden, of_task, results
from tests.leaderboard.records import run

SUITE = """\
backbones: [openai/ViT-B-16]
tasks: [imagenet]
methods: {mine: {method: full, lr: 1e-4}}
seeds: [0]
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory; the published results are found beside the package."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.delenv("SHIFTBENCH_PLUGINS", raising=False)
    (tmp_path / "x.yaml").write_text(SUITE)
    (tmp_path / "results").mkdir()
    return tmp_path


def add(run_id, table, results="results"):
    write_run(Path(results), run_id, table)


def line_of(output, *words):
    return next(line for line in output.splitlines() if all(word in line for word in words))


def test_it_says_what_is_reproduced(capsys):
    add("a", of_task("a", {"id-test": 0.813, "imagenet-r": 0.7, "imagenet-c": 0.5}))
    assert main(["compare"]) == 0
    output = capsys.readouterr().out
    assert f"imagenet · {B16} · all training data" in output
    assert "+0.0 [-1.0, +1.0]" in line_of(output, "id-test", "81.3", "reproduced", "Table 8")
    assert "+4.4" in line_of(output, "imagenet-r", "70.0 [69.0, 71.0]", "65.6", "differs")
    assert "nothing published" in line_of(output, "imagenet-c", "50.0")
    assert "second-hand" in output
    assert "1 with nothing published" in output
    assert "at most 0.5 points or half" in " ".join(output.split())


def test_it_says_whether_the_settings_are_the_papers(capsys):
    settings = {"lr": 3e-5, "weight_decay": 0.1, "epochs": 10, "batch_size": 512}
    settings |= {"warmup_steps": 500, "max_grad_norm": 1.0, "label_smoothing": 0.0}
    add("a", of_task("a", {"id-test": 0.813}, label="mine", config=settings))
    add("b", of_task("b", {"id-test": 0.813}, label="other", config={**settings, "lr": 1e-4}))
    add("c", of_task("c", {"id-test": 0.813}, label="saft", method="saft", config=settings))
    assert main(["compare", "--csv", "all.csv", "--markdown", "all.md"]) == 0
    output = capsys.readouterr().out
    assert "the paper's" in output and "differ: lr" in output and "not stated" in output
    assert "its tables could not be read" in " ".join(output.split())
    lines = [*csv.DictReader(Path("all.csv").read_text().splitlines())]
    found = {(line["method"], line["source"].partition(" ")[0]): line for line in lines}
    assert found["mine", "arXiv:2109.01903"]["settings"] == "the paper's"
    assert found["other", "arXiv:2109.01903"]["settings"] == "differ: lr"
    assert found["mine", "arXiv:2605.29380"]["settings"] == "not stated"
    assert found["mine", "arXiv:2109.01903"]["ours"] == "0.813"
    assert found["saft", ""]["verdict"] == "nothing published"
    text = Path("all.md").read_text()
    assert "| method | set | ours | published | difference | verdict | settings | source |" in text
    assert any("| mine | id-test | " in of and "| the paper's |" in of for of in text.splitlines())


def test_a_table_that_cannot_be_written_is_one_line(capsys):
    assert main(["compare", "--csv", "results"]) == 2
    assert "results: cannot be written" in capsys.readouterr().err


def test_the_tolerance_is_in_points(capsys):
    add("a", of_task("a", {"imagenet-r": 0.7}))
    assert main(["compare", "--tolerance", "5"]) == 0
    output = capsys.readouterr().out
    assert "differs" not in output.splitlines()[2]
    assert "reproduced" in line_of(output, "imagenet-r", "+4.4")
    assert "at most 5 points or half" in " ".join(output.split())


def test_part_of_a_set(capsys):
    add("a", of_task("a", results({"imagenet-r": 0.65}, "imagenet", n=64)))
    assert main(["compare"]) == 0
    output = capsys.readouterr().out
    assert "not comparable" in line_of(output, "imagenet-r", "65.0")
    assert "64 of 30,000 images" in " ".join(output.split())


def test_the_miniature_world_is_left_out(capsys):
    add("a", run("a", {"imagenet-r": 0.7}, data_kind="miniature/1"))
    assert main(["compare"]) == 0
    output = capsys.readouterr().out
    assert "No run on real data has finished yet." in output
    assert "1 run of the miniature world is left out" in output


def test_a_golden_row_that_differs_is_told(capsys):
    add("zs", golden("imagenet", {"imagenet-a": 0.4}))
    assert main(["compare"]) == 0
    assert "golden row zero-shot openai/ViT-B-16 on imagenet-a: 40.00 %" in capsys.readouterr().out


def test_the_runs_of_a_suite(capsys):
    (run_id,) = Plan.build(Suite.load(Path("x.yaml"), ())).runs
    add(run_id, of_task(run_id, {"imagenet-r": 0.65}))
    add("other", of_task("other", {"imagenet-r": 0.1}, label="other"))
    assert main(["compare", "x.yaml"]) == 0
    output = capsys.readouterr().out
    assert "mine" in output
    assert "other" not in output


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["--results", "absent"], "--results absent: there is no such folder"),
        (["--published", "absent"], "absent: there are no published results"),
        (["--tolerance", "-1"], "--tolerance -1 is not a number of points"),
        (["--tolerance", "nan"], "--tolerance nan is not a number of points"),
        (["--data", "somewhere"], "name the suite"),
        (["absent"], "absent"),
    ],
)
def test_bad_input(words, fault, capsys):
    assert main(["compare", *words]) == 2
    error = capsys.readouterr().err
    assert fault in error
    assert error.count("\n") == 1
