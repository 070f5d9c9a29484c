"""Features and logits of images: of a run's variant, or of an ensemble's members."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from shiftbench.core.errors import RunFailedError
from shiftbench.evaluation.inference import Array, DecodedOnAccess, head_logits
from shiftbench.execution.variants import model_of
from shiftbench.methods.base import EnsembleMethod, Labelled, Members, Outputs
from shiftbench.models.checkpoints import load
from shiftbench.models.classifier import ImageClassifier, text_head, tokenized

if TYPE_CHECKING:
    from torch import nn

    from shiftbench.data.images import ImageSet
    from shiftbench.evaluation.inference import Pixels
    from shiftbench.execution.workspace import Workspace
    from shiftbench.methods.config import MethodConfig
    from shiftbench.suite.plan import Run

Rows: TypeAlias = slice | npt.NDArray[np.integer]
Projection = Callable[[Array], Array]
"""From logits of a task's classes (n, classes) to those of an evaluation set's."""


def variant_logits(
    workspace: Workspace, run: Run, variant: str, evaluation_set: str
) -> Callable[[Rows, Projection], Array]:
    """Logits (n, classes) fp32 of a variant: a function of the examples and of their projection."""
    method = run.create()
    if isinstance(method, EnsembleMethod):
        return _ensemble_logits(workspace, run, method, variant, evaluation_set)
    logits = _outputs(workspace, run, variant, evaluation_set).logits
    return lambda rows, projection: projection(logits[rows])


def _ensemble_logits(
    workspace: Workspace,
    run: Run,
    method: EnsembleMethod[MethodConfig],
    variant: str,
    evaluation_set: str,
) -> Callable[[Rows, Projection], Array]:
    said = _members(workspace, run, lambda of, its: _kept(workspace, of, its, evaluation_set))
    found = _found(workspace, run, method)

    def combined(members: Members) -> Array:
        logits = method.combine(variant, members, found)
        if logits.shape[:1] != members.zero_shot.logits.shape[:1] or logits.dtype != np.float32:
            raise RunFailedError(
                f"{run.label}: combine() must give float32 logits of all "
                f"{len(members.zero_shot.logits)} examples, not {logits.dtype} {logits.shape}"
            )
        return logits

    if method.projected:
        return lambda rows, projection: combined(_projected(said, rows, projection))
    logits = combined(said)
    return lambda rows, projection: projection(logits[rows])


def fit_ensemble(
    workspace: Workspace, run: Run, method: EnsembleMethod[MethodConfig]
) -> Mapping[str, Array]:
    """Arrays that an ensemble fits on labelled ID validation and un-augmented training data."""

    def labelled(images: ImageSet, said: Members) -> Labelled:
        if method.projected and images.projection is not None:
            said = _projected(said, slice(None), images.projection)
        return Labelled(said, images.labels)

    def id_val() -> Labelled:
        said = _members(workspace, run, lambda of, its: _kept(workspace, of, its, "id-val"))
        return labelled(workspace.evaluation_images(run, "id-val"), said)

    def train() -> Labelled:
        images = workspace.data(run).train
        pixels = DecodedOnAccess(images.images, workspace.backbone(run).preprocessing)

        def outputs(of: Run, variant: str | None) -> Outputs:
            model, _ = model_of(workspace, of, variant)
            return _outputs_on(workspace, of, variant, images, pixels, model.head)

        return labelled(images, _members(workspace, run, outputs))

    return method.fit(id_val, train)


def _found(
    workspace: Workspace, run: Run, method: EnsembleMethod[MethodConfig]
) -> Mapping[str, Array]:
    """The arrays that ``fit`` stored; empty where the method fits nothing."""
    if not method.kept:
        return {}
    arrays, _ = load(workspace.folder(run).ensemble)
    return {name: array.numpy() for name, array in arrays.items()}


def _members(
    workspace: Workspace, run: Run, outputs: Callable[[Run, str | None], Outputs]
) -> Members:
    """An ensemble's members, from a function of a run and its variant; ``None``: pretrained."""
    above = {parent: workspace.runs[run_id] for parent, run_id in run.parents}
    return Members(
        outputs(run, None),
        {parent: outputs(of, of.create().fixed_variant()) for parent, of in above.items()},
    )


def _projected(said: Members, rows: Rows, projection: Projection) -> Members:
    """Members' outputs on some examples, projected to the classes of an evaluation set."""

    def of(outputs: Outputs) -> Outputs:
        return Outputs(outputs.features[rows], projection(outputs.logits[rows]))

    return Members(of(said.zero_shot), {parent: of(out) for parent, out in said.parents.items()})


def _kept(workspace: Workspace, run: Run, variant: str | None, evaluation_set: str) -> Outputs:
    return workspace.outputs.get(
        (run.id, variant, evaluation_set),
        lambda: _outputs(workspace, run, variant, evaluation_set),
    )


def _outputs(workspace: Workspace, run: Run, variant: str | None, evaluation_set: str) -> Outputs:
    """A variant's outputs on an evaluation set; variant ``None`` is the pretrained model."""
    images = workspace.evaluation_images(run, evaluation_set)
    pixels = workspace.store.evaluation(images, workspace.backbone(run).preprocessing)
    model, _ = model_of(workspace, run, variant)
    head = _head(workspace, run, model, evaluation_set)
    return _outputs_on(workspace, run, variant, images, pixels, head)


def _outputs_on(
    workspace: Workspace,
    run: Run,
    variant: str | None,
    images: ImageSet,
    pixels: Pixels,
    head: nn.Linear,
) -> Outputs:
    model, tower_is_pretrained = model_of(workspace, run, variant)
    if tower_is_pretrained:
        features = workspace.pretrained_features(run, images, pixels)
    else:
        features = workspace.features(run, model, pixels)
    classifier = ImageClassifier(model.visual, head)
    return Outputs(features, head_logits(classifier, features, workspace.device))


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
