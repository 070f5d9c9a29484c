"""Files of predictions that were made elsewhere.

A file has a row for each example, under these names (columns of Parquet and CSV, arrays of npz):

- ``id`` or ``index``: which example, by its id or by its position in the evaluation set;
- ``prediction``: the class, as its name or as its position among those that the set is scored on;
- or ``logits`` (n, classes): in CSV and optionally in Parquet the columns ``logit_0``, ``logit_1``,
  …; over all classes of the task, or over those that the set is scored on;
- ``set``, where it has the predictions of several evaluation sets.

Other columns are ignored.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shiftbench.core.errors import InputError

Array = npt.NDArray[Any]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Answers:
    """The answers that a file gives for the examples of one evaluation set.

    Attributes:
        keys: (n,) ids as text, or positions in the set as int64.
        classes: (n,) names or positions, as text or int64; ``None`` when there are logits.
        logits: (n, classes) floating; ``None`` when there are classes.
    """

    keys: Array
    classes: Array | None
    logits: Array | None


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
