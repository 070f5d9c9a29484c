"""Runs that are done, but not on all sets that a suite has scored beside: they are evaluated again.

Such sets are no part of a run's identity, so with one more nothing is trained again.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from shiftbench.data.tasks.definition import beside
from shiftbench.leaderboard import store
from shiftbench.suite.plan import Plan, evaluation_metrics

if TYPE_CHECKING:
    from shiftbench.execution.checked import SetKey, SetState


def to_evaluate(plan: Plan, table: pa.Table) -> set[str]:
    """Ids of runs that are done, but not on all sets that the suite has scored beside."""
    wanted = {
        run.id: {name for name in evaluation_metrics(run.task) if beside(name)}
        for run in plan.runs.values()
    }
    if not any(wanted.values()):
        return set()
    missing = {run_id: set(names) for run_id, names in wanted.items()}
    columns = (table[name].to_pylist() for name in ("run_id", "status", "evaluation_set"))
    done = set()
    for run_id, status, name in zip(*columns, strict=True):
        if status == "done" and run_id in missing:
            done.add(run_id)
            missing[run_id].discard(name)
    return {run_id for run_id in done if missing[run_id]}


def lacking(plan: Plan, results: Path, states: Mapping[SetKey, SetState]) -> set[str]:
    """Ids of the runs that are done without rows of a set that the suite has scored beside.

    Rows of other data files than there are now count as none.
    """
    wanted = {
        run.id: {name: states[run.task.name, name] for name in evaluation_metrics(run.task)}
        for run in plan.runs.values()
        if run.task.also or run.task.outliers
    }
    if not wanted:
        return set()
    names = ("run_id", "status", "evaluation_set", "data_fingerprint", "incomplete_reason")
    table = store.read(results, [*wanted], columns=names)
    done: dict[str, set[tuple[str, str | None, str | None]]] = {}
    for run_id, status, *of_set in zip(*(table[n].to_pylist() for n in names), strict=True):
        if status == "done":
            name, fingerprint, incomplete = of_set
            done.setdefault(run_id, set()).add((name, fingerprint, incomplete))
    return {
        run_id
        for run_id, there in done.items()
        if any(
            (name, state.fingerprint, state.incomplete_reason) not in there
            for name, state in wanted[run_id].items()
            if beside(name)
        )
    }
