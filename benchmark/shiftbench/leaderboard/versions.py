"""Files of the leaderboard that other versions wrote, brought to the columns of this one.

Within a major version columns are only added: one that a file lacks is null where that is allowed,
and one that is not known here is kept as it is. Version 2 is read as well: it differs in names.
"""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from shiftbench.core.errors import InputError
from shiftbench.leaderboard.schema import SCHEMA, VERSION, VERSION_KEY

MAJOR = int(VERSION.partition(".")[0])
OLDEST = 2
_RENAMED_SINCE_2 = {"world": "data_kind", "search_evaluations": "search_trials"}


def major_of(metadata: Mapping[bytes, bytes] | None) -> int | None:
    """The major version that a file's metadata name; ``None`` for no file of the leaderboard."""
    return major_of_text((metadata or {}).get(VERSION_KEY, b"").decode(errors="replace"))


def major_of_text(version: str) -> int | None:
    """The major version of a version such as ``3.0``; ``None`` for what is no version."""
    major = version.partition(".")[0]
    return int(major) if major.isascii() and major.isdigit() else None


def check_readable(major: int, where: str, remedy: str) -> None:
    """Refuse files of versions that are not read.

    Args:
        major: of the file.
        where: its name, for the message.
        remedy: what to do with a file that is too old.

    Raises:
        InputError: the version is too old or too new.
    """
    if OLDEST <= major <= MAJOR:
        return
    way = "update shiftbench" if major > MAJOR else remedy
    raise InputError(
        f"{where}: version {major} of the leaderboard's columns, but this shiftbench reads "
        f"versions {OLDEST} to {MAJOR}; {way}"
    )


def conformed(table: pa.Table, major: int, where: str, remedy: str) -> pa.Table:
    """A table with all columns of ``SCHEMA`` in its order, followed by those not known here.

    Args:
        table: all columns of a file.
        major: version of the file.
        where: its name, for the message.
        remedy: what to do with a file that cannot be read.

    Raises:
        InputError: a column that must not be null is missing, or one is of another type.
    """
    if major == 2:
        table = _from_version_2(table)
    columns, names = [], table.column_names
    for item in SCHEMA:
        if item.name in names:
            try:
                columns.append(table[item.name].cast(item.type))
            except pa.ArrowException as error:
                raise InputError(
                    f'{where}: not a file of the leaderboard: its column "{item.name}" is '
                    f"{table.schema.field(item.name).type}, not {item.type}; {remedy}"
                ) from error
        elif item.nullable:
            columns.append(pa.nulls(len(table), item.type))
        else:
            raise InputError(
                f'{where}: not a file of the leaderboard: it has no column "{item.name}"; {remedy}'
            )
    unknown = [name for name in names if name not in SCHEMA.names]
    schema = with_unknown(table.select(unknown).schema)
    return pa.Table.from_arrays([*columns, *(table[name] for name in unknown)], schema=schema)


def with_unknown(unknown: pa.Schema) -> pa.Schema:
    """``SCHEMA`` with more columns behind its own."""
    more = [pa.field(item.name, item.type) for item in unknown]
    return pa.schema([*SCHEMA, *more], metadata=SCHEMA.metadata)


def _from_version_2(table: pa.Table) -> pa.Table:
    """In version 2, the reference was the method of this name, and some columns had others."""
    names = [_RENAMED_SINCE_2.get(name, name) for name in table.column_names]
    table = table.rename_columns(names)
    if "method" not in names:
        return table
    return table.append_column("reference", pc.equal(table["method"], "zero-shot"))
