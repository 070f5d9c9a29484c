"""The second stage of a run: the predictions of its variants on the evaluation sets."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from shiftbench.core.mirror import fetched
from shiftbench.data.tasks.definition import ID_TEST, OUTLIERS, beside
from shiftbench.evaluation import predictions
from shiftbench.evaluation.detection import MCM, mcm
from shiftbench.evaluation.examples import Examples, joined, of_logits
from shiftbench.evaluation.inference import Array
from shiftbench.evaluation.intervals import Floats
from shiftbench.execution.outputs import logits_in_blocks
from shiftbench.execution.stages.looking import looked_at

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

    from shiftbench.data.images import ImageSet
    from shiftbench.execution.outputs import Logits
    from shiftbench.execution.workspace import Workspace


def predict(workspace: Workspace, run_id: str, variant: str, evaluation_set: str) -> None:
    """Leave the predictions of one variant on one evaluation set.

    With those on the ID test set come those on its images that have the classes of a shift.
    """
    run = workspace.runs[run_id]
    folder = looked_at(workspace, run)
    file = folder.part(variant, evaluation_set)
    images = workspace.evaluation_images(run, evaluation_set)
    if fetched(file).exists() and not (beside(evaluation_set) and _of_others(file, images)):
        return
    started = time.monotonic()
    temperature = None
    if run.task.outliers and evaluation_set.startswith((ID_TEST, OUTLIERS)):
        temperature = workspace.temperature(run)
    whole = _View(images, np.arange(len(images)), images, temperature)
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


def _of_others(file: Path, images: ImageSet) -> bool:
    """Whether a part was made of other images than these; other parts go when their data change."""
    facts = predictions.read_part(file).schema.metadata
    return bool(facts[b"fingerprint"] != images.fingerprint.encode())


def _answers(labels: npt.NDArray[np.int64], logits: Array) -> Examples:
    """The answers that logits give; nothing is known of a label that is none of their classes."""
    if labels.max(initial=0) < logits.shape[1]:
        return of_logits(labels, logits, {})
    return replace(of_logits(np.zeros_like(labels), logits, {}), labels=labels, label_logit=None)


@dataclass
class _View:
    """The answers on some examples of an evaluation set, collected block by block.

    Attributes:
        of: the evaluation set.
        rows: the examples' positions in it, ascending.
        images: they as a set, perhaps with labels and a projection of their own.
        temperature: CLIP's, where scores for OOD detection are kept too.
    """

    of: ImageSet
    rows: npt.NDArray[np.int64]
    images: ImageSet
    temperature: float | None = None
    _matching: list[Floats] = field(default_factory=list)
    _answers: list[Examples] = field(default_factory=list)

    def add(self, block: slice, logits: Logits) -> None:
        """Add the answers on those examples that are in a block of the evaluation set."""
        first, last = np.searchsorted(self.rows, [block.start, block.stop])
        if first < last:
            rows = self.rows[first:last] - block.start
            labels = self.images.labels[first:last]
            found = logits(rows, self._projected)
            self._answers.append(_answers(labels, found))
            if self.temperature is not None:
                self._matching.append(mcm(found, self.temperature))

    def table(self, name: str, variant: str) -> pa.Table:
        """The predictions, once all blocks were added."""
        metadata = dict(self.images.metadata)
        if self._matching:
            metadata[MCM] = np.concatenate(self._matching)
        examples = joined(self._answers, metadata)
        return predictions.table_of(name, variant, self.images.ids, examples)

    def _projected(self, logits: Array) -> Array:
        """Logits of the classes of the examples, which may be others than the task's."""
        for images in (self.of, *([] if self.images is self.of else [self.images])):
            if images.projection is not None:
                logits = images.projection(logits)
        return logits
