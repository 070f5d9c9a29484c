"""A suite from start to end: check everything, do what is left on Ray, record what fails."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Console

from shiftbench.core.errors import InputError
from shiftbench.core.locations import cache_dir
from shiftbench.data.audit import check_overlap
from shiftbench.data.roots import resolve
from shiftbench.data.tasks.definition import whole_set
from shiftbench.data.tasks.opening import open_ood_val, open_task
from shiftbench.data.verify import check
from shiftbench.execution.jobs import Agenda, Job, job_graph
from shiftbench.execution.remarks import Remarks
from shiftbench.execution.schedule import make_schedule
from shiftbench.execution.setup import Setup
from shiftbench.leaderboard import store
from shiftbench.leaderboard.golden import golden_faults
from shiftbench.leaderboard.runfolder import RunFolder, SearchFolder
from shiftbench.leaderboard.schema import failed, rows
from shiftbench.methods.base import TrainedMethod
from shiftbench.models.backbones import check_backbone
from shiftbench.suite.plan import Plan, evaluation_metrics

if TYPE_CHECKING:
    from shiftbench.data.images import ImageSet
    from shiftbench.data.tasks.definition import Task
    from shiftbench.data.verify import Finding
    from shiftbench.suite.plan import Run
    from shiftbench.suite.suite import Suite


@dataclass(frozen=True)
class Outcome:
    """What a launch came to.

    Attributes:
        plan: all runs of the suite.
        executed: ids of the runs that were not done before.
        failed: why runs failed, by id.
    """

    plan: Plan
    executed: frozenset[str]
    failed: Mapping[str, str]


SetKey = tuple[str, str]
"""Names of a task and of one of its evaluation sets."""


class SetState(NamedTuple):
    """The files behind a result.

    Attributes:
        train_fingerprint: of the task's training set.
        fingerprint: of the evaluation set.
        incomplete_reason: what is missing; ``None`` when both are complete.
    """

    train_fingerprint: str
    fingerprint: str
    incomplete_reason: str | None


def launch(
    suite: Suite,
    results: Path,
    console: Console,
    address: str | None = None,
    allow_incomplete: bool = False,
) -> Outcome:
    """Do what is left of a suite.

    Args:
        suite: what to do.
        results: the results folder; on a cluster, on storage that all nodes see.
        console: where progress is shown.
        address: of a Ray cluster to join.
        allow_incomplete: go on with data sets that lack files, and say so in every row.

    Raises:
        InputError: something cannot work, found before anything was computed.
    """
    plan = Plan.build(suite)
    data = suite.require_data()
    results = results.absolute()
    store.check_writable(results)
    root = resolve(data, lambda name: console.print(f"[dim]drawing {name}[/dim]"))
    console.print("[dim]checking the data[/dim]")
    sets = check_data(plan, root, allow_incomplete)
    check_schedules(plan, root)
    check_backbones(plan)
    leakage = check_leakage(plan, root)

    redone = outdated(plan, results, sets)
    for run_id in redone:
        RunFolder.of(results, run_id).delete()
    states = store.read_runs(results, plan.runs)
    done = {run_id for run_id, state in states.items() if state.status == "done"} - redone
    if redone:
        console.print(f"{len(redone)} runs were done on other data files and are done again")
    todo = plan.runs.keys() - done
    console.print(f"{len(plan.runs)} runs: {len(done)} done, {len(todo)} to do")
    if not todo:
        return Outcome(plan, frozenset(), {})
    for run_id in todo:
        task = plan.runs[run_id].task
        RunFolder.of(results, run_id).claim(fingerprints_of(task, sets))
        if (search := plan.runs[run_id].search) is not None:
            folder = SearchFolder.of(results, search.id)
            folder.claim(searched_fingerprints(plan.runs[run_id], sets, root))
    graph = job_graph(
        plan.runs,
        todo,
        fitted=lambda run_id: RunFolder.of(results, run_id).fitted,
        found=lambda search_id: SearchFolder.of(results, search_id).finished,
        kept=lambda run: run.create().kept,
        variants=lambda run: run.create().variants(),
        evaluation_sets=lambda run: tuple(evaluation_metrics(run.task)),
    )
    gaps = {key: s.incomplete_reason for key, s in sets.items() if s.incomplete_reason is not None}
    remarks = Remarks(gaps, leakage)
    failures = _execute(suite, plan, results, data, remarks, graph, todo, console, address)
    return Outcome(plan, frozenset(todo), failures)


def _execute(
    suite: Suite,
    plan: Plan,
    results: Path,
    data: str,
    remarks: Remarks,
    graph: Mapping[Job, set[Job]],
    todo: set[str],
    console: Console,
    address: str | None,
) -> Mapping[str, str]:
    from shiftbench.distributed.session import session

    with session(address, suite.resources):
        # These import ray, which reads the environment that the session has set.
        from shiftbench.distributed.execute import execute
        from shiftbench.execution.display import Display
        from shiftbench.execution.runinfo import run_info

        def in_group(run_id: str) -> bool:
            many = suite.resources.workers > 1
            method = plan.runs[run_id].create()
            return many and isinstance(method, TrainedMethod) and method.inputs == "images"

        def record_failure(run_id: str, reason: str) -> None:
            if run_id in todo:  # and not a finished run that was only to be fitted again
                info = run_info(suite.name, plan.runs[run_id])
                store.write_run(results, run_id, failed(info, reason))

        def check_golden(run_id: str) -> None:
            if plan.runs[run_id].create().reference:  # now, not when all GPU days are spent
                for fault in golden_faults(rows(store.read(results, [run_id]))):
                    display.warn(f"golden row {fault}")

        setup = Setup(suite.name, plan.runs, results, data, suite.resources, remarks)
        agenda = Agenda(graph)
        with Display(console, plan.runs, list(graph)) as display:
            execute(setup, agenda, in_group, check_golden, record_failure, display)
        return {run_id: why for run_id, why in agenda.failed.items() if run_id in todo}


def check_data(plan: Plan, root: str, allow_incomplete: bool) -> Mapping[SetKey, SetState]:
    """The state of every evaluation set, by task and set.

    A training set that lacks files makes all results of its task incomplete.

    Raises:
        InputError: a set is absent, or incomplete where that is not allowed.
    """
    checked: dict[str, Finding] = {}
    states: dict[SetKey, SetState] = {}
    for task in {run.task.name: run.task for run in plan.runs.values()}.values():
        found: dict[str, Finding] = {}
        for name, source in task.sources().items():
            key = source.model_dump_json()
            found[name] = checked[key] = checked.get(key) or check(source, root)
        for finding in found.values():
            problem = f"task {task.name}: {finding.name}: {finding.detail}"
            if finding.status == "absent":
                raise InputError(problem)
            if finding.status == "incomplete" and not allow_incomplete:
                raise InputError(f"{problem}; with --allow-incomplete every row says so")
        train = found["train"]
        for name in evaluation_metrics(task):
            of_set = found.get(name, train)  # ID validation may be held out of training
            faulty = next((f for f in (train, of_set) if f.status != "ok"), None)
            states[task.name, name] = SetState(
                train.fingerprint,
                of_set.fingerprint,
                None if faulty is None else f"{faulty.name}: {faulty.detail}",
            )
    return states


def fingerprints_of(task: Task, sets: Mapping[SetKey, SetState]) -> dict[str, str]:
    """Fingerprints of a task's training set and of every evaluation set, by name."""
    states = {name: sets[task.name, name] for name in evaluation_metrics(task)}
    train = {"train": states["id-val"].train_fingerprint}
    return train | {name: state.fingerprint for name, state in states.items()}


