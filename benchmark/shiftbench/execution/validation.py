"""Scores on validation sets: what training and searches choose by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shiftbench.evaluation.examples import of_logits
from shiftbench.evaluation.inference import head_logits
from shiftbench.evaluation.metrics.registry import metric
from shiftbench.models.classifier import ImageClassifier, text_head
from shiftbench.suite.plan import evaluation_metrics

if TYPE_CHECKING:
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


def id_val_score(workspace: Workspace, run: Run, weights: Weights) -> float:
    """Merit of some weights of the run on the ID validation set: of a loss, its negative.

    What compares candidates by it needs not know the metric: more is better.
    """
    headline, images = id_val(workspace, run)
    model = workspace.loaded(run, weights)
    return headline.merit(score_of(workspace, run, model, headline, images))


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
        features = workspace.pretrained_features(run, images, _pixels(workspace, run, images))
        return _value(workspace, model, features, measured, images)
    return score_of(workspace, run, model, measured, images)


def score_of(
    workspace: Workspace, run: Run, model: ImageClassifier, measured: Metric, images: ImageSet
) -> float:
    """A metric of a model on images of the task's classes.

    Raises:
        RunFailedError: the model's logits are not finite.
    """
    features = workspace.features(run, model, _pixels(workspace, run, images))
    return _value(workspace, model, features, measured, images)


def _pixels(workspace: Workspace, run: Run, images: ImageSet) -> Pixels:
    return workspace.store.evaluation(images, workspace.backbone(run).preprocessing)


def _value(
    workspace: Workspace,
    model: ImageClassifier,
    features: Array,
    measured: Metric,
    images: ImageSet,
) -> float:
    logits = head_logits(model, features, workspace.device)
    if images.projection is not None:
        logits = images.projection(logits)
    return measured.value(of_logits(images.labels, logits, images.metadata, measured.needs))


def _are_those_of(model: ImageClassifier, weights: Weights) -> bool:
    """True if weights are a model's own tensors, not others that a method made of them."""
    own = model.state_dict()
    return own.keys() == weights.keys() and all(
        weights[name].data_ptr() == tensor.data_ptr() for name, tensor in own.items()
    )
