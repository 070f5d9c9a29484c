"""How to do a run again: the command, and whether it is known to mean that very run."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from shiftbench.core.errors import InputError
from shiftbench.report.ranking import of_runs

if TYPE_CHECKING:
    from shiftbench.suite.plan import Plan

Find = Callable[[str], Path]
Row = Mapping[str, Any]

REAL = "real"
MINIATURE = "miniature"
DATA = "DATA_FOLDER"
"""Stands in a command for the folder of the real data sets, which the leaderboard does not name."""


@dataclass(frozen=True)
class Recipe:
    """How to do a run again.

    Attributes:
        command: that does it, with its parents; ``None`` when the suite file is not known.
        note: what to know of the command, or why there is none.
    """

    command: str | None
    note: str


def recipes(table: pa.Table, find: Find) -> dict[str, Recipe]:
    """A recipe for every run.

    A command is given only where planning the suite file as it is now yields the run's identity:
    a file that was changed since, or settings that a ``--set`` changed, give a note instead.

    Args:
        table: rows of the leaderboard.
        find: the file of a suite by its name; raises ``InputError`` where there is none.
    """
    runs = {row["run_id"]: row for row in of_runs(table).to_pylist()}
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in runs.values():
        groups.setdefault((row["suite"], row["data_kind"]), []).append(row)
    found: dict[str, Recipe] = {}
    for (suite, data_kind), rows in groups.items():
        found |= _of_suite(suite, data_kind, rows, find)
    return {run_id: found[run_id] for run_id in runs}


def _of_suite(suite: str, data_kind: str, rows: Sequence[Row], find: Find) -> dict[str, Recipe]:
    """Recipes of the runs that one suite's file could plan."""
    from shiftbench.suite.plan import Plan
    from shiftbench.suite.suite import Suite

    found: dict[str, Recipe] = {}
    why = f'the suite file "{suite}" as it is now plans other runs'
    # Runs that do not train are not limited in steps, so a limit may be on their parents alone.
    for budget in dict.fromkeys(row["budget"] for row in rows):
        limits = json.loads(budget)
        given = [f"budget.{name}={value}" for name, value in limits.items() if value is not None]
        wide = [
            *given,
            _list("seeds", sorted({row["seed"] for row in rows})),
            _list("backbones", list(dict.fromkeys(row["backbone"] for row in rows))),
            _list("shots", list(dict.fromkeys(_shots(row) for row in rows))),
        ]
        try:
            loaded = Suite.load(find(suite), wide, "." if data_kind == REAL else MINIATURE)
            plan = Plan.build(loaded) if loaded.data_kind == data_kind else None
        except InputError as error:
            why = str(error)
            continue
        for row in rows:
            if plan is not None and row["run_id"] in plan.runs:
                found.setdefault(row["run_id"], _recipe(suite, plan, row, given))
    unknown = {row["run_id"]: row for row in rows if row["run_id"] not in found}
    return found | {
        run_id: Recipe(None, f"no command is known: {why}. Settings: {row['config']}")
        for run_id, row in unknown.items()
    }


def _recipe(suite: str, plan: Plan, row: Row, given: Sequence[str]) -> Recipe:
    labels: dict[str, None] = {}
    _with_ancestors(plan, row["run_id"], labels)
    settings = [
        _list("tasks", [row["task"]]),
        _list("backbones", [row["backbone"]]),
        _list("methods", [*labels]),
        _list("seeds", [row["seed"]]),
        _list("shots", [_shots(row)]),
        *given,
    ]
    real = row["data_kind"] == REAL
    words = ["shiftbench", "run", suite, "--data", DATA if real else MINIATURE]
    for setting in settings:
        words += ["--set", setting]
    where = f"; {DATA} is where the data sets are" if real else ""
    return Recipe(shlex.join(words), f"the suite file plans this very run{where}")


def _with_ancestors(plan: Plan, run_id: str, labels: dict[str, None]) -> None:
    """Add the labels of a run and of all that it builds on, parents first."""
    run = plan.runs[run_id]
    for _, parent in run.parents:
        _with_ancestors(plan, parent, labels)
    labels[run.label] = None


def _shots(row: Row) -> int | str:
    return "full" if row["shots"] is None else int(row["shots"])


def _list(key: str, values: Sequence[int | str]) -> str:
    """A setting whose value is a list, as YAML that needs quotes only where a name does."""
    plain = [v if isinstance(v, str) and _is_plain(v) else json.dumps(v) for v in values]
    return f"{key}=[{','.join(plain)}]"


def _is_plain(text: str) -> bool:
    """Whether YAML reads a text inside a list as that text without quotes."""
    import yaml

    try:
        return bool(yaml.safe_load(f"[{text},{text}]") == [text, text])
    except yaml.YAMLError:
        return False