def searched_fingerprints(run: Run, sets: Mapping[SetKey, SetState], root: str) -> dict[str, str]:
    """Fingerprints of what the search of a run looks at."""
    seen = {"train": sets[run.task.name, "id-val"].train_fingerprint}
    return seen | ({"ood-val": _ood_val(run, root).fingerprint} if run.searched else {})


def check_leakage(plan: Plan, root: str) -> dict[tuple[str, bool], str]:
    """Test images that the methods see, by task and whether they search on OOD validation data.

    Raises:
        InputError: there are some, and the task does not say that rows are to be labelled.
    """
    found: dict[tuple[str, bool], str] = {}
    audited: set[tuple[str, bool]] = set()
    for run in plan.runs.values():
        key = run.task.name, run.searched
        if key in audited:
            continue
        audited.add(key)
        data = open_task(run.task, root, None, 0)
        ood_val = _ood_val(run, root) if run.searched else None
        text = check_overlap(run.task, data, ood_val, cache_dir())
        if text is not None:
            found[key] = text
    return found


def _ood_val(run: Run, root: str) -> ImageSet:
    """What the search of a run is scored on."""
    if run.search is None or run.search.ood_val is None:
        raise ValueError(f"{run.label} has no search")
    task = run.task.model_copy(update={"ood_val": run.search.ood_val})
    return open_ood_val(task, root)[1]


def check_schedules(plan: Plan, root: str) -> None:
    """Open each task once and see that every run's batch can be cut up as the suite asks.

    Raises:
        InputError: a task cannot be opened, or a batch cannot be divided.
    """
    resources = plan.suite.resources
    sizes: dict[tuple[str, int | None], int] = {}
    for run in plan.runs.values():
        method = run.create()
        if not isinstance(method, TrainedMethod) or method.inputs != "images":
            continue
        key = (run.task.name, run.shots)
        if key not in sizes:
            sizes[key] = len(open_task(run.task, root, run.shots, run.seed).train)
        micro_batch = None if method.whole_batch else resources.micro_batch
        try:
            make_schedule(sizes[key], method.training, resources.workers, micro_batch)
        except InputError as error:
            raise plan.suite.error(
                f"{run.label} on {run.task.name}: {error}", "resources"
            ) from error


def check_backbones(plan: Plan) -> None:
    """See that each backbone is one that open_clip knows, or a folder; downloads nothing.

    Raises:
        InputError: it is not.
    """
    for position, name in enumerate(plan.suite.backbones):
        try:
            check_backbone(name)
        except InputError as error:
            raise plan.suite.error(str(error), "backbones", position) from error


def outdated(plan: Plan, results: Path, states: Mapping[SetKey, SetState]) -> set[str]:
    """Runs that were done on other files than there are now."""
    found = set()
    for row in store.read(results, plan.runs).to_pylist():
        if row["status"] == "done":
            recorded = SetState(
                row["train_fingerprint"], row["data_fingerprint"], row["incomplete_reason"]
            )
            task = plan.runs[row["run_id"]].task.name
            if recorded != states[task, whole_set(row["evaluation_set"])]:
                found.add(row["run_id"])
    return found
