"""Numbers of images of the sets that runs look at, without opening what need not be. No torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from shiftbench.core.errors import InputError
from shiftbench.data.tasks.classes import task_classes
from shiftbench.data.tasks.definition import MOST_VALIDATION_SHOTS, Holdout, Task

if TYPE_CHECKING:
    from shiftbench.suite.plan import Run

NOWHERE = "data root not given"  # sizes that are documented need no data


class Sizes:
    """Numbers of images of sets, each counted once; ``None`` where nobody knows without the data.

    Args:
        root: the data root, or ``None``.
    """

    def __init__(self, root: str | None) -> None:
        self._root = NOWHERE if root is None else root
        self._known: dict[str, int | None] = {}

    def training(self, task: Task, shots: int | None, whole: bool = False) -> int | None:
        """Training images, up to rounding in classes; ``whole``: with those held out for others."""
        total = self._of(task.train.model_dump_json(), lambda: task.train.size(self._root))
        if total is None:
            return None
        if isinstance(task.id_val, Holdout) and not whole:
            total -= round(task.id_val.holdout * total)
        if shots is None:
            return total
        classes = self._classes(task)
        return None if classes is None else min(total, shots * classes)

    def evaluated(self, run: Run) -> dict[str, int | None]:
        """Images of each set that a run is evaluated on, at most the budget's."""
        limit = run.budget.evaluation_images
        sizes = {"id-val": self._validation(run.task, run.shots)}
        for name, item in run.task.evaluation_sets().items():
            source = item.source
            sizes[name] = self._of(source.model_dump_json(), lambda s=source: s.size(self._root))  # type: ignore[misc]
        return {
            name: size if size is None or limit is None else min(size, limit)
            for name, size in sizes.items()
        }

    def searched(self, run: Run) -> int | None:
        """Images of the OOD validation set that a run's search looks at, at most the budget's."""
        if run.search is None or run.search.ood_val is None:
            return 0
        source, limit = run.search.ood_val.source, run.budget.evaluation_images
        size = self._of(source.model_dump_json(), lambda: source.size(self._root))
        return size if size is None or limit is None else min(size, limit)

    def _validation(self, task: Task, shots: int | None) -> int | None:
        if isinstance(task.id_val, Holdout):
            whole = self._of(task.train.model_dump_json(), lambda: task.train.size(self._root))
            size = None if whole is None else round(task.id_val.holdout * whole)
        else:
            source = task.id_val
            size = self._of(source.model_dump_json(), lambda: source.size(self._root))
        if shots is None or size is None:
            return size
        classes = self._classes(task)
        return None if classes is None else min(size, min(shots, MOST_VALIDATION_SHOTS) * classes)

    def _classes(self, task: Task) -> int | None:
        key = f"classes {task.model_dump_json(include={'classes', 'train', 'class_split'})}"
        return self._of(key, lambda: len(task_classes(task, self._root)))

    def _of(self, key: str, count: Callable[[], int]) -> int | None:
        if key not in self._known:
            try:
                self._known[key] = count()
            except InputError:  # absent or broken data: `run` and `data verify` say so
                self._known[key] = None
        return self._known[key]
