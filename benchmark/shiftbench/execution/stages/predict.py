"""The second stage of a run: the predictions of its variants on the evaluation sets."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from shiftbench.data.tasks.definition import ID_TEST
from shiftbench.evaluation import predictions
from shiftbench.evaluation.inference import Array
from shiftbench.execution.outputs import variant_logits

if TYPE_CHECKING:
    from shiftbench.data.images import ImageSet
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
    logits = variant_logits(workspace, run, variant, evaluation_set)
    whole = logits(slice(None), lambda own: _projected(images, own))
    table = predictions.to_table(evaluation_set, variant, images, whole)
    facts = {"seconds": str(time.monotonic() - started), "fingerprint": images.fingerprint}
    if evaluation_set == ID_TEST:
        for name, (_, rows, part) in workspace.data(run).on_classes_of_shifts(images).items():
            of_part = logits(rows, lambda own, part=part: _projected(part, _projected(images, own)))  # type: ignore[misc]
            part_table = predictions.to_table(name, variant, part, of_part)
            part_facts = {"fingerprint": part.fingerprint}
            predictions.write(
                folder.part(variant, name), part_table.replace_schema_metadata(part_facts)
            )
    predictions.write(file, table.replace_schema_metadata(facts))


def _projected(images: ImageSet, logits: Array) -> Array:
    """Logits of the classes of a set, which may be others than the task's."""
    return logits if images.projection is None else images.projection(logits)
