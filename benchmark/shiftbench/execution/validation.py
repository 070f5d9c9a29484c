"""Scores on validation sets: what training and searches choose by."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from shiftbench.core.errors import RunFailedError
from shiftbench.evaluation.inference import head_logits, image_features
from shiftbench.evaluation.metrics import score
from shiftbench.models.classifier import ImageClassifier, text_head
from shiftbench.suite.plan import evaluation_metrics

if TYPE_CHECKING:
    from shiftbench.data.images import ImageSet
    from shiftbench.execution.workspace import Workspace
    from shiftbench.methods.base import TrainedMethod, Weights
    from shiftbench.methods.config import MethodConfig
    from shiftbench.suite.plan import Run


def id_val(workspace: Workspace, run: Run) -> tuple[str, ImageSet]:
    """Headline metric and images of the ID validation set of a run's task."""
    return evaluation_metrics(run.task)["id-val"], workspace.evaluation_images(run, "id-val")


def id_val_score(workspace: Workspace, run: Run, weights: Weights) -> float:
    """Headline score on the ID validation set of some weights of the run."""
    return score_of(workspace, run, workspace.loaded(run, weights), *id_val(workspace, run))


def score_in_training(
    workspace: Workspace,
    run: Run,
    method: TrainedMethod[MethodConfig],
    model: ImageClassifier,
    metric: str,
    images: ImageSet,
) -> float:
    """A metric of the weights that training would end with now; ``model`` is left as it is."""
    weights = method.weights(model)
    if not _are_those_of(model, weights):
        model = workspace.loaded(run, workspace.plain(run, weights))
    elif workspace.architecture(run).head == "text":
        model = ImageClassifier(model.visual, text_head(model).to(workspace.device))
    return score_of(workspace, run, model, metric, images)


def score_of(
    workspace: Workspace, run: Run, model: ImageClassifier, metric: str, images: ImageSet
) -> float:
    """A metric of a model on images of the task's classes.

    Raises:
        RunFailedError: the model's logits are not finite.
    """
    preprocessing = workspace.backbone(run).preprocessing
    pixels = workspace.store.evaluation(images, preprocessing)
    features = image_features(model, pixels, preprocessing, workspace.device)
    logits = head_logits(model, features, workspace.device)
    if images.projection is not None:
        logits = images.projection(logits)
    if not np.isfinite(logits).all():
        raise RunFailedError("the model's logits are not finite")
    answers = logits.argmax(axis=1)
    return score(metric, images.labels, answers, images.metadata).value


def _are_those_of(model: ImageClassifier, weights: Weights) -> bool:
    """Whether weights are a model's own tensors, not others that a method made of them."""
    own = model.state_dict()
    return own.keys() == weights.keys() and all(
        weights[name].data_ptr() == tensor.data_ptr() for name, tensor in own.items()
    )
