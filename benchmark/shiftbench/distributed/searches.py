"""The searches of a launch that train trials."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from threading import Thread
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayError

from shiftbench.core.errors import last_line, whole_text
from shiftbench.data.shared import remove_unused
from shiftbench.distributed.pool import WorkerLostError
from shiftbench.distributed.tuning import Slots, run_trials
from shiftbench.execution.display import name_of
from shiftbench.execution.search.record import account
from shiftbench.execution.search.search import search
from shiftbench.execution.search.trial import shared_folder
from shiftbench.leaderboard.runfolder import SearchFolder

if TYPE_CHECKING:
    from shiftbench.distributed.pool import Ended, Events
    from shiftbench.execution.display import Display
    from shiftbench.execution.jobs import Job
    from shiftbench.execution.scheduler import Scheduler
    from shiftbench.execution.search.study import Study
    from shiftbench.execution.setup import Setup


class Searches:
    """Runs searches, each in a thread of its own, which Tune needs.

    All methods are for the thread that makes the calls of ``events``.

    Args:
        setup: for the processes of trials.
        scheduler: grants slots.
        display: shows how far searches are.
        progress: handle of the ``ProgressActor``.
        events: gets a call for whatever happens to a search.
        ended: called with each job that has ended and what it raised.
        lost_a_node: whether the cluster has lost one since a moment of the monotonic clock.
    """

    def __init__(
        self,
        setup: Setup,
        scheduler: Scheduler,
        display: Display,
        progress: Any,
        events: Events,
        ended: Ended,
        lost_a_node: Callable[[float], bool],
    ) -> None:
        self._setup = setup
        self._scheduler = scheduler
        self._display = display
        self._progress = progress
        self._events = events
        self._settle = ended
        self._lost_a_node = lost_a_node
        self._running: dict[Job, Thread] = {}
        self._abandoned = False

    @property
    def running(self) -> Collection[Job]:
        """The searches under way."""
        return self._running.keys()

    @property
    def threads(self) -> list[Thread]:
        """Those of the searches under way, which use Ray until they end."""
        return [*self._running.values()]

    def submit(self, job: Job) -> None:
        """Search for the settings of a run."""
        # A thread that is no daemon would keep an interrupted driver alive.
        self._running[job] = Thread(target=self._run, args=(job,), daemon=True)
        self._running[job].start()

    def abandon(self) -> None:
        """End all that are under way; the same command goes on with them."""
        self._abandoned = True

    def _run(self, job: Job) -> None:
        """The life of a search, in a thread of its own."""
        error: Exception | None = None
        try:
            self._search(job)
        except Exception as caught:  # recorded with the run
            error = caught
            if isinstance(caught.__cause__, RayError):  # Tune knows but one way for trials to die
                here = ray.get_runtime_context().get_node_id()
                error = WorkerLostError(last_line(caught.__cause__), here)
                error.add_note(whole_text(caught).rstrip())
        self._events.put(partial(self._ended, job, error))

    def _search(self, job: Job) -> None:
        run = self._setup.runs[job.run_id]

        def tell(what: Any, text: str) -> None:
            self._events.put(partial(what, text))

        def show(study: str, ended: int, wanted: int, best: float) -> None:
            text = f"{name_of(run)}: {study} {ended}/{wanted}, best {best:.3f}"
            tell(self._display.busy, text)

        def trials(study: Study) -> None:
            run_trials(self._setup, run, study, self._slots(job), show, self._progress)

        tell(self._display.note, f"searching on OOD validation data for {name_of(run)}")
        try:
            search(self._setup, run, trials, partial(tell, self._display.warn))
        finally:
            remove_unused(shared_folder())  # where no process of a trial did so
        if run.search is not None and run.searched:
            found = SearchFolder.of(self._setup.results, run.search.id).read_found()
            tell(self._display.note, f"{name_of(run)}: {account(found)}")

    def _slots(self, job: Job) -> Slots:
        """The part of the cluster that a search may use."""

        def fields(trial: str) -> tuple[str, str, str, str]:
            return "search", job.run_id, trial, ""

        return Slots(
            granted=lambda: self._scheduler.granted(job),
            taken=lambda n: self._events.put(partial(self._scheduler.takes, job, n)),
            begun=lambda trial: self._progress.expect.remote(fields(trial)),
            ended=lambda trial: self._progress.leave.remote(fields(trial)),
            over=lambda: self._abandoned,
            lost_a_node=self._lost_a_node,
        )

    def _ended(self, job: Job, error: Exception | None) -> None:
        del self._running[job]
        self._progress.forget.remote(job.run_id)
        self._settle(job, error)
