"""Scores on validation sets: what training and searches choose by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shiftbench.evaluation.examples import joined, of_logits
from shiftbench.evaluation.inference import blocks, head_logits
from shiftbench.evaluation.metrics.registry import metric
from shiftbench.execution.evaluated import Evaluated, pretrained_features, scoring_slot
from shiftbench.models.classifier import ImageClassifier, text_head
from shiftbench.suite.plan import evaluation_metrics

if TYPE_CHECKING:
    from torch import nn

    from shiftbench.data.images import ImageSet
    from shiftbench.evaluation.inference import Array, Pixels
    from shiftbench.evaluation.metrics.base import Metric
    from shiftbench.execution.workspace import Workspace
    from shiftbench.methods.base import TrainedMethod, Weights
    from shiftbench.methods.config import MethodConfig
    from shiftbench.suite.plan import Run


def id_val(workspace: Workspace, run: Run) -> tuple[Metric, ImageSet]:
    """Headline metric and images of the ID validation set of a run's task."""
    headline = metric(evaluation_metrics(run.task)["id-val"])
    return headline, workspace.evaluation_images(run, "id-val")


def id_val_value(workspace: Workspace, run: Run, weights: Weights) -> float:
    """Headline metric of some weights of the run on the ID validation set.

    Their features are kept for the run that they may turn out to be the weights of.

    Raises:
        RunFailedError: their logits are not finite.
    """
    headline, images = id_val(workspace, run)
    candidate = Evaluated(workspace, run, lambda: weights)
    features = candidate.features(images, lambda: _pixels(workspace, run, images))
    return _value(workspace, features, candidate.head(), headline, images)


def id_val_merit(workspace: Workspace, run: Run, weights: Weights) -> float:
    """Merit of some weights of the run on the ID validation set: of a loss, its negative.

    What compares candidates by it needs not know the metric: more is better.
    """
    headline, _ = id_val(workspace, run)
    return headline.merit(id_val_value(workspace, run, weights))


def score_of_weights(
    workspace: Workspace, run: Run, weights: Weights, measured: Metric, images: ImageSet
) -> float:
    """A metric of some weights of the run on images of the task's classes; nothing is kept.

    Raises:
        RunFailedError: their logits are not finite.
    """
    slot = scoring_slot(workspace, run)
    slot.holder = None
    workspace.load(slot.model, weights)
    return score_of(workspace, run, slot.model, measured, images)


def score_in_training(
    workspace: Workspace,
    run: Run,
    method: TrainedMethod[MethodConfig],
    model: ImageClassifier,
    measured: Metric,
    images: ImageSet,
) -> float:
    """A metric of the weights that training would end with now; ``model`` is left as it is.

    Where a method trains on features, those of ``images`` are computed once, too.
    """
    weights = method.weights(model)
    if not _are_those_of(model, weights):
        model = workspace.loaded(run, workspace.plain(run, weights))
    elif workspace.architecture(run).head == "text":
        model = ImageClassifier(model.visual, text_head(model).to(workspace.device))
    if method.inputs == "features":
        features = pretrained_features(workspace, run, images, _pixels(workspace, run, images))
        return _value(workspace, features, model.head, measured, images)
    return score_of(workspace, run, model, measured, images)


def score_of(
    workspace: Workspace, run: Run, model: ImageClassifier, measured: Metric, images: ImageSet
) -> float:
    """A metric of a model on images of the task's classes.

    Raises:
        RunFailedError: the model's logits are not finite.
    """
    features = workspace.features(run, model, _pixels(workspace, run, images))
    return _value(workspace, features, model.head, measured, images)


def _pixels(workspace: Workspace, run: Run, images: ImageSet) -> Pixels:
    return workspace.store.evaluation(images, workspace.backbone(run).preprocessing)


def _value(
    workspace: Workspace, features: Array, head: nn.Module, measured: Metric, images: ImageSet
) -> float:
    parts = []
    for part in blocks(len(images)):
        logits = head_logits(head, features[part], workspace.device)
        if images.projection is not None:
            logits = images.projection(logits)
        parts.append(of_logits(images.labels[part], logits, {}, measured.needs))
    return measured.value(joined(parts, images.metadata))


def _are_those_of(model: ImageClassifier, weights: Weights) -> bool:
    """True if weights are a model's own tensors, not others that a method made of them."""
    own = model.state_dict()
    return own.keys() == weights.keys() and all(
        weights[name].data_ptr() == tensor.data_ptr() for name, tensor in own.items()
    )
