"""Hugging Face-style Parquet: ``image: {bytes, path}``, ``label``, local or on S3 or GCS."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING, Annotated, Any, Literal
from unicodedata import normalize

import numpy as np
import numpy.typing as npt
from pydantic import Field

from shiftbench.core import locations
from shiftbench.core.errors import InputError, first_line
from shiftbench.data.images import ImageSet
from shiftbench.data.sources.custom import CustomSource
from shiftbench.data.sources.files import decode, fingerprint
from shiftbench.data.sources.shards import distinct_names, find_files

if TYPE_CHECKING:
    import pyarrow as pa
    from PIL.Image import Image

Value = str | int | float | bool
Filter = Mapping[str, Value | tuple[Value, ...]]

IMAGE = "image"
"""The column of encoded images where none is named, as the Hugging Face Hub calls it."""

CACHED_BYTES = 256 * 2**20
"""Encoded images that one process keeps of the row groups it has read last."""


class Parquet(CustomSource):
    """One Parquet file or several, in the order of their names.

    Labels are whole numbers (or false and true), named in the schema's ``huggingface`` metadata or
    not at all, or texts, whose sorted distinct values, composed (NFC), are the names.
    """

    kind: Literal["parquet"] = "parquet"
    path: Annotated[
        Annotated[str, Field(min_length=1)] | tuple[Annotated[str, Field(min_length=1)], ...],
        Field(
            min_length=1,
            description="a file, a folder of files of one split, a pattern such as "
            "data/train-*.parquet, or a list of these; relative to the data root, or URIs",
        ),
    ]
    split: Annotated[
        str | None,
        Field(description="only files of this split, by their names: train, validation, test, …"),
    ] = None
    image: Annotated[str, Field(description="column of encoded images: {bytes, path} or bytes")] = (
        IMAGE
    )
    label: Annotated[str, Field(description="column of labels")] = "label"
    where: Annotated[
        dict[str, Value | tuple[Value, ...]],
        Field(
            default_factory=dict,
            description="only rows whose columns have these values: {domain: sketch}",
        ),
    ]
    region: Annotated[
        str | None, Field(description="column that the worst-region metric groups by")
    ] = None

    def read(self, root: str) -> ImageSet:
        """Return the rows that ``where`` keeps; an id is a file's name and a row's number."""
        files = self._files(root)
        tables = [self._columns(file) for file in files]
        kept = [_kept(file, table, self.where) for file, table in zip(files, tables, strict=True)]
        labels, _ = self._labels(files, tables)
        starts = np.cumsum([0, *(len(table) for table in tables)])
        ids = [
            f"{name}/{row}"
            for name, rows in zip(distinct_names(files), kept, strict=True)
            for row in rows
        ]
        if not ids:
            raise InputError(f"{self.title}: no row has {self.where}")
        positions = np.concatenate(
            [start + rows for start, rows in zip(starts[:-1], kept, strict=True)]
        )
        metadata: dict[str, npt.NDArray[np.generic]] = {}
        if self.region is not None:
            regions = np.concatenate([_texts(self.title, t, self.region) for t in tables])
            metadata["region"] = regions[positions]
        digests = [locations.file_digest(file) for file in files]
        return ImageSet(
            ids=np.array(ids, np.str_),
            labels=labels[positions],
            images=ParquetImages(tuple(files), tuple(digests), self.image, starts, positions),
            fingerprint=fingerprint(*digests, self._settings()),
            metadata=metadata,
        )

    def label_names(self, root: str) -> tuple[str, ...] | None:
        """Return names from the metadata, or the distinct texts of the label column in all rows."""
        files = self._files(root)
        return self._labels(files, [self._columns(file) for file in files])[1]

    @property
    def title(self) -> str:
        """Kind, path and split."""
        path = self.path if isinstance(self.path, str) else ", ".join(self.path)
        return f"{self.kind} {path}" + (f" ({self.split})" if self.split else "")

    def _settings(self) -> str:
        """Return what the files' digests leave open: the rows, their labels and their pixels."""
        # The default column is left out, so that fingerprints are as they were before it counted.
        told = {"where", "label"} | ({"image"} if self.image != IMAGE else set())
        return self.model_dump_json(include=told)

    def _files(self, root: str) -> list[str]:
        paths = (self.path,) if isinstance(self.path, str) else self.path
        return find_files(root, paths, self.split, self.title)

    def _columns(self, file: str) -> pa.Table:
        """Read all columns but the images."""
        wanted = [self.label, *self.where, *([self.region] if self.region else [])]
        return _read_columns(file, tuple(dict.fromkeys(wanted)), self.image)

    def _labels(
        self, files: list[str], tables: list[pa.Table]
    ) -> tuple[npt.NDArray[np.int64], tuple[str, ...] | None]:
        """Return the labels of all rows (n,) int64, and their names."""
        import pyarrow as pa
        from pyarrow import types

        try:
            column = pa.chunked_array([chunk for t in tables for chunk in t[self.label].chunks])
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise InputError(f'{self.title}: column "{self.label}": {first_line(error)}') from error
        if column.null_count:
            raise InputError(f'{self.title}: column "{self.label}" has {column.null_count} nulls')
        if types.is_string(column.type) or types.is_large_string(column.type):
            texts = [normalize("NFC", text) for text in column.to_pylist()]
            names, codes = np.unique(np.array(texts, np.str_), return_inverse=True)
            return codes.astype(np.int64), tuple(names.tolist())
        if types.is_boolean(column.type):
            column = column.cast(pa.int64())
        if not types.is_integer(column.type):
            raise InputError(
                f'{self.title}: column "{self.label}" is of type {column.type}, '
                "not whole numbers, texts or booleans"
            )
        labels = column.to_numpy().astype(np.int64)
        names_of = {
            _names_in(file, table.schema, self.label)
            for file, table in zip(files, tables, strict=True)
        }
        if len(names_of) > 1:
            raise InputError(f"{self.title}: the files name their labels differently")
        (found,) = names_of
        if len(labels) and (labels.min() < 0 or (found and labels.max() >= len(found))):
            raise InputError(
                f'{self.title}: column "{self.label}" goes from {labels.min()} to {labels.max()}, '
                f"but the file names {len(found or ())} labels"
            )
        return labels, found


