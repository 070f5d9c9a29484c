"""The task and evaluation sets that imported predictions are of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shiftbench.data.subsets import draw
from shiftbench.data.tasks.classes import task_classes
from shiftbench.data.tasks.definition import NEW, Task
from shiftbench.data.tasks.opening import open_ood_val, open_task
from shiftbench.data.verify import check
from shiftbench.evaluation.results import Selection

if TYPE_CHECKING:
    from shiftbench.data.images import ImageSet


@dataclass(frozen=True, kw_only=True)
class Target:
    """The subject of predictions: a task with its data, and the weights that made them.

    Attributes:
        task: with its evaluation sets.
        data_kind: ``real`` or ``miniature/<version>``.
        root: the data root.
        suite: its name, for the rows.
        label: name of the method, as the user gives it; empty where a file says it.
        backbone: its name.
        seed: of the training; ``None`` when it has none or is not known.
        shots: training images per class; ``None`` for all.
        images: most images of an evaluation set, as a suite's budget says; ``None`` for all.
        selection: the way in which the weights were chosen.
    """

    task: Task
    data_kind: str
    root: str
    suite: str
    label: str = ""
    backbone: str
    seed: int | None = None
    shots: int | None = None
    images: int | None = None
    selection: Selection = "fixed"


@dataclass(frozen=True)
class OpenedSet:
    """An evaluation set with the names of the classes that its projection starts from."""

    images: ImageSet
    names: tuple[str, ...]

    @property
    def groups(self) -> Sequence[tuple[int, ...]]:
        """For each class that the set is scored on, the positions in ``names`` that mean it."""
        projection = self.images.projection
        return [(k,) for k in range(len(self.names))] if projection is None else projection.groups


def open_set(target: Target, name: str) -> OpenedSet:
    """An evaluation set as runs are scored on it, and the names of the task's classes.

    Other sets need not be there, nor the training set, unless this one is made from it.

    Raises:
        InputError: it is absent or broken.
    """
    task, root = target.task.recorded().without_also(), target.root
    item = task.evaluation_sets().get(name)
    own = task.class_split is not None and name == NEW
    if item is not None and item.classes is None and not own:
        images = open_ood_val(task.model_copy(update={"ood_val": item}), root)[1]
        names = task_classes(task, root)
    else:
        shifts = {} if item is None else {name: item}
        data = open_task(
            task.model_copy(update={"shifts": shifts}), root, target.shots, target.seed or 0
        )
        images = data.evaluation[name][1]
        names = data.vocabularies[name][0] if name in data.vocabularies else data.classes
    if target.images is not None and target.images < len(images):
        images = images.subset(draw(images.ids, images.labels, target.images, balanced=False))
    return OpenedSet(images, names)


def missing_files(target: Target, name: str) -> str | None:
    """A line about files that an evaluation set lacks; ``None`` when it is complete."""
    finding = check(target.task.sources().get(name, target.task.train), target.root)
    return None if finding.status == "ok" else f"{finding.name}: {finding.detail}"
