"""What a task is in a few words: its sets, their sizes, its metrics, and the terms of its data."""

from __future__ import annotations

from dataclasses import dataclass

from shiftbench.core.errors import InputError
from shiftbench.data.sources.base import Source, Terms
from shiftbench.data.tasks.definition import Task

_NAMED = 10  # shifts that a line names
_NO_DATA = "/no/such/data"  # where sizes are the documented ones, not those of a miniature world


@dataclass(frozen=True)
class Summary:
    """A task in a few words.

    Attributes:
        sets: what it trains on, and its shifts.
        images: numbers of images, as far as they are documented.
        metrics: of the ID test and of the shifts.
        terms: where to get each of its data sets, and on what terms.
    """

    sets: str
    images: str
    metrics: str
    terms: tuple[str, ...]


def summary(task: Task) -> Summary:
    """Return what a task is, without looking at any data."""
    names = list(task.shifts)
    more = f", … ({len(names)} in all)" if len(names) > _NAMED else ""
    shifts = ", ".join(names[: 3 if more else _NAMED]) + more
    parts = (
        (task.train, "training"),
        (task.id_test.source, "ID test"),
        *((item.source, name) for name, item in task.shifts.items()),
    )
    sizes = [(documented_size(source), name) for source, name in parts]
    known = [f"{size:,} {name}" for size, name in sizes[:2] if size is not None]
    shifted = [size for size, _ in sizes[2:]]
    total = sum(size or 0 for size in shifted)
    if total:
        known.append(f"{'at least ' if None in shifted else ''}{total:,} in shifts")
    of_shifts = sorted({item.metric for item in task.shifts.values()} - {task.id_test.metric})
    metrics = task.id_test.metric + (f"; of shifts {', '.join(of_shifts)}" if of_shifts else "")
    distinct = dict.fromkeys(source.terms() for source in task.sources().values())
    return Summary(
        sets=f"{task.train.title} → {shifts or 'no shifts'}",
        images=", ".join(known) or "not documented",
        metrics=metrics,
        terms=tuple(_said(terms) for terms in distinct if terms.home),
    )


def documented_size(source: Source) -> int | None:
    """Return the documented number of images of what a source takes; ``None`` if there is none."""
    try:
        return source.size(_NO_DATA)
    except InputError:
        return None


def _said(terms: Terms) -> str:
    return f"{terms.home} ({terms.licence or 'no licence stated'})"
