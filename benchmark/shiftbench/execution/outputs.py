"""Features and logits of images: of a run's variant, or of an ensemble's members."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from shiftbench.core.errors import RunFailedError
from shiftbench.evaluation.inference import Array, DecodedOnAccess, Pixels, blocks, head_logits
from shiftbench.execution.evaluated import Evaluated
from shiftbench.execution.variants import variant_of, weights
from shiftbench.methods.base import EnsembleMethod, Parent
from shiftbench.methods.members import Labelled, Members, Outputs
from shiftbench.models.checkpoints import load
from shiftbench.models.weights import interpolate

if TYPE_CHECKING:
    import torch
    from torch import nn

    from shiftbench.data.images import ImageSet
    from shiftbench.execution.workspace import Workspace
    from shiftbench.methods.config import MethodConfig
    from shiftbench.methods.members import Positions
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
    own_names = evaluation_set in workspace.data(run).vocabularies
    if isinstance(method, EnsembleMethod) and (method.any_classes or not own_names):
        of_ensemble = _combined(workspace, run, method, variant)
        members = _Ensemble(workspace, run, _Seen.of_set(workspace, run, evaluation_set))
        for part in members.blocks(whole=method.transductive):
            yield part, of_ensemble(members.outputs(part))
    else:
        seen = _Seen.of_set(workspace, run, evaluation_set)
        pretrained = isinstance(method, EnsembleMethod)  # of the task's classes alone
        of = variant_of(workspace, run, None if pretrained else variant)
        model = _Model.of(of, seen, workspace.device)
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
        shape = members.zero_shot.logits.shape
        if logits.shape != shape or logits.dtype != np.float32:
            raise RunFailedError(
                f"{run.label}: combine() must give float32 logits {shape}, one for each example "
                f"and class, not {logits.dtype} {logits.shape}"
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

    def labelled(seen: _Seen) -> Labelled:
        said, images = _Ensemble(workspace, run, seen).outputs(slice(None)), seen.images
        if method.projected and images.projection is not None:
            said = _projected(said, slice(None), images.projection)
        return Labelled(said, images.labels)

    def train() -> Labelled:
        images = workspace.data(run).train
        pixels = DecodedOnAccess(images.images, workspace.backbone(run).preprocessing)
        return labelled(_Seen(images, lambda: pixels, None))

    def id_val() -> Labelled:
        return labelled(_Seen.of_set(workspace, run, "id-val"))

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
class _Seen:
    """Images that models look at.

    Attributes:
        images: say what the pixels are of.
        pixels: of all of them.
        evaluation_set: its name, where they are one, whose classes may have names of their own.
    """

    images: ImageSet
    pixels: Callable[[], Pixels]
    evaluation_set: str | None

    @classmethod
    def of_set(cls, workspace: Workspace, run: Run, name: str) -> _Seen:
        """An evaluation set of a run's task."""
        images = workspace.evaluation_images(run, name)
        preprocessing = workspace.backbone(run).preprocessing
        return cls(images, lambda: workspace.store.evaluation(images, preprocessing), name)


@dataclass(frozen=True)
class _Model:
    """One model on some images: their features are there, logits are computed when wanted."""

    features: Array
    head: nn.Module
    device: torch.device

    @classmethod
    def of(cls, model: Evaluated, seen: _Seen, device: torch.device) -> _Model:
        """A model on all of the images."""
        features = model.features(seen.images, seen.pixels)
        return cls(features, model.head(seen.evaluation_set), device)

    def outputs(self, part: slice) -> Outputs:
        features = self.features[part]
        return Outputs(features, head_logits(self.head, features, self.device))


class _Ensemble:
    """An ensemble's members on the same images."""

    def __init__(self, workspace: Workspace, run: Run, seen: _Seen) -> None:
        self._workspace, self._seen = workspace, seen
        self._above = {parent: workspace.runs[run_id] for parent, run_id in run.parents}
        self._zero_shot = self._model(run, None)
        self._parents = {
            parent: self._model(of, of.create().fixed_variant())
            for parent, of in self._above.items()
        }

    def blocks(self, *, whole: bool) -> Iterator[slice]:
        """Parts of the images whose logits are held at a time; all at once where that must be."""
        n = len(self._seen.images)
        return iter([slice(0, n)]) if whole else blocks(n)

    def outputs(self, part: slice) -> Members:
        rows = np.arange(len(self._seen.images))[part]
        return Members(
            self._zero_shot.outputs(part),
            {parent: model.outputs(part) for parent, model in self._parents.items()},
            lambda parent, alpha, positions: self._between(parent, alpha, rows[positions]),
        )

    def _model(self, run: Run, variant: str | None) -> _Model:
        found = variant_of(self._workspace, run, variant)
        return _Model.of(found, self._seen, self._workspace.device)

    def _between(self, parent: Parent, alpha: float, rows: Positions) -> Outputs:
        """Outputs of a point between the pretrained and a parent's weights, on some images."""
        workspace, run = self._workspace, self._above[parent]
        found = weights(workspace, run, run.create().fixed_variant())
        fine_tuned = {name: tensor.cpu() for name, tensor in found.items()}
        point = interpolate(workspace.start(run), fine_tuned, alpha)
        model, seen = Evaluated(workspace, run, lambda: point), self._seen
        features = workspace.features(run, model.model, _Rows(seen.pixels(), rows))
        head = model.head(seen.evaluation_set)
        return Outputs(features, head_logits(head, features, workspace.device))


@dataclass(frozen=True)
class _Rows:
    """Some of the pixels, read a slice at a time."""

    pixels: Pixels
    rows: Positions

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, part: slice | Positions) -> npt.NDArray[np.uint8]:
        return self.pixels[self.rows[part]]


def _projected(said: Members, rows: Rows, projection: Projection) -> Members:
    """Members' outputs on some examples, projected to the classes of an evaluation set."""
    chosen = np.arange(len(said.zero_shot.logits))[rows]

    def between(parent: Parent, alpha: float, positions: Positions) -> Outputs:
        outputs = said.between(parent, alpha, chosen[positions])
        return Outputs(outputs.features, projection(outputs.logits))

    def of(outputs: Outputs) -> Outputs:
        return Outputs(outputs.features[rows], projection(outputs.logits[rows]))

    parents = {parent: of(outputs) for parent, outputs in said.parents.items()}
    return Members(of(said.zero_shot), parents, between)
