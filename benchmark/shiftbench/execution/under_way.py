"""Runs under way as a table for a terminal, of ``run`` and ``status --watch``. No torch, no ray."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

SHOWN = 20
"""Runs that a terminal shows."""


@dataclass(frozen=True)
class UnderWay:
    """A run under way; ``None`` is unknown or does not apply.

    Attributes:
        name: for people.
        state: in a word.
        done: steps of a training, or pairs of a variant and a set.
        of: in all.
        images_per_second: of the training.
        seconds_left: until the training ends.
        by: whoever does it.
        results: the results that it is in.
    """

    name: str
    state: str
    done: int | None = None
    of: int | None = None
    images_per_second: float | None = None
    seconds_left: float | None = None
    by: str | None = None
    results: str | None = None


@dataclass
class _Course:
    """Steps of a training that were heard of: the first and the last, when, and in all."""

    first: int
    since: float
    step: int
    at: float
    total: int

    @property
    def speed(self) -> float | None:
        """Steps in a second; ``None`` before the second time that it is heard of."""
        seconds, steps = self.at - self.since, self.step - self.first
        return steps / seconds if steps and seconds > 0 else None

    @property
    def left(self) -> float | None:
        """Seconds until it ends, at that speed."""
        return None if self.speed is None else (self.total - self.step) / self.speed


class Courses:
    """How fast trainings are, from what is heard of their steps."""

    def __init__(self) -> None:
        self._of: dict[str, _Course] = {}

    def steps(self, steps: Mapping[str, tuple[int, int]], now: float) -> None:
        """Trainings are so far: steps done and in all, by run; none done is prepared still."""
        for run_id, (step, total) in steps.items():
            course = self._of.get(run_id)
            if course is None or not course.first or step < course.step:  # begins, or once more
                self._of[run_id] = _Course(step, now, step, now, total)
            else:
                course.step, course.at = step, now
            if step >= total:
                self.forget(run_id)

    def forget(self, run_id: str) -> None:
        """A training has ended."""
        self._of.pop(run_id, None)

    def left(self, run_id: str) -> float | None:
        """Seconds until a training ends; ``None`` if nobody knows yet."""
        course = self._of.get(run_id)
        return None if course is None else course.left

    def shown(self, name: Callable[[str], str], batch: Callable[[str], int]) -> list[UnderWay]:
        """The trainings under way.

        Args:
            name: of a run for people.
            batch: images of a step of a run.
        """
        found = []
        for run_id, course in [*self._of.items()]:  # a terminal is drawn by another thread
            speed = course.speed
            found.append(
                UnderWay(
                    name(run_id),
                    "training" if course.step else "preparing",
                    course.step,
                    course.total,
                    None if speed is None else speed * batch(run_id),
                    course.left,
                )
            )
        return found


def table_of(runs: Sequence[UnderWay], most: int = SHOWN) -> Table:
    """A line for each run; columns of which nothing is known are left out."""
    from rich.markup import escape
    from rich.table import Table

    shown = [(run, _cells(run)) for run in runs[:most]]
    names = ("run", "state", "progress", "images/s", "left", "by", "results")
    filled = [i for i in range(len(names)) if any(cells[i] for _, cells in shown)]
    table = Table(box=None, pad_edge=False, header_style="dim")
    for i in filled:
        right = names[i] in ("progress", "images/s", "left")
        table.add_column(names[i], justify="right" if right else "left", no_wrap=i > 0)
    for _, cells in shown:
        table.add_row(*(escape(cells[i]) for i in filled))
    return table


def _cells(run: UnderWay) -> tuple[str, ...]:
    left, speed = run.seconds_left, run.images_per_second
    return (
        run.name,
        run.state,
        "" if run.done is None or run.of is None else f"{run.done:,}/{run.of:,}",
        "" if speed is None else f"{speed:,.0f}",
        "" if left is None else clock(left),
        run.by or "",
        run.results or "",
    )


def clock(seconds: float) -> str:
    """Hours, minutes and seconds."""
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"
