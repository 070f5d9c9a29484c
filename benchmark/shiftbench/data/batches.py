"""Training batches in an order that depends on the seed, not on how many workers share them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset

if TYPE_CHECKING:
    from shiftbench.data.images import Images
    from shiftbench.data.preprocessing import Preprocessing

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


class AugmentedImages(Dataset[tuple[torch.Tensor, int, int]]):
    """Training images, decoded and augmented on access.

    An item is asked for by (position in the stream, index of the example). The augmentation is
    drawn from the seed and the position, so it is the same whichever process decodes the image.
    """

    def __init__(
        self,
        images: Images,
        labels: npt.NDArray[np.int64],
        preprocessing: Preprocessing,
        seed: int,
    ) -> None:
        self._images = images
        self._labels = labels
        self._preprocessing = preprocessing
        self._seed = seed

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, key: tuple[int, int]) -> tuple[torch.Tensor, int, int]:
        position, index = key
        rng = np.random.default_rng([self._seed, position])
        pixels = self._preprocessing.augment(self._images[index], rng)
        return torch.from_numpy(pixels), int(self._labels[index]), position


def image_batches(
    dataset: AugmentedImages,
    order: Iterable[list[tuple[int, int]]],
    loader_workers: int,
    pin_memory: bool,
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Yield batches: uint8 pixels (m, size, size, 3), labels and positions (m,) int64.

    Args:
        dataset: the augmented training images.
        order: the micro-batches, as ``micro_batches`` yields them.
        loader_workers: processes that decode ahead of training; 0 decodes in this one.
        pin_memory: put batches in page-locked memory, for faster copies to a GPU.
    """
    loader: DataLoader[tuple[torch.Tensor, int, int]] = DataLoader(
        dataset,
        batch_sampler=order,
        num_workers=loader_workers,
        # Forking a process that runs Ray's threads deadlocks.
        multiprocessing_context="forkserver" if loader_workers else None,
        pin_memory=pin_memory,
    )
    yield from loader


def feature_batches(
    features: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    order: Iterable[list[tuple[int, int]]],
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield batches of features (m, width) fp32 and labels (m,) int64, in the given order."""
    for pairs in order:
        indices = np.array([index for _, index in pairs], dtype=np.int64)
        yield torch.from_numpy(features[indices]), torch.from_numpy(labels[indices])


def caption_templates(positions: npt.NDArray[np.int64], templates: int, seed: int) -> Positions:
    """Draw the index (n,) of the template that captions each position in the stream of examples.

    A function of the seed and the position, as the augmentation is: uniform over ``templates``.
    """
    draws = [np.random.default_rng([seed, int(p), 1]).integers(templates) for p in positions]
    return np.array(draws, dtype=np.int64)
