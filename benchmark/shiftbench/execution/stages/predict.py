"""The second stage of a run: the predictions of its variants on the evaluation sets."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from shiftbench.data.tasks.definition import ID_TEST
from shiftbench.evaluation import predictions
from shiftbench.evaluation.examples import Examples, joined, of_logits
from shiftbench.evaluation.inference import Array
from shiftbench.execution.outputs import logits_in_blocks

if TYPE_CHECKING:
    import pyarrow as pa

    from shiftbench.data.images import ImageSet
    from shiftbench.execution.outputs import Logits
    from shiftbench.execution.workspace import Workspace


def predict(workspace: Workspace, run_id: str, variant: str, evaluation_set: str) -> None:
    """Leave the predictions of one variant on one evaluation set.

    With those on the ID test set come those on its images that have the classes of a shift.
    """
    run = workspace.runs[run_id]
    folder = workspace.folder(run)
    file = folder.part(variant, evaluation_set)
    if file.exists():
        return
    started = time.monotonic()
    images = workspace.evaluation_images(run, evaluation_set)
    whole = _View(images, np.arange(len(images)), images)
    parts = {}
    if evaluation_set == ID_TEST:
        of_shifts = workspace.data(run).on_classes_of_shifts(images)
        parts = {name: _View(images, rows, part) for name, (_, rows, part) in of_shifts.items()}
    for block, logits in logits_in_blocks(workspace, run, variant, evaluation_set):
        for view in (whole, *parts.values()):
            view.add(block, logits)
    workspace.setup.check_held(run.id)
    for name, view in parts.items():
        facts = {"fingerprint": view.images.fingerprint}
        table = view.table(name, variant).replace_schema_metadata(facts)
        predictions.write_part(folder.part(variant, name), table)
    table = whole.table(evaluation_set, variant)
    facts = {"seconds": str(time.monotonic() - started), "fingerprint": images.fingerprint}
    predictions.write_part(file, table.replace_schema_metadata(facts))


@dataclass
class _View:
    """The answers on some examples of an evaluation set, collected block by block.

    Attributes:
        of: the evaluation set.
        rows: the examples' positions in it, ascending.
        images: they as a set, perhaps with labels and a projection of their own.
    """

    of: ImageSet
    rows: npt.NDArray[np.int64]
    images: ImageSet
    _answers: list[Examples] = field(default_factory=list)

    def add(self, block: slice, logits: Logits) -> None:
        """Add the answers on those examples that are in a block of the evaluation set."""
        first, last = np.searchsorted(self.rows, [block.start, block.stop])
        if first < last:
            rows = self.rows[first:last] - block.start
            labels = self.images.labels[first:last]
            self._answers.append(of_logits(labels, logits(rows, self._projected), {}))

    def table(self, name: str, variant: str) -> pa.Table:
        """The predictions, once all blocks were added."""
        examples = joined(self._answers, self.images.metadata)
        return predictions.table_of(name, variant, self.images.ids, examples)

    def _projected(self, logits: Array) -> Array:
        """Logits of the classes of the examples, which may be others than the task's."""
        for images in (self.of, *([] if self.images is self.of else [self.images])):
            if images.projection is not None:
                logits = images.projection(logits)
        return logits
