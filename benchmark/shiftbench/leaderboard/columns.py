"""Tables whose rows are dataclasses: every field is annotated with a ``Column``.

From these annotations follow the Arrow schema, with a description and a unit in the metadata of
every field, the reading and writing of rows, and the page of columns in the docs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from types import NoneType
from typing import Any, Literal, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

import pyarrow as pa
import pyarrow.compute as pc

Kind = TypeVar("Kind")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_ARROW = {
    str: pa.string(),
    bool: pa.bool_(),
    int: pa.int64(),
    float: pa.float64(),
    datetime: pa.timestamp("ms", tz="UTC"),
    Mapping: pa.string(),  # JSON
    Literal: pa.string(),
}
_WORDS = {
    str: "text",
    bool: "true or false",
    int: "integer",
    float: "number",
    datetime: "time",
    Mapping: "JSON object",
    Literal: "text",
}


@dataclass(frozen=True)
class Column:
    """The documentation of a field, and what others may see of it.

    Attributes:
        description: one sentence for readers of the table.
        unit: of a number.
        cleaned: true if the text may hold absolute paths or credentials, which are taken out of
            rows that are given to others. JSON objects always are cleaned.
        public_keys: of a JSON object, the keys that are given to others; ``None`` for all.
    """

    description: str
    unit: str | None = None
    cleaned: bool = False
    public_keys: tuple[str, ...] | None = None


class _Annotation(NamedTuple):
    """The annotation of one column.

    Attributes:
        plain: its Python type; of ``Mapping[str, Any]`` and literals the type without arguments.
        item: for lists, the named tuple of text, or the text, that they are of.
        nullable: true if it may be null, or some kind of row lacks it.
        column: its documentation.
    """

    plain: Any
    item: Any
    nullable: bool
    column: Column

    @property
    def arrow(self) -> pa.DataType:
        """The Arrow type."""
        if self.plain is tuple and self.item is str:
            return pa.list_(pa.string())
        if self.plain is tuple:
            of = [pa.field(name, pa.string(), nullable=False) for name in self.item._fields]
            return pa.list_(pa.struct(of))
        return _ARROW[self.plain]

    def item_of(self, stored: Any) -> Any:
        """An item of a list, as rows have it."""
        return stored if self.item is str else self.item(**stored)

    @property
    def words(self) -> str:
        """The type for people."""
        if self.plain is tuple and self.item is str:
            return "list of text"
        if self.plain is tuple:
            return f"list of ({', '.join(self.item._fields)})"
        return _WORDS[self.plain]


class Columns:
    """The columns of a table that has one or several kinds of rows.

    Args:
        kinds: dataclasses. A column that one of them lacks is null in its rows.
        metadata: of the Arrow schema.

    Attributes:
        schema: the Arrow schema.
        documentation: of every column, in the table's order.
        json: names of the columns whose text is a JSON object.
    """

    def __init__(self, *kinds: type, metadata: Mapping[bytes, str]) -> None:
        hints = [get_type_hints(kind, include_extras=True) for kind in kinds]
        names = dict.fromkeys(item.name for kind in kinds for item in fields(kind))
        self._annotations = {
            name: _annotation([of[name] for of in hints if name in of], len(kinds))
            for name in names
        }
        self.documentation = {name: item.column for name, item in self._annotations.items()}
        self.json = tuple(name for name, of in self._annotations.items() if of.plain is Mapping)
        self.schema = pa.schema(
            [
                pa.field(name, of.arrow, of.nullable, _metadata(of.column))
                for name, of in self._annotations.items()
            ],
            metadata=metadata,
        )

    def read(self, kind: type[Kind], table: pa.Table) -> list[Kind]:
        """The rows of a table as instances of ``kind``, in its order.

        Equal values of a column are one Python object, so a configuration that many rows share is
        parsed once.

        Args:
            kind: a dataclass whose fields are columns, such as one of the kinds.
            table: with all these columns; others are ignored.
        """
        if not len(table):
            return []
        names = [item.name for item in fields(kind)]  # type: ignore[arg-type]
        columns = [self._loaded(name, table[name]) for name in names]
        return [
            kind(**dict(zip(names, values, strict=True))) for values in zip(*columns, strict=True)
        ]

    def required(self, kind: type) -> tuple[str, ...]:
        """The columns that may not be null in rows of a kind."""
        hints = get_type_hints(kind, include_extras=True)
        return tuple(
            item.name for item in fields(kind) if not _annotation([hints[item.name]], 1).nullable
        )

    def table(self, rows: Sequence[object]) -> pa.Table:
        """The table of these rows."""
        columns = [
            pa.array([_stored(getattr(row, name, None)) for row in rows], of.arrow)
            for name, of in self._annotations.items()
        ]
        return pa.Table.from_arrays(columns, schema=self.schema)

    def page(self) -> str:
        """The columns as a Markdown table."""
        lines = ["| column | type | unit | meaning |", "|---|---|---|---|"]
        for name, of in self._annotations.items():
            null = ", or null" if of.nullable else ""
            unit = of.column.unit or ""
            lines.append(f"| `{name}` | {of.words}{null} | {unit} | {of.column.description} |")
        return "\n".join(lines) + "\n"

    def _loaded(self, name: str, column: pa.ChunkedArray) -> list[Any]:
        """The values of a column in Python; equal ones are one object."""
        of = self._annotations[name]
        if of.plain is tuple:
            known: dict[tuple[Any, ...], tuple[Any, ...]] = {}
            lists = (
                None if items is None else tuple(map(of.item_of, items))
                for items in column.to_pylist()
            )
            return [None if items is None else known.setdefault(items, items) for items in lists]
        if of.plain is datetime:  # with a time zone, pyarrow would import pandas
            column = column.cast(pa.int64())
        encoded = column.combine_chunks().dictionary_encode()
        values = encoded.dictionary.to_pylist()
        if of.plain is datetime:
            values = [_EPOCH + timedelta(milliseconds=value) for value in values]
        if of.plain is Mapping:
            values = [json.loads(text) for text in values]
        return [None if k is None else values[k] for k in encoded.indices.to_pylist()]


def where(table: pa.Table, column: str, value: str) -> pa.Table:
    """The rows whose column of text has a value.

    Where all have it or none, nothing is compared: that would import pandas, which takes a good
    part of a run that finds nothing to do.
    """
    values = {*table[column].to_pylist()}
    if value not in values:
        return table.slice(0, 0)
    return table if len(values) == 1 else table.filter(pc.equal(table[column], value))


def json_text(value: Mapping[str, Any]) -> str:
    """The one text of a JSON object.

    Raises:
        ValueError: it holds a number that is not finite.
    """
    return json.dumps(value, sort_keys=True, allow_nan=False, ensure_ascii=False)


def digest(value: Mapping[str, Any]) -> str:
    """12 hex digits that stand for a JSON value, whatever the order of its keys."""
    return hashlib.sha256(json_text(value).encode()).hexdigest()[:12]


def _annotation(hints: Sequence[Any], kinds: int) -> _Annotation:
    """The annotation of a column, from its hints in those of ``kinds`` that have it."""
    (column,) = hints[0].__metadata__
    nullable = len(hints) < kinds
    hint = hints[0].__origin__
    alternatives = get_args(hint)
    if NoneType in alternatives and get_origin(hint) is not Literal:
        (hint,) = (item for item in alternatives if item is not NoneType)
        nullable = True
    plain = get_origin(hint) or hint
    return _Annotation(plain, get_args(hint)[0] if plain is tuple else None, nullable, column)


def _metadata(column: Column) -> dict[str, str]:
    return {"description": column.description} | ({"unit": column.unit} if column.unit else {})


def _stored(value: Any) -> Any:
    """A value as Arrow takes it."""
    match value:
        case tuple():
            return [item if isinstance(item, str) else item._asdict() for item in value]
        case Mapping():
            return json_text(value)
        case _:
            return value
