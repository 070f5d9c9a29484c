"""A submission bundle: rows of some runs with their predictions, in one file that can be checked.

A zip or tar archive without compression of its own, since Parquet is compressed:

- ``manifest.json``: sha256 and size of every other member, and a digest of all that;
- ``rows/<run id>.parquet`` and ``predictions/<run id>.parquet``;
- ``configuration.json`` and ``provenance.json``: the same as the rows say, for people.

No weights, no absolute paths, no credentials. The same content is the same bytes. A digest proves
that nothing has changed since, not who wrote it; therefore every value is recomputed from the
predictions when a bundle is taken in, and labels are compared with those of runs that are there.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shiftbench.core.errors import InputError
from shiftbench.core.files import written_atomically
from shiftbench.evaluation import predictions
from shiftbench.leaderboard import store
from shiftbench.leaderboard.archive import (
    BROKEN,
    MOST_MEMBERS,
    WRITERS,
    Archive,
    opened,
    reason,
)
from shiftbench.leaderboard.redact import JSON_COLUMNS, public
from shiftbench.leaderboard.runfolder import RunFolder
from shiftbench.leaderboard.schema import SCHEMA, VERSION, Selection, role_of
from shiftbench.leaderboard.verify import RESULT, disagreements

if TYPE_CHECKING:
    import numpy.typing as npt

FORMAT = "shiftbench bundle"
FORMAT_VERSION = 1
MANIFEST, CONFIGURATION, PROVENANCE = "manifest.json", "configuration.json", "provenance.json"
ROWS, PREDICTIONS = "rows", "predictions"
MEMBER = re.compile(rf"(?:{ROWS}|{PREDICTIONS})/([0-9A-Za-z]{{1,64}})\.parquet")

MOST_BYTES = 2 * 2**30  # of one member
MOST_BYTES_IN_ALL = 32 * 2**30
MOST_TEXT = 64 * 2**20  # bytes of a JSON member
MOST_UNPACKED = 8 * 2**30  # bytes of a Parquet file in memory, as its footer declares
MOST_ROWS = 100_000  # of one run

_CONFIGURATION = (
    *("suite", "task", "task_digest", "data_kind", "backbone", "method", "label", "origin"),
    *("config", "budget", "parents", "seed", "seeded", "shots", "batch_size", "precision"),
    *("search_id", "searched", "details"),
)
_PROVENANCE = (
    *("started", "finished", "shiftbench_version", "git_sha", "git_dirty", "versions"),
    *("hardware", "device", "world_size", "train_fingerprint"),
)

Row = Mapping[str, Any]
SetKey = tuple[str, str, str | None, int | None]
"""Digest of a task, one of its sets, the fingerprint of its data, and the most images of a set."""


@dataclass(frozen=True)
class Bundle:
    """What was exported.

    Attributes:
        run_ids: ancestors included.
        digest: sha256 of the manifest's content.
    """

    run_ids: tuple[str, ...]
    digest: str


@dataclass(frozen=True)
class Taken:
    """What was taken in.

    Attributes:
        new: run ids that were not there.
        known: run ids that were there with the same rows.
    """

    new: tuple[str, ...]
    known: tuple[str, ...]


# Out


def export(results: Path, run_ids: Collection[str], to: Path) -> Bundle:
    """Write a bundle of some runs and of those that they build on.

    Args:
        results: the results folder.
        run_ids: of runs that are done.
        to: the file, in place of what is there; its ending says ``.zip`` or ``.tar``.

    Raises:
        InputError: the ending is another, predictions are missing, or rows do not recompute.
    """
    if to.suffix.lower() not in WRITERS:
        raise InputError(f"{to}: must end in {' or '.join(WRITERS)}")
    members = sorted(with_ancestors(results, run_ids))
    tables = {run_id: public(store.read(results, [run_id])) for run_id in members}
    with TemporaryDirectory() as folder:
        staged: dict[str, Path] = {}

        def stage(name: str) -> Path:
            staged[name] = Path(folder) / str(len(staged))
            return staged[name]

        for run_id, table in tables.items():
            kept = RunFolder.of(results, run_id).predictions
            if not kept.exists():
                raise InputError(f"run {run_id}: there are no predictions of it in {results}")
            told = predictions.read(kept).replace_schema_metadata(None)
            _check_recomputes(table.to_pylist(), told, f"run {run_id}")
            _check_ids(told, f"run {run_id}")
            pq.write_table(table, stage(f"{ROWS}/{run_id}.parquet"), compression="zstd")
            pq.write_table(told, stage(f"{PREDICTIONS}/{run_id}.parquet"), compression="zstd")
        for name, content in summaries(tables).items():
            stage(name).write_bytes(content)
        manifest = make_manifest({name: _measured(path) for name, path in staged.items()})
        stage(MANIFEST).write_bytes(_canonical(manifest))
        try:
            with written_atomically(to) as temporary:
                WRITERS[to.suffix.lower()](temporary, dict(sorted(staged.items())))
        except OSError as error:
            raise InputError(f"{to}: cannot be written ({error.strerror})") from error
    return Bundle(tuple(members), manifest["digest"])


def with_ancestors(results: Path, run_ids: Collection[str]) -> set[str]:
    """The runs and those that they build on, as far as they are done in the results folder."""
    found: set[str] = set()
    left = set(run_ids)
    while left:
        rows = store.read(results, left).to_pylist()
        done = [row for row in rows if row["status"] == "done"]
        found |= {row["run_id"] for row in done}
        left = {parent["run_id"] for row in done for parent in row["parents"]} - found
    return found


def summaries(tables: Mapping[str, pa.Table]) -> dict[str, bytes]:
    """The members that repeat what the rows of each run have in common, by name."""
    firsts = {run_id: table.slice(0, 1).to_pylist()[0] for run_id, table in tables.items()}

    def of(columns: Sequence[str]) -> bytes:
        return _canonical(
            {
                run_id: {name: _plain(row, name) for name in columns}
                for run_id, row in firsts.items()
            }
        )

    return {CONFIGURATION: of(_CONFIGURATION), PROVENANCE: of(_PROVENANCE)}


def _plain(row: Row, name: str) -> Any:
    value = row[name]
    if name in ("started", "finished"):
        return value.isoformat()
    return json.loads(value) if name in JSON_COLUMNS and value is not None else value


def make_manifest(members: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The manifest of members that are given with their ``bytes`` and ``sha256``."""
    content = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "leaderboard": VERSION,
        "members": dict(members),
    }
    return {**content, "digest": hashlib.sha256(_canonical(content)).hexdigest()}


