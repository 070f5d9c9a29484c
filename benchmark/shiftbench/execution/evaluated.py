"""Weights of a run as they are evaluated: image features that equal towers share, and heads."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from torch import nn

from shiftbench.data.entries import made_by
from shiftbench.evaluation.features import arithmetic, key_of
from shiftbench.models.classifier import text_head, tokenized
from shiftbench.models.digest import weights_digest

if TYPE_CHECKING:
    from shiftbench.data.images import ImageSet
    from shiftbench.data.prompts import Prompts
    from shiftbench.evaluation.inference import Array, Pixels
    from shiftbench.execution.workspace import Slot, Workspace
    from shiftbench.methods.base import Weights
    from shiftbench.models.classifier import ImageClassifier
    from shiftbench.suite.plan import Run


class Evaluated:
    """Some weights of a run, ready to be evaluated.

    Args:
        workspace: of this process.
        run: that the weights are of.
        weights: gives them; called again when others have taken their place in the model.
    """

    def __init__(self, workspace: Workspace, run: Run, weights: Callable[[], Weights]) -> None:
        self._workspace = workspace
        self._run = run
        self._weights = weights
        self._compiled = workspace.evaluates_compiled(run)
        found = weights()
        tower = {name: tensor for name, tensor in found.items() if name.startswith("visual.")}
        self._tower = weights_digest(tower)
        self._head = copy.deepcopy(self._loaded(found).head)
        self._own_heads: dict[str, nn.Linear] = {}

    @property
    def model(self) -> ImageClassifier:
        """The model with these weights, until others are loaded."""
        slot = self._slot
        return slot.model if slot.holder is self else self._loaded(self._weights())

    def head(self, evaluation_set: str | None = None) -> nn.Linear:
        """The head, or one for an evaluation set with class names of its own.

        Those no head was trained for: it is made by the model's text tower, or the pretrained one
        where the weights have none.
        """
        vocabularies = self._workspace.data(self._run).vocabularies
        if evaluation_set is None or (vocabulary := vocabularies.get(evaluation_set)) is None:
            return self._head
        if evaluation_set not in self._own_heads:
            self._own_heads[evaluation_set] = self._head_of(*vocabulary)
        return self._own_heads[evaluation_set]

    def features(self, images: ImageSet, pixels: Callable[[], Pixels]) -> Array:
        """Features (n, width) fp32 of images, computed unless an equal image tower has been there.

        Args:
            images: say what the pixels are of.
            pixels: of all of them.
        """

        def compute() -> Array:
            return self._workspace.features(self._run, self.model, pixels())

        return self._workspace.features_on_disk.get(self._key(images), compute)

    @property
    def _slot(self) -> Slot:
        return scoring_slot(self._workspace, self._run)

    def _loaded(self, weights: Weights) -> ImageClassifier:
        slot = self._slot
        slot.holder = None  # until all of them are there
        self._workspace.load(slot.model, weights)
        slot.holder = self
        return slot.model

    def _head_of(self, names: Sequence[str], prompts: Prompts) -> nn.Linear:
        workspace, run = self._workspace, self._run
        architecture = workspace.architecture(run)
        if architecture.prompts is not None:
            prompts = architecture.prompts.texts(names)
        if architecture.text:
            groups = tokenized(workspace.backbone(run), prompts)
            return text_head(self.model, groups).to(workspace.device)
        head = workspace.zero_shot(run, prompts).head
        return copy.deepcopy(head).to(workspace.device)

    def _key(self, images: ImageSet) -> str:
        """Digest of all that features depend on."""
        backbone, budget = self._workspace.backbone(self._run), self._run.budget
        return key_of(
            "images",
            arithmetic(self._workspace.device),
            f"compiled={self._compiled}",
            f"precision={budget.evaluation_precision}",
            backbone.identity,
            repr(backbone.preprocessing),
            json.dumps(made_by()),
            self._tower,
            images.fingerprint,
            *images.ids.tolist(),
        )


def scoring_slot(workspace: Workspace, run: Run) -> Slot:
    """The model on the device into which the weights of a run are loaded to be evaluated."""
    data, architecture = workspace.data(run), workspace.architecture(run)
    compiled = workspace.evaluates_compiled(run)
    parts = (architecture.text, architecture.prompts)
    structure = (run.backbone, data.prompts, *parts, compiled)
    return workspace.slot(structure, run, compiled=compiled)


def evaluated(
    workspace: Workspace, run: Run, name: str | None, weights: Callable[[], Weights]
) -> Evaluated:
    """Weights of a run that have a name, kept for the next evaluation set."""
    kept: Evaluated = workspace.evaluated.get(
        (run.id, name), lambda: Evaluated(workspace, run, weights)
    )
    return kept


def pretrained(workspace: Workspace, run: Run) -> Evaluated:
    """The run's pretrained model with the zero-shot head, ready to be evaluated."""
    return evaluated(workspace, run, None, lambda: workspace.pretrained(run).state_dict())


def pretrained_features(workspace: Workspace, run: Run, images: ImageSet, pixels: Pixels) -> Array:
    """Features (n, width) of images by the pretrained image tower, computed once for all runs."""
    return pretrained(workspace, run).features(images, lambda: pixels)
