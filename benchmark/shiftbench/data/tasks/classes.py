"""The class names of a task, and its cut into base and new classes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from shiftbench.core.errors import InputError
from shiftbench.data.images import ImageSet
from shiftbench.data.prompts import FROM_DATA, resolve_classes
from shiftbench.data.sources.base import Source
from shiftbench.data.sources.custom import CustomSource
from shiftbench.data.tasks.definition import Task, Texts
from shiftbench.data.tasks.names import composed, not_distinct

RENAME = '"rename" can map a label to a class, or to null to leave it out'


def task_classes(task: Task, root: str) -> tuple[str, ...]:
    """Return the names of the classes that the task trains on, in label order.

    Raises:
        InputError: they are to come from the data, and the data have none; or there are too few
            for a class split.
    """
    return base_and_new(task, root)[0]


def base_and_new(task: Task, root: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the classes to train on, and those that a class split leaves for the shift ``new``.

    Raises:
        InputError: as for ``task_classes``.
    """
    names = class_names(task.classes, task.train, f"task {task.name}", root)
    if task.class_split is None:
        return names, ()
    base = (len(names) + 1) // 2
    if len(names) - base < 2:
        raise InputError(
            f"task {task.name}: class_split needs two base and two new classes, "
            f"but there are {len(names)} in all"
        )
    return names[:base], names[base:]


def class_names(classes: Texts, source: Source, owner: str, root: str) -> tuple[str, ...]:
    """Return class names in label order: the source's own where ``classes`` is ``from-data``.

    Args:
        classes: names, the name of a list of them, or ``from-data``.
        source: whose labels they name.
        owner: the task or shift, for messages.
        root: the data root.

    Raises:
        InputError: the files do not name their labels, or two names are matched as one.
    """
    if classes != FROM_DATA:
        return resolve_classes(classes)
    names = source.label_names(root)
    if names is None:
        raise InputError(
            f"{owner}: the files of {source.title} do not name their labels; "
            'list them under "classes"'
        )
    names = tuple(map(composed, names))
    if isinstance(source, CustomSource):
        names = tuple(dict.fromkeys(target for target in source.targets(names) if target))
    if fault := not_distinct(names):
        raise InputError(f"{owner}: {source.title}: {fault}; {RENAME}")
    return names


def of_base_classes(task: Task, images: ImageSet, role: str, classes: tuple[str, ...]) -> ImageSet:
    """Return the images of the task's ``classes``: all, or with a class split the base ones'."""
    return of_classes(images, role, 0, len(classes)) if task.class_split else images


def of_classes(images: ImageSet, role: str, first: int, end: int) -> ImageSet:
    """Return the images with labels from ``first`` up to ``end``, counted from 0 again.

    Raises:
        InputError: there are none, or the labels are not positions in the task's classes.
    """
    if images.projection is not None:
        raise InputError(f"{role}: class_split cannot cut a set scored on classes of its own")
    kept = np.flatnonzero((images.labels >= first) & (images.labels < end)).astype(np.int64)
    if not len(kept):
        raise InputError(f"{role}: no images of the classes that class_split leaves it")
    part = images.subset(kept)
    return replace(part, labels=part.labels - first)
