"""The jobs of a launch, and the one place that records how each of them ended. No ray, no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from functools import partial
from typing import TYPE_CHECKING

from shiftbench.core.errors import InputError, disk_full, last_line, whole_text
from shiftbench.core.files import remove, written_atomically
from shiftbench.core.mirror import refresh
from shiftbench.execution.display import name_of
from shiftbench.execution.jobs import Agenda
from shiftbench.execution.runinfo import run_info
from shiftbench.leaderboard import store
from shiftbench.leaderboard.golden import golden_faults
from shiftbench.leaderboard.runfolder import RunFolder, SearchFolder
from shiftbench.leaderboard.schema import failed, rows
from shiftbench.methods.config import TrainingConfig

MUCH_WAITED = 0.05
"""The part of a training's time that a GPU may wait for data without a word."""

if TYPE_CHECKING:
    from shiftbench.execution.display import Display
    from shiftbench.execution.jobs import Job
    from shiftbench.execution.setup import Setup
    from shiftbench.execution.sharing import Sharing


class Work:
    """An executor's input: jobs as they become ready, and ``settle`` for those that have ended.

    Args:
        setup: for the processes that do the jobs.
        graph: the jobs, each with those that it waits for.
        todo: ids of the runs to finish; others in the graph are only to be fitted again.
        display: shows what happens.
        sharing: with other processes that do runs of the same results folder.
    """

    def __init__(
        self,
        setup: Setup,
        graph: Mapping[Job, set[Job]],
        todo: Collection[str],
        display: Display,
        sharing: Sharing,
    ) -> None:
        self.setup = setup
        self.display = display
        self._graph = graph
        self._agenda = Agenda(graph)
        self._todo = todo
        self._sharing = sharing
        self._recorded = 0
        self._ended = Counter[str]()
        self._said = ""

    @property
    def searches(self) -> bool:
        """True if a search by trials that train is among the jobs."""
        searches = (self.setup.runs[job.run_id] for job in self._graph if job.stage == "search")
        return any(run.searched_by_training for run in searches)

    def ready(self) -> list[Job]:
        """Jobs that may start now and were not given out before, or are to be tried once more."""
        news = self._sharing.look()
        for job, reason in news.failed:
            self._fail(job.run_id, reason, recorded=job.stage != "search")
        for job in news.done:
            self._done(job)
        ready = [job for job in news.here if self.needed(job)]
        while given := self._agenda.ready():
            for job in given:
                if self._sharing.done_elsewhere(job):
                    self._done(job)
                else:
                    ready.append(job)
        return ready

    def needed(self, job: Job) -> bool:
        """True while the job's run has not failed; else the job is to be left out."""
        return job.run_id not in self._agenda.failed

    def begin(self, job: Job) -> bool:
        """True if a job may start; false if another process does its run, and it is set aside."""
        return self._sharing.begin(job)

    def awaits_others(self) -> bool:
        """True while something is awaited that other processes do; a line says so."""
        awaited = self._sharing.awaited
        text = ""
        if awaited:
            those = "1 run is" if len(awaited) == 1 else f"{len(awaited)} runs are"
            text = f"{those} being done by another process on {', '.join({*awaited.values()})}"
        if text not in ("", self._said):
            self.display.note(text)
        self._said = text
        return bool(awaited)

    @property
    def failures(self) -> dict[str, str]:
        """Reasons of the runs that failed, by id."""
        return {run_id: why for run_id, why in self._agenda.failed.items() if run_id in self._todo}

    @property
    def ended(self) -> Mapping[str, int]:
        """Jobs that were settled here, and runs that are done and have failed."""
        return {
            "jobs": self._ended["jobs"],
            "runs_done": self._ended["runs"],
            "runs_failed": len(self._agenda.failed),
        }

    def settle(self, job: Job, error: BaseException | None = None) -> None:
        """A job has ended: with it go on the jobs that wait for it, or fail the runs that do.

        Where another process has taken the run over meanwhile, that one's outcome counts.

        Args:
            job: as ``ready`` gave it.
            error: what it raised; ``None`` when it is done.
        """
        self._ended["jobs"] += 1
        if not self.needed(job):  # its run had failed before
            return
        if self._sharing.lost(job):
            self._sharing.set_aside(job)
            return
        if error is not None:
            reason = last_line(error)
            if disk_full(error):  # others would fail for that, too, and none is to blame
                raise InputError(f"{reason}; free some space and give the same command again")
            self._fail(job.run_id, reason, error)
            self._sharing.fail(job, reason)
            return
        if job.stage == "fit":
            self._check_waits(job.run_id)
        if job.stage == "score":
            remove(RunFolder.of(self.setup.results, job.run_id).error)
            self._check_golden(job.run_id)
            self._ended["runs"] += 1
            self._count_recorded()
        self._sharing.done(job, finishes=job.stage == "score")
        self._done(job)

    def note_hung(self, job: Job, error: BaseException) -> None:
        """A job has been stopped that showed no progress; what it was at is kept with its run.

        It may be done again: if its run is done, that record goes.
        """
        self.display.warn(f"{name_of(self.setup.runs[job.run_id])}: {error}")
        if not self._sharing.lost(job):
            self._write_error(self._folder(job), error)

    def _done(self, job: Job) -> None:
        self._agenda.done(job)
        self.display.done(job)

    def _fail(
        self,
        run_id: str,
        reason: str,
        error: BaseException | None = None,
        *,
        recorded: bool = False,
    ) -> None:
        """Fail a run and those that build on it.

        Args:
            run_id: of the run.
            reason: why, on one line.
            error: why, at length; ``None`` if it failed elsewhere.
            recorded: whether its failure is recorded there; that of a search is so with another
                run than here, perhaps.
        """
        folder = RunFolder.of(self.setup.results, run_id)
        for ended in self._agenda.fail(run_id, reason):
            why = self._agenda.failed[ended]
            if ended != run_id or not recorded:
                own = error if ended == run_id else None
                record = partial(self._record_failure, ended, why, folder, own)
                self._sharing.record_failure(ended, why, record)
            self.display.failed(ended, why)

    def _record_failure(
        self, run_id: str, reason: str, folder: RunFolder, error: BaseException | None
    ) -> None:
        """Write a failed run's row, and the error if it is its own into the folder."""
        if error is not None:
            self._write_error(folder, error)
            remove(folder.progress)
        if run_id in self._todo:
            file = folder.error.relative_to(self.setup.results).as_posix()
            info = run_info(self.setup.suite, self.setup.runs[run_id])
            row = failed(info, reason, file if folder.error.exists() else None)
            store.write_run(self.setup.results, run_id, row)
            self._count_recorded()

    def _count_recorded(self) -> None:
        """A run's rows are written; now and then all rows are copied together."""
        self._recorded += 1
        if self._recorded % store.MANY == 0:
            store.keep_compact(self.setup.results)

    def _folder(self, job: Job) -> RunFolder | SearchFolder:
        """The folder of what a job is a part of."""
        search = self.setup.runs[job.run_id].search
        if job.stage == "search" and search is not None:
            return SearchFolder.of(self.setup.results, search.id)
        return RunFolder.of(self.setup.results, job.run_id)

    def _write_error(self, folder: RunFolder | SearchFolder, error: BaseException) -> None:
        """Keep the whole error in a folder."""
        with written_atomically(folder.error) as temporary:
            temporary.write_text(whole_text(error), encoding="utf-8")

    def _check_waits(self, run_id: str) -> None:
        """Say so where a GPU waited for its data, and which setting helps."""
        run, folder = self.setup.runs[run_id], RunFolder.of(self.setup.results, run_id)
        if not self.setup.resources.gpus_per_worker:
            return
        folder.look()
        if not folder.fitted:
            return
        share = folder.read_fit().share_waited
        if share <= MUCH_WAITED:
            return
        config = run.config
        if isinstance(config, TrainingConfig) and config.decoder == "pil":
            helps = f"methods.{run.label}.decoder=turbo decodes several times as fast"
        elif self.setup.resources.data_workers is not None:
            helps = "resources.data_workers=null decodes on all processors that there are"
        else:
            helps = "more processors for each GPU, or images shrunk beforehand, would help"
        self.display.warn(f"{name_of(run)} waited for data {share:.0%} of its training; {helps}")

    def _check_golden(self, run_id: str) -> None:
        if self.setup.runs[run_id].create().reference:  # now, not when all GPU days are spent
            refresh(store.folder(self.setup.results))
            for fault in golden_faults(rows(store.read(self.setup.results, [run_id]))):
                self.display.warn(f"golden row {fault}")
