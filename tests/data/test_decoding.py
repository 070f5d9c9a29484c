"""Decoders: the same crop, and pixels that differ by rounding only."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from PIL import Image
from shiftbench.core.errors import InputError
from shiftbench.data import decoding
from shiftbench.data.decoding import augmented, image_at, jpeg_pixels
from shiftbench.data.images import ImageSubset
from shiftbench.data.preprocessing import Preprocessing
from shiftbench.data.sources.files import decode

PREPROCESSING = Preprocessing(64)
SIZES = [(400, 300), (300, 400), (65, 90), (40, 33), (640, 640), (90, 500)]


@dataclass
class Encoded:
    """Files in memory, as a reader has them."""

    files: Sequence[bytes]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Image.Image:
        return decode(self.files[index], f"file {index}")

    def encoded(self, index: int) -> bytes:
        return self.files[index]


def photograph(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    """Smooth shapes, edges and a little noise."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)
    smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    pixels = np.asarray(smooth, dtype=np.int64) + rng.integers(-20, 21, (height, width, 3))
    pixels[height // 3 : height // 2, width // 4 : width // 2] = rng.integers(0, 256, 3)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).convert(mode)


def file_of(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def difference(images: Encoded | ImageSubset, index: int, seed: int) -> int:
    """The largest difference of a pixel between the two decoders."""
    exact, fast = (
        augmented(images, index, PREPROCESSING, np.random.default_rng(seed), decoder).int()
        for decoder in ("pil", "turbo")
    )
    assert exact.shape == fast.shape == (64, 64, 3)
    return int((exact - fast).abs().max())


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "options",
    [{"quality": 90}, {"quality": 60, "subsampling": 0}, {"quality": 95, "progressive": True}],
)
def test_turbo_differs_by_rounding(size, options):
    files = [file_of(photograph(*size, seed=seed), **options) for seed in range(4)]
    differences = [difference(Encoded(files), i, seed) for i in range(4) for seed in range(3)]
    shrinks = min(size) > 1.6 * PREPROCESSING.size
    assert max(differences) <= (1 if shrinks else 3)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_what_is_decoded_is_the_same_without_simplejpeg(mode, monkeypatch):
    options = [{"quality": 90}, {"quality": 60, "subsampling": 0}, {"progressive": True}]
    images = Encoded([file_of(photograph(201, 150, mode), **kind) for kind in options])
    assert all((jpeg_pixels(images, i) is None) == (mode == "CMYK") for i in range(3))
    fast = [np.asarray(image_at(images, i)) for i in range(3)]
    monkeypatch.setattr(decoding, "simplejpeg_version", lambda: None)
    for i, pixels in enumerate(fast):
        np.testing.assert_array_equal(pixels, np.asarray(image_at(images, i)))
        np.testing.assert_array_equal(pixels, np.asarray(images[i]))


def test_what_pillow_thinks_too_large_is_left_to_it(monkeypatch):
    images = Encoded([file_of(photograph(200, 150))])
    assert jpeg_pixels(images, 0) is not None
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200 * 150 - 1)
    assert jpeg_pixels(images, 0) is None


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_other_colours_of_jpeg_differ_by_at_most_one(mode):
    assert difference(Encoded([file_of(photograph(200, 150, mode))]), 0, 0) <= 1


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP"])
def test_other_files_are_decoded_by_pillow(kind):
    assert difference(Encoded([file_of(photograph(200, 150), kind)]), 0, 0) <= 1


def test_a_subset_and_images_without_files():
    images = Encoded([file_of(photograph(200, 150, seed=seed)) for seed in range(3)])
    subset = ImageSubset(images, np.array([2, 0]))
    assert subset.encoded(0) == images.files[2]
    assert ImageSubset([photograph(80, 80)], np.array([0])).encoded(0) is None
    assert difference(subset, 1, 0) <= 1


def test_the_result_owns_contiguous_pixels():
    files = [file_of(photograph(200, 150))]
    for decoder in ("pil", "turbo"):
        pixels = augmented(Encoded(files), 0, PREPROCESSING, np.random.default_rng(0), decoder)
        assert pixels.dtype == torch.uint8 and pixels.is_contiguous()


@pytest.mark.parametrize("decoder", ["pil", "turbo"])
def test_a_broken_file_is_named(decoder):
    broken = file_of(photograph(200, 150))[:300]
    with pytest.raises(InputError, match="file 0: cannot be decoded"):
        augmented(Encoded([broken]), 0, PREPROCESSING, np.random.default_rng(0), decoder)
