"""All that is known of one run, whether it is done, has failed or is under way."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from shiftbench.core.files import read_json
from shiftbench.leaderboard import store
from shiftbench.leaderboard.runfolder import RunFolder
from shiftbench.leaderboard.schema import FailedRun, Row, RunInfo, failures, rows
from shiftbench.leaderboard.training_curve import STEP, TrainingCurve, thinned
from shiftbench.report.runs import provenance
from shiftbench.report.words import duration
from shiftbench.suite.naming import Called, meant

BARS = "▁▂▃▄▅▆▇█"
WIDTH = 60
"""Characters of a curve in a terminal."""


@dataclass(frozen=True)
class RunFacts:
    """A run.

    Attributes:
        run_id: of it.
        name: for people.
        state: ``begun`` is a run without rows: one that is under way or was interrupted.
        about: what was asked for, what it cost and what computed it, by names for people.
        settings: of its method.
        rows: of the leaderboard, if it is done.
        curve: of its training; ``None`` where nothing was trained, or no state saved yet.
        error: why it failed, in one line.
        traceback: the whole message of its failure.
    """

    run_id: str
    name: str
    state: Literal["done", "failed", "begun"]
    about: Mapping[str, Any]
    settings: Mapping[str, Any]
    rows: tuple[Row, ...]
    curve: TrainingCurve | None
    error: str | None
    traceback: str | None

    @property
    def scores(self) -> list[Row]:
        """Headline metrics of the variants that were chosen, of all if none was."""
        headline = [row for row in self.rows if row.primary]
        return [row for row in headline if row.selection is not None] or headline

    def curve_lines(self) -> list[str]:
        """The curve as lines of text: each value, its first and last number, and bars between."""
        if self.curve is None or not len(self.curve):
            return []
        drawn, steps = self.curve.drawn, [int(step or 0) for step in self.curve.columns[STEP]]
        width = max(map(len, drawn))
        lines = [f"steps {steps[0]:,} to {steps[-1]:,}"]
        for name, values in drawn.items():
            points = [value for _, value in thinned(steps, values, WIDTH)]
            if points:
                known = [value for value in values if value is not None and math.isfinite(value)]
                ends = f"{known[0]:.4g}", f"{known[-1]:.4g}"
                lines.append(f"  {name:<{width}}  {ends[0]:>9} {sparkline(points)} {ends[1]}")
        return lines

    def document(self) -> dict[str, Any]:
        """All of it as JSON has it; what is no number is null."""
        found = {item.name: getattr(self, item.name) for item in fields(self)}
        found["rows"] = [
            {item.name: getattr(row, item.name) for item in fields(row)} for row in self.rows
        ]
        found["curve"] = None if self.curve is None else dict(self.curve.columns)
        document: dict[str, Any] = _as_json(found)
        return document


def facts_of(results: Path, text: str) -> RunFacts:
    """What a results folder knows of a run.

    Args:
        results: the folder.
        text: the run's id, the beginning of it, or method, method/task or method/task/seed.

    Raises:
        InputError: no run is meant, or several, or a file of it cannot be read.
    """
    table = store.read(results, columns=["run_id", "label", "also_called", "task", "seed"])
    of_rows = [
        Called(row["run_id"], label, row["task"], row["seed"])
        for row in table.to_pylist()
        for label in (row["label"], *(row["also_called"] or ()))
    ]
    known = {called.run_id: called for called in reversed(of_rows)}
    begun = _begun(results, known)
    recorded = [*dict.fromkeys(of_rows)]
    # What was stopped, as by a debugger before an edit, stands in the way of no name.
    named = any(text in called.names for called in recorded)
    others = [] if named else chain.from_iterable(run.called for run in begun.values())
    run_id = meant(text, [*recorded, *others])
    folder = RunFolder.of(results, run_id)
    curve = TrainingCurve.read(folder.metrics)
    if run_id in begun:
        run = begun[run_id]
        name = run.called[0].names[-1]
        return RunFacts(run_id, name, "begun", run.about, run.settings, (), curve, None, None)
    table = store.read(results, [run_id])
    of_run, failed = tuple(rows(table)), failures(table)
    info: Row | FailedRun = failed[0] if failed else of_run[0]
    file = results / (failed[0].error_file or "") if failed else None
    return RunFacts(
        run_id=run_id,
        name=known[run_id].names[-1],
        state=info.status,
        about=_about(info),
        settings=info.config,
        rows=of_run,
        curve=curve,
        error=failed[0].error if failed else None,
        traceback=file.read_text(encoding="utf-8") if file is not None and file.is_file() else None,
    )


def sparkline(values: Sequence[float]) -> str:
    """Numbers as bars of text, the least of them the lowest."""
    least, most = min(values), max(values)
    span = (most - least) or 1.0
    return "".join(BARS[round((value - least) / span * (len(BARS) - 1))] for value in values)


@dataclass(frozen=True)
class _Begun:
    """What the record of a run without rows says of it.

    Attributes:
        called: what it can be called by, under each of its labels.
        about: what was asked for.
        settings: of its method.
    """

    called: list[Called]
    about: Mapping[str, Any]
    settings: Mapping[str, Any]

    @classmethod
    def of(cls, run_id: str, record: Mapping[str, Any]) -> _Begun:
        """From the record.

        Raises:
            KeyError, TypeError, ValueError: it is not whole.
        """
        task, seed = record["task"]["name"], record["seed"]
        labels = (record["label"], *record.get("also_called", ()))
        if not all(isinstance(name, str) for name in (task, *labels)):
            raise ValueError("a name is no text")
        asked = {name: record[name] for name in ("backbone", "method", "seed", "shots", "budget")}
        called = [Called(run_id, label, task, seed) for label in labels]
        return cls(called, {"task": task, **asked}, dict(record["config"]))


def _begun(results: Path, known: Collection[str]) -> dict[str, _Begun]:
    """What the folders of runs without rows say of them; one that is not whole says nothing."""
    found: dict[str, _Begun] = {}
    for file in sorted((results / "runs").glob("*/run.json")):
        if file.parent.name not in known:
            with suppress(KeyError, TypeError, ValueError, AttributeError):
                found[file.parent.name] = _Begun.of(file.parent.name, read_json(file)["run"])
    return found


def _about(run: RunInfo) -> dict[str, Any]:
    """What is worth knowing of a run that has rows; what does not apply is left out."""
    trained = run.train_steps or 0
    speed = None
    if trained and run.train_seconds and run.train_images:
        speed = f"{run.train_images / run.train_seconds:,.0f} images/s"
    facts = {
        "suite": run.suite,
        "task": f"{run.task} ({run.data_kind} data)",
        "backbone": run.backbone,
        "method": f"{run.method} ({run.origin})",
        "seed": run.seed if run.seeded else f"{run.seed} (it uses none)",
        "shots": run.shots,
        "budget": {name: value for name, value in run.budget.items() if value is not None} or None,
        "builds on": ", ".join(f"{p.label} ({p.run_id})" for p in run.parents) or None,
        "search": None if run.search_id is None else f"{run.search_id}: {run.search_trials} trials",
        "searched": run.searched,
        "trainings": run.trainings,
        "training": None
        if not trained
        else ", ".join(
            filter(
                None,
                (
                    f"{trained:,} steps",
                    f"{run.train_images:,} images",
                    duration(run.train_seconds),
                    speed,
                    None if run.world_size in (None, 1) else f"{run.world_size} workers",
                ),
            )
        ),
        "distance": None if run.distance is None else f"‖θ - θ0‖ = {run.distance:.4g}",
        "memory": None
        if run.peak_memory_bytes is None
        else f"{run.peak_memory_bytes / 2**30:.2f} GiB at most",
        "details": run.details or None,
        "leakage": run.leakage,
        "transductive": "what it says of an image depends on other test images"
        if run.transductive
        else None,
        "computed by": provenance(run),
        "finished": f"{run.finished:%Y-%m-%d %H:%M} UTC",
    }
    return {name: value for name, value in facts.items() if value is not None}


def _as_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat()
    return None if isinstance(value, float) and not math.isfinite(value) else value