def _names_in(file: str, schema: pa.Schema, label: str) -> tuple[str, ...] | None:
    """Return the names that the ``huggingface`` metadata give a column of labels."""
    text = (schema.metadata or {}).get(b"huggingface")
    if text is None:
        return None
    try:
        names = json.loads(text)["info"]["features"].get(label, {}).get("names")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f'{file}: its "huggingface" metadata cannot be read: {first_line(error)}'
        ) from error
    return None if names is None else tuple(str(name) for name in names)


def _texts(title: str, table: pa.Table, column: str) -> npt.NDArray[np.str_]:
    """Return the values of a column as texts."""
    from pyarrow import types

    values = table[column]
    if types.is_nested(values.type):
        raise InputError(f'{title}: column "{column}" is of type {values.type}, not single values')
    if values.null_count:
        raise InputError(f'{title}: column "{column}" has {values.null_count} nulls')
    return np.array([str(value) for value in values.to_pylist()], np.str_)


def _kept(file: str, table: pa.Table, where: Filter) -> npt.NDArray[np.int64]:
    """Return the numbers of the rows whose columns have the wanted values."""
    import pyarrow as pa
    import pyarrow.compute as pc

    mask = np.ones(len(table), bool)
    for name, value in where.items():
        wanted = list(value) if isinstance(value, tuple) else [value]
        column = table[name]
        try:
            values = pa.array(wanted, column.type)
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
            raise InputError(
                f'{file}: where: column "{name}" is {column.type}: {first_line(error)}'
            ) from error
        mask &= pc.is_in(column, value_set=values).to_numpy().astype(bool)
    return np.flatnonzero(mask).astype(np.int64)


@lru_cache(maxsize=64)
def _footer(file: str, digest: str) -> pa.parquet.FileMetaData:
    del digest
    with _parquet(file) as parquet:
        return parquet.metadata


def _parquet(file: str) -> pa.parquet.ParquetFile:
    """Open a Parquet file.

    Raises:
        InputError: it is none.
    """
    import pyarrow as pa
    from pyarrow import parquet

    system, path = locations.filesystem(file)
    try:
        return parquet.ParquetFile(path, filesystem=system)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{file}: cannot be read as Parquet: {first_line(error)}") from error


