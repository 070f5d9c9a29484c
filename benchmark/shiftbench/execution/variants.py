"""The weights of a run's variants: stored, or derived from those of its parents."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from shiftbench.execution.evaluated import Evaluated, evaluated, pretrained
from shiftbench.execution.validation import id_val, id_val_merit
from shiftbench.methods.base import Batch, Derivation, DerivedMethod

if TYPE_CHECKING:
    from shiftbench.execution.workspace import Workspace
    from shiftbench.methods.base import Parent, Weights
    from shiftbench.models.classifier import ImageClassifier
    from shiftbench.suite.plan import Run


def weights(workspace: Workspace, run: Run, variant: str) -> Weights:
    """The weights of one of a run's variants: on the CPU if stored, on the device if derived."""
    method = run.create()
    if isinstance(method, DerivedMethod) and not method.kept:
        return method.derive(variant, _on_device(workspace, run, derivation(workspace, run)))
    return workspace.stored(run)


def _on_device(workspace: Workspace, run: Run, given: Derivation) -> Derivation:
    """The same with all weights on the device, so that each variant is computed there."""
    ids = dict(run.parents)
    return replace(
        given,
        zero_shot=workspace.on_device(("start", run.id), given.zero_shot),
        parents={
            parent: workspace.on_device(("parent", ids[parent]), of)
            for parent, of in given.parents.items()
        },
    )


def parents(workspace: Workspace, run: Run) -> dict[Parent, Weights]:
    """Weights of a run's parents: of each, the variant that stands for it."""
    found = {parent: workspace.runs[run_id] for parent, run_id in run.parents}
    return {
        parent: weights(workspace, ancestor, ancestor.create().fixed_variant())
        for parent, ancestor in found.items()
    }


def derivation(workspace: Workspace, run: Run) -> Derivation:
    """The data that the method of a derived run may use."""

    def model(candidate: Weights) -> ImageClassifier:
        return workspace.loaded(run, candidate).requires_grad_(True)

    def id_val_batches(size: int, seed: int) -> Iterator[Batch]:
        _, images = id_val(workspace, run)
        preprocessing = workspace.backbone(run).preprocessing
        pixels = workspace.store.evaluation(images, preprocessing)
        order = np.random.default_rng(seed).permutation(len(images))
        for start in range(0, len(order), size):
            part = order[start : start + size]
            inputs = torch.from_numpy(np.array(pixels[part])).to(workspace.device)
            labels = torch.from_numpy(images.labels[part]).to(workspace.device)
            yield Batch(preprocessing.normalise(inputs), labels)

    return Derivation(
        zero_shot=workspace.start(run),
        parents=parents(workspace, run),
        id_val=lambda candidate: id_val_merit(workspace, run, candidate),
        model=model,
        id_val_batches=id_val_batches,
        seed=run.seed,
        classes=workspace.data(run).classes,
    )


def variant_of(workspace: Workspace, run: Run, variant: str | None) -> Evaluated:
    """A variant, ready to be evaluated.

    Args:
        workspace: of this process.
        run: of the variant.
        variant: its name; ``None`` for the pretrained model.
    """
    if variant is None:
        return pretrained(workspace, run)
    return evaluated(workspace, run, variant, lambda: weights(workspace, run, variant))
