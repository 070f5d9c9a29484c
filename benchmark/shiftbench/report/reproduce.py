"""Every run with the command that does it again, where one is known to mean that very run."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shiftbench.core.errors import InputError
from shiftbench.leaderboard.schema import IMPORTED, REAL, RunInfo
from shiftbench.report.ranking import grouped
from shiftbench.report.runs import imported_from

if TYPE_CHECKING:
    from shiftbench.suite.plan import Plan

Find = Callable[[str], Path]
"""Gives the file of a suite by its name; raises ``InputError`` where there is none."""

MINIATURE = "miniature"
DATA = "DATA_FOLDER"
"""Stands in a command for the folder of the real data sets, which the leaderboard does not name."""


@dataclass(frozen=True)
class Reproduction:
    """The command that does a run again.

    Attributes:
        command: that does it, with its parents; ``None`` when the suite file is not known.
        note: what to know of the command, or why there is none.
    """

    command: str | None
    note: str


UNKNOWN = Reproduction(None, "not looked for")


def reproductions(runs: Iterable[RunInfo], find: Find) -> dict[str, Reproduction]:
    """The command that does each run again, by the id of the run.

    A command is given only where planning the suite file as it is now yields the run's identity:
    a file that was changed since, or settings that a ``--set`` changed, give a note instead.

    Args:
        runs: one of each.
        find: the file of a suite.
    """
    by_id = {run.run_id: run for run in runs}
    imported = {run_id: run for run_id, run in by_id.items() if run.origin == IMPORTED}
    sources = {run_id: imported_from(run) for run_id, run in imported.items()}
    found = {r: Reproduction(None, source) for r, source in sources.items() if source is not None}
    computed = [run for run in by_id.values() if run.run_id not in found]
    groups = grouped(computed, lambda run: (run.suite, run.data_kind))
    for (suite, data_kind), of_suite in groups.items():
        found |= _of_suite(suite, data_kind, of_suite, find)
    return {run_id: found[run_id] for run_id in by_id}


def _of_suite(
    suite: str, data_kind: str, runs: Sequence[RunInfo], find: Find
) -> dict[str, Reproduction]:
    """Commands for the runs that one suite's file could plan."""
    from shiftbench.suite.plan import Plan
    from shiftbench.suite.suite import Suite

    found: dict[str, Reproduction] = {}
    why = f'the suite file "{suite}" as it is now plans other runs'
    try:
        usual = Suite.load(find(suite)).budget.model_dump()
    except (InputError, OSError):  # of which the same is said below
        usual = {}
    # Runs that do not train are not limited in steps, so a limit may be on their parents alone.
    for limits in {json.dumps(run.budget, sort_keys=True): run.budget for run in runs}.values():
        given = _limits(limits, usual)
        wide = [
            *given,
            _list("seeds", sorted({run.seed for run in runs})),
            _list("backbones", list(dict.fromkeys(run.backbone for run in runs))),
            _list("shots", list(dict.fromkeys(_shots(run) for run in runs))),
        ]
        try:
            loaded = Suite.load(find(suite), wide, "." if data_kind == REAL else MINIATURE)
            plan = Plan.build(loaded) if loaded.data_kind == data_kind else None
        except (InputError, OSError) as error:  # rows of others may name a backbone by any text
            why = str(error)
            continue
        for run in runs:
            if plan is not None and run.run_id in plan.runs:
                found.setdefault(run.run_id, _reproduction(suite, plan, run, given))
    unknown = (run for run in runs if run.run_id not in found)
    return found | {
        run.run_id: Reproduction(
            None, f"no command is known: {why}. Settings: {json.dumps(run.config, sort_keys=True)}"
        )
        for run in unknown
    }


def _reproduction(suite: str, plan: Plan, run: RunInfo, limits: Sequence[str]) -> Reproduction:
    labels: dict[str, None] = {}
    _with_ancestors(plan, run.run_id, labels)
    settings = [
        _list("tasks", [run.task]),
        _list("backbones", [run.backbone]),
        _list("methods", [*labels]),
        _list("seeds", [run.seed]),
        _list("shots", [_shots(run)]),
        *limits,
    ]
    real = run.data_kind == REAL
    words = ["shiftbench", "run", suite, "--data", DATA if real else MINIATURE]
    for setting in settings:
        words += ["--set", setting]
    where = f"; {DATA} is where the data sets are" if real else ""
    return Reproduction(shlex.join(words), f"the suite file plans this very run{where}")


def _limits(budget: Mapping[str, Any], usual: Mapping[str, Any]) -> list[str]:
    """The limits on a run as settings of the suite, without those that its file has anyway."""
    return [
        f"budget.{name}={value}"
        for name, value in budget.items()
        if value is not None and value != usual.get(name)
    ]


def _with_ancestors(plan: Plan, run_id: str, labels: dict[str, None]) -> None:
    """Add the labels of a run and of all that it builds on, parents first."""
    run = plan.runs[run_id]
    for _, parent in run.parents:
        _with_ancestors(plan, parent, labels)
    labels[run.label] = None


def _shots(run: RunInfo) -> int | str:
    return "full" if run.shots is None else run.shots


def _list(key: str, values: Sequence[int | str]) -> str:
    """A setting whose value is a list, as YAML that needs quotes only where a name does."""
    plain = [v if isinstance(v, str) and _is_plain(v) else json.dumps(v) for v in values]
    return f"{key}=[{','.join(plain)}]"


def _is_plain(text: str) -> bool:
    """True if YAML reads a text inside a list as that text without quotes."""
    import yaml

    try:
        return bool(yaml.safe_load(f"[{text},{text}]") == [text, text])
    except yaml.YAMLError:
        return False
