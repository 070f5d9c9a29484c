"""Reading bundles that nobody need trust: every member is checked when it is read."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from shiftbench.core.errors import InputError, one_line
from shiftbench.evaluation import predictions
from shiftbench.leaderboard.bundles import layout
from shiftbench.leaderboard.bundles.archive import BROKEN, Archive
from shiftbench.leaderboard.bundles.layout import (
    FORMAT,
    FORMAT_VERSION,
    MANIFEST,
    MEMBER,
    PREDICTIONS,
    ROWS,
    RUNS,
    canonical,
    make_manifest,
)
from shiftbench.leaderboard.bundles.row_checks import fault_of_rows
from shiftbench.leaderboard.bundles.unpacking import unpacked
from shiftbench.leaderboard.versions import MAJOR, conformed, major_of, major_of_text


@dataclass(frozen=True)
class Contents:
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
    def of(cls, file: Path, archive: Archive) -> Contents:
        """Check names, sizes and the manifest; contents are checked whenever they are read.

        Raises:
            InputError: one of them is not as it should be.
        """
        names = [name for name, _ in archive.sizes]
        for name in names:
            if name not in (MANIFEST, RUNS) and not MEMBER.fullmatch(name):
                raise InputError(f"{file}: a bundle has no member {name!r}")
        for name, times in Counter(names).items():
            if times > 1:
                raise InputError(f"{file}: has {name} {times} times")
        sizes = dict(archive.sizes)
        large = [
            name
            for name, size in sizes.items()
            if not 0 <= size <= layout.MOST_BYTES
            or not layout.unpacks_fairly(archive.packed[name], size)
        ]
        too_much = sum(sizes.values()) > layout.MOST_BYTES_IN_ALL
        if large or too_much or len(names) > layout.MOST_MEMBERS:
            raise InputError(f"{file}: {large[0] if large else 'its content'} is too large")
        if MANIFEST not in sizes:
            raise InputError(f"{file}: is no bundle, since it has no {MANIFEST}")
        whole = cls(file, archive, {MANIFEST: {"bytes": sizes[MANIFEST]}})
        members = whole._manifest(whole.read(MANIFEST, layout.MOST_TEXT))
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
        """The runs of the bundle, each of which has rows and predictions."""
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

    def read(self, name: str, most: int | None = None) -> bytes:
        """A member's content, if it is as the manifest says, of at most ``most`` bytes.

        Raises:
            InputError: it is not.
        """
        if name not in self.members:
            raise InputError(f"{self.file}: {name} is missing")
        member = self.members[name]
        size = member["bytes"]
        if size > (layout.MOST_BYTES if most is None else most):
            raise InputError(f"{self.file}: {name} is too large")
        try:
            with self.archive.open(name) as opened:
                content = opened.read(size + 1)
        except InputError:
            raise
        except BROKEN as error:
            raise InputError(f"{self.file}: {name} cannot be read ({one_line(error)})") from error
        digest = hashlib.sha256(content).hexdigest()
        if len(content) != size or member.get("sha256", digest) != digest:
            raise InputError(f"{self.file}: {name} is not what the manifest says")
        return content

    def digest(self, name: str) -> str:
        """The first digits of a member's sha256."""
        return str(self.members[name]["sha256"])[: layout.DIGEST]

    def rows(self, run_id: str) -> pa.Table:
        """The rows of a run that is done, whatever their values.

        Raises:
            InputError: they are not.
        """
        name = f"{ROWS}/{run_id}.parquet"
        table = self._table(name, layout.MOST_ROWS)
        if major_of(table.schema.metadata) != MAJOR:
            raise InputError(f"{self.file}: {name} has not rows of version {MAJOR}")
        table = conformed(table, MAJOR, f"{self.file}: {name}", "have it exported again")
        fault = fault_of_rows(table, run_id)
        if fault is not None:
            raise InputError(f"{self.file}: {name}: {fault}")
        return table

    def predictions(self, run_id: str) -> pa.Table:
        """The predictions of a run.

        Raises:
            InputError: the member is something else.
        """
        name = f"{PREDICTIONS}/{run_id}.parquet"
        table = self._table(name, None)
        if predictions.schema_fault(table.schema) or table.schema.metadata:
            raise InputError(f"{self.file}: {name} has not the columns of predictions")
        return predictions.completed(table)

    def _table(self, name: str, most_rows: int | None) -> pa.Table:
        content = self.read(name)
        try:
            table = unpacked(content, most_rows)
            table.validate(full=True)
        except InputError as error:
            raise InputError(f"{self.file}: {name} {error}") from error
        except (pa.ArrowException, *BROKEN) as error:
            raise InputError(f"{self.file}: {name} cannot be read ({one_line(error)})") from error
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
            kind = [found.get(key) for key in ("format", "version", "leaderboard")]
            fits = shaped and canonical(make_manifest(members, kind[2])) == content
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(f"{self.file}: {MANIFEST} cannot be read") from error
        if kind[:2] != [FORMAT, FORMAT_VERSION] or major_of_text(str(kind[2])) != MAJOR:
            raise InputError(
                f"{self.file}: is {kind[0]} {kind[1]} with rows of version {kind[2]}; this "
                f"shiftbench takes {FORMAT} {FORMAT_VERSION} with rows of version {MAJOR}: have "
                "it exported again"
            )
        if not fits:
            raise InputError(f"{self.file}: {MANIFEST} does not fit its digest")
        checked: Mapping[str, Mapping[str, Any]] = members
        return checked
