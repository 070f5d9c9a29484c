from dataclasses import replace
from pathlib import Path

import pytest
from shiftbench.core.errors import InputError
from shiftbench.execution.record import read_records, write_record
from shiftbench.execution.remarks import Remarks
from shiftbench.execution.setup import Setup
from shiftbench.leaderboard.runfolder import RunFolder
from shiftbench.suite.plan import Plan
from shiftbench.suite.suite import Suite

RUNLESS = '{"run": {}, "suite": "x", "data": "miniature"}'


def recorded(results: Path, suite: str, *overrides: str, data: str = "miniature") -> Plan:
    """A suite's plan, every run of which has its record in ``results``."""
    plan = Plan.build(Suite.load(suite, overrides, data))
    setup = Setup(plan.suite.name, plan.runs, results, data, plan.suite.resources, Remarks({}, {}))
    for run_id in plan.runs:
        write_record(setup, run_id)
    return plan


@pytest.mark.parametrize(
    "suite",
    ["miniature", "nine-shifts", "few-shot", "robust-2026", "base-to-new", "cifar10-photos"],
)
def test_every_run_of_a_shipped_suite_is_read_as_it_was_planned(tmp_path, suite):
    plan = recorded(tmp_path, suite, "seeds=[1]")
    searched = False
    for run_id, run in plan.runs.items():
        found = read_records(tmp_path, run_id)
        same = found.runs[run_id]
        assert same.config.model_dump() == run.config.model_dump()  # all that is of the identity
        assert replace(same, config=run.config) == run
        assert [*found.runs][-1] == run_id  # after what it builds on
        assert all(parent in found.runs for _, parent in run.parents)
        searched = searched or run.searched
    assert searched or suite in ("base-to-new", "cifar10-photos")


@pytest.mark.parametrize(
    ("given", "recorded_as"),
    [("miniature", "miniature"), ("s3://bucket/sets", "s3://bucket/sets"), ("sets", "{here}/sets")],
)
def test_the_data_are_found_from_another_working_directory(
    tmp_path, monkeypatch, given, recorded_as
):
    monkeypatch.chdir(tmp_path)
    plan = recorded(tmp_path, "quickstart", "tasks=[cifar10]", data=given)
    found = read_records(tmp_path, next(iter(plan.runs)))
    assert found.data == recorded_as.format(here=tmp_path)


@pytest.mark.parametrize("content", ["{", "{}", '{"run": {}}', RUNLESS])
def test_a_record_that_is_not_whole_is_told_in_one_line(tmp_path, content):
    file = RunFolder.of(tmp_path, "a1").record
    file.parent.mkdir(parents=True)
    file.write_text(content)
    with pytest.raises(InputError, match=r"run\.json: is no record of a run: ") as raised:
        read_records(tmp_path, "a1")
    assert "\n" not in str(raised.value)


def test_a_record_that_is_gone_is_told_in_one_line(tmp_path):
    plan = recorded(tmp_path, "quickstart", "tasks=[cifar10]")
    child = next(run for run in plan.runs.values() if run.parents)
    gone = RunFolder.of(tmp_path, child.parents[0][1]).record
    gone.unlink()
    with pytest.raises(InputError, match=r"run\.json: .* cannot be read: No such"):
        read_records(tmp_path, child.id)
