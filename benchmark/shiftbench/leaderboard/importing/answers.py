"""Files of predictions that were made elsewhere.

A file has a row for each example, under these names (columns of Parquet and CSV, arrays of npz):

- ``id`` or ``index``: which example, by its id or by its position in the evaluation set;
- ``prediction``: the class, as its name or as its position among those that the set is scored on;
- or ``logits`` (n, classes): in CSV and optionally in Parquet the columns ``logit_0``, ``logit_1``,
  …; over all classes of the task, or over those that the set is scored on;
- ``label``, where it is there: the true class, in the form of ``prediction``, to be checked;
- ``set``, where it has the predictions of several evaluation sets;
- ``method``, where it has those of several models.

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
from shiftbench.core.words import shortened, some

Array = npt.NDArray[Any]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Answers:
    """The answers that a file gives for the examples of one evaluation set.

    Attributes:
        keys: (n,) ids as text, or positions in the set as int64.
        classes: (n,) names or positions, as text or int64; ``None`` when there are logits.
        logits: (n, classes) floating; ``None`` when there are classes.
        labels: (n,) true classes as the file has them, names or positions; ``None`` without.
    """

    keys: Array
    classes: Array | None
    logits: Array | None
    labels: Array | None = None

    @property
    def by_index(self) -> bool:
        """True if examples are named by their position in the set."""
        return self.keys.dtype.kind != "U"

    def part(self, chosen: Array) -> Answers:
        """The rows that a mask (n,) chooses."""
        return Answers(
            self.keys[chosen],
            None if self.classes is None else self.classes[chosen],
            None if self.logits is None else self.logits[chosen],
            None if self.labels is None else self.labels[chosen],
        )


@dataclass(frozen=True)
class AnswerFile:
    """A file of predictions, checked in itself.

    Attributes:
        file: its path.
        rows: the answers of all its rows.
        sets: (n,) evaluation set of each row; ``None`` without a column ``set``.
        of_methods: (n,) method of each row; ``None`` without a column ``method``.
    """

    file: Path
    rows: Answers
    sets: Array | None
    of_methods: Array | None

    @classmethod
    def read(cls, file: Path) -> AnswerFile:
        """Read Parquet, CSV or npz.

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
            raise InputError(f"{file}: its arrays have different lengths {some(sorted(rows))}")
        if not max(rows):
            raise InputError(f"{file}: has no rows")
        answers = Answers(
            keys=_texts(file, columns, "id") if "id" in columns else _whole(file, columns, "index"),
            classes=_classes(file, columns, "prediction") if "prediction" in columns else None,
            logits=_logits(file, columns["logits"]) if "logits" in columns else None,
            labels=_classes(file, columns, "label") if "label" in columns else None,
        )
        of = {n: _texts(file, columns, n) if n in columns else None for n in ("set", "method")}
        return cls(file, answers, of["set"], of["method"])

    def methods(self, method: str | None = None) -> tuple[str, ...]:
        """The names of the methods that it has predictions of, or the one to take.

        Args:
            method: whose predictions they are, or, with a column ``method``, the one to take.

        Raises:
            InputError: the file has no such method, or nothing says whose predictions they are.
        """
        if self.of_methods is None:
            if method is None:
                raise InputError(
                    f'{self.file}: whose predictions? add --method, or a column "method"'
                )
            if not method.strip() or not method.isprintable():
                raise InputError(f"--method {method!r} is no name")
            return (method,)
        names = tuple(dict.fromkeys(self.of_methods.tolist()))
        for name in names:
            if not name.strip() or not name.isprintable():
                raise InputError(f'{self.file}: "method" holds {name!r}, which is no name')
        if method is not None and method not in names:
            raise InputError(
                f'{self.file}: its column "method" has no "{method}", but {some(names)}'
            )
        return names if method is None else (method,)

    def answers(self, method: str, evaluation_set: str | None = None) -> dict[str, Answers]:
        """The answers of one of ``methods``, by evaluation set.

        Args:
            method: its name.
            evaluation_set: which set they are of, or the one to take.

        Raises:
            InputError: nothing says of which set they are, or there are none of that set.
        """
        everything = np.ones(len(self.rows.keys), bool)
        chosen = everything if self.of_methods is None else self.of_methods == method
        if self.sets is None:
            if evaluation_set is None:
                raise InputError(
                    f'{self.file}: which evaluation set? add --evaluation-set, or a column "set"'
                )
            return {evaluation_set: self.rows.part(chosen)}
        names = list(dict.fromkeys(self.sets[chosen].tolist()))
        if evaluation_set is not None and evaluation_set not in names:
            raise InputError(f'{self.file}: has no rows of the set "{evaluation_set}"')
        return {
            name: self.rows.part(chosen & (self.sets == name))
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
        raise InputError(
            f"{file}: cannot be read as {file.suffix[1:]} ({shortened(str(error))})"
        ) from error


_OF_ONE = 1e-2  # how far probabilities that were rounded may be from summing to one
_NAMES = ("id", "index", "prediction", "label", "set", "method")
_LOGIT = re.compile(r"logit_(\d+)")


def _read_npz(file: Path) -> dict[str, Array]:
    with np.load(file, allow_pickle=False) as arrays:
        if not hasattr(arrays, "files"):
            raise InputError(f"{file}: holds one array without a name; use numpy.savez")
        found = {name: arrays[name] for name in (*_NAMES, "logits") if name in arrays.files}
    for name, array in found.items():
        if array.ndim != (2 if name == "logits" else 1):
            raise InputError(f'{file}: "{name}" has the shape {array.shape}')
    return found


def _read_parquet(file: Path) -> dict[str, Array]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as opened:
        names = [n for n in opened.schema_arrow.names if _counts(n)]
        return _from_table(file, opened.read(names))


def _read_csv(file: Path) -> dict[str, Array]:
    from pyarrow import csv

    as_text = {name: pa.string() for name in _NAMES if name != "index"}
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
    found = {name: _cells(file, name, table[name]) for name in _NAMES if name in names}
    if "logits" in names:
        found["logits"] = _rows_of_lists(file, table["logits"])
    wide = sorted((int(match[1]), match[0]) for match in map(_LOGIT.fullmatch, names) if match)
    if wide:
        if [k for k, _ in wide] != list(range(len(wide))):
            raise InputError(f"{file}: the columns logit_0, logit_1, … have gaps")
        found["logits"] = np.stack([table[name].to_numpy() for _, name in wide], axis=1)
    return found


def _cells(file: Path, name: str, column: pa.ChunkedArray) -> Array:
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
    if pa.types.is_null(column.type):
        return np.zeros(0, np.str_)
    if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
        column = column.cast(pa.string())
    if not pa.types.is_primitive(column.type) or pa.types.is_temporal(column.type):
        text = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
        if not any(is_text(column.type) for is_text in text):
            raise InputError(f'{file}: "{name}" holds {shortened(str(column.type))}')
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


def _texts(file: Path, columns: Mapping[str, Array], name: str) -> Array:
    """A column of names: texts, or whole numbers that stand for them."""
    column = columns[name]
    if column.dtype.kind not in "USiu":
        raise InputError(f'{file}: "{name}" must hold text, not {_holds(column)}')
    return column.astype(np.str_)


def _classes(file: Path, columns: Mapping[str, Array], name: str) -> Array:
    """A column of classes: names as text, or positions as int64."""
    text = columns[name].dtype.kind in "US"
    return _texts(file, columns, name) if text else _whole(file, columns, name)


def _whole(file: Path, columns: Mapping[str, Array], name: str) -> Integers:
    column = columns[name]
    if column.dtype.kind == "f" and np.isfinite(column).all() and (column % 1 == 0).all():
        column = column.astype(np.int64)
    if column.dtype.kind not in "iu":
        raise InputError(f'{file}: "{name}" must hold whole numbers, not {_holds(column)}')
    return column.astype(np.int64)


def _holds(column: Array) -> str:
    """The kind of value of a column, with the first of them."""
    kinds = {"U": "text", "S": "text", "f": "fractions", "b": "true and false"}
    first = f' ("{shortened(str(column.flat[0]), 40)}")' if column.size else ""
    return kinds.get(column.dtype.kind, str(column.dtype)) + first


def _logits(file: Path, logits: Array) -> Array:
    if logits.dtype.kind not in "fiu":
        raise InputError(f'{file}: "logits" must hold numbers, not {_holds(logits)}')
    if logits.dtype.kind != "f":
        logits = logits.astype(np.float64)
    if not np.isfinite(logits).all():
        raise InputError(f"{file}: {int((~np.isfinite(logits)).sum())} logits are not finite")
    if (logits >= 0).all() and np.allclose(logits.sum(axis=1), 1, rtol=0, atol=_OF_ONE):
        raise InputError(
            f'{file}: "logits" holds probabilities, whose softmax is another model\'s; give their '
            "logarithms"
        )
    return logits
