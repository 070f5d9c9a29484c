"""Rows are recomputed from the predictions that were kept, and compared.

All metrics and intervals are deterministic: the bootstrap has a fixed seed. So a row must come out
the same to the last digit. Only where other versions of NumPy or SciPy, or another processor, made
the row, may its interval differ by ``ROUNDING``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from shiftbench.core.errors import InputError, one_line
from shiftbench.core.provenance import cpu_name, package_versions
from shiftbench.core.words import nearest
from shiftbench.evaluation import predictions
from shiftbench.evaluation.metrics.registry import metric
from shiftbench.evaluation.results import Score
from shiftbench.evaluation.scoring import best_variant, rescore
from shiftbench.leaderboard import store
from shiftbench.leaderboard.runfolder import RunFolder
from shiftbench.leaderboard.schema import FailedRun, Row, RunInfo, rows, runs
from shiftbench.suite.naming import Called, meant

ROUNDING = 1e-12
NUMERIC = ("numpy", "scipy")


@dataclass(frozen=True)
class Verdict:
    """The outcome of comparing one run.

    Attributes:
        run_id: of the run.
        name: task, backbone, label and seed.
        rows: number of rows compared.
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
    of_run = rows(store.read(results, [run_id]))
    file = RunFolder.of(results, run_id).predictions
    if not file.exists():
        problems = ["its predictions are missing"]
    else:
        try:
            problems = disagreements(of_run, predictions.read(file))
        except InputError as error:
            problems = [one_line(error)]
    return Verdict(run_id, name_of(of_run[0]), len(of_run), tuple(problems))


def disagreements(of_run: Sequence[Row], table: pa.Table) -> list[str]:
    """A line for each difference between the rows of a run and what its predictions give.

    Args:
        of_run: its rows.
        table: its predictions, of ``predictions.SCHEMA``.
    """
    parts = {
        part: table.filter(
            pc.and_(pc.equal(table["variant"], part[0]), pc.equal(table["set"], part[1]))
        )
        for part in dict.fromkeys((row.variant, row.evaluation_set) for row in of_run)
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
    scores: dict[tuple[str, str, str], Score | str] = {}
    for row in of_run:
        key = row.variant, row.evaluation_set, row.metric
        part = parts[key[:2]]
        if not len(part):
            continue
        if key not in scores:
            scores[key] = _rescored(part, row.metric)
        again = scores[key]
        where = f"{place(*key[:2])}, {row.metric}"
        if isinstance(again, str):
            found.append(f"{where}: {again}")
        else:
            found += [f"{where}: {text}" for text in _differences(row, again, same_numerics(row))]
    return list(dict.fromkeys([*found, *_misselected(of_run)]))


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
        run_ids: ids or their beginnings, or method, method/task, method/task/seed; all when none
            is given.
        task: only of this one.
        label: only of the method so called.
        backbone: only of this one.

    Raises:
        InputError: one is unknown, ambiguous or of a failed run, or nothing is left.
    """
    known = {run.run_id: run for run in runs(table)}
    asked = [meant_of(text, known.values()) for text in run_ids]
    for run_id in asked:
        run = known[run_id]
        if run.status == "failed":
            raise InputError(f"run {run_id} has failed ({run.error})")
    chosen = set(asked) or known.keys()
    wanted = {"task": task, "label": label, "backbone": backbone}
    called = {
        run_id: {"task": (run.task,), "label": run.labels, "backbone": (run.backbone,)}
        for run_id, run in known.items()
    }
    for name, value in wanted.items():
        there = {text for names in called.values() for text in names[name]}
        if value is not None and value not in there:
            raise InputError(f'no run of the {name} "{value}"{nearest(value, there)}')
    found = [
        run_id
        for run_id, run in known.items()
        if run_id in chosen
        and run.status == "done"
        and all(value is None or value in called[run_id][name] for name, value in wanted.items())
    ]
    if not found:
        raise InputError("there is no such run that is done")
    return found


def name_of(run: RunInfo) -> str:
    """The name of a run for people."""
    shots = "" if run.shots is None else f", {run.shots} shots"
    return f"{run.task}, {run.backbone}, {run.label}, seed {run.seed}{shots}"


def place(variant: str, evaluation_set: str) -> str:
    """The name of a variant and a set for people."""
    return f"{variant} on {evaluation_set}" if variant else evaluation_set


def same_numerics(run: RunInfo) -> bool:
    """True if the run was scored with the NumPy, SciPy and processor that are here."""
    here = package_versions()
    same = all(run.versions.get(name) == here.get(name) for name in NUMERIC)
    return same and run.hardware.get("cpu") == cpu_name()


def meant_of(text: str, known: Iterable[Row | FailedRun]) -> str:
    """The id of the one run of a leaderboard that a text means; see ``naming.meant``."""
    called = [
        Called(run.run_id, label, run.task, run.seed) for run in known for label in run.labels
    ]
    return meant(text, called)


def _rescored(part: pa.Table, text: str) -> Score | str:
    """The score, or why there is none."""
    try:
        return rescore(part, text)
    except InputError as error:
        return str(error)


def _differences(row: Row, again: Score, exact: bool) -> list[str]:
    of_logits = bool(metric(row.metric).needs)  # exponentials may differ in their last bit
    found = []
    for name, value in vars(again).items():
        recorded = getattr(row, name)
        if recorded == value:
            continue
        rounded = not exact and (name in ("low", "high") or (name == "value" and of_logits))
        if rounded and abs(recorded - value) <= ROUNDING * max(1.0, abs(value)):
            continue
        note = f" ({_numerics(row)})" if rounded else ""
        found.append(f"{name} is {recorded!r}, its predictions give {value!r}{note}")
    return found


def _numerics(run: RunInfo) -> str:
    made, now = (
        ", ".join(f"{name} {versions.get(name, '?')}" for name in NUMERIC)
        for versions in (run.versions, package_versions())
    )
    return f"made with {made}; here are {now}"


def _misselected(of_run: Sequence[Row]) -> list[str]:
    """Variants that are said to be the best on ID validation and are not."""
    on_id_val = [row for row in of_run if row.evaluation_set == "id-val" and row.primary]
    values = {row.variant: row.value for row in on_id_val}
    chosen = Counter(row.variant for row in on_id_val if row.selection == "id-val")
    if not chosen:
        return []
    measured = metric(on_id_val[0].metric)
    best = values[best_variant(values, measured)]
    return [
        f"{variant}: selected on id-val with {values[variant]!r}, where another has {best!r}"
        for variant in chosen
        if measured.better(best, values[variant])
    ]
