"""Features and logits of images: of a run's variant, or of an ensemble's members."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from shiftbench.core.errors import RunFailedError
from shiftbench.evaluation.inference import Array, DecodedOnAccess, blocks, head_logits
from shiftbench.execution.variants import variant_of
from shiftbench.methods.base import EnsembleMethod, Labelled, Members, Outputs, Parent
from shiftbench.models.checkpoints import load

if TYPE_CHECKING:
    import torch
    from torch import nn

    from shiftbench.data.images import ImageSet
    from shiftbench.execution.workspace import Workspace
    from shiftbench.methods.config import MethodConfig
    from shiftbench.suite.plan import Run

Rows: TypeAlias = slice | npt.NDArray[np.integer]
Projection = Callable[[Array], Array]
"""From logits of a task's classes (n, classes) to those of an evaluation set's."""
Logits = Callable[[Rows, Projection], Array]
"""Logits (n, classes) fp32 of some examples of a block, under a projection."""


def logits_in_blocks(
    workspace: Workspace, run: Run, variant: str, evaluation_set: str
) -> Iterator[tuple[slice, Logits]]:
    """The logits of a variant on an evaluation set, as many examples at a time as may be held.

    Yields the part of the set, and a function of positions in that part and of their projection.
    """
    method = run.create()
    if isinstance(method, EnsembleMethod):
        of_ensemble = _combined(workspace, run, method, variant)
        members = _members(
            workspace, run, lambda of, its: _on_set(workspace, of, its, evaluation_set)
        )
        for part in members.blocks():
            yield part, of_ensemble(members.outputs(part))
    else:
        model = _on_set(workspace, run, variant, evaluation_set)
        for part in blocks(len(model.features)):
            yield part, _plain(model.outputs(part).logits)


def _plain(logits: Array) -> Logits:
    return lambda rows, projection: projection(logits[rows])


def _combined(
    workspace: Workspace, run: Run, method: EnsembleMethod[MethodConfig], variant: str
) -> Callable[[Members], Logits]:
    found = _found(workspace, run, method)

    def combined(members: Members) -> Array:
        logits = method.combine(variant, members, found)
        if logits.shape[:1] != members.zero_shot.logits.shape[:1] or logits.dtype != np.float32:
            raise RunFailedError(
                f"{run.label}: combine() must give float32 logits of all "
                f"{len(members.zero_shot.logits)} examples, not {logits.dtype} {logits.shape}"
            )
        return logits

    def of(members: Members) -> Logits:
        if method.projected:
            return lambda rows, projection: combined(_projected(members, rows, projection))
        return _plain(combined(members))

    return of


def fit_ensemble(
    workspace: Workspace, run: Run, method: EnsembleMethod[MethodConfig]
) -> Mapping[str, Array]:
    """Arrays that an ensemble fits on labelled ID validation and un-augmented training data."""

    def labelled(images: ImageSet, said: Members) -> Labelled:
        if method.projected and images.projection is not None:
            said = _projected(said, slice(None), images.projection)
        return Labelled(said, images.labels)

    def id_val() -> Labelled:
        members = _members(workspace, run, lambda of, its: _on_set(workspace, of, its, "id-val"))
        return labelled(workspace.evaluation_images(run, "id-val"), members.outputs(slice(None)))

    def train() -> Labelled:
        images = workspace.data(run).train
        pixels = DecodedOnAccess(images.images, workspace.backbone(run).preprocessing)

        def on_training_set(of: Run, variant: str | None) -> _Model:
            found = variant_of(workspace, of, variant)
            features = found.features(images, lambda: pixels)
            return _Model(features, found.head(), workspace.device)

        return labelled(images, _members(workspace, run, on_training_set).outputs(slice(None)))

    return method.fit(id_val, train)


def _found(
    workspace: Workspace, run: Run, method: EnsembleMethod[MethodConfig]
) -> Mapping[str, Array]:
    """The arrays that ``fit`` stored; empty where the method fits nothing."""
    if not method.kept:
        return {}
    arrays, _ = load(workspace.folder(run).ensemble)
    return {name: array.numpy() for name, array in arrays.items()}


@dataclass(frozen=True)
class _Model:
    """One model on some images: their features are there, logits are computed when wanted."""

    features: Array
    head: nn.Module
    device: torch.device

    def outputs(self, part: slice) -> Outputs:
        features = self.features[part]
        return Outputs(features, head_logits(self.head, features, self.device))


@dataclass(frozen=True)
class _Ensemble:
    """An ensemble's members on the same images."""

    zero_shot: _Model
    parents: Mapping[Parent, _Model]

    def blocks(self) -> Iterator[slice]:
        return blocks(len(self.zero_shot.features))

    def outputs(self, part: slice) -> Members:
        parents = {parent: model.outputs(part) for parent, model in self.parents.items()}
        return Members(self.zero_shot.outputs(part), parents)


def _members(
    workspace: Workspace, run: Run, model: Callable[[Run, str | None], _Model]
) -> _Ensemble:
    """An ensemble's members, from a function of a run and its variant; ``None``: pretrained."""
    above = {parent: workspace.runs[run_id] for parent, run_id in run.parents}
    return _Ensemble(
        model(run, None),
        {parent: model(of, of.create().fixed_variant()) for parent, of in above.items()},
    )


def _projected(said: Members, rows: Rows, projection: Projection) -> Members:
    """Members' outputs on some examples, projected to the classes of an evaluation set."""

    def of(outputs: Outputs) -> Outputs:
        return Outputs(outputs.features[rows], projection(outputs.logits[rows]))

    return Members(of(said.zero_shot), {parent: of(out) for parent, out in said.parents.items()})


def _on_set(workspace: Workspace, run: Run, variant: str | None, evaluation_set: str) -> _Model:
    """A variant on an evaluation set; variant ``None`` is the pretrained model."""
    images = workspace.evaluation_images(run, evaluation_set)
    found = variant_of(workspace, run, variant)
    features = found.features(
        images, lambda: workspace.store.evaluation(images, workspace.backbone(run).preprocessing)
    )
    return _Model(features, found.head(evaluation_set), workspace.device)