def _read_columns(file: str, wanted: tuple[str, ...], image: str) -> pa.Table:
    import pyarrow as pa

    with _parquet(file) as parquet:
        names = parquet.schema_arrow.names
        for name in (image, *wanted):
            if name not in names:
                raise InputError(f'{file}: there is no column "{name}"; it has {", ".join(names)}')
        try:
            return _simple(parquet.read(columns=list(wanted)))
        except (pa.ArrowInvalid, OSError) as error:
            raise InputError(f"{file}: cannot be read as Parquet: {first_line(error)}") from error


def _simple(table: pa.Table) -> pa.Table:
    """Return a table with dictionaries and views as the plain columns that they stand for."""
    import pyarrow as pa

    for position, field in enumerate(table.schema):
        plain = _simple_type(field.type)
        if plain != field.type:
            column = table.column(position).cast(plain)
            table = table.set_column(position, pa.field(field.name, plain), column)
    return table


def _simple_type(kind: pa.DataType) -> pa.DataType:
    """Return the type of the same values without a dictionary, and without views."""
    import pyarrow as pa
    from pyarrow import types

    if types.is_dictionary(kind):
        return _simple_type(kind.value_type)
    if types.is_string_view(kind):
        return pa.large_string()
    return pa.large_binary() if types.is_binary_view(kind) else kind


class _RowGroups:
    """A cache of the encoded images of the row groups read last, up to a size; for any thread."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = Lock()  # also keeps two threads from reading the same group
        self._held: OrderedDict[tuple[str, str, str, int], pa.ChunkedArray] = OrderedDict()

    def get(self, file: str, digest: str, column: str, group: int) -> pa.ChunkedArray:
        key = (file, digest, column, group)
        with self._lock:
            if key not in self._held:
                self._held[key] = _read_images(file, column, group)
                while len(self._held) > 1 and self._bytes() > self._limit:
                    self._held.popitem(last=False)
            self._held.move_to_end(key)
            return self._held[key]

    def _bytes(self) -> int:
        return sum(images.nbytes for images in self._held.values())


_row_groups = _RowGroups(CACHED_BYTES)


def _read_images(file: str, column: str, group: int) -> pa.ChunkedArray:
    """Read the binary column of encoded images of one row group."""
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import types

    with _parquet(file) as parquet:
        try:
            images = parquet.read_row_group(group, columns=[column])[column]
        except (pa.ArrowInvalid, OSError) as error:
            raise InputError(
                f"{file}: row group {group} cannot be read: {first_line(error)}"
            ) from error
    if types.is_struct(images.type):
        if images.type.get_field_index("bytes") < 0:
            raise InputError(f'{file}: column "{column}" has no field "bytes"')
        images = pc.struct_field(images, "bytes")
    images = images.cast(_simple_type(images.type))
    if not (types.is_binary(images.type) or types.is_large_binary(images.type)):
        raise InputError(f'{file}: column "{column}" is {images.type}, not encoded images')
    return images


@dataclass(frozen=True, eq=False)
class ParquetImages:
    """Encoded images in Parquet files, decoded on access, read a row group at a time.

    Attributes:
        files: their locations.
        digests: of the files, so that a changed file is read again.
        column: of the images.
        starts: (number of files + 1,) the number of rows before each file.
        positions: (n,) rows of the images, counted over all files.
    """

    files: tuple[str, ...]
    digests: tuple[str, ...]
    column: str
    starts: npt.NDArray[np.int64]
    positions: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: int) -> Image:
        return decode(*self._bytes_and_name(index))

    def encoded(self, index: int) -> bytes:
        """The bytes of the image at ``index``, as they are in the file."""
        return self._bytes_and_name(index)[0]

    def _bytes_and_name(self, index: int) -> tuple[bytes, str]:
        position = int(self.positions[index])
        number = int(np.searchsorted(self.starts, position, side="right")) - 1
        file, digest = self.files[number], self.digests[number]
        row = position - int(self.starts[number])
        ends = _group_ends(file, digest)
        group = int(np.searchsorted(ends, row, side="right"))
        first = int(ends[group - 1]) if group else 0
        data: Any = _row_groups.get(file, digest, self.column, group)[row - first].as_py()
        if data is None:
            raise InputError(f"{file}: row {row} has no image")
        return data, f"{file}: row {row}"


@lru_cache(maxsize=64)
def _group_ends(file: str, digest: str) -> npt.NDArray[np.int64]:
    """Return for every row group the number of rows up to its end."""
    metadata = _footer(file, digest)
    sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    return np.cumsum(sizes, dtype=np.int64)
