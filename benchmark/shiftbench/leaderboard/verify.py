"""Whether rows are what they say: recomputed from the predictions that were kept.

All metrics and intervals are deterministic: the bootstrap has a fixed seed. So a row must come out
the same to the last digit. Only where other versions of NumPy or SciPy, or another processor, made
the row, may its interval differ by ``ROUNDING``.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from shiftbench.core.errors import InputError
from shiftbench.core.provenance import cpu_name, package_versions
from shiftbench.core.words import nearest
from shiftbench.evaluation import predictions
from shiftbench.evaluation.metrics import METRICS, Score
from shiftbench.leaderboard import store
from shiftbench.leaderboard.runfolder import RunFolder

ROUNDING = 1e-12
RESULT = ("variant", "selection", "evaluation_set", "metric")
NUMERIC = ("numpy", "scipy")

Row = Mapping[str, Any]
Key = tuple[Any, ...]


@dataclass(frozen=True)
class Verdict:
    """What became of one run.

    Attributes:
        run_id: of the run.
        name: task, backbone, label and seed.
        rows: how many were compared.
        problems: a line for each thing that does not agree.
    """

    run_id: str
    name: str
    rows: int
    problems: tuple[str, ...]


def verify_run(results: Path, run_id: str) -> Verdict:
    """Recompute the rows of a run from its predictions.

    Args:
        results: the results folder.
        run_id: of a run that is done.

    Raises:
        InputError: its row file cannot be read.
    """
    rows = store.read(results, [run_id]).to_pylist()
    file = RunFolder.of(results, run_id).predictions
    if not file.exists():
        problems = ["its predictions are missing"]
    else:
        try:
            problems = disagreements(rows, predictions.read(file))
        except InputError as error:
            problems = [" ".join(str(error).split())]
    return Verdict(run_id, name_of(rows[0]), len(rows), tuple(problems))


def disagreements(rows: Sequence[Row], table: pa.Table) -> list[str]:
    """Where the rows of a run are not what its predictions say, a line each.

    Args:
        rows: of one run.
        table: its predictions, of ``predictions.SCHEMA``.
    """
    parts = {
        part: table.filter(
            pc.and_(pc.equal(table["variant"], part[0]), pc.equal(table["set"], part[1]))
        )
        for part in dict.fromkeys((row["variant"], row["evaluation_set"]) for row in rows)
    }
    found = [
        f"{place(variant, name)}: no predictions"
        for (variant, name), part in parts.items()
        if not len(part)
    ]
    for (variant, name), part in parts.items():
        ids = pc.count_distinct(part["id"]).as_py()
        if ids < len(part):
            found.append(f"{place(variant, name)}: {len(part) - ids} examples are there twice")
    scores: dict[Key, Score | str] = {}
    for row in rows:
        key = row["variant"], row["evaluation_set"], row["metric"]
        part = parts[key[:2]]
        if not len(part):
            continue
        if key not in scores:
            scores[key] = _rescored(part, row["metric"])
        again = scores[key]
        where = f"{place(*key[:2])}, {row['metric']}"
        if isinstance(again, str):
            found.append(f"{where}: {again}")
        else:
            found += [f"{where}: {text}" for text in _differences(row, again, same_numerics(row))]
    return list(dict.fromkeys([*found, *_misselected(rows)]))


def select(
    table: pa.Table,
    run_ids: Iterable[str] = (),
    task: str | None = None,
    label: str | None = None,
    backbone: str | None = None,
) -> list[str]:
    """The runs that are done and meant, in the order of the table.

    Args:
        table: rows of the leaderboard.
        run_ids: ids or their beginnings; all when none is given.
        task: only of this one.
        label: only of the method so called.
        backbone: only of this one.

    Raises:
        InputError: an id is unknown, ambiguous or of a failed run, or nothing is left.
    """
    columns = table.select(["run_id", "status", "error", "task", "label", "backbone"])
    rows = {row["run_id"]: row for row in columns.to_pylist()}
    asked = [_full_id(beginning, rows) for beginning in run_ids]
    for run_id in asked:
        if rows[run_id]["status"] != "done":
            raise InputError(f"run {run_id} has failed ({rows[run_id]['error']})")
    chosen = set(asked) or rows.keys()
    wanted = {"task": task, "label": label, "backbone": backbone}
    for name, value in wanted.items():
        known = {row[name] for row in rows.values()}
        if value is not None and value not in known:
            raise InputError(f'no run of the {name} "{value}"{nearest(value, known)}')
    found = [
        run_id
        for run_id, row in rows.items()
        if run_id in chosen
        and row["status"] == "done"
        and all(value in (None, row[name]) for name, value in wanted.items())
    ]
    if not found:
        raise InputError("there is no such run that is done")
    return found


def name_of(row: Row) -> str:
    """A run for people."""
    shots = "" if row["shots"] is None else f", {row['shots']} shots"
    return f"{row['task']}, {row['backbone']}, {row['label']}, seed {row['seed']}{shots}"


def place(variant: str, evaluation_set: str) -> str:
    """A variant and a set for people."""
    return f"{variant} on {evaluation_set}" if variant else evaluation_set


def same_numerics(row: Row) -> bool:
    """Whether the row was made by the same NumPy, SciPy and processor as are here."""
    versions, here = _object(row["versions"]), package_versions()
    same = all(versions.get(name) == here.get(name) for name in NUMERIC)
    return same and _object(row["hardware"]).get("cpu") == cpu_name()


def _object(text: str) -> dict[str, Any]:
    found = json.loads(text)
    return found if isinstance(found, dict) else {}


def _full_id(beginning: str, known: Iterable[str]) -> str:
    found = [run_id for run_id in known if run_id.startswith(beginning)]
    if beginning in found:
        return beginning
    if len(found) != 1:
        raise InputError(
            f'no run "{beginning}"' if not found else f'"{beginning}" begins {len(found)} run ids'
        )
    return found[0]


def _rescored(part: pa.Table, metric: str) -> Score | str:
    """The score, or why there is none."""
    if metric not in METRICS:
        return f"there is no such metric (known: {', '.join(METRICS)})"
    try:
        return predictions.rescore(part, metric)
    except InputError as error:
        return str(error)


def _differences(row: Row, again: Score, exact: bool) -> list[str]:
    found = []
    for name, value in vars(again).items():
        recorded = row[name]
        if recorded == value:
            continue
        if name in ("low", "high") and not exact and abs(recorded - value) <= ROUNDING:
            continue
        note = "" if exact or name not in ("low", "high") else f" ({_numerics(row)})"
        found.append(f"{name} is {recorded!r}, its predictions give {value!r}{note}")
    return found


def _numerics(row: Row) -> str:
    versions, here = _object(row["versions"]), package_versions()
    made, now = (
        ", ".join(f"{name} {side.get(name, '?')}" for name in NUMERIC) for side in (versions, here)
    )
    return f"made with {made}; here are {now}"


def _misselected(rows: Sequence[Row]) -> list[str]:
    """Variants that are said to be the best on ID validation and are not."""
    on_id_val = [row for row in rows if row["evaluation_set"] == "id-val" and row["primary"]]
    values = {row["variant"]: row["value"] for row in on_id_val}
    chosen = Counter(row["variant"] for row in on_id_val if row["selection"] == "id-val")
    best = max(values.values(), default=0.0)
    return [
        f"{variant}: selected on id-val with {values[variant]!r}, where another has {best!r}"
        for variant in chosen
        if values[variant] < best
    ]
