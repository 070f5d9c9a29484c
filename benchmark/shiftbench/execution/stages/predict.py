"""The second stage of a run: the predictions of its variants on the evaluation sets."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from shiftbench.data.tasks.definition import ID_TEST
from shiftbench.evaluation import predictions
from shiftbench.evaluation.inference import Array, head_logits, image_features
from shiftbench.models.classifier import ImageClassifier, text_head, tokenized

if TYPE_CHECKING:
    from torch import nn

    from shiftbench.data.images import ImageSet
    from shiftbench.execution.workspace import Workspace
    from shiftbench.suite.plan import Run

ZERO_SHOT = "zero-shot"
"""How a mixture refers to the pretrained model."""


def predict(workspace: Workspace, run_id: str, variant: str, evaluation_set: str) -> None:
    """Leave the predictions of one variant on one evaluation set."""
    run = workspace.runs[run_id]
    file = workspace.folder(run).part(variant, evaluation_set)
    if file.exists():
        return
    started = time.monotonic()
    images = workspace.evaluation_images(run, evaluation_set)
    logits = _combined_logits(workspace, run, variant, evaluation_set)
    if images.projection is not None:
        logits = images.projection(logits)
    table = predictions.to_table(evaluation_set, variant, images, logits)
    facts = {"seconds": str(time.monotonic() - started), "fingerprint": images.fingerprint}
    if evaluation_set == ID_TEST:
        _predict_parts(workspace, run, variant, images, logits)
    predictions.write(file, table.replace_schema_metadata(facts))


def _predict_parts(
    workspace: Workspace, run: Run, variant: str, images: ImageSet, logits: Array
) -> None:
    """Leave the predictions on the ID test images that have the classes of a shift."""
    folder = workspace.folder(run)
    for name, (_, kept, part) in workspace.data(run).on_classes_of_shifts(images).items():
        projected = logits[kept] if part.projection is None else part.projection(logits[kept])
        table = predictions.to_table(name, variant, part, projected)
        facts = {"fingerprint": part.fingerprint}
        predictions.write(folder.part(variant, name), table.replace_schema_metadata(facts))


def _combined_logits(workspace: Workspace, run: Run, variant: str, evaluation_set: str) -> Array:
    """Logits (n, classes) fp32 of a variant, which may be a mixture of others' logits."""
    mixture = run.create().mixture(variant)
    if mixture is None:
        return _logits(workspace, run, variant, evaluation_set)
    parents = dict(run.parents)
    total: npt.NDArray[np.float64] | None = None
    for label, coefficient in mixture.items():
        if label == ZERO_SHOT:
            part = _kept_logits(workspace, run, None, evaluation_set)
        else:
            parent = workspace.runs[parents[label]]
            fixed = parent.create().fixed_variant()
            part = _kept_logits(workspace, parent, fixed, evaluation_set)
        term = coefficient * part.astype(np.float64)
        total = term if total is None else total + term
    if total is None:
        raise ValueError(f"{run.label}: a mixture of nothing")
    return total.astype(np.float32)


def _kept_logits(workspace: Workspace, run: Run, variant: str | None, evaluation_set: str) -> Array:
    return workspace.logits.get(
        (run.id, variant, evaluation_set),
        lambda: _logits(workspace, run, variant, evaluation_set),
    )


def _logits(workspace: Workspace, run: Run, variant: str | None, evaluation_set: str) -> Array:
    """Logits before projection; variant ``None`` is the pretrained model."""
    images = workspace.evaluation_images(run, evaluation_set)
    preprocessing = workspace.backbone(run).preprocessing
    pixels = workspace.store.evaluation(images, preprocessing)
    model, tower_is_pretrained = workspace.variant(run, variant)
    if tower_is_pretrained:
        features = workspace.pretrained_features(run, images, pixels)
    else:
        features = image_features(model, pixels, preprocessing, workspace.device)
    head = _head(workspace, run, model, evaluation_set)
    return head_logits(ImageClassifier(model.visual, head), features, workspace.device)


def _head(workspace: Workspace, run: Run, model: ImageClassifier, evaluation_set: str) -> nn.Linear:
    """The model's head, or one for an evaluation set with class names of its own.

    Those no head was trained for: it is made by the model's text tower, or the pretrained one
    where the weights have none.
    """
    vocabulary = workspace.data(run).vocabularies.get(evaluation_set)
    if vocabulary is None:
        return model.head
    classes, templates = vocabulary
    if model.text is not None:
        prompts = tokenized(workspace.backbone(run), classes, templates)
        return text_head(model, prompts).to(workspace.device)
    return workspace.zero_shot(run, classes, templates).head.to(workspace.device)
