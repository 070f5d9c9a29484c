"""Loader processes change nothing but the time, and stay from one stream to the next."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from PIL import Image
from shiftbench.data import loading
from shiftbench.data.batches import WorkerPlace, micro_batches
from shiftbench.data.loading import ImageLoader
from shiftbench.data.preprocessing import Preprocessing

N, BATCH = 30, 12
LABELS = np.arange(N) % 5
PREPROCESSING = Preprocessing(8)


@dataclass
class Drawn:
    """Images that differ; their first pixel is the id of the process that reads them."""

    sign: bool = False

    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int) -> Image.Image:
        pixels = np.random.default_rng(index).integers(0, 256, (20, 24, 3), dtype=np.uint8)
        if self.sign:
            pixels[:] = (os.getpid() >> np.array([16, 8, 0])) & 255
        return Image.fromarray(pixels)


IMAGES = Drawn()


def order(steps: range, seed: int = 0) -> list[list[tuple[int, int]]]:
    return list(micro_batches(N, BATCH, seed, steps, WorkerPlace(), BATCH))


def read(loader: ImageLoader, steps: range, seed: int) -> list[tuple[torch.Tensor, ...]]:
    """The batches of a stream, their pieces joined."""
    return [
        tuple(torch.cat(parts) for parts in zip(*pieces, strict=True))
        for pieces in loader.stream(order(steps), seed)
    ]


def make(processes: int, images: Drawn = IMAGES, decoder: loading.Decoder = "pil") -> ImageLoader:
    return ImageLoader(images, LABELS, PREPROCESSING, decoder, processes, pin_memory=False)


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr(loading, "PIECE", 5)  # which does not divide the batch


def assert_equal(ours, theirs):
    assert len(ours) == len(theirs)
    for batch, expected in zip(ours, theirs, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(batch, expected, strict=True))


@pytest.mark.parametrize("decoder", ["pil", "turbo"])
def test_processes_and_pieces_change_nothing(small_pieces, decoder):
    alone, shared = make(0, decoder=decoder), make(2, decoder=decoder)
    expected = read(alone, range(4), 7)
    assert_equal(read(shared, range(4), 7), expected)
    pixels, labels, positions = expected[1]
    indices = [index for _, index in order(range(1, 2))[0]]
    assert pixels.shape == (BATCH, 8, 8, 3) and pixels.dtype == torch.uint8
    assert labels.tolist() == LABELS[indices].tolist()
    assert positions.tolist() == list(range(BATCH, 2 * BATCH))


def test_another_seed_crops_otherwise_and_a_step_is_the_same_from_anywhere():
    loader = make(0)
    whole = read(loader, range(3), 7)
    assert_equal(read(loader, range(2, 3), 7), whole[2:])
    assert not torch.equal(read(loader, range(1), 8)[0][0], whole[0][0])


def test_a_new_stream_keeps_the_processes_of_one_that_was_left(small_pieces):
    loader = make(2, Drawn(sign=True))

    def readers(pixels: torch.Tensor) -> set[tuple[int, ...]]:
        return {tuple(image[0, 0].tolist()) for image in pixels}

    left = loader.stream(order(range(20)), 0)
    first = readers(next(left)[0].pixels)
    later = set().union(*(readers(batch[0]) for batch in read(loader, range(3), 1)))
    assert len(later) == 2 and first <= later


def test_reading_draws_nothing_from_the_global_generator():
    loader = make(0)
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    read(loader, range(2), 0)
    assert torch.equal(torch.rand(2), expected)
