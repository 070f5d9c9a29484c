"""Hyper-parameter searches: what they found, what they cost, and their trials."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from shiftbench.leaderboard.merging import Folders
from shiftbench.leaderboard.schema import Row

_TRIAL_COLUMNS = ["study", "number", "state", "values", "score", "rungs", "steps", "error"]


@dataclass(frozen=True)
class TrialRecord:
    """A trial of a search.

    Attributes:
        study: ``search``, or ``finalists`` for those that repeat the best.
        number: from 0, in its study.
        state: ``complete``, ``stopped`` or ``failed``.
        score: at its last rung; ``None`` if it reached none.
        steps: optimizer steps that it trained.
        values: the settings that it tried.
        error: why it failed.
    """

    study: str
    number: int
    state: str
    score: float | None
    steps: int
    values: Mapping[str, Any]
    error: str


@dataclass(frozen=True)
class RungCount:
    """The number of trials that reached a rung of a search, and of those stopped there."""

    steps: int
    reached: int
    stopped: int


@dataclass(frozen=True)
class SearchReport:
    """A search, what it cost, and its trials.

    Attributes:
        search_id: its identity, the name of its folder in the results.
        task: its name.
        backbone: its name.
        shots: training images per class; ``None`` for all.
        label: what the suite calls the method.
        n_trials: configurations tried.
        steps: optimizer steps of all trials.
        seconds: time of all trials.
        values: what was found.
        trials: in their order; empty when the file is not there.
        rungs: by steps.
        note: why there are no trials; ``None`` when there are.
    """

    search_id: str
    task: str
    backbone: str
    shots: int | None
    label: str
    n_trials: int
    steps: int
    seconds: float
    values: Mapping[str, Any]
    trials: tuple[TrialRecord, ...]
    rungs: tuple[RungCount, ...]
    note: str | None


def searches(runs: Iterable[Row], results: Path | Folders | None) -> list[SearchReport]:
    """Every search once, by task and method.

    Args:
        runs: a row of each.
        results: folder with the searches' trials, or several; ``None`` without.
    """
    first: dict[str, Row] = {}
    for run in runs:
        if run.search_id is not None:
            first.setdefault(run.search_id, run)
    ordered = sorted(first.values(), key=lambda run: (run.task, run.label))
    folders = Folders.of(results)
    return [_search(run, folders) for run in ordered]


def rungs(trials: Iterable[Mapping[str, Any]]) -> list[RungCount]:
    """The number of trials that reached each rung of a search, and of those stopped there.

    Args:
        trials: rows of the table of trials.
    """
    reached: dict[int, int] = defaultdict(int)
    stopped: dict[int, int] = defaultdict(int)
    for trial in trials:
        steps = [rung["steps"] for rung in trial["rungs"]]
        for step in steps:
            reached[step] += 1
        if trial["state"] == "stopped" and steps:
            stopped[steps[-1]] += 1
    return [RungCount(step, reached[step], stopped[step]) for step in sorted(reached)]


def _search(run: Row, folders: Folders) -> SearchReport:
    search_id = run.search_id or ""
    rows, note = _trials(search_id, folders)
    return SearchReport(
        search_id=search_id,
        task=run.task,
        backbone=run.backbone,
        shots=run.shots,
        label=run.label,
        n_trials=run.search_trials or 0,
        steps=run.search_steps or 0,
        seconds=run.search_seconds or 0.0,
        values=run.searched or {},
        trials=tuple(
            TrialRecord(
                study=row["study"],
                number=row["number"],
                state=row["state"],
                score=row["score"],
                steps=row["steps"],
                values=row["values"],
                error=row["error"],
            )
            for row in rows
        ),
        rungs=tuple(rungs(row for row in rows if row["study"] == "search")),
        note=note,
    )


def _trials(search_id: str, folders: Folders) -> tuple[list[dict[str, Any]], str | None]:
    """The rows of a search's table of trials, or why there are none."""
    import pyarrow.parquet as pq

    folder = folders.search(search_id)
    if folder is None:
        return [], "There is no results folder."
    file = folder.trials
    try:
        rows = pq.read_table(file, columns=_TRIAL_COLUMNS, partitioning=None).to_pylist()
        return [row | {"values": json.loads(row["values"])} for row in rows], None
    except FileNotFoundError:
        return [], f"Its trials (searches/{search_id}/{file.name}) are not there."
    except (OSError, pa.ArrowException, TypeError, ValueError):
        return [], f"Its trials (searches/{search_id}/{file.name}) cannot be read."
