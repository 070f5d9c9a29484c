"""Progress for people while runs execute: a table, a bar, and a line for every run that ends."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from shiftbench.core.words import duration
from shiftbench.execution.remaining import Remaining
from shiftbench.execution.under_way import Courses, UnderWay, table_of
from shiftbench.methods.config import TrainingConfig

if TYPE_CHECKING:
    from shiftbench.execution.jobs import Job
    from shiftbench.suite.plan import Run

_TRAININGS = 8  # that a terminal shows
_HEARTBEAT_S = 15  # between two lines where there is no terminal to draw a bar on


class Display:
    """Progress of an execution; use it as a context manager.

    Args:
        console: where to draw.
        runs: all runs by id.
        jobs: the jobs that will be done.
        weights: estimated seconds of each; by default all weigh the same.
    """

    def __init__(
        self,
        console: Console,
        runs: Mapping[str, Run],
        jobs: list[Job],
        weights: Mapping[Job, float] | None = None,
    ) -> None:
        self._console = console
        self._runs = runs
        self._left = Counter(job.run_id for job in jobs)
        self._started = time.monotonic()
        self._last_line = self._started
        self._total = len(jobs)
        self._done = 0
        self._remaining = Remaining(weights or dict.fromkeys(jobs, 1.0))
        self._activity = "starting workers"
        self._progress = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[eta]}"),
            TextColumn("{task.description}"),
            console=console,
        )
        self._bar = self._progress.add_task(self._activity, total=self._total, eta="")
        self._courses = Courses()
        self._live = Live(console=console, get_renderable=self._drawn, refresh_per_second=4)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.stop()

    def note(self, text: str) -> None:
        """Announce something that takes a while."""
        self._activity = text
        self._progress.update(self._bar, description=escape(text))
        self._line(f"[dim]{escape(text)}[/dim]")

    def warn(self, text: str) -> None:
        """Warn of something that looks wrong, while there is time to stop."""
        self._line(f"[red]{escape(text)}[/red]")

    def said(self, run_id: str, line: str) -> None:
        """Print a line that a worker printed at a run, with the run's name in front."""
        self._last_line = time.monotonic()
        text = Text.assemble((f"{name_of(self._runs[run_id])} │ ", "dim"), line)
        self._console.print(text, soft_wrap=True, highlight=False)

    def done(self, job: Job) -> None:
        """Count a job as done; print a line at the last one of a run."""
        if job.run_id not in self._left:  # its run has failed, and all of its jobs were counted
            return
        self._done += 1
        self._left[job.run_id] -= 1
        self._activity = "evaluating"
        self._remaining.done(job)
        if job.stage == "fit":
            self._courses.forget(job.run_id)
        self._progress.update(self._bar, completed=self._done, eta=self._eta())
        if not self._left[job.run_id]:
            self._line(f"[green]done[/green]    {escape(name_of(self._runs[job.run_id]))}")

    def failed(self, run_id: str, reason: str) -> None:
        """Print that a run failed, and why."""
        self._done += self._left.pop(run_id, 0)
        self._remaining.failed(run_id)
        self._courses.forget(run_id)
        self._progress.update(self._bar, completed=self._done, eta=self._eta())
        self._line(f"[red]failed[/red]  {escape(name_of(self._runs[run_id]))}: {escape(reason)}")

    def steps(self, steps: Mapping[str, tuple[int, int]]) -> None:
        """Show the steps done and in all of each training; none done is shown as preparing."""
        now = time.monotonic()
        steps = {run_id: of for run_id, of in steps.items() if self._left.get(run_id)}
        self._courses.steps(steps, now)
        self._remaining.steps(steps)
        eta = self._eta()
        self._progress.update(self._bar, description=escape(self._activity), eta=eta)
        if not self._console.is_terminal and now - self._last_line > _HEARTBEAT_S:
            under_way = [
                f"{run.name} {f'{run.done}/{run.of}' if run.done else run.state}"
                for run in self._trainings()
            ]
            text = " · ".join(under_way) or self._activity
            parts = filter(None, (f"{self._done}/{self._total} jobs", eta, escape(text)))
            self._line(f"[dim]{' · '.join(parts)}[/dim]")

    def busy(self, text: str) -> None:
        """Show the progress of something long, in words."""
        self._activity = text
        self._progress.update(self._bar, description=escape(text))
        if not self._console.is_terminal and time.monotonic() - self._last_line > _HEARTBEAT_S:
            self._line(f"[dim]{escape(text)}[/dim]")

    def _drawn(self) -> RenderableType:
        """The trainings under way, and the bar."""
        trainings = self._trainings()
        if not trainings:
            return self._progress
        more = len(trainings) - _TRAININGS
        parts = [table_of(trainings, _TRAININGS)]
        note = [Text(f"and {more} more", "dim")] if more > 0 else []
        return Group(*parts, *note, self._progress)

    def _trainings(self) -> list[UnderWay]:
        def batch(run_id: str) -> int:
            config = self._runs[run_id].config
            return config.batch_size if isinstance(config, TrainingConfig) else 0

        return self._courses.shown(lambda run_id: name_of(self._runs[run_id]), batch)

    def _eta(self) -> str:
        """How long it still takes, in words; empty until that can be told."""
        left = self._remaining.seconds(time.monotonic() - self._started)
        return "" if left is None else f"about {duration(left)} left"

    def _line(self, text: str) -> None:
        self._last_line = time.monotonic()
        elapsed = self._last_line - self._started
        self._console.print(f"[dim]{elapsed:6.0f} s[/dim]  {text}", soft_wrap=True)


def name_of(run: Run) -> str:
    """A run's name for people: task, backbone, label, shots and seed."""
    shots = "" if run.shots is None else f" · {run.shots}-shot"
    labels = " = ".join(run.labels)
    return f"{run.task.name} · {run.backbone} · {labels}{shots} · seed {run.seed}"
