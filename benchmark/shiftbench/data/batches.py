"""Training batches in an order that depends on the seed, not on how many workers share them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True)
class WorkerPlace:
    """This worker among those that share a training run."""

    rank: int = 0
    size: int = 1


@lru_cache(maxsize=2)
def _epoch_order(n: int, seed: int, epoch: int) -> Positions:
    return np.random.default_rng([seed, epoch]).permutation(n)


def global_batch(n: int, batch_size: int, seed: int, step: int) -> tuple[Positions, Positions]:
    """Return the examples of one optimizer step.

    The stream of examples is one permutation of the training set after another, each drawn from
    the seed and its epoch. Step s takes the positions [s·B, (s+1)·B) of it: every batch is full,
    and over any number of epochs each example is seen equally often, up to one.

    Returns:
        positions in the stream (B,) and indices of the examples (B,), both int64.
    """
    positions = np.arange(step * batch_size, (step + 1) * batch_size, dtype=np.int64)
    epochs = positions // n
    indices = np.empty_like(positions)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        indices[here] = _epoch_order(n, seed, int(epoch))[positions[here] % n]
    return positions, indices


def micro_batches(
    n: int, batch_size: int, seed: int, steps: range, place: WorkerPlace, micro_batch: int
) -> Iterator[list[tuple[int, int]]]:
    """Yield this worker's part of every step, ``micro_batch`` (position, index) pairs at a time."""
    share = batch_size // place.size
    for step in steps:
        positions, indices = global_batch(n, batch_size, seed, step)
        mine = slice(place.rank * share, (place.rank + 1) * share)
        pairs = list(zip(positions[mine].tolist(), indices[mine].tolist(), strict=True))
        for start in range(0, share, micro_batch):
            yield pairs[start : start + micro_batch]


def feature_batches(
    features: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    order: Iterable[list[tuple[int, int]]],
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of features (m, width) fp32 and labels (m,) int64, in the given order."""
    import torch

    for pairs in order:
        indices = np.array([index for _, index in pairs], dtype=np.int64)
        yield torch.from_numpy(features[indices]), torch.from_numpy(labels[indices])


def caption_templates(positions: npt.NDArray[np.int64], templates: int, seed: int) -> Positions:
    """Draw the index (n,) of the template that captions each position in the stream of examples.

    A function of the seed and the position, as the augmentation is: uniform over ``templates``.
    """
    draws = [np.random.default_rng([seed, int(p), 1]).integers(templates) for p in positions]
    return np.array(draws, dtype=np.int64)
