"""Labels of evaluation sets from the data themselves, to check those that bundles bring."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from shiftbench.core.errors import InputError, one_line
from shiftbench.leaderboard.importing.target import Target, open_set

if TYPE_CHECKING:
    import numpy.typing as npt

    from shiftbench.data.images import ImageSet
    from shiftbench.data.tasks.definition import Task
    from shiftbench.leaderboard.schema import Row


class DataLabels:
    """Examples and labels of the evaluation sets of some tasks.

    Args:
        tasks: by their digest, as ``schema.task_digest`` gives it.
        data_kind: which data they are of, ``real`` or ``miniature/<version>``.
        root: the data root.

    Attributes:
        problems: why sets could not be opened, by task and set.
    """

    def __init__(self, tasks: Mapping[str, Task], data_kind: str, root: str) -> None:
        self._tasks = tasks
        self._data_kind = data_kind
        self._root = root
        self.problems: dict[tuple[str, str], str] = {}
        self._opened: dict[tuple[Any, ...], ImageSet] = {}

    def of(self, row: Row) -> tuple[npt.NDArray[np.str_], npt.NDArray[np.int64]] | None:
        """Ids of a row's evaluation set in alphabetical order, and their labels.

        ``None`` where the task is another, or its data are not there.
        """
        task = self._tasks.get(row.task_digest)
        if task is None or row.data_kind != self._data_kind:
            self.problems[row.task, row.evaluation_set] = "no such task in these data"
            return None
        target = Target(
            task=task,
            data_kind=self._data_kind,
            root=self._root,
            suite="",
            backbone=row.backbone,
            seed=row.seed if row.shots else 0,  # which only draws few shots
            shots=row.shots,
            images=row.budget.get("evaluation_images"),
        )
        key = (row.task_digest, row.evaluation_set, target.shots, target.images, target.seed)
        try:
            if key not in self._opened:
                self._opened[key] = open_set(target, row.evaluation_set).images
            images = self._opened[key]
        except InputError as error:
            self.problems[row.task, row.evaluation_set] = one_line(error)
            return None
        order = np.argsort(images.ids, kind="stable")
        return images.ids[order], images.labels[order]
