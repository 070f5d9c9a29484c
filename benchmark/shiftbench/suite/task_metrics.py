"""The metrics that a task names: whether there are such, and whether its sets can have them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from shiftbench.core.document import dotted
from shiftbench.core.errors import InputError
from shiftbench.evaluation.metrics.registry import check_mean, metric

if TYPE_CHECKING:
    from shiftbench.core.document import Key
    from shiftbench.data.images import ImageSet
    from shiftbench.data.tasks.definition import EvaluationSet, Task


def faults(task: Task) -> Iterator[tuple[tuple[Key, ...], str]]:
    """The keys of a task that name no metric, or metrics over which there is no mean.

    The mean over its shifts is what methods are ranked by, so their headline metrics need one
    direction and one unit.
    """
    found = False
    sets = {("id_test",): task.id_test} | {("shifts", name): s for name, s in task.shifts.items()}
    if task.ood_val is not None:
        sets["ood_val",] = task.ood_val
    sets |= {("also", name): item for name, item in task.also.items()}
    asked: list[tuple[tuple[Key, ...], str]] = [
        *(((*path, "metric"), item.metric) for path, item in sets.items()),
        *((("also_metrics", i), text) for i, text in enumerate(task.also_metrics)),
    ]
    for path, text in asked:
        try:
            metric(text)
        except InputError as error:
            found = True
            yield path, str(error)
    if not found:
        try:
            check_mean(item.metric for item in task.shifts.values())
        except InputError as error:
            yield ("shifts",), f"{error}; methods are ranked by the mean over shifts"


def metrics_named(task: Task, ood_val: EvaluationSet | None) -> list[str]:
    """The metrics that a run of a task is scored with, as their texts say.

    Args:
        task: of the run.
        ood_val: the set that its search looks at; ``None`` without one.
    """
    sets = [task.id_test, *task.shifts.values(), *([] if ood_val is None else [ood_val])]
    return [*(item.metric for item in sets), *task.also_metrics]


def metric_of_part(of_shift: str, images: ImageSet, of_whole: str) -> str:
    """The headline metric of the part of the ID test set that a shift's classes make.

    Args:
        of_shift: the shift's metric, which it is where it can be.
        images: of the part; it may lack columns that the shift has, such as a video's frames.
        of_whole: the ID test set's own, which it is otherwise.
    """
    return of_shift if set(metric(of_shift).columns) <= images.metadata.keys() else of_whole


def check_metrics(task: Task) -> None:
    """Refuse a task with a fault in its metrics.

    Raises:
        InputError: one line with task, key and what is accepted.
    """
    for path, fault in faults(task):
        raise InputError(f"task {task.name}: {dotted(path)}: {fault}")


def check_columns(task: str, sets: Mapping[str, tuple[EvaluationSet, ImageSet]]) -> None:
    """Refuse evaluation sets without the metadata columns that their metrics group by.

    Args:
        task: its name, for the message.
        sets: its opened evaluation sets by name, as in ``TaskData.evaluation``.

    Raises:
        InputError: one line with task, set, the column and those that there are.
    """
    for name, (item, images) in sets.items():
        for column in metric(item.metric).columns:
            if column not in images.metadata:
                known = ", ".join(sorted(images.metadata)) or "none"
                raise InputError(
                    f'task {task}: {name}: metric "{item.metric}" needs a metadata column '
                    f'"{column}" (the set has {known})'
                )
