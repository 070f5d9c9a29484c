"""``submit``: what the job is told, without a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from shiftbench.cli import main
from shiftbench.distributed.jobs import Jobs

SUITE = """
data: miniature
backbones: [miniature]
tasks: [cifar10]
methods: {zero-shot: {}}
"""


class Told:
    """Stands for a cluster's jobs."""

    address = "http://127.0.0.1:8265"

    def __init__(self) -> None:
        self.arguments: list[str] = []

    def submit(self, job: str, arguments: list[str], archive: Path, variables: Any) -> None:
        self.arguments = arguments


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Told:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(SUITE)
    jobs = Told()
    monkeypatch.setattr(Jobs, "at", lambda address: jobs)
    return jobs


def test_a_job_gets_the_options_of_run(told: Told) -> None:
    words = ["submit", "small.yaml", "--results", "s3://bucket/results", "--set", "seeds=[0, 1]"]
    assert main(words) == 0
    given = ["run", "submitted/small.yaml", "--results", "s3://bucket/results"]
    assert told.arguments == [*given, "--set", "seeds=[0, 1]"]
    more = ["--data", "miniature", "--logger", "tensorboard", "--allow-incomplete"]
    assert main([*words, *more, "--max-concurrent", "3", "--fast-dev-run"]) == 0
    limit = ["--set", "seeds=[0, 1]", "--set", "resources.max_concurrent=3"]
    assert told.arguments == [
        *(*given, "--data", "miniature", *limit, "--logger", "tensorboard"),
        *("--allow-incomplete", "--fast-dev-run"),
    ]


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["--logger", "tensorbord", "--results", "/r"], 'unknown logger "tensorbord"'),
        (["--set", "loggers=[nope]", "--results", "/r"], 'unknown logger "nope"'),
        (["--results", "results"], "--results results: name a folder that all nodes see"),
        (["--results", "s3://key:secret@b/r"], "must hold no credentials"),
        (["--results", "/r", "--data", "s3://key:secret@b/d"], "must hold no credentials"),
        (["--results", "/r", "--set", "data=s3://key:secret@b/d"], "must hold no credentials"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_uploaded(
    told: Told, words: list[str], fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["submit", "small.yaml", *words]) == 2
    error = capsys.readouterr().err
    assert fault in error and error.count("\n") == 1 and "secret" not in error
    assert not told.arguments
