"""Tip-Adapter: the zero-shot logits and a cache of the shots' features."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from shiftbench.methods.base import EnsembleMethod
from shiftbench.methods.config import MethodConfig

if TYPE_CHECKING:
    from shiftbench.methods.base import Array
    from shiftbench.methods.members import Labelled, Members

HELD = 2**24
"""Similarities that are held at a time."""
LOWEST = 0.1


class TipAdapterConfig(MethodConfig):
    """α and β as published for ImageNet, and the grid in which ID validation looks for others."""

    alpha: Annotated[float, Field(ge=0, description="weight of the cache, if not chosen")] = 1.17
    beta: Annotated[float, Field(ge=0, description="sharpness of the cache, if not chosen")] = 1.0
    choose: Annotated[
        Literal["id-val", "none"],
        Field(
            description="id-val: the α and β that are most accurate on ID validation; the released "
            "code takes the test set"
        ),
    ] = "id-val"
    highest_alpha: Annotated[float, Field(gt=LOWEST, description="end of the grid, left out")] = 3.0
    highest_beta: Annotated[float, Field(gt=LOWEST, description="end of the grid, left out")] = 7.0
    alphas: Annotated[int, Field(ge=1, description="points of the grid, from 0.1")] = 20
    betas: Annotated[int, Field(ge=1, description="points of the grid, from 0.1")] = 200


class TipAdapter(EnsembleMethod[TipAdapterConfig]):
    """Logits + α Σ exp(-β (1 - ⟨f, k⟩)) over the shots k of each class (arXiv 2111.03930).

    Nothing trains: keys are the features of the un-augmented shots, where the released code has the
    mean of ten augmentations. Tip-Adapter-F, whose keys train, is not here: a cache is no part of a
    plain model's weights. The seed counts where it draws the shots. Of other classes than the
    task's the cache knows nothing.
    """

    name: ClassVar[str] = "tip-adapter"
    Config: ClassVar[type[MethodConfig]] = TipAdapterConfig
    kept: bool = True
    any_classes: bool = False
    revision: int = 1

    def selects(self) -> bool:
        """True if α and β are chosen on ID validation."""
        return self.config.choose == "id-val"

    def fit(
        self, id_val: Callable[[], Labelled], train: Callable[[], Labelled]
    ) -> Mapping[str, Array]:
        """Keys (shots, width) in the order of their classes, their ``counts``, and (α, β)."""
        members, labels = train()
        order = np.argsort(labels, kind="stable")
        cache = {
            "keys": members.zero_shot.features[order],
            "counts": np.bincount(labels, minlength=members.zero_shot.logits.shape[1]).astype(
                np.float32
            ),
        }
        point = (self.config.alpha, self.config.beta)
        if self.selects():
            point = self._chosen(id_val(), cache)
        return {**cache, "point": np.array(point, np.float32)}

    def _chosen(self, labelled: Labelled, cache: Mapping[str, Array]) -> tuple[float, float]:
        """The most accurate (α, β), the first of the grid where several are."""
        settings, (members, labels) = self.config, labelled
        best, chosen = -1.0, (settings.alpha, settings.beta)
        for beta in grid(settings.highest_beta, settings.betas):
            cached = cache_logits(members.zero_shot.features, cache, beta)
            for alpha in grid(settings.highest_alpha, settings.alphas):
                answers = (members.zero_shot.logits + alpha * cached).argmax(axis=1)
                accuracy = float((answers == labels).mean())
                if accuracy > best:
                    best, chosen = accuracy, (alpha, beta)
        return chosen

    def combine(self, variant: str, members: Members, fitted: Mapping[str, Array]) -> Array:
        """The zero-shot logits and those of the cache."""
        alpha, beta = (float(value) for value in fitted["point"])
        cached = cache_logits(members.zero_shot.features, fitted, beta)
        logits: Array = (members.zero_shot.logits + alpha * cached).astype(np.float32)
        return logits


def grid(highest: float, points: int) -> Iterator[float]:
    """Points of a grid from 0.1, equally far from each other; the highest is left out."""
    for i in range(points):
        yield LOWEST + i * (highest - LOWEST) / points


def cache_logits(features: Array, cache: Mapping[str, Array], beta: float) -> Array:
    """Σ exp(-β (1 - ⟨f, k⟩)) over the keys of each class, (n, classes) fp32.

    Args:
        features: (n, width), L2-normalised.
        cache: ``keys`` (m, width) in the order of their classes, and how many each has, ``counts``.
        beta: β.
    """
    keys, counts = cache["keys"], cache["counts"].astype(np.int64)
    there = np.flatnonzero(counts)
    begins = np.concatenate([[0], np.cumsum(counts[there])[:-1]])
    out = np.zeros((len(features), len(counts)), np.float32)
    size = max(1, HELD // len(keys))
    for start in range(0, len(features), size):
        part = slice(start, start + size)
        affinities = np.exp(beta * (features[part] @ keys.T - 1))
        out[part, there] = np.add.reduceat(affinities, begins, axis=1)
    return out
