"""Checks of data, schedules, backbones and leakage, all before anything is spent. No ray.

Each check raises one line that names what to change. ``run`` does them all by ``preflight``; a verb
that asks about one thing calls the check of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec

from shiftbench.core.errors import InputError
from shiftbench.core.locations import cache_dir
from shiftbench.core.provenance import submitted
from shiftbench.data.audit import check_overlap, unreadable
from shiftbench.data.images import NONE_UNREADABLE, Unreadable
from shiftbench.data.sources.base import read_once
from shiftbench.data.tasks.definition import beside, whole_set
from shiftbench.data.tasks.opening import open_task
from shiftbench.data.verify import check
from shiftbench.execution.checked import Checked, SetKey, SetState, ood_val_of, remembered
from shiftbench.execution.group_rules import group_sizes, needs_whole_weights
from shiftbench.execution.loggers.registry import check_loggers
from shiftbench.execution.model_checks import check_backbones
from shiftbench.execution.schedule import make_schedule
from shiftbench.execution.training_stores import check_training_stores
from shiftbench.leaderboard import store
from shiftbench.methods.base import TrainedMethod
from shiftbench.suite.plan import Plan, evaluation_metrics
from shiftbench.suite.task_metrics import check_columns, check_metrics

if TYPE_CHECKING:
    from shiftbench.data.images import ImageSet
    from shiftbench.data.tasks.definition import Task
    from shiftbench.data.verify import Finding

ALLOW = "with --allow-incomplete the rest runs, and every row says so"

P = ParamSpec("P")


def preflight(
    plan: Plan, root: str, *, allow_incomplete: bool = False, decode: bool = True
) -> Checked:
    """Do every check, the quick ones first; those of data unless the same files passed before.

    Args:
        plan: the runs.
        root: the data root.
        allow_incomplete: go on with data sets that lack files.
        decode: whether images are decoded, to find those that cannot be or that leaked.

    Raises:
        InputError: the first thing that cannot work.
    """
    submitted()
    check_backbones(plan)  # looks at caches and the network, so it is not remembered
    if not decode:
        with read_once():
            sets = check_data(plan, root, allow_incomplete)
            check_schedules(plan, root)
        return Checked(root, sets, {}, {})

    def check() -> Checked:
        with read_once():
            sets = check_data(plan, root, allow_incomplete)
            check_schedules(plan, root)
            unreadable, reasons = check_images(plan, root, allow_incomplete)
            leakage = check_leakage(plan, root, unreadable)
        return Checked(root, _with(sets, reasons), leakage, unreadable)

    checked = remembered(plan, root, allow_incomplete=allow_incomplete, check=check)
    check_training_stores(plan, root, checked.unreadable)
    return checked


def problems(plan: Plan, root: str | None, *, allow_incomplete: bool = False) -> list[str]:
    """A line for each thing that a run refuses without decoding more than a few images.

    Args:
        plan: the runs.
        root: the data root; without one the data are not checked.
        allow_incomplete: as for ``preflight``.
    """
    found = _refused(check_loggers, plan.suite.loggers) + _refused(check_backbones, plan)
    if root is None:
        return found
    of_data = [
        line
        for task in plan.suite.tasks.values()
        for line in _refused(check_sets, task, root, allow_incomplete)
        or _refused(check_task, task, root)
    ]
    of_data = of_data or _refused(check_schedules, plan, root)
    return found + (of_data or _refused(check_training_stores, plan, root))


def task_problems(task: Task, root: str, *, deep: bool = False) -> list[str]:
    """A line for each thing that ``preflight`` refuses of a task whose sets can be read.

    Args:
        task: the task.
        root: the data root.
        deep: also look for test images in the training set, which decodes all.
    """
    return _refused(check_task, task, root) or (
        _refused(lambda: check_overlap(task, open_task(task, root, None, 0), None, cache_dir()))
        if deep
        else []
    )


def _refused(check: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> list[str]:
    """The one line by which a check refuses; nothing if it passes."""
    try:
        check(*args, **kwargs)
    except InputError as error:
        return [str(error)]
    return []


def check_task(task: Task, root: str) -> None:
    """Open a task, and see that labels fit its classes, and columns its metrics. Decodes nothing.

    Raises:
        InputError: they do not.
    """
    data = open_task(task, root, None, 0)
    check_columns(task.name, data.evaluation)


def check_data(plan: Plan, root: str, allow_incomplete: bool) -> Mapping[SetKey, SetState]:
    """The state of every evaluation set, by task and set; see ``check_sets``.

    Raises:
        InputError: as there.
    """
    checked: dict[str, Finding] = {}
    states: dict[SetKey, SetState] = {}
    for task in _tasks(plan):
        states |= check_sets(task, root, allow_incomplete, checked)
    return states


def check_sets(
    task: Task, root: str, allow_incomplete: bool, checked: dict[str, Finding] | None = None
) -> Mapping[SetKey, SetState]:
    """The state of every evaluation set of a task. Decodes nothing.

    A training set that lacks files makes all results of its task incomplete.

    Args:
        task: whose sets.
        root: the data root.
        allow_incomplete: go on with data sets that lack files.
        checked: findings of other tasks, by source, which is extended.

    Raises:
        InputError: a set is absent, or incomplete where that is not allowed; or a task names an
            unknown metric.
    """
    check_metrics(task)
    checked = {} if checked is None else checked
    states: dict[SetKey, SetState] = {}
    found: dict[str, Finding] = {}
    for name, source in task.sources().items():
        key = source.model_dump_json()
        found[name] = checked[key] = checked.get(key) or check(source, root, "none")
    for finding in found.values():
        problem = f"task {task.name}: {finding.name}: {finding.detail}"
        if finding.status in ("absent", "refused"):
            raise InputError(problem)
        if finding.status == "incomplete" and not allow_incomplete:
            raise InputError(f"{problem}; {ALLOW}")
    train = found["train"]
    for name in evaluation_metrics(task):
        of_set = found.get(name, train)  # ID validation may be held out of training
        both = dict.fromkeys((train, of_set))
        faulty = next((finding for finding in both if finding.status != "ok"), None)
        remarks = (f"{finding.name}: {finding.remark}" for finding in both if finding.remark)
        states[task.name, name] = SetState(
            train.fingerprint,
            of_set.fingerprint,
            None if faulty is None else f"{faulty.name}: {faulty.detail}",
            "; ".join(remarks) or None,
        )
    return states


def check_images(
    plan: Plan, root: str, allow_incomplete: bool
) -> tuple[dict[str, frozenset[str]], dict[SetKey, str]]:
    """Decode every image that runs use; the cache knows those of the last time.

    Returns:
        ids of the images that cannot be decoded, by fingerprint of their set, and a line for each
        set that has any, by names of task and set, ``train`` included.

    Raises:
        InputError: there are some, and that is not allowed.
    """
    ids: dict[str, set[str]] = {}
    reasons: dict[SetKey, str] = {}
    for key, images in _used(plan, root):
        broken = unreadable(images, cache_dir())
        if not broken:
            continue
        more = f", and {len(broken) - 1:,} more images" if len(broken) > 1 else ""
        reasons[key] = f"{next(iter(broken.values()))}{more}"
        if not allow_incomplete:
            raise InputError(f"task {key[0]}: {key[1]}: {reasons[key]}; {ALLOW}")
        ids.setdefault(images.fingerprint, set()).update(broken)
    return {digest: frozenset(found) for digest, found in ids.items()}, reasons


def _used(plan: Plan, root: str) -> Iterator[tuple[SetKey, ImageSet]]:
    """Every set of images that the runs of a plan look at, with the names of its task and role."""
    for task in _tasks(plan):
        data = open_task(task, root, None, 0)
        yield (task.name, "train"), data.train
        for name, (_, images) in data.evaluation.items():
            yield (task.name, name), images
    searches = {run.search.id: run for run in plan.runs.values() if run.search and run.searched}
    for run in searches.values():
        yield (run.task.name, "ood-val"), ood_val_of(run, root)


def _with(
    sets: Mapping[SetKey, SetState], reasons: Mapping[SetKey, str]
) -> Mapping[SetKey, SetState]:
    """The states of sets of which, or of whose training set, some images cannot be decoded."""
    found = dict(sets)
    for key, state in sets.items():
        both = (reasons.get((key[0], "train")), reasons.get(key))
        parts = dict.fromkeys(filter(None, (state.incomplete_reason, *both)))
        if parts:
            found[key] = state._replace(incomplete_reason="; ".join(parts))
    return found


def _tasks(plan: Plan) -> list[Task]:
    """The tasks that a plan has runs of."""
    return list({run.task.name: run.task for run in plan.runs.values()}.values())


def check_leakage(
    plan: Plan, root: str, unreadable: Unreadable = NONE_UNREADABLE
) -> dict[tuple[str, bool], str]:
    """Test images that the methods see, by task and whether they search on OOD validation data.

    Raises:
        InputError: there are some, and the task does not say that rows are to be labelled; or a
            set lacks a metadata column that its metric groups by.
    """
    found: dict[tuple[str, bool], str] = {}
    audited: set[tuple[str, bool]] = set()
    for run in plan.runs.values():
        key = run.task.name, run.searched
        if key in audited:
            continue
        audited.add(key)
        data = open_task(run.task, root, None, 0, unreadable)
        ood_val = ood_val_of(run, root, unreadable) if run.searched else None
        check_columns(run.task.name, data.evaluation)
        if run.search is not None and run.search.ood_val is not None and ood_val is not None:
            check_columns(run.task.name, {"ood-val": (run.search.ood_val, ood_val)})
        text = check_overlap(run.task, data, ood_val, cache_dir())
        if text is not None:
            found[key] = text
    return found


def check_schedules(plan: Plan, root: str) -> None:
    """Open each task once, and refuse batches that cannot be divided as the suite asks.

    Raises:
        InputError: a task cannot be opened, or a batch cannot be divided.
    """
    sizes: dict[tuple[str, int | None, bool], int] = {}
    # Runs that differ in their seed alone have one schedule.
    distinct = {(run.task.name, run.label, run.shots): run for run in plan.runs.values()}
    for run in distinct.values():
        method = run.create()
        if not isinstance(method, TrainedMethod) or method.inputs != "images":
            continue
        key = (run.task.name, run.shots, run.whole)
        if key not in sizes:
            data = open_task(run.task, root, run.shots, run.seed, whole=run.whole)
            sizes[key] = len(data.train)
        # The trials of a search run on one worker each.
        resources = plan.resources_of(run)
        if method.training.batch_norm == "train" and resources.activation_checkpointing == "on":
            raise plan.suite.error(
                f"{run.label} has batch_norm: train, whose statistics would follow every batch "
                "twice; set auto, or batch_norm: frozen",
                *("resources", "activation_checkpointing"),
            )
        if resources.sharding == "fsdp2" and resources.workers > 1 and not method.shardable:
            raise plan.suite.error(needs_whole_weights(run.label), "resources", "sharding")
        shared = {*group_sizes(resources, method.training.batch_size)}
        shared |= {1} if method.search() is not None else set()
        try:
            for workers in sorted(shared):
                make_schedule(
                    sizes[key],
                    method.training,
                    workers,
                    resources.micro_batch,
                    whole_batch=method.whole_batch,
                )
        except InputError as error:
            raise plan.suite.error(
                f"{run.label} on {run.task.name}: {error}", "resources"
            ) from error


def shortages(plan: Plan, root: str) -> list[str]:
    """A line for each task and number of shots of which some classes have fewer images."""
    cells = {(run.task.name, run.shots): run.task for run in plan.runs.values() if run.shots}
    found = []
    for (name, shots), task in cells.items():
        short = open_task(task, root, shots, 0).shortage
        found += [] if short is None else [f"task {name}, {shots} shots: {short}"]
    return found


def outdated(plan: Plan, results: Path, states: Mapping[SetKey, SetState]) -> set[str]:
    """Ids of the runs that were done on other data files than there are now."""
    names = (
        *("run_id", "status", "evaluation_set"),
        *("train_fingerprint", "data_fingerprint", "incomplete_reason"),
    )
    table = store.read(results, plan.runs, columns=names)
    rows = zip(*(table[name].to_pylist() for name in names), strict=True)
    return {
        run_id
        for run_id, status, name, *recorded in rows
        if status == "done"
        and not beside(name)
        and tuple(recorded) != states[plan.runs[run_id].task.name, whole_set(name)][:3]
    }
