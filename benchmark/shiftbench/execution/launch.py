"""A suite from start to end: check everything, do what is left, record what fails. No ray."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from shiftbench.core.mirror import opened, placed, refresh
from shiftbench.data.roots import resolve
from shiftbench.data.sources.base import read_once
from shiftbench.execution.beside import lacking
from shiftbench.execution.checked import Checked
from shiftbench.execution.cost import plan_state
from shiftbench.execution.damage import set_damaged_aside
from shiftbench.execution.display import Display
from shiftbench.execution.jobs import Job, jobs_of
from shiftbench.execution.loggers.registry import check_loggers
from shiftbench.execution.outlook import Machine, outlook
from shiftbench.execution.preflight import outdated, preflight
from shiftbench.execution.record import write_record
from shiftbench.execution.remaining import weights_of_jobs
from shiftbench.execution.setup import Setup
from shiftbench.execution.sharing import Sharing
from shiftbench.execution.work import Work
from shiftbench.leaderboard import store
from shiftbench.leaderboard.leases import Leases
from shiftbench.leaderboard.runfolder import RunFolder, SearchFolder
from shiftbench.suite.plan import Plan

if TYPE_CHECKING:
    from rich.console import Console

    from shiftbench.execution.cost import Estimator
    from shiftbench.execution.executor import Executor
    from shiftbench.leaderboard.files import Stamp
    from shiftbench.suite.suite import Suite


@dataclass(frozen=True)
class Outcome:
    """The outcome of a launch.

    Attributes:
        plan: all runs of the suite.
        executed: ids of the runs that were not done before.
        failed: reasons of the runs that failed, by id.
    """

    plan: Plan
    executed: frozenset[str]
    failed: Mapping[str, str]


def launch(
    suite: Suite,
    results: Path,
    executor: Executor,
    console: Console,
    *,
    allow_incomplete: bool = False,
    decode: bool = True,
) -> Outcome:
    """Do what is left of a suite. The same call goes on after any interruption.

    Args:
        suite: what to do.
        results: the results folder; on a cluster, on storage that all nodes see.
        executor: does the jobs, in this process or on a cluster.
        console: where progress is shown.
        allow_incomplete: go on with data sets that lack files, and say so in every row.
        decode: whether every image is decoded beforehand, to find broken and leaked ones; not for
            runs that are thrown away.

    Raises:
        InputError: something cannot work, found before anything was computed.
    """
    plan = Plan.build(suite)
    executor.check(plan)
    check_loggers(suite.loggers)
    data = suite.require_data()
    results = opened(results.absolute())
    store.check_writable(results)
    try:
        known = store.statuses(results, plan.runs)
        if any(known.get(run_id) != "done" for run_id in plan.runs):
            executor.prepare(plan)
        root = resolve(data, lambda name: console.print(f"[dim]drawing {name}[/dim]"))
        console.print("[dim]checking the data[/dim]")
        checked = preflight(plan, root, allow_incomplete=allow_incomplete, decode=decode)
        return _launch(plan, data, results, executor, console, checked)
    finally:
        executor.release()


def _launch(
    plan: Plan,
    data: str,
    results: Path,
    executor: Executor,
    console: Console,
    checked: Checked,
) -> Outcome:
    """Do what is left, on data that were checked."""
    suite = plan.suite
    with Leases.of(results, suite.resources.limits.lease_s) as leases:
        left = _left(plan, results, checked, leases, console)
        if not left.todo:
            return Outcome(plan, frozenset(), {})
        current = _current(plan, results, left, checked)
        graph = _graph(plan, results, left, current)
        setup = Setup(
            suite=suite.name,
            runs=plan.runs,
            results=results,
            data=data,
            resources=suite.resources,
            remarks=checked.remarks,
            token=leases.token,
            loggers=suite.loggers,
            own_resources={
                run.id: own
                for run in plan.runs.values()
                if (own := plan.resources_of(run)) != suite.resources
            },
        )
        # So that ``gc`` knows what they need, if this ends before them.
        new = [run_id for run_id in left.todo if not RunFolder.of(results, run_id).record.exists()]
        with ThreadPoolExecutor(16 if placed(results) else 1) as pool:  # a store answers slowly
            [*pool.map(partial(write_record, setup), new)]
        prepare = partial(_prepare, setup, left, checked)
        sharing = Sharing(leases, results, plan.runs, graph, left.known, prepare, current=current)
        estimator = _tell(plan, results, checked.root, executor.most, console)
        weights = weights_of_jobs(graph, plan.runs, estimator)
        with Display(console, plan.runs, list(graph), weights) as display:
            work = Work(setup, graph, left.todo, display, sharing)
            executor.execute(work)
    refresh(store.folder(results))
    store.keep_compact(results)
    return Outcome(plan, frozenset(left.todo), work.failures)


@dataclass(frozen=True)
class _Left:
    """What a launch has to do.

    Attributes:
        todo: ids of the runs to finish.
        outdated: those of them that were done on other data files.
        known: what the rows of runs were when this was found out.
    """

    todo: set[str]
    outdated: set[str]
    known: Mapping[str, Stamp]


def _left(plan: Plan, results: Path, checked: Checked, leases: Leases, console: Console) -> _Left:
    """The runs that are not done, or done on other data files, or with damaged predictions."""
    known = store.stamps(results)
    redone = outdated(plan, results, checked.sets)
    statuses = store.statuses(results, plan.runs)
    done = {run_id for run_id, status in statuses.items() if status == "done"} - redone
    done -= set_damaged_aside(
        results, plan.runs, lambda line: console.print(line, style="yellow", markup=False), leases
    )
    if redone:
        console.print(f"{len(redone)} runs were done on other data files and are done again")
    if more := lacking(plan, results, checked.sets) & done:
        console.print(f"{len(more)} runs are done, and are evaluated on more sets")
        done -= more
    todo = plan.runs.keys() - done
    console.print(f"{len(plan.runs)} runs: {len(done)} done, {len(todo)} to do")
    return _Left(todo, redone, known)


def _prepare(setup: Setup, left: _Left, checked: Checked, job: Job) -> None:
    """Begin or go on with a run or a search on these data files, under its lease.

    What was done or begun on others is forgotten.
    """
    run, results = setup.runs[job.run_id], setup.results
    if job.stage == "search" and run.search is not None:
        SearchFolder.of(results, run.search.id).look()
        SearchFolder.of(results, run.search.id).claim(checked.searched_fingerprints(run))
    elif run.id in left.todo:
        folder = RunFolder.of(results, run.id)
        folder.look()
        if run.id in left.outdated:
            store.forget(results, run.id)
            folder.delete()
        folder.claim(checked.fingerprints(run))
        write_record(setup, run.id)


def _tell(plan: Plan, results: Path, root: str, most: int | None, console: Console) -> Estimator:
    """Print what is left: time, cost, memory and disk; and give what estimates it.

    Args:
        plan: the runs.
        results: the results folder.
        root: the data root.
        most: workers at once, as the executor says.
        console: where to print.
    """
    with read_once():
        state = plan_state(plan, results, root)
    machine = Machine.here(plan.suite.resources, results)
    if most is not None:
        machine = replace(machine, workers=min(most, machine.workers))
    for line in outlook(plan, state, results, machine=machine):
        console.print(line, style="dim", highlight=False, markup=False, soft_wrap=True)
    return state.estimator


def _current(plan: Plan, results: Path, left: _Left, checked: Checked) -> Callable[[Job], bool]:
    """Says whether what there is of a job's run, or its search, was made of these data files."""

    @cache
    def searched(run_id: str) -> Mapping[str, str]:
        return checked.searched_fingerprints(plan.runs[run_id])

    def current(job: Job) -> bool:
        run = plan.runs[job.run_id]
        if job.stage == "search" and run.search is not None:
            return SearchFolder.of(results, run.search.id).is_on(searched(run.id))
        if run.id not in left.todo:
            return True
        return RunFolder.of(results, run.id).is_on(checked.fingerprints(run))

    return current


def _graph(
    plan: Plan, results: Path, left: _Left, current: Callable[[Job], bool]
) -> dict[Job, set[Job]]:
    """The jobs that are left, each with those that it waits for."""

    def fitted(run_id: str) -> bool:
        there = RunFolder.of(results, run_id).fitted and run_id not in left.outdated
        return there and current(Job("fit", run_id))

    @cache
    def found(search_id: str) -> bool:
        run = next(run for run in plan.runs.values() if run.search and run.search.id == search_id)
        finished = SearchFolder.of(results, search_id).finished
        return finished and current(Job("search", run.id))

    return jobs_of(plan.runs, left.todo, fitted, found)
