import os
import subprocess
import sys

import pytest
import typer
from shiftbench.cli import run as run_command
from shiftbench.cli.report import EPILOG, report
from shiftbench.core.errors import InputError
from shiftbench.execution.launch import Outcome
from shiftbench.leaderboard.schema import failed
from shiftbench.leaderboard.store import folder, write_run
from shiftbench.suite.plan import Plan
from shiftbench.suite.suite import Suite
from typer.testing import CliRunner

from tests.leaderboard.records import info, run


@pytest.fixture
def command():
    app = typer.Typer(rich_markup_mode="rich")
    app.command(epilog=EPILOG)(report)

    def call(*arguments):
        outcome = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if outcome.exception is not None and not isinstance(outcome.exception, SystemExit):
            raise outcome.exception
        return outcome.output

    return call


@pytest.fixture
def results(tmp_path):
    write_run(tmp_path, "a1", run("a1", {"id-test": 0.5, "objectnet": 0.4}))
    write_run(tmp_path, "b2", run("b2", {"id-test": 0.5, "cifar10.1": 0.4}, task="cifar10"))
    write_run(tmp_path, "c3", failed(info("c3", seed=1), "loss is NaN", "runs/c3/error.txt"))
    return tmp_path


def test_it_prints_and_writes(command, results):
    output = command("--results", results)
    assert "imagenet · miniature" in output
    assert "cifar10 · miniature" in output
    assert "loss is NaN (whole message: runs/c3/error.txt)" in " ".join(output.split())
    assert "## Failed runs" in (results / "report.md").read_text()


def test_only_some_tasks(command, results, tmp_path):
    file = tmp_path / "deep" / "own.md"
    output = command("--results", results, "--task", "cifar10", "--markdown", file)
    assert "imagenet" not in output
    assert "cifar10" in file.read_text()
    assert not (results / "report.md").exists()


def test_files_are_written_although_the_reader_of_the_output_leaves(results, tmp_path):
    """``shiftbench report --csv x.csv | head -0``: the pipe is closed before anything is read."""
    wanted = [tmp_path / "x.csv", tmp_path / "x.md"]
    arguments = ["--results", results, "--csv", wanted[0], "--markdown", wanted[1]]
    reading, writing = os.pipe()
    os.close(reading)
    subprocess.run(
        [sys.executable, "-m", "shiftbench", "report", *map(str, arguments)],
        stdout=writing,
        check=False,
    )
    os.close(writing)
    assert all(file.stat().st_size for file in wanted)


def test_run_leaves_the_report_of_all_results_as_it_is(results, tmp_path, monkeypatch):
    richer = results / "report.md"
    richer.write_text("of all suites")
    file = tmp_path / "some.yaml"
    file.write_text(SUITE)
    plan = Plan.build(Suite.load(file))
    first = next(iter(plan.runs))
    write_run(results, first, run(first, {"id-test": 0.5, "cifar10.1": 0.4}, task="cifar10"))
    outcome = Outcome(plan, frozenset(), {})
    monkeypatch.setattr("shiftbench.execution.launch.launch", lambda *_, **__: outcome)
    run_command.run(str(file), results=results, executor="in-process")
    assert richer.read_text() == "of all suites"
    assert (results / "toy.md").exists()


SUITE = """
name: toy
data: miniature
tasks: [cifar10]
backbones: [miniature]
methods: {plain: {method: full}}
seeds: [0, 1, 2]
"""


def test_only_the_runs_of_a_suite_under_its_labels(command, results, tmp_path):
    file = tmp_path / "some.yaml"
    file.write_text(SUITE)
    first, second, _ = Plan.build(Suite.load(file)).runs
    scores = {"id-test": 0.5, "cifar10.1": 0.4}
    write_run(results, first, run(first, scores, task="cifar10", label="of another suite"))
    write_run(results, second, failed(info(second, task="cifar10", seed=1), "no"))

    output = command(file, "--results", results)
    assert "imagenet" not in output
    assert "of another suite" not in output
    assert "1 plain" in output
    assert "1 of 3 runs done, 1 failed, 1 left" in output
    assert (results / "toy.md").read_text().startswith("# Leaderboard: toy\n")


def test_a_shipped_suite_by_name(command, results):
    output = command("quickstart", "--results", results, "--set", "methods=[zero-shot]")
    assert "0 of 4 runs done, 0 failed, 4 left" in output
    assert (results / "quickstart.md").is_file()


def test_bad_input_is_one_line(command, results):
    with pytest.raises(InputError, match=r'no run of a task "cifar".*cifar10'):
        command("--results", results, "--task", "cifar")
    with pytest.raises(InputError, match="no such folder"):
        command("--results", results / "absent")
    with pytest.raises(InputError, match="name the suite"):
        command("--results", results, "--data", "miniature")
    with pytest.raises(InputError, match="cannot be written"):
        command("--results", results, "--markdown", folder(results) / "a1.parquet" / "x.md")
    (folder(results) / "bad.parquet").write_bytes(b"")
    with pytest.raises(InputError, match="bad\\.parquet"):
        command("--results", results)


def test_help_has_examples(command):
    output = command("--help")
    assert "shiftbench report miniature" in output
