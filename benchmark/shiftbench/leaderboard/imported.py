"""Predictions that were made elsewhere: checked, scored and recorded like those of a run.

A file has a row for each example, under these names (columns of Parquet and CSV, arrays of npz):

- ``id`` or ``index``: which example, by its id or by its position in the evaluation set;
- ``prediction``: the class, as its name or as its position among those that the set is scored on;
- or ``logits`` (n, classes): in CSV and optionally in Parquet the columns ``logit_0``, ``logit_1``,
  …; over all classes of the task, or over those that the set is scored on;
- ``set``, where it has the predictions of several evaluation sets.

Other columns are ignored.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shiftbench.core.errors import InputError
from shiftbench.core.provenance import collect
from shiftbench.core.words import nearest
from shiftbench.data.subsets import draw
from shiftbench.data.tasks.classes import task_classes
from shiftbench.data.tasks.definition import NEW, Task
from shiftbench.data.tasks.opening import open_ood_val, open_task
from shiftbench.evaluation import predictions
from shiftbench.evaluation.examples import Examples
from shiftbench.evaluation.results import Selection
from shiftbench.evaluation.scoring import Prediction, results_of
from shiftbench.leaderboard import store
from shiftbench.leaderboard.runfolder import RunFolder
from shiftbench.leaderboard.schema import RunInfo, digest, done
from shiftbench.suite.plan import evaluation_metrics, run_id

if TYPE_CHECKING:
    from shiftbench.data.images import ImageSet

ORIGIN = "imported"
VARIANT = ""
VERSION = 1  # raised whenever the same file comes to other rows
SHOWN = 3

Array = npt.NDArray[Any]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Target:
    """What the predictions are of.

    Attributes:
        task: with its evaluation sets.
        data_kind: ``real`` or ``miniature/<version>``.
        root: the data root.
        suite: its name, for the rows.
        label: what the method is to be called.
        backbone: its name.
        seed: of the training; ``None`` when it has none or is not known.
        shots: training images per class; ``None`` for all.
        images: most images of an evaluation set, as a suite's budget says; ``None`` for all.
        selection: how the weights were chosen.
    """

    task: Task
    data_kind: str
    root: str
    suite: str
    label: str
    backbone: str
    seed: int | None = None
    shots: int | None = None
    images: int | None = None
    selection: Selection = "fixed"


@dataclass(frozen=True)
class Answers:
    """What a file says of the examples of one evaluation set.

    Attributes:
        keys: (n,) ids as text, or positions in the set as int64.
        classes: (n,) names or positions, as text or int64; ``None`` when there are logits.
        logits: (n, classes) floating; ``None`` when there are classes.
    """

    keys: Array
    classes: Array | None
    logits: Array | None


@dataclass(frozen=True)
class OpenedSet:
    """An evaluation set with the names of the classes that its projection starts from."""

    images: ImageSet
    names: tuple[str, ...]

    @property
    def groups(self) -> Sequence[tuple[int, ...]]:
        """For each class that the set is scored on, the positions in ``names`` that mean it."""
        projection = self.images.projection
        return [(k,) for k in range(len(self.names))] if projection is None else projection.groups


@dataclass(frozen=True)
class Imported:
    """What an import came to.

    Attributes:
        run_id: of the rows.
        new: whether they were not there before.
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
        target: what the predictions are of.
        results: the results folder.
        evaluation_set: which set they are of; with a column ``set``, the one to take from the file.

    Raises:
        InputError: something in the file does not fit; then nothing is written.
    """
    answers = read_answers(file, evaluation_set)
    metrics = evaluation_metrics(_task(target))
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
            "task": _task(target).model_dump(mode="json"),
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


def open_set(target: Target, name: str) -> OpenedSet:
    """An evaluation set as runs are scored on it, and the names of the task's classes.

    Other sets need not be there, nor the training set, unless this one is made from it.

    Raises:
        InputError: it is absent or broken.
    """
    task, root = _task(target), target.root
    item = task.evaluation_sets().get(name)
    own = task.class_split is not None and name == NEW
    if item is not None and item.classes is None and not own:
        images = open_ood_val(task.model_copy(update={"ood_val": item}), root)[1]
        names = task_classes(task, root)
    else:
        shifts = {} if item is None else {name: item}
        data = open_task(
            task.model_copy(update={"shifts": shifts}), root, target.shots, target.seed or 0
        )
        images = data.evaluation[name][1]
        names = data.vocabularies[name][0] if name in data.vocabularies else data.classes
    if target.images is not None and target.images < len(images):
        images = images.subset(draw(images.ids, images.labels, target.images, balanced=False))
    return OpenedSet(images, names)


def missing_files(target: Target, name: str) -> str | None:
    """What the files of an evaluation set lack; ``None`` when they are complete."""
    from shiftbench.data.verify import check

    finding = check(target.task.sources().get(name, target.task.train), target.root)
    return None if finding.status == "ok" else f"{finding.name}: {finding.detail}"


# From a file to answers


def read_answers(file: Path, evaluation_set: str | None = None) -> dict[str, Answers]:
    """The answers in a file by evaluation set, checked in themselves.

    Args:
        file: Parquet, CSV or npz.
        evaluation_set: which set they are of, or the one to take.

    Raises:
        InputError: it cannot be read, or its columns are not as the module says.
    """
    columns = read_columns(file)
    if ("id" in columns) == ("index" in columns):
        raise InputError(f'{file}: needs a column "id" or "index", and not both')
    if ("prediction" in columns) == ("logits" in columns):
        raise InputError(f'{file}: needs a column "prediction" or "logits", and not both')
    rows = {len(column) for column in columns.values()}
    if len(rows) > 1:
        raise InputError(f"{file}: its arrays have different lengths {sorted(rows)}")
    keys = columns["id"].astype(np.str_) if "id" in columns else _whole(file, columns, "index")
    classes = logits = None
    if "logits" in columns:
        logits = _logits(file, columns["logits"])
    elif columns["prediction"].dtype.kind == "U":
        classes = columns["prediction"]
    else:
        classes = _whole(file, columns, "prediction")

    def part(chosen: Array) -> Answers:
        return Answers(
            keys[chosen],
            None if classes is None else classes[chosen],
            None if logits is None else logits[chosen],
        )

    if "set" not in columns:
        if evaluation_set is None:
            raise InputError(
                f'{file}: which evaluation set? add --evaluation-set, or a column "set"'
            )
        return {evaluation_set: part(np.ones(len(keys), bool))}
    of_row = columns["set"].astype(np.str_)
    names = list(dict.fromkeys(of_row.tolist()))
    if evaluation_set is not None and evaluation_set not in names:
        raise InputError(f'{file}: has no rows of the set "{evaluation_set}"')
    if not names:
        raise InputError(f"{file}: has no rows")
    return {
        name: part(of_row == name)
        for name in (names if evaluation_set is None else [evaluation_set])
    }


def read_columns(file: Path) -> dict[str, Array]:
    """The columns that count: (n,) of text or numbers, and ``logits`` (n, classes).

    Raises:
        InputError: the file is absent, broken, of another format, or has empty cells.
    """
    read = _READERS.get(file.suffix.lower())
    if read is None:
        raise InputError(f"{file}: must end in {', '.join(_READERS)}")
    if not file.is_file():
        raise InputError(f"{file}: there is no such file")
    try:
        return read(file)
    except InputError:
        raise
    except (OSError, ValueError, EOFError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{file}: cannot be read as {file.suffix[1:]} ({reason})") from error


_NAMES = ("id", "index", "prediction", "set")
_LOGIT = re.compile(r"logit_(\d+)")


def _read_npz(file: Path) -> dict[str, Array]:
    with np.load(file, allow_pickle=False) as arrays:
        if not hasattr(arrays, "files"):
            raise InputError(f"{file}: holds one array without a name; use numpy.savez")
        found = {name: arrays[name] for name in (*_NAMES, "logits") if name in arrays.files}
    for name, array in found.items():
        if array.ndim != (2 if name == "logits" else 1):
            raise InputError(f'{file}: "{name}" has the shape {array.shape}')
        if array.dtype.kind == "S":
            found[name] = array.astype(np.str_)
    return found


def _read_parquet(file: Path) -> dict[str, Array]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as opened:
        names = [n for n in opened.schema_arrow.names if _counts(n)]
        return _from_table(file, opened.read(names))


def _read_csv(file: Path) -> dict[str, Array]:
    from pyarrow import csv

    as_text = {name: pa.string() for name in ("id", "prediction", "set")}
    table = csv.read_csv(file, convert_options=csv.ConvertOptions(column_types=as_text))
    return _from_table(file, table.select([n for n in table.column_names if _counts(n)]))


_READERS: Mapping[str, Callable[[Path], dict[str, Array]]] = {
    ".parquet": _read_parquet,
    ".csv": _read_csv,
    ".npz": _read_npz,
}


def _counts(name: str) -> bool:
    return name in (*_NAMES, "logits") or _LOGIT.fullmatch(name) is not None


def _from_table(file: Path, table: pa.Table) -> dict[str, Array]:
    names = table.column_names
    if len(set(names)) < len(names):
        raise InputError(f"{file}: two columns have the same name")
    for name in names:
        if table[name].null_count:
            raise InputError(f'{file}: {table[name].null_count} cells of "{name}" are empty')
    found = {name: _cells(table[name]) for name in _NAMES if name in names}
    if "logits" in names:
        found["logits"] = _rows_of_lists(file, table["logits"])
    wide = sorted((int(match[1]), match[0]) for match in map(_LOGIT.fullmatch, names) if match)
    if wide:
        if [k for k, _ in wide] != list(range(len(wide))):
            raise InputError(f"{file}: the columns logit_0, logit_1, … have gaps")
        found["logits"] = np.stack([table[name].to_numpy() for _, name in wide], axis=1)
    return found


def _cells(column: pa.ChunkedArray) -> Array:
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return np.array(column.to_pylist(), dtype=np.str_)
    values: Array = column.to_numpy()
    return values


def _rows_of_lists(file: Path, column: pa.ChunkedArray) -> Array:
    rows = [np.asarray(chunk.flatten()) for chunk in column.chunks]
    widths = {len(row) for row in column.to_pylist()}
    if len(widths) > 1:
        raise InputError(f'{file}: the rows of "logits" have {min(widths)} to {max(widths)} values')
    flat = np.concatenate(rows) if rows else np.zeros(0)
    return flat.reshape(len(column), max(widths, default=0))


def _whole(file: Path, columns: Mapping[str, Array], name: str) -> Integers:
    column = columns[name]
    if column.dtype.kind not in "iu":
        raise InputError(f'{file}: "{name}" must hold whole numbers, not {column.dtype}')
    return column.astype(np.int64)


def _logits(file: Path, logits: Array) -> Array:
    if logits.dtype.kind not in "fiu":
        raise InputError(f'{file}: "logits" must hold numbers, not {logits.dtype}')
    if logits.dtype.kind != "f":
        logits = logits.astype(np.float64)
    if not np.isfinite(logits).all():
        raise InputError(f"{file}: {int((~np.isfinite(logits)).sum())} logits are not finite")
    return logits


# From answers to predictions


def predictions_table(name: str, opened: OpenedSet, answers: Answers, where: str) -> pa.Table:
    """The answers of one evaluation set in the form in which predictions are kept.

    Where there are no logits, all that needs them is null.

    Args:
        name: of the set.
        opened: the set.
        answers: in any order.
        where: begins the messages.

    Raises:
        InputError: an example is missing, unknown or there twice, or a class is none of the set's.
    """
    images = opened.images
    rows = rows_in_order(answers.keys, images.ids, where)
    if answers.logits is not None:
        return predictions.to_table(
            name, VARIANT, images, _projected(opened, answers.logits[rows], where)
        )
    if answers.classes is None:
        raise ValueError("neither classes nor logits")
    classes = class_positions(opened, answers.classes[rows], where).astype(np.int32)
    examples = Examples(images.labels, classes, images.metadata)
    return predictions.table_of(name, VARIANT, images.ids, examples)


def rows_in_order(keys: Array, ids: npt.NDArray[np.str_], where: str) -> Integers:
    """For each example of a set, in its order, the row of the file that is about it.

    Args:
        keys: (n,) ids as text, or positions as int64.
        ids: (n,) of the set, in its order.
        where: begins the messages.

    Raises:
        InputError: an example is missing, unknown, or there twice.
    """
    by_id = keys.dtype.kind == "U"
    what = "ids" if by_id else "indices"
    wanted = ids if by_id else np.arange(len(ids), dtype=np.int64)
    found, first, counts = np.unique(keys, return_index=True, return_counts=True)
    faults = [
        (found[counts > 1], "are there more than once"),
        (np.setdiff1d(found, wanted), "are not in the set"),
        (np.setdiff1d(wanted, found), "of the set are missing"),
    ]
    texts = [f"{len(keys)} {what} {fault} ({_some(keys)})" for keys, fault in faults if len(keys)]
    if texts:
        size = f"the file has {len(keys):,} rows, the set {len(ids):,} examples"
        raise InputError(f"{where}: {'; '.join(texts)}; {size}")
    return first[np.searchsorted(found, wanted)].astype(np.int64)


def class_positions(opened: OpenedSet, given: Array, where: str) -> Integers:
    """Positions (n,) among the classes that a set is scored on.

    Args:
        opened: the set.
        given: (n,) positions as int64, or names as text. What is no name may be a position.
        where: begins the messages.

    Raises:
        InputError: a class is none of the set's.
    """
    groups = opened.groups
    if given.dtype.kind != "U":
        wrong = np.unique(given[(given < 0) | (given >= len(groups))])
        if len(wrong):
            raise InputError(
                f"{where}: there are classes 0 to {len(groups) - 1}, so not {_some(wrong)}"
            )
        return given
    means: dict[str, set[int]] = {}
    for position, group in enumerate(groups):
        for k in group:
            means.setdefault(opened.names[k], set()).add(position)
    names, of_row = np.unique(given, return_inverse=True)
    positions = np.empty(len(names), np.int64)
    for i, name in enumerate(names.tolist()):
        meant = means.get(name, set())
        if not meant and name.isascii() and name.isdigit() and int(name) < len(groups):
            meant = {int(name)}
        if len(meant) != 1:
            if meant:
                fault = "is the name of several classes; give positions"
            elif name in opened.names:
                fault = (
                    "is not among the classes that the set is scored on; give logits over all "
                    "classes of the task, which are projected"
                )
            else:
                fault = f"is none of its classes{nearest(name, means)}"
            raise InputError(f'{where}: "{name}" {fault}')
        (positions[i],) = meant
    return positions[of_row]


def _projected(opened: OpenedSet, logits: Array, where: str) -> Array:
    """Logits over the classes that a set is scored on."""
    projection, width = opened.images.projection, logits.shape[1]
    if projection is not None and width == len(opened.names):
        return projection(logits)
    if width == len(opened.groups):
        return logits
    accepted = " or ".join(map(str, sorted({len(opened.names), len(opened.groups)})))
    raise InputError(f"{where}: logits over {width} classes, but there are {accepted}")


def _some(values: Array) -> str:
    shown = ", ".join(map(str, values[:SHOWN].tolist()))
    return f"{shown}, …" if len(values) > SHOWN else shown


# Rows


def _task(target: Target) -> Task:
    """The task as rows mean it: only a search looks at its OOD validation set."""
    return target.task.model_copy(update={"ood_val": None})


def _info(target: Target, run: str, file: Path, content: str, sets: list[str]) -> RunInfo:
    if target.selection not in get_args(Selection):
        raise InputError(f'"{target.selection}" is none of {", ".join(get_args(Selection))}')
    now = datetime.now(UTC)
    return RunInfo(
        run_id=run,
        suite=target.suite,
        task=target.task.name,
        task_digest=digest(_task(target).model_dump(mode="json")),
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
