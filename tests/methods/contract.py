"""Methods that only tests use, one for each thing that the contract promises beyond those in-tree.

A suite names them through ``SHIFTBENCH_PLUGINS``; see ``PLUGINS``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from shiftbench.methods.base import DerivedMethod, EnsembleMethod, Parent
from shiftbench.methods.builtin.full import Full
from shiftbench.methods.config import MethodConfig

if TYPE_CHECKING:
    from shiftbench.methods.base import Array, Batch, Derivation, Weights
    from shiftbench.methods.members import Labelled, Members
    from shiftbench.models.classifier import ImageClassifier
    from torch import Tensor


class DescentConfig(MethodConfig):
    parent: str = "full"
    rate: float = 0.1
    epochs: int = 3
    batch_size: int = 8


class Descent(DerivedMethod[DescentConfig]):
    """Learns α of WiSE-FT by SGD on the cross-entropy of labelled ID validation (as TPGM does)."""

    name = "descent"
    Config = DescentConfig
    kept = True

    def parents(self) -> tuple[Parent, ...]:
        return (Parent(self.config.parent),)

    def derive(self, variant: str, derivation: Derivation) -> Weights:
        import torch
        from shiftbench.models.weights import interpolate
        from torch.func import functional_call
        from torch.nn.functional import cross_entropy

        (tuned,) = derivation.parents.values()
        model = derivation.model(derivation.zero_shot)
        device = next(model.parameters()).device
        start = {k: v.to(device) for k, v in derivation.zero_shot.items()}
        deltas = {k: tuned[k].to(device) - v for k, v in start.items()}
        alpha = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
        for epoch in range(self.config.epochs):
            for batch in derivation.id_val_batches(self.config.batch_size, derivation.seed + epoch):
                weights = {
                    k: v + alpha.to(device, v.dtype) * deltas[k] if v.is_floating_point() else v
                    for k, v in start.items()
                }
                loss = cross_entropy(functional_call(model, weights, batch.inputs), batch.labels)
                (gradient,) = torch.autograd.grad(loss, alpha)
                with torch.no_grad():
                    alpha -= self.config.rate * gradient
        self.alpha = float(alpha.detach())
        return interpolate(derivation.zero_shot, tuned, self.alpha)


class NearnessConfig(MethodConfig):
    parent: str = "full"
    neighbours: int = 2


class Nearness(EnsembleMethod[NearnessConfig]):
    """Example by example, the weight of θ1 from how near x is to what only θ1 gets right (VRF).

    The features are those of the fine-tuned model; temperatures make the mean confidence on ID
    validation the accuracy there, by a grid of 200.
    """

    name = "nearness"
    Config = NearnessConfig
    kept = True
    projected = True
    seeded = False

    def parents(self) -> tuple[Parent, ...]:
        return (Parent(self.config.parent),)

    def fit(
        self, id_val: Callable[[], Labelled], train: Callable[[], Labelled]
    ) -> Mapping[str, Array]:
        members, labels = train()
        (tuned,) = members.parents.values()
        saved = (tuned.logits.argmax(1) == labels) & (members.zero_shot.logits.argmax(1) != labels)
        centres = tuned.features[saved] if saved.any() else tuned.features
        members, labels = id_val()
        (tuned,) = members.parents.values()
        distances = self._distances(tuned.features, centres)
        return {
            "centres": centres,
            "middle": np.float32([np.median(distances)]),
            "temperatures": np.float32(
                [temperature(out.logits, labels) for out in (members.zero_shot, tuned)]
            ),
        }

    def combine(self, variant: str, members: Members, fitted: Mapping[str, Array]) -> Array:
        (tuned,) = members.parents.values()
        distances = self._distances(tuned.features, fitted["centres"])
        weight = 1 / (1 + np.exp(4 * (distances - fitted["middle"][0])))[:, None]
        t0, t1 = fitted["temperatures"].astype(np.float64)
        mean = (1 - weight) * softmax(members.zero_shot.logits / t0)
        mean += weight * softmax(tuned.logits / t1)
        return np.log(np.maximum(mean, 1e-30)).astype(np.float32)

    def _distances(self, features: Array, centres: Array) -> np.ndarray:
        squares = ((features[:, None].astype(np.float64) - centres[None]) ** 2).sum(2)
        k = min(self.config.neighbours, len(centres))
        return np.sqrt(np.sort(squares, axis=1)[:, k - 1])


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    accuracy = (logits.argmax(1) == labels).mean()
    grid = np.geomspace(0.1, 10, 200)
    return float(min(grid, key=lambda t: abs(softmax(logits / t).max(1).mean() - accuracy)))


class Terms(Full):
    """Full fine-tuning that returns other terms beside the loss, one of them at even steps only."""

    name = "terms"

    def loss(self, model: ImageClassifier, batch: Batch) -> dict[str, Tensor]:
        loss = super().loss(model, batch)["loss"]
        terms = {"loss": loss, "labels": batch.labels.float().mean(), "twice": 2 * loss}
        return terms | ({"even": batch.inputs.mean()} if batch.step % 2 == 0 else {})


PLUGINS = ",".join(
    f"{method.name}=tests.methods.contract:{method.__name__}"
    for method in (Descent, Nearness, Terms)
)
