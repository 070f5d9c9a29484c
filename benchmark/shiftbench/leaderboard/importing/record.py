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
from shiftbench.data.tasks.definition import IN_NO_IDENTITY
from shiftbench.evaluation import predictions
from shiftbench.evaluation.results import Result, Selection
from shiftbench.evaluation.scoring import Prediction, results_of
from shiftbench.leaderboard import store
from shiftbench.leaderboard.importing.answers import AnswerFile, Answers
from shiftbench.leaderboard.importing.matching import VARIANT, order_of, predictions_table
from shiftbench.leaderboard.importing.target import OpenedSet, Target, missing_files, open_set
from shiftbench.leaderboard.runfolder import RunFolder
from shiftbench.leaderboard.schema import IMPORTED, RunInfo, done, shifts_of, task_digest
from shiftbench.suite.identity import run_id
from shiftbench.suite.plan import evaluation_metrics

if TYPE_CHECKING:
    from shiftbench.data.images import ImageSet

VERSION = 1  # raised whenever the same file comes to other rows


@dataclass(frozen=True)
class Imported:
    """The outcome of an import of one model's predictions.

    Attributes:
        label: what the method is called.
        run_id: of the rows.
        new: true if they were not there before.
        table: of the leaderboard.
        notes: a line for each evaluation set whose examples were named by their position.
    """

    label: str
    run_id: str
    new: bool
    table: pa.Table
    notes: tuple[str, ...]


def import_predictions(
    file: Path, target: Target, results: Path, evaluation_set: str | None = None
) -> list[Imported]:
    """Check a file of predictions, score it, and write its rows and predictions.

    Args:
        file: Parquet, CSV or npz.
        target: the subject of the predictions. Without a label, or with that of one of them, the
            models are those of the file's column ``method``.
        results: the results folder.
        evaluation_set: which set they are of; with a column ``set``, the one to take from the file.

    Returns:
        An import for each model, in the order of the file.

    Raises:
        InputError: something in the file does not fit; then nothing is written.
    """
    if target.selection not in get_args(Selection):
        raise InputError(f'"{target.selection}" is none of {", ".join(get_args(Selection))}')
    answers = AnswerFile.read(file)
    content = hashlib.sha256(file.read_bytes()).hexdigest()
    opened: dict[str, OpenedSet] = {}
    prepared = [
        _Prepared.of(
            answers.answers(label, evaluation_set),
            replace(target, label=label),
            opened,
            results,
            (file, content),
        )
        for label in answers.methods(target.label or None)
    ]
    if any(item.predictions is not None for item in prepared):
        store.check_writable(results)
    for item in prepared:
        if item.predictions is not None:
            imported = item.imported
            predictions.write(RunFolder.of(results, imported.run_id).predictions, item.predictions)
            store.write_run(results, imported.run_id, imported.table)
    return [item.imported for item in prepared]


@dataclass(frozen=True)
class _Prepared:
    """One model's import before it is written; without predictions where it is there already."""

    imported: Imported
    predictions: pa.Table | None

    @classmethod
    def of(
        cls,
        answers: Mapping[str, Answers],
        target: Target,
        opened: dict[str, OpenedSet],
        results: Path,
        source: tuple[Path, str],
    ) -> _Prepared:
        """Check and score.

        Args:
            answers: by evaluation set.
            target: with the model's label.
            opened: the sets that were opened before; others are added.
            results: the results folder.
            source: the file, and the sha256 of its content.

        Raises:
            InputError: something does not fit.
        """
        file, content = source
        metrics = evaluation_metrics(target.task.recorded().without_also())
        for name in answers:
            if name not in metrics:
                raise InputError(
                    f'{file}: task {target.task.name} has no evaluation set "{name}"'
                    f"{nearest(name, metrics)}"
                )
            if name not in opened:
                opened[name] = open_set(target, name)
        sets = {name: opened[name].images for name in answers}
        run = identity(target, content, sets)
        notes = tuple(
            f"{name}: by index, in the order of the set: {order_of(sets[name].ids)}; "
            + ("its labels agree" if of.labels is not None else 'no column "label" to check it by')
            for name, of in answers.items()
            if of.by_index
        )
        known = store.read(results, [run])
        if len(known) and RunFolder.of(results, run).predictions.exists():
            return cls(Imported(target.label, run, False, known, notes), None)
        parts = {
            name: predictions_table(name, opened[name], of, f"{file}: {name}")
            for name, of in answers.items()
        }
        results_of_sets = [
            replace(result, selection=target.selection, evaluation_seconds=None)
            for name, part in parts.items()
            for result in _scored(target, name, metrics[name], part, sets[name], file)
        ]
        table = done(_info(target, run, file, content, list(parts)), results_of_sets)
        imported = Imported(target.label, run, True, table, notes)
        return cls(imported, predictions.concat(parts.values()))


def _scored(
    target: Target, name: str, metric: str, part: pa.Table, images: ImageSet, file: Path
) -> list[Result]:
    """The results on one set.

    Raises:
        InputError: its metric needs logits, and the file has classes alone.
    """
    prediction = Prediction(
        variant=VARIANT,
        evaluation_set=name,
        metric=metric,
        table=part,
        seconds=0.0,
        fingerprint=images.fingerprint,
        incomplete_reason=missing_files(target, name),
        also=target.task.also_metrics,
    )
    try:
        return results_of(prediction)
    except InputError as error:
        raise InputError(f"{file}: {name}: {error}") from error


def identity(target: Target, content: str, sets: Mapping[str, ImageSet]) -> str:
    """The run id: it stands for the file, what it is of, and the data that it was scored on."""
    return run_id(
        {
            "kind": IMPORTED,
            "version": VERSION,
            "content": content,
            "task": target.task.recorded().model_dump(mode="json", exclude={*IN_NO_IDENTITY}),
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
    now = datetime.now(UTC)
    return RunInfo(
        run_id=run,
        suite=target.suite,
        task=target.task.name,
        task_digest=task_digest(target.task),
        shifts=shifts_of(target.task),
        data_kind=target.data_kind,
        backbone=target.backbone,
        method=target.label,
        label=target.label,
        origin=IMPORTED,
        config={"sets": sorted(sets)},
        budget={"steps": None, "evaluation_images": target.images},
        parents=(),
        seed=target.seed or 0,
        seeded=target.seed is not None,
        shots=target.shots,
        started=now,
        finished=now,
        **vars(collect()),
        details={IMPORTED: file.name, "sha256": content},
    )
