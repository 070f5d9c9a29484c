"""Scoring imported predictions and recording them like those of a run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import pyarrow as pa

from shiftbench.core.errors import InputError
from shiftbench.core.provenance import collect
from shiftbench.core.words import nearest
from shiftbench.evaluation import predictions
from shiftbench.evaluation.results import Selection
from shiftbench.evaluation.scoring import Prediction, results_of
from shiftbench.leaderboard import store
from shiftbench.leaderboard.importing.answers import read_answers
from shiftbench.leaderboard.importing.matching import VARIANT, predictions_table
from shiftbench.leaderboard.importing.target import Target, missing_files, open_set
from shiftbench.leaderboard.runfolder import RunFolder
from shiftbench.leaderboard.schema import RunInfo, done, task_digest
from shiftbench.suite.plan import evaluation_metrics, run_id

if TYPE_CHECKING:
    from shiftbench.data.images import ImageSet

ORIGIN = "imported"
VERSION = 1  # raised whenever the same file comes to other rows


@dataclass(frozen=True)
class Imported:
    """The outcome of an import.

    Attributes:
        run_id: of the rows.
        new: true if they were not there before.
        table: of the leaderboard.
    """

    run_id: str
    new: bool
    table: pa.Table


def import_predictions(
    file: Path, target: Target, results: Path, evaluation_set: str | None = None
) -> Imported:
    """Check a file of predictions, score it, and write its rows and predictions.

    Args:
        file: Parquet, CSV or npz.
        target: the subject of the predictions.
        results: the results folder.
        evaluation_set: which set they are of; with a column ``set``, the one to take from the file.

    Raises:
        InputError: something in the file does not fit; then nothing is written.
    """
    answers = read_answers(file, evaluation_set)
    metrics = evaluation_metrics(target.task.recorded())
    for name in answers:
        if name not in metrics:
            raise InputError(
                f'{file}: task {target.task.name} has no evaluation set "{name}"'
                f"{nearest(name, metrics)}"
            )
    opened = {name: open_set(target, name) for name in answers}
    content = hashlib.sha256(file.read_bytes()).hexdigest()
    run = identity(target, content, {name: item.images for name, item in opened.items()})
    folder = RunFolder.of(results, run)
    known = store.read(results, [run])
    if len(known) and folder.predictions.exists():
        return Imported(run, False, known)
    parts = {
        name: predictions_table(name, opened[name], answers[name], f"{file}: {name}")
        for name in answers
    }
    scored = [
        replace(result, selection=target.selection, evaluation_seconds=None)
        for name, part in parts.items()
        for result in results_of(
            Prediction(
                variant=VARIANT,
                evaluation_set=name,
                metric=metrics[name],
                table=part,
                seconds=0.0,
                fingerprint=opened[name].images.fingerprint,
                incomplete_reason=missing_files(target, name),
                also=target.task.also_metrics,
            )
        )
    ]
    table = done(_info(target, run, file, content, list(parts)), scored)
    store.check_writable(results)
    predictions.write(folder.predictions, predictions.concat(parts.values()))
    store.write_run(results, run, table)
    return Imported(run, True, table)


def identity(target: Target, content: str, sets: Mapping[str, ImageSet]) -> str:
    """The run id: it stands for the file, what it is of, and the data that it was scored on."""
    return run_id(
        {
            "kind": ORIGIN,
            "version": VERSION,
            "content": content,
            "task": target.task.recorded().model_dump(mode="json"),
            "data_kind": target.data_kind,
            "backbone": target.backbone,
            "label": target.label,
            "seed": target.seed,
            "shots": target.shots,
            "images": target.images,
            "selection": target.selection,
            "sets": {name: images.fingerprint for name, images in sets.items()},
        }
    )


def _info(target: Target, run: str, file: Path, content: str, sets: list[str]) -> RunInfo:
    if target.selection not in get_args(Selection):
        raise InputError(f'"{target.selection}" is none of {", ".join(get_args(Selection))}')
    now = datetime.now(UTC)
    return RunInfo(
        run_id=run,
        suite=target.suite,
        task=target.task.name,
        task_digest=task_digest(target.task),
        data_kind=target.data_kind,
        backbone=target.backbone,
        method=target.label,
        label=target.label,
        origin=ORIGIN,
        config={"sets": sorted(sets)},
        budget={"steps": None, "evaluation_images": target.images},
        parents=(),
        seed=target.seed or 0,
        seeded=target.seed is not None,
        shots=target.shots,
        started=now,
        finished=now,
        **vars(collect()),
        details={ORIGIN: file.name, "sha256": content},
    )
