from __future__ import annotations

import shlex

import pyarrow as pa
import pytest
from shiftbench.leaderboard.schema import rows
from shiftbench.report.reproduce import DATA, reproductions
from shiftbench.suite.plan import Plan
from shiftbench.suite.suite import Suite

from tests.leaderboard.records import run
from tests.report.page_records import nowhere

SUITE = """
data: miniature
backbones: [miniature]
tasks: [cifar10]
methods:
  full: {lr: 1e-4}
  "true": {method: wise-ft, parent: full}
seeds: [0]
"""


@pytest.fixture
def suite(tmp_path):
    file = tmp_path / "toy.yaml"
    file.write_text(SUITE)
    return file


def rows_of(file, overrides=(), **changes):
    plan = Plan.build(Suite.load(file, overrides))
    made = [
        run(
            *(run_id, {"id-test": 0.5}),
            task=of.task.name,
            data_kind=of.data_kind,
            backbone=of.backbone,
            suite="toy",
            seed=of.seed,
            shots=of.shots,
            budget=of.budget.model_dump(),
            **changes,
        )
        for run_id, of in plan.runs.items()
    ]
    return plan, pa.concat_tables(made)


@pytest.mark.parametrize("overrides", [[], ["seeds=[3, 4]", "shots=[2]"], ["budget.steps=5"]])
def test_commands_plan_the_very_run(suite, overrides):
    plan, made = rows_of(suite, overrides)
    found = reproductions(rows(made), lambda name: suite)
    assert list(found) == [*plan.runs]
    for run_id, reproduction in found.items():
        words = shlex.split(reproduction.command)
        assert words[:5] == ["shiftbench", "run", "toy", "--data", "miniature"]
        settings = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
        again = Plan.build(Suite.load(suite, settings, "miniature"))
        assert run_id in again.runs
        assert set(again.runs) <= set(plan.runs)


def test_real_data_are_named_by_a_placeholder(suite):
    suite.write_text(SUITE.replace("data: miniature\n", ""))
    _, made = rows_of(suite)
    for reproduction in reproductions(rows(made), lambda name: suite).values():
        assert f"--data {DATA}" in reproduction.command


def test_a_changed_suite_has_no_command(suite):
    _, made = rows_of(suite)
    suite.write_text(SUITE.replace("1e-4", "1e-3"))
    for reproduction in reproductions(rows(made), lambda name: suite).values():
        assert reproduction.command is None
        assert "plans other runs" in reproduction.note
        assert '"lr": 1e-05' in reproduction.note


def test_an_unknown_suite_has_no_command(table):
    for reproduction in reproductions(rows(table), nowhere).values():
        assert reproduction.command is None
        assert 'there is no suite "toy"' in reproduction.note
