"""The runs that rows belong to: what they build on, what they cost, what computed them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from shiftbench.core.plugins import BUILTIN
from shiftbench.leaderboard.columns import digest
from shiftbench.leaderboard.schema import ELSEWHERE, IMPORTED, Row, RunInfo

UNKNOWN_METHOD = "?"
"""Stands for the method of a parent that is not in the table."""


class Runs:
    """The runs of a table by id, of which it keeps one row each.

    Attributes:
        by_id: the first row of each run, in the order of the rows.
    """

    def __init__(self, rows: Iterable[Row]) -> None:
        self.by_id: dict[str, Row] = {}
        for row in rows:
            self.by_id.setdefault(row.run_id, row)
        self._configurations: dict[str, str] = {}
        self._marks: dict[str, str] | None = None

    def varies(self, run_id: str) -> bool:
        """True if the seed can change the run: its method uses it, or that of an ancestor does."""
        if run_id not in self.by_id:
            return True
        return self.by_id[run_id].seeded or any(map(self.varies, self._parents(run_id)))

    def parent_methods(self, run_id: str) -> tuple[str, ...]:
        """Registered names of the methods that a run builds on directly."""
        parents = (self.by_id.get(parent) for parent in self._parents(run_id))
        return tuple(UNKNOWN_METHOD if row is None else row.method for row in parents)

    def configuration(self, run_id: str) -> str:
        """A digest of all that makes a run but its seed; an unknown run stands for itself.

        Like a run's identity, it does not depend on what suites call the run and its parents.
        """
        if run_id not in self.by_id:
            return run_id
        if run_id not in self._configurations:
            row = self.by_id[run_id]
            self._configurations[run_id] = digest(
                {
                    "task_digest": row.task_digest,
                    "data_kind": row.data_kind,
                    "backbone": row.backbone,
                    "shots": row.shots,
                    "method": row.method,
                    "config": settings(row.config),
                    "budget": settings(row.budget),
                    "origin": None if row.origin.startswith(f"{BUILTIN} ") else row.origin,
                    "parents": [self.configuration(parent) for parent in self._parents(run_id)],
                }
            )
        return self._configurations[run_id]

    def mark(self, run_id: str) -> str | None:
        """What tells a run from another of its label, configuration and seed.

        Such runs differ in what computed them, which is a part of their identity. They are not
        averaged, and none stands for the other: the mark is the code that computed them, or where
        that does not tell them apart their id. ``None`` where each seed of the configuration has
        one run.
        """
        if self._marks is None:
            self._marks = self._marks_of_all()
        return self._marks.get(run_id)

    def family(self, run_id: str) -> list[Row]:
        """The first row of a run, then that of each of its ancestors, as far as they are known."""
        others = sorted(self._family(run_id) - {run_id})
        return [self.by_id[member] for member in (run_id, *others) if member in self.by_id]

    def cost_seconds(self, run_id: str) -> float | None:
        """Device seconds to train a run and its ancestors, and of each of their searches once."""
        total = 0.0
        searches: dict[str, float] = {}
        for member in self._family(run_id):
            row = self.by_id.get(member)
            if row is None or row.train_seconds is None:
                return None
            total += row.train_seconds * (row.world_size or 1)
            if row.search_id is not None:
                searches[row.search_id] = row.search_seconds or 0.0
        return total + sum(searches.values())

    def _marks_of_all(self) -> dict[str, str]:
        alike: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
        for run_id, row in self.by_id.items():
            alike[row.task, row.label, self.configuration(run_id)].append(row)
        marks: dict[str, str] = {}
        for rows in alike.values():
            if not _repeats_a_seed(rows):
                continue
            by_code: dict[str, list[Row]] = defaultdict(list)
            for row in rows:
                by_code[_code(row)].append(row)
            for code, of_code in by_code.items():
                for row in of_code:
                    marks[row.run_id] = f"#{row.run_id}" if _repeats_a_seed(of_code) else code
        return marks

    def _parents(self, run_id: str) -> Sequence[str]:
        return [parent.run_id for parent in self.by_id[run_id].parents]

    def _family(self, run_id: str) -> set[str]:
        """A run and all its ancestors."""
        known = self._parents(run_id) if run_id in self.by_id else []
        return {run_id}.union(*(self._family(parent) for parent in known))


def settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration without the labels of parents: they are names only."""
    return {key: value for key, value in values.items() if key not in ("parent", "parents")}


def asked(run: RunInfo) -> str:
    """A digest of what is asked of a run: all but its seed, and what it builds on."""
    return digest(
        {"task": run.task_digest, "config": settings(run.config), "budget": settings(run.budget)}
    )


NOT_RUN = (IMPORTED, ELSEWHERE)
"""Origins that printers mark: what was not trained here."""


def provenance(run: RunInfo) -> str:
    """Version, commit and device that computed a run, or the file it is from, for people."""
    if (source := imported_from(run)) is not None:
        return source
    device = run.device or "unknown device"
    workers = f" × {run.world_size}" if (run.world_size or 1) > 1 else ""
    return f"{_code(run)}, {device}{workers}"


def imported_file(run: RunInfo) -> tuple[str, str] | None:
    """Name and SHA-256 of the file that a run's predictions, or its weights, come from."""
    if run.origin == ELSEWHERE:
        files = run.details.get("files") or {None: None}  # a run that has failed has none
        ((name, sha256),) = files.items()
        return str(name), str(sha256)
    if run.origin != IMPORTED:
        return None
    return str(run.details.get(IMPORTED)), str(run.details.get("sha256"))


def imported_from(run: RunInfo) -> str | None:
    """The file that a run's predictions or weights come from, for people; ``None`` for others."""
    if (found := imported_file(run)) is None:
        return None
    name, sha256 = found
    what = "imported" if run.origin == IMPORTED else "weights made elsewhere,"
    return f"{what} from {name}, sha256 {sha256}"


def _code(run: RunInfo) -> str:
    commit = f"git {run.git_sha[:7]}" if run.git_sha else "no git commit"
    dirty = " with changes" if run.git_dirty else ""
    return f"shiftbench {run.shiftbench_version}, {commit}{dirty}"


def _repeats_a_seed(rows: Sequence[Row]) -> bool:
    return len({row.seed for row in rows}) < len(rows)