def _canonical(value: Mapping[str, Any]) -> bytes:
    text = json.dumps(value, sort_keys=True, allow_nan=False, ensure_ascii=False, indent=1)
    return f"{text}\n".encode()


def _measured(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {
            "bytes": path.stat().st_size,
            "sha256": hashlib.file_digest(file, "sha256").hexdigest(),
        }


# In


def take(file: Path, results: Path) -> Taken:
    """Check a bundle and put its runs into a results folder: all of them, or none.

    Args:
        file: the bundle.
        results: the results folder, made when it is not there.

    Raises:
        InputError: the file is no bundle, was tampered with, its values do not follow from its
            predictions, or a run is there already with other rows. Nothing has been written.
    """
    if not file.is_file():
        raise InputError(f"{file}: there is no such file")
    with opened(file) as archive:
        checked = Checked.of(file, archive)
        tables = {run_id: checked.rows(run_id) for run_id in checked.run_ids}
        for name, content in summaries(tables).items():
            if checked.read(name, MOST_TEXT) != content:
                raise InputError(f"{file}: {name} does not say what the rows say")
        known = []
        for run_id, table in tables.items():
            here = store.read(results, [run_id])
            if not len(here):
                continue
            if not public(here).equals(table):
                raise InputError(
                    f"{file}: its run {run_id} ({_made(table)}) is not the run {run_id} in "
                    f"{results} ({_made(here)}); nothing was taken in"
                )
            known.append(run_id)
        new = [run_id for run_id in tables if run_id not in known]
        references = _References(results)
        for run_id in new:
            told = checked.predictions(run_id)
            rows = tables[run_id].to_pylist()
            where = f"{file}: {PREDICTIONS}/{run_id}.parquet"
            _check_told(rows, told, where)
            _check_recomputes(rows, told, where)
            references.compare(rows, told, where)
        if new:
            _place(checked, tables, new, results)
    return Taken(tuple(new), tuple(known))


def _place(
    checked: Checked, tables: Mapping[str, pa.Table], new: Sequence[str], results: Path
) -> None:
    """Write all files beside their places, then move them there; take them back if one cannot."""
    store.check_writable(results)
    placed: list[Path] = []
    try:
        with TemporaryDirectory(dir=results, prefix=".import-") as name:
            staging = Path(name)
            for run_id in new:
                told = checked.predictions(run_id)
                predictions.write(RunFolder.of(staging, run_id).predictions, told)
                store.write_run(staging, run_id, tables[run_id])
            for run_id in new:  # rows last: they say that the rest is there
                for source in (
                    RunFolder.of(staging, run_id).predictions,
                    store.folder(staging) / f"{run_id}.parquet",
                ):
                    target = results / source.relative_to(staging)
                    if target.exists():
                        raise InputError(f"{target} is there already; nothing was taken in")
                    target.parent.mkdir(parents=True, exist_ok=True)
                    source.rename(target)
                    placed.append(target)
    except BaseException as error:
        for path in reversed(placed):
            path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise InputError(f"{results}: cannot be written ({error.strerror})") from error
        raise


@dataclass(frozen=True)
class Checked:
    """A bundle whose members are those that its manifest names.

    Attributes:
        file: the bundle.
        archive: that it is.
        members: ``bytes`` and ``sha256`` of each, by name.
    """

    file: Path
    archive: Archive
    members: Mapping[str, Mapping[str, Any]]

    @classmethod
    def of(cls, file: Path, archive: Archive) -> Checked:
        """Check names, sizes and the manifest; contents are checked whenever they are read.

        Raises:
            InputError: one of them is not as it should be.
        """
        names = [name for name, _ in archive.sizes]
        for name in names:
            if name not in (MANIFEST, CONFIGURATION, PROVENANCE) and not MEMBER.fullmatch(name):
                raise InputError(f"{file}: a bundle has no member {name!r}")
        for name, times in Counter(names).items():
            if times > 1:
                raise InputError(f"{file}: has {name} {times} times")
        sizes = dict(archive.sizes)
        large = [name for name, size in sizes.items() if not 0 <= size <= MOST_BYTES]
        if large or sum(sizes.values()) > MOST_BYTES_IN_ALL or len(names) > MOST_MEMBERS:
            raise InputError(f"{file}: {large[0] if large else 'its content'} is too large")
        if MANIFEST not in sizes:
            raise InputError(f"{file}: is no bundle, since it has no {MANIFEST}")
        whole = cls(file, archive, {MANIFEST: {"bytes": sizes[MANIFEST]}})
        members = whole._manifest(whole.read(MANIFEST, MOST_TEXT))
        for name in sorted(members.keys() - sizes.keys()):
            raise InputError(f"{file}: {name} is missing")
        for name in sorted(sizes.keys() - members.keys() - {MANIFEST}):
            raise InputError(f"{file}: {name} is not in the manifest")
        for name, member in members.items():
            if member["bytes"] != sizes[name]:
                raise InputError(
                    f"{file}: {name} has {sizes[name]} bytes, not {member['bytes']} as in the "
                    "manifest"
                )
        return cls(file, archive, members)

    @property
    def run_ids(self) -> list[str]:
        """Of the runs, each of which has rows and predictions."""
        of = {
            kind: {
                match[1]
                for match in map(MEMBER.fullmatch, self.members)
                if match and match[0].startswith(f"{kind}/")
            }
            for kind in (ROWS, PREDICTIONS)
        }
        if of[ROWS] != of[PREDICTIONS] or not of[ROWS]:
            raise InputError(f"{self.file}: not every run has both rows and predictions")
        return sorted(of[ROWS])

    def read(self, name: str, most: int = MOST_BYTES) -> bytes:
        """A member's content, if it is as the manifest says.

        Raises:
            InputError: it is not.
        """
        if name not in self.members:
            raise InputError(f"{self.file}: {name} is missing")
        member = self.members[name]
        size = member["bytes"]
        if size > most:
            raise InputError(f"{self.file}: {name} is too large")
        try:
            with self.archive.open(name) as opened:
                content = opened.read(size + 1)
        except InputError:
            raise
        except BROKEN as error:
            raise InputError(f"{self.file}: {name} cannot be read ({reason(error)})") from error
        digest = hashlib.sha256(content).hexdigest()
        if len(content) != size or member.get("sha256", digest) != digest:
            raise InputError(f"{self.file}: {name} is not what the manifest says")
        return content

    def rows(self, run_id: str) -> pa.Table:
        """The rows of a run, which are a run's rows, whatever their values."""
        name = f"{ROWS}/{run_id}.parquet"
        table = self._table(name, MOST_ROWS)
        if not table.schema.equals(SCHEMA) or table.schema.metadata != SCHEMA.metadata:
            raise InputError(f"{self.file}: {name} has not the columns of the leaderboard")
        table = pa.Table.from_arrays(table.columns, schema=SCHEMA)  # no metadata of the columns
        faults = faults_of_rows(table.to_pylist(), run_id)
        if faults:
            raise InputError(f"{self.file}: {name}: {faults[0]}")
        return table

    def predictions(self, run_id: str) -> pa.Table:
        """The predictions of a run."""
        name = f"{PREDICTIONS}/{run_id}.parquet"
        table = self._table(name, None)
        if table.schema != predictions.SCHEMA or table.schema.metadata:
            raise InputError(f"{self.file}: {name} has not the columns of predictions")
        return table

    def _table(self, name: str, most_rows: int | None) -> pa.Table:
        content = self.read(name)
        try:
            with pq.ParquetFile(pa.BufferReader(content)) as file:
                found = file.metadata
                groups = [found.row_group(i) for i in range(found.num_row_groups)]
                columns = [group.column(i) for group in groups for i in range(group.num_columns)]
                values = max((column.num_values for column in columns), default=0)
                fair = max(1, found.num_rows) * max(predictions.TOP, 64 if most_rows else 0)
                if (
                    sum(column.total_uncompressed_size for column in columns) > MOST_UNPACKED
                    or (most_rows is not None and found.num_rows > most_rows)
                    or values > fair
                ):
                    raise InputError(f"{self.file}: {name} is too large when it is unpacked")
                table = file.read()
                table.validate(full=True)
        except InputError:
            raise
        except (pa.ArrowException, *BROKEN) as error:
            raise InputError(f"{self.file}: {name} cannot be read ({reason(error)})") from error
        for column, field in zip(table.columns, table.schema, strict=True):
            if not field.nullable and column.null_count:
                raise InputError(f'{self.file}: {name} has empty cells in "{field.name}"')
        return table

    def _manifest(self, content: bytes) -> Mapping[str, Mapping[str, Any]]:
        """The members that a manifest names."""
        try:
            found = json.loads(content)
            members = found["members"]
            shaped = all(
                member.keys() == {"bytes", "sha256"} and type(member["bytes"]) is int
                for member in members.values()
            )
            fits = shaped and _canonical(make_manifest(members)) == content
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(f"{self.file}: {MANIFEST} cannot be read") from error
        kind = [found.get(key) for key in ("format", "version", "leaderboard")]
        if kind != [FORMAT, FORMAT_VERSION, VERSION]:
            raise InputError(
                f"{self.file}: is {kind[0]} {kind[1]} with rows of version {kind[2]}; this "
                f"shiftbench takes {FORMAT} {FORMAT_VERSION} with rows of version {VERSION}"
            )
        if not fits:
            raise InputError(f"{self.file}: {MANIFEST} does not fit its digest")
        checked: Mapping[str, Mapping[str, Any]] = members
        return checked


def faults_of_rows(rows: Sequence[Row], run_id: str) -> list[str]:
    """What keeps some rows from being those of one run that is done, whatever their values."""
    if not rows:
        return ["there are none"]
    results = ("value", "low", "high", "n", "interval", "primary", "complete", "role")
    needed = (*results, "variant", "evaluation_set", "metric")
    shared = [name for name in SCHEMA.names if name not in _RESULT_COLUMNS]
    faults = []
    for row in rows:
        if row["run_id"] != run_id or row["status"] != "done" or row["error"] is not None:
            faults.append(f"a row is not of run {run_id}, done")
        elif any(row[name] is None for name in needed):
            faults.append("a row has no result")
        elif row["selection"] not in (None, *get_args(Selection)):
            faults.append(f"there is no selection {row['selection']!r}")
        elif row["role"] != role_of(row["evaluation_set"]):
            faults.append(f"{row['evaluation_set']} is no {row['role']}")
        elif row["complete"] != (row["incomplete_reason"] is None):
            faults.append("a row is complete and incomplete")
        elif any(row[name] != rows[0][name] for name in shared):
            faults.append("the rows are of different runs")
        elif any(_hidden(value) for value in row.values() if isinstance(value, str)):
            faults.append("a text has control characters")
        elif not all(row[name] is None or _is_object(row[name]) for name in JSON_COLUMNS):
            faults.append("a column of JSON objects holds something else")
    keys = Counter(tuple(row[name] for name in RESULT) for row in rows)
    if max(keys.values()) > 1:
        faults.append("the same result is there twice")
    headlines = {key[:3]: 0 for key in keys}
    for row in rows:
        headlines[tuple(row[name] for name in RESULT[:3])] += bool(row["primary"])
    if set(headlines.values()) != {1}:
        faults.append("a set has not one headline metric")
    return faults


_RESULT_COLUMNS = {
    *RESULT,
    *("role", "primary", "value", "low", "high", "interval", "n", "complete"),
    *("incomplete_reason", "evaluation_seconds", "data_fingerprint"),
}


def _hidden(text: str) -> bool:
    return any(unicodedata.category(character) in ("Cc", "Cs", "Cf") for character in text)


def _is_object(text: str) -> bool:
    try:
        found = json.loads(text)
        again = json.dumps(found, sort_keys=True, allow_nan=False, ensure_ascii=False)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and again == text


def _check_told(rows: Sequence[Row], told: pa.Table, where: str) -> None:
    """Predictions of exactly the variants and sets of the rows, of the same examples."""
    parts = {
        (group["variant"], group["set"])
        for group in told.select(["variant", "set"])
        .group_by(["variant", "set"])
        .aggregate([])
        .to_pylist()
    }
    if parts != {(row["variant"], row["evaluation_set"]) for row in rows}:
        raise InputError(f"{where}: has not the variants and sets of the rows")
    lowest = pc.min(pc.min_element_wise(told["label"], told["prediction"])).as_py()
    if lowest is None or lowest < 0:
        raise InputError(f"{where}: a class is negative")
    _check_ids(told, where)
    for name in dict.fromkeys(name for _, name in sorted(parts)):
        of_set = [_labels(told, variant, name) for variant, item in sorted(parts) if item == name]
        for ids, labels in of_set[1:]:
            if not (np.array_equal(ids, of_set[0][0]) and np.array_equal(labels, of_set[0][1])):
                raise InputError(f"{where}: variants have other examples or labels of {name}")


def _check_ids(told: pa.Table, where: str) -> None:
    for beginning in ("/", "~", "\\", "file:"):
        if pc.any(pc.starts_with(told["id"], beginning)).as_py():
            raise InputError(f"{where}: ids of examples are absolute paths")


def _check_recomputes(rows: Sequence[Row], told: pa.Table, where: str) -> None:
    problems = disagreements(rows, told)
    if problems:
        more = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
        raise InputError(f"{where}: {problems[0]}{more}")


class _References:
    """Examples and labels of evaluation sets, from the runs of a results folder."""

    def __init__(self, results: Path) -> None:
        self._results = results
        self._known: dict[SetKey, tuple[str, Any, Any]] = {}
        self._of: dict[SetKey, tuple[str, str]] = {}
        for row in store.read(results).to_pylist():
            if row["status"] == "done":
                file = RunFolder.of(results, row["run_id"]).predictions
                if file.exists():
                    self._of.setdefault(_set_key(row), (row["run_id"], row["variant"]))

    def compare(self, rows: Sequence[Row], told: pa.Table, where: str) -> None:
        """See that a run was scored on the same examples and labels as others; remember its own.

        Of ID validation, which may be a draw of its own, only labels of common examples count.

        Raises:
            InputError: it was not.
        """
        for row in {row["evaluation_set"]: row for row in rows}.values():
            name, key = row["evaluation_set"], _set_key(row)
            ids, labels = _labels(told, row["variant"], name)
            other = self._reference(key)
            if other is None:
                self._known[key] = (f"run {row['run_id']} of the bundle", ids, labels)
                continue
            of, other_ids, other_labels = other
            if name != "id-val" and not np.array_equal(ids, other_ids):
                raise InputError(f"{where}: {name} has not the examples that {of} has of it")
            _, mine, theirs = np.intersect1d(
                ids, other_ids, assume_unique=True, return_indices=True
            )
            if not np.array_equal(labels[mine], other_labels[theirs]):
                raise InputError(f"{where}: {name} has not the labels that {of} has of it")

    def _reference(self, key: SetKey) -> tuple[str, Any, Any] | None:
        if key not in self._known and key in self._of:
            run_id, variant = self._of[key]
            table = predictions.read(RunFolder.of(self._results, run_id).predictions)
            found = _labels(table, variant, key[1])
            self._known[key] = (f"run {run_id} in {self._results}", *found)
        return self._known.get(key)


def _set_key(row: Row) -> SetKey:
    images = json.loads(row["budget"]).get("evaluation_images")
    return row["task_digest"], row["evaluation_set"], row["data_fingerprint"], images


def _labels(
    told: pa.Table, variant: str, evaluation_set: str
) -> tuple[npt.NDArray[np.str_], npt.NDArray[np.int32]]:
    """Ids of one variant and set in their alphabetical order, and their labels."""
    part = told.filter(
        pc.and_(pc.equal(told["variant"], variant), pc.equal(told["set"], evaluation_set))
    )
    ids = np.array(part["id"].to_pylist(), dtype=np.str_)
    order = np.argsort(ids, kind="stable")
    return ids[order], part["label"].to_numpy()[order]


def _made(table: pa.Table) -> str:
    row = table.slice(0, 1).to_pylist()[0]
    return f"{row['label']}, {row['status']}, finished {row['finished'].isoformat(' ', 'seconds')}"
