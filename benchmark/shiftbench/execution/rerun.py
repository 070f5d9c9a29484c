"""Runs that are done are done again elsewhere, and their values compared."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from shiftbench.core.errors import InputError
from shiftbench.execution.launch import launch
from shiftbench.leaderboard import store
from shiftbench.leaderboard.schema import Row, failures, rows
from shiftbench.leaderboard.verify import Verdict, name_of, place
from shiftbench.suite.plan import Plan

if TYPE_CHECKING:
    from rich.console import Console

    from shiftbench.execution.executor import Executor
    from shiftbench.methods.base import Method
    from shiftbench.methods.config import MethodConfig
    from shiftbench.suite.suite import Suite


def rerun(
    suite: Suite,
    run_ids: Collection[str],
    results: Path,
    into: Path,
    executor: Executor,
    console: Console,
    *,
    tolerance: float = 0.0,
) -> list[Verdict]:
    """Do runs again, with what they build on, and compare the values. Nothing is changed.

    Args:
        suite: that the runs are of.
        run_ids: of runs that are done.
        results: the results folder with the rows to compare with.
        into: an empty results folder; on a cluster, on storage that all nodes see.
        executor: does the jobs.
        console: where progress is shown.
        tolerance: how far a value may be off; another device rounds otherwise.

    Raises:
        InputError: a run is none of the suite's, or cannot be done.
    """
    verdicts = []
    for run_id in run_ids:
        before = rows(store.read(results, [run_id]))
        gaps = any(not row.complete for row in before)
        small = replace(only(suite, run_id), loggers=())  # which show the run that is checked
        launch(small, into, executor, console, allow_incomplete=gaps)
        again = store.read(into, [run_id])
        problems = [f"failed this time: {run.error}" for run in failures(again)]
        problems = problems or changes(before, rows(again), tolerance)
        verdicts.append(Verdict(run_id, name_of(before[0]), len(before), tuple(problems)))
    return verdicts


def changes(of_run: Sequence[Row], again: Sequence[Row], tolerance: float = 0.0) -> list[str]:
    """A line for each value of a run that is another when the run is done again.

    Args:
        of_run: rows of the run.
        again: rows of its repetition.
        tolerance: how far a value may be off.
    """
    before, after = ({row.key: row for row in side} for side in (of_run, again))
    found = []
    for key, row in before.items():
        where = f"{place(row.variant, row.evaluation_set)}, {row.metric}"
        other = after.get(key)
        if other is None:
            found.append(f"{where}: not measured this time, or selected otherwise")
        elif other.data_fingerprint != row.data_fingerprint:
            found.append(f"{where}: the data files are others")
        elif abs(other.value - row.value) > tolerance:
            found.append(f"{where}: value is {row.value!r}, this time {other.value!r}")
    found += [
        f"{place(row.variant, row.evaluation_set)}, {row.metric}: was not measured before"
        for key, row in after.items()
        if key not in before
    ]
    return list(dict.fromkeys(found))


def only(suite: Suite, run_id: str) -> Suite:
    """The suite cut down to one run and what it builds on.

    Raises:
        InputError: it is none of the suite's runs.
    """
    plan = Plan.build(suite)
    run = plan.runs.get(run_id)
    if run is None:
        raise InputError(
            f"{run_id} is no run of {suite.name} as it is now: other settings, data or versions "
            "are other runs"
        )
    methods = suite.methods[run.task.name]
    labels = _with_ancestors(run.label, methods)
    cells = product(suite.shots, suite.seeds)
    # A run that no seed can change is in every cell, but for searches that depend on the cell.
    for shots, seed in sorted(cells, key=lambda cell: cell != (run.shots, run.seed)):
        small = replace(
            suite,
            tasks={run.task.name: suite.tasks[run.task.name]},
            backbones=(run.backbone,),
            methods={run.task.name: {k: v for k, v in methods.items() if k in labels}},
            shots=(shots,),
            seeds=(seed,),
        )
        if run_id in Plan.build(small).runs:
            return small
    raise AssertionError(f"{run_id} is in the grid, but in no cell of it")


def _with_ancestors(label: str, methods: Mapping[str, Method[MethodConfig]]) -> set[str]:
    """The label of a method of a task, and those of all that it builds on."""
    parents = (parent.label for parent in methods[label].parents())
    return {label}.union(*(_with_ancestors(parent, methods) for parent in parents))
