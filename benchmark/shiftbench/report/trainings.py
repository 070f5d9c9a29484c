"""The curves of trainings, as the page draws them: small, and only of so many runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from shiftbench.core.errors import InputError
from shiftbench.leaderboard.merging import Folders
from shiftbench.leaderboard.schema import RunInfo
from shiftbench.leaderboard.training_curve import (
    ID_VAL,
    LOSS,
    NORM,
    STEP,
    TERM,
    TrainingCurve,
    thinned,
)
from shiftbench.report.runs import asked

METHODS, SEEDS, TERMS, POINTS = 60, 3, 4, 40
"""How many methods of a report are drawn, seeds of each, terms of its loss, points of a curve."""
WIDTH, HEIGHT = 180, 56
"""Units of a drawing."""


@dataclass(frozen=True)
class Line:
    """A curve.

    Attributes:
        run_id: of the run.
        seed: of the run.
        points: in the units of the drawing, as SVG has them.
        first: its first value.
        last: its last value.
    """

    run_id: str
    seed: int
    points: str
    first: float
    last: float


@dataclass(frozen=True)
class Panel:
    """One value of a training over its steps, for each seed.

    Attributes:
        name: of the value.
        lines: a curve for each seed.
        low: the value at the bottom.
        high: the value at the top.
    """

    name: str
    lines: tuple[Line, ...]
    low: float
    high: float


@dataclass(frozen=True)
class TrainingReport:
    """The trainings of a method on one task with one backbone.

    Attributes:
        label: of the method.
        task: its name.
        backbone: its name.
        shots: training images per class.
        steps: of the longest of them.
        panels: what is drawn.
    """

    label: str
    task: str
    backbone: str
    shots: int | None
    steps: int
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Trainings:
    """What a report shows of trainings.

    Attributes:
        drawn: method by method.
        left_out: methods that trained and are not drawn, since there are too many.
    """

    drawn: tuple[TrainingReport, ...] = ()
    left_out: int = 0


def trainings(runs: Iterable[RunInfo], folders: Folders) -> Trainings:
    """The curves of the trainings of some runs, of which each has a file of its own.

    Args:
        runs: a row of each.
        folders: where their files are.
    """
    groups: dict[tuple[str, str, int | None, str, str], list[RunInfo]] = {}
    for run in sorted(runs, key=lambda run: run.seed):
        # Seeds of one label with other settings are another method's.
        key = (run.task, run.backbone, run.shots, run.label, asked(run))
        groups.setdefault(key, []).append(run)
    found: list[TrainingReport] = []
    left_out = 0
    for (task, backbone, shots, label, _), of_method in groups.items():
        trained = [(run, file) for run in of_method if (file := _file(run, folders)) is not None]
        if trained and len(found) == METHODS:
            left_out += 1
        elif curves := [*_curves(trained[:SEEDS])]:
            steps = max(len(curve) for _, curve in curves)
            panels = tuple(_panels(curves, steps))
            found.append(TrainingReport(label, task, backbone, shots, steps, panels))
    return Trainings(tuple(found), left_out)


def _file(run: RunInfo, folders: Folders) -> Path | None:
    """The file with the curve of a run, if there is one."""
    folder = folders.run(run.run_id)
    return folder.metrics if folder is not None and folder.metrics.exists() else None


def _curves(runs: Iterable[tuple[RunInfo, Path]]) -> Iterator[tuple[RunInfo, TrainingCurve]]:
    """The runs whose curves can be read and have steps."""
    for run, file in runs:
        try:
            curve = TrainingCurve.read(file)
        except InputError:  # which ``show`` says; a report is of more than that
            continue
        if curve is not None and len(curve):
            yield run, curve


def _panels(curves: list[tuple[RunInfo, TrainingCurve]], steps: int) -> Iterator[Panel]:
    names = dict.fromkeys(name for _, curve in curves for name in curve.drawn)
    terms = [name for name in names if name.startswith(TERM)][:TERMS]
    for name in (LOSS, *terms, NORM, ID_VAL):
        of_runs = [(run, _points(curve, name)) for run, curve in curves]
        values = [value for _, points in of_runs for _, value in points]
        if not values:
            continue
        low, high = min(values), max(values)
        lines = tuple(
            Line(
                run.run_id, run.seed, _drawn(points, steps, low, high), points[0][1], points[-1][1]
            )
            for run, points in of_runs
            if points
        )
        yield Panel(name.removeprefix(TERM).replace("_", " "), lines, low, high)


def _points(curve: TrainingCurve, name: str) -> list[tuple[int, float]]:
    numbers = [int(step or 0) for step in curve.columns[STEP]]
    return thinned(numbers, curve.columns.get(name, [None] * len(curve)), POINTS)


def _drawn(points: list[tuple[int, float]], steps: int, low: float, high: float) -> str:
    """Points as SVG has them, from the lower left to the upper right of the drawing."""
    span = (high - low) or 1.0
    return " ".join(
        f"{WIDTH * step / steps:.0f},{HEIGHT * (1 - (value - low) / span):.1f}"
        for step, value in points
    )
