"""The jobs of a launch, and the one place that records how each of them ended. No ray, no torch."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from shiftbench.core.errors import last_line, whole_text
from shiftbench.core.files import written_atomically
from shiftbench.execution.display import name_of
from shiftbench.execution.jobs import Agenda
from shiftbench.execution.runinfo import run_info
from shiftbench.leaderboard import store
from shiftbench.leaderboard.golden import golden_faults
from shiftbench.leaderboard.runfolder import RunFolder
from shiftbench.leaderboard.schema import failed, rows
from shiftbench.methods.config import TrainingConfig

MUCH_WAITED = 0.05
"""The part of a training's time that a GPU may wait for data without a word."""

if TYPE_CHECKING:
    from shiftbench.execution.display import Display
    from shiftbench.execution.jobs import Job
    from shiftbench.execution.setup import Setup


class Work:
    """An executor's input: jobs as they become ready, and ``settle`` for those that have ended.

    Args:
        setup: for the processes that do the jobs.
        graph: the jobs, each with those that it waits for.
        todo: ids of the runs to finish; others in the graph are only to be fitted again.
        display: shows what happens.
    """

    def __init__(
        self,
        setup: Setup,
        graph: Mapping[Job, set[Job]],
        todo: Collection[str],
        display: Display,
    ) -> None:
        self.setup = setup
        self.display = display
        self._graph = graph
        self._agenda = Agenda(graph)
        self._todo = todo
        self._recorded = 0

    @property
    def searches(self) -> bool:
        """True if a search is among the jobs."""
        return any(job.stage == "search" for job in self._graph)

    def ready(self) -> list[Job]:
        """Jobs that may start now and were not given out before."""
        return self._agenda.ready()

    def needed(self, job: Job) -> bool:
        """True while the job's run has not failed; else the job is to be left out."""
        return job.run_id not in self._agenda.failed

    @property
    def failures(self) -> dict[str, str]:
        """Reasons of the runs that failed, by id."""
        return {run_id: why for run_id, why in self._agenda.failed.items() if run_id in self._todo}

    def settle(self, job: Job, error: BaseException | None = None) -> None:
        """A job has ended: with it go on the jobs that wait for it, or fail the runs that do.

        Args:
            job: as ``ready`` gave it.
            error: what it raised; ``None`` when it is done.
        """
        if error is None:
            self._agenda.done(job)
            self.display.done(job)
            if job.stage == "fit":
                self._check_waits(job.run_id)
            if job.stage == "score":
                RunFolder.of(self.setup.results, job.run_id).error.unlink(missing_ok=True)
                self._check_golden(job.run_id)
                self._count_recorded()
            return
        ended = self._agenda.fail(job.run_id, last_line(error))
        if not ended:  # it had failed before
            return
        file = self._write_error(job.run_id, error)
        RunFolder.of(self.setup.results, job.run_id).progress.unlink(missing_ok=True)
        for run_id in ended:
            reason = self._agenda.failed[run_id]
            if run_id in self._todo:
                info = run_info(self.setup.suite, self.setup.runs[run_id])
                store.write_run(self.setup.results, run_id, failed(info, reason, file))
                self._count_recorded()
            self.display.failed(run_id, reason)

    def _count_recorded(self) -> None:
        """A run's rows are written; now and then all rows are copied together."""
        self._recorded += 1
        if self._recorded % store.MANY == 0:
            store.keep_compact(self.setup.results)

    def _write_error(self, run_id: str, error: BaseException) -> str:
        """Write the whole error to the run's folder; its path in the results folder."""
        file = RunFolder.of(self.setup.results, run_id).error
        with written_atomically(file) as temporary:
            temporary.write_text(whole_text(error), encoding="utf-8")
        return file.relative_to(self.setup.results).as_posix()

    def _check_waits(self, run_id: str) -> None:
        """Say so where a GPU waited for its data, and which setting helps."""
        run, folder = self.setup.runs[run_id], RunFolder.of(self.setup.results, run_id)
        if not self.setup.resources.gpus_per_worker or not folder.fitted:
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
            for fault in golden_faults(rows(store.read(self.setup.results, [run_id]))):
                self.display.warn(f"golden row {fault}")
