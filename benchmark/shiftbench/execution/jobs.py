"""The stages of runs as a graph of jobs, and the jobs that may start. No ray, no torch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING, Literal, NamedTuple

from shiftbench.suite.plan import evaluation_metrics

if TYPE_CHECKING:
    from shiftbench.suite.plan import Run

Stage = Literal["search", "fit", "predict", "score"]


class Job(NamedTuple):
    """One stage of a run; ``predict`` is for one variant and one evaluation set.

    A search that several runs share is the job of the first of them.
    """

    stage: Stage
    run_id: str
    variant: str = ""
    evaluation_set: str = ""


def job_graph(
    runs: Mapping[str, Run],
    todo: set[str],
    fitted: Callable[[str], bool],
    found: Callable[[str], bool],
    kept: Callable[[Run], bool],
    variants: Callable[[Run], tuple[str, ...]],
    evaluation_sets: Callable[[Run], tuple[str, ...]],
) -> dict[Job, set[Job]]:
    """The jobs that finish the runs in ``todo``, each with the jobs it waits for.

    A run that is done but whose weights are gone is fitted again when a run to do derives from it,
    and neither predicted nor scored again.

    Args:
        runs: all runs by id.
        todo: ids of the runs to finish.
        fitted: says if the outcome of a run's first stage is there.
        found: says if a search has finished, by its id.
        kept: says if a run has a first stage, which leaves something of its own.
        variants: the variants of a run.
        evaluation_sets: names of the sets a run is evaluated on.
    """
    graph: dict[Job, set[Job]] = {}
    searches: dict[str, Job] = {}

    def settings_of(run: Run, above: set[Job]) -> set[Job]:
        """Jobs that find the settings of ``run``; they wait for ``above``."""
        if run.search is None or found(run.search.id):
            return set()
        job = searches.setdefault(run.search.id, Job("search", run.id))
        graph.setdefault(job, set()).update(above)
        return {job}

    def weights_of(run: Run) -> set[Job]:
        """Jobs that must be done before a variant of ``run`` can be had."""
        if kept(run) and fitted(run.id):
            return set()
        above = set().union(*(weights_of(runs[parent]) for _, parent in run.parents))
        if not kept(run):
            return above
        fit = Job("fit", run.id)
        graph[fit] = above | settings_of(run, above)
        return {fit}

    for run_id in runs:
        if run_id not in todo:
            continue
        run = runs[run_id]
        needed = weights_of(run)
        predicts = [
            Job("predict", run_id, variant, evaluation_set)
            for variant in variants(run)
            for evaluation_set in evaluation_sets(run)
        ]
        for predict in predicts:  # before what waits for them, so that they become ready in order
            graph[predict] = set(needed)
        graph[Job("score", run_id)] = set(predicts)
    return graph


def jobs_of(
    runs: Mapping[str, Run],
    todo: set[str],
    fitted: Callable[[str], bool],
    found: Callable[[str], bool],
) -> dict[Job, set[Job]]:
    """The ``job_graph`` of a plan's runs.

    Args:
        runs: all runs by id.
        todo: ids of the runs to finish.
        fitted: says if the outcome of a run's first stage is there.
        found: says if a search has finished, by its id.
    """
    return job_graph(
        runs,
        todo,
        fitted=fitted,
        found=found,
        kept=lambda run: run.create().kept,
        variants=lambda run: run.create().variants(),
        evaluation_sets=lambda run: tuple(evaluation_metrics(run.task)),
    )


class Agenda:
    """The jobs of a graph, given out as they become ready.

    When a run fails, so does every run that still waits for one of its jobs.

    Attributes:
        failed: why runs failed, by id.
    """

    def __init__(self, graph: Mapping[Job, set[Job]]) -> None:
        self._waiting: dict[str, dict[Job, set[str]]] = defaultdict(dict)
        for job, above in graph.items():
            for before in above:
                if before.run_id != job.run_id:
                    self._waiting[before.run_id].setdefault(before, set()).add(job.run_id)
        self._sorter = TopologicalSorter(graph)
        self._sorter.prepare()
        self.failed: dict[str, str] = {}

    def ready(self) -> list[Job]:
        """Jobs that may start now and were not given out before."""
        return list(self._sorter.get_ready())

    def done(self, job: Job) -> None:
        """A job has finished."""
        self._waiting[job.run_id].pop(job, None)
        self._sorter.done(job)

    def fail(self, run_id: str, reason: str) -> list[str]:
        """Fail a run and those that build on it; the ids of all that failed with this call."""
        failed = []
        at_fault = [(run_id, reason)]
        while at_fault:
            run_id, reason = at_fault.pop()
            if run_id not in self.failed:
                self.failed[run_id] = reason
                failed.append(run_id)
                below = sorted(set().union(*self._waiting[run_id].values()))
                at_fault += [(run, f"it builds on run {run_id}, which failed") for run in below]
        return failed
