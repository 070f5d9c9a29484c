"""Training images, decoded and augmented by processes that work ahead of training."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from shiftbench.core.processes import forkserver
from shiftbench.data.decoding import Decoder, augmented

if TYPE_CHECKING:
    from shiftbench.data.images import Images
    from shiftbench.data.preprocessing import Preprocessing

PIECE = 64  # images that a process decodes at a time
AHEAD = 3  # pieces that each has ready or in work

Key = tuple[int, int, int]


class Piece(NamedTuple):
    """A part of a batch, in its order.

    Attributes:
        pixels: uint8 (m, size, size, 3).
        labels: (m,) int64.
        positions: of the examples in the stream, (m,) int64.
    """

    pixels: Tensor
    labels: Tensor
    positions: Tensor


class ImageLoader:
    """Augmented training images in any order, one stream after the other.

    The augmentation of an example is drawn from a stream's seed and the example's position in it,
    so it is the same whichever process decodes it. The processes stay from one stream to the next:
    starting them takes seconds, which is longer than a trial of a search trains. A new stream ends
    the one before it.

    Args:
        images: of the training set.
        labels: theirs, (n,) int64.
        preprocessing: of the backbone.
        decoder: how images are decoded and resized.
        processes: that decode; 0 decodes in this one.
        pin_memory: whether to put pixels in page-locked memory, for copies to a GPU.
    """

    def __init__(
        self,
        images: Images,
        labels: npt.NDArray[np.int64],
        preprocessing: Preprocessing,
        decoder: Decoder,
        processes: int,
        *,
        pin_memory: bool,
    ) -> None:
        self._order = _Order()
        self._piece = PIECE if processes else None
        self._items = _Augmented(images, labels, preprocessing, decoder)
        self._loader: DataLoader[Any] = DataLoader(  # of pieces, which are collated items
            self._items,
            batch_sampler=self._order,
            num_workers=processes,
            multiprocessing_context=forkserver() if processes else None,
            persistent_workers=processes > 0,
            prefetch_factor=AHEAD if processes else None,
            pin_memory=pin_memory,
            collate_fn=_collate,
            generator=torch.Generator(),  # or it would draw from the one that training uses
        )

    def stream(
        self, order: Iterable[list[tuple[int, int]]], seed: int
    ) -> Iterator[tuple[Piece, ...]]:
        """Batches in a given order, each in pieces, so that many processes share the work on one.

        Args:
            order: (position, index) pairs of every batch, as ``micro_batches`` yields them.
            seed: of the augmentation.
        """
        pieces_of: deque[int] = deque()  # of the batches that were asked for

        def pieces() -> Iterator[list[Key]]:
            for pairs in order:
                size = self._piece or len(pairs)
                starts = range(0, len(pairs), size)
                pieces_of.append(len(starts))
                for start in starts:
                    yield [(seed, *pair) for pair in pairs[start : start + size]]

        self._order.keys = pieces()
        loaded = iter(self._loader)
        for first in loaded:
            yield (first, *islice(loaded, pieces_of.popleft() - 1))

    def decoded(self, pairs: list[tuple[int, int]], seed: int) -> Piece:
        """One batch, decoded in this process; a stream that is being read goes on."""
        return _collate([self._items[(seed, *pair)] for pair in pairs])


class _Order:
    """The order of the stream that is being read; the loader asks for it when one begins."""

    def __init__(self) -> None:
        self.keys: Iterator[list[Key]] = iter(())

    def __iter__(self) -> Iterator[list[Key]]:
        return self.keys


class _Augmented(Dataset[tuple[Tensor, int, int]]):
    """Items by (seed of the augmentation, position in the stream, index of the example)."""

    def __init__(
        self,
        images: Images,
        labels: npt.NDArray[np.int64],
        preprocessing: Preprocessing,
        decoder: Decoder,
    ) -> None:
        self._images = images
        self._labels = labels
        self._preprocessing = preprocessing
        self._decoder = decoder

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, key: Key) -> tuple[Tensor, int, int]:
        seed, position, index = key
        rng = np.random.default_rng([seed, position])
        pixels = augmented(self._images, index, self._preprocessing, rng, self._decoder)
        return pixels, int(self._labels[index]), position


def _collate(items: list[tuple[Tensor, int, int]]) -> Piece:
    pixels, labels, positions = zip(*items, strict=True)
    # In a loader's process this stacks straight into memory that the training process sees too.
    stacked: Tensor = default_collate(list(pixels))
    return Piece(stacked, torch.tensor(labels), torch.tensor(positions))
