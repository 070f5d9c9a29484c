from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from shiftbench.core.errors import InputError
from shiftbench.data.preprocessing import CROP_AREA, CROP_ASPECT, Preprocessing, random_crop
from torchvision.transforms import InterpolationMode, RandomResizedCrop
from torchvision.transforms import functional as tv

SIZES = [(32, 32), (33, 32), (32, 47), (125, 94), (94, 125), (21, 90), (90, 21), (7, 9), (64, 71)]
MODES = ["RGB", "L", "RGBA", "LA", "P", "1", "CMYK"]


def picture(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 4), dtype=np.uint8)
    rgba = Image.fromarray(pixels, "RGBA") if mode in ("RGBA", "LA") else None
    rgb = Image.fromarray(pixels[..., :3])
    return (rgba or rgb).convert(mode)


def open_clip_transform(preprocessing: Preprocessing):
    return image_transform_v2(
        PreprocessCfg(
            size=preprocessing.size,
            mean=preprocessing.mean,
            std=preprocessing.std,
            interpolation=preprocessing.interpolation,
            resize_mode=preprocessing.resize,
        ),
        is_train=False,
    )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("resize", ["shortest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_pixels_and_normalise_equal_open_clip(mode, resize, interpolation):
    for width, height in SIZES:
        for size in (32, 45):
            preprocessing = Preprocessing(size, interpolation=interpolation, resize=resize)
            image = picture(width, height, mode)
            transform = open_clip_transform(preprocessing)
            steps = transform.transforms[:-2]
            expected = image
            for step in steps:
                expected = step(expected)
            pixels = preprocessing.pixels(image)
            assert pixels.dtype == np.uint8
            np.testing.assert_array_equal(pixels, np.asarray(expected))
            batch = torch.from_numpy(np.array(pixels))[None]
            assert torch.equal(preprocessing.normalise(batch)[0], transform(image))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 140), st.integers(1, 140), st.integers(1, 70))
def test_pixels_equal_open_clip_at_any_size(width, height, size):
    preprocessing = Preprocessing(size)
    image = picture(width, height)
    expected = image
    for step in open_clip_transform(preprocessing).transforms[:-2]:
        expected = step(expected)
    np.testing.assert_array_equal(preprocessing.pixels(image), np.asarray(expected))


def test_normalise_leaves_its_input_and_is_contiguous():
    pixels = torch.randint(0, 256, (2, 4, 4, 3), dtype=torch.uint8)
    before = pixels.clone()
    out = Preprocessing(4).normalise(pixels)
    assert torch.equal(pixels, before)
    assert out.shape == (2, 3, 4, 4) and out.dtype == torch.float32 and out.is_contiguous()


def test_augment_has_the_pixels_of_torchvision_for_the_same_crop():
    for seed, (width, height) in enumerate(SIZES):
        image = picture(width, height)
        left, top, w, h = random_crop(width, height, np.random.default_rng(seed))
        expected = tv.resized_crop(image, top, left, h, w, [32, 32], InterpolationMode.BICUBIC)
        augmented = Preprocessing(32).augment(image, np.random.default_rng(seed))
        np.testing.assert_array_equal(augmented, np.asarray(expected))


@pytest.mark.parametrize("size", [(64, 64), (300, 200), (40, 44)])
def test_random_crop_follows_torchvisions_law(size):
    width, height = size
    rng, n = np.random.default_rng(1), 1500
    torch.manual_seed(1)
    ours = np.array([random_crop(width, height, rng) for _ in range(n)], dtype=float)
    image = picture(width, height)
    theirs = np.array(
        [RandomResizedCrop.get_params(image, list(CROP_AREA), list(CROP_ASPECT)) for _ in range(n)],
        dtype=float,
    )[:, [1, 0, 3, 2]]
    error = np.sqrt((ours.var(0) + theirs.var(0)) / n) + 1e-9
    assert np.all(np.abs(ours.mean(0) - theirs.mean(0)) < 5 * error)
    assert np.allclose(ours.std(0), theirs.std(0), rtol=0.1, atol=0.05)


@pytest.mark.parametrize(("size"), [(20, 200), (200, 20), (1, 9)])
def test_extreme_aspect_ratios_fall_back_to_the_centre(size):
    width, height = size
    image = picture(width, height)
    expected = RandomResizedCrop.get_params(image, list(CROP_AREA), list(CROP_ASPECT))
    left, top, w, h = random_crop(width, height, np.random.default_rng(0))
    assert (top, left, h, w) == expected


def test_crops_stay_inside_and_keep_their_area():
    rng = np.random.default_rng(0)
    for _ in range(500):
        left, top, w, h = random_crop(50, 60, rng)
        assert min(left, top) >= 0 and left + w <= 50 and top + h <= 60
        assert 0.87 < w * h / 3000 <= 1.0


def test_augment_depends_only_on_the_generator():
    image, preprocessing = picture(50, 40), Preprocessing(32)
    first = preprocessing.augment(image, np.random.default_rng(3))
    np.random.seed(0)
    torch.manual_seed(0)
    again = preprocessing.augment(image, np.random.default_rng(3))
    other = preprocessing.augment(image, np.random.default_rng(4))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_from_open_clip_reads_what_open_clip_writes():
    config = {
        "size": (48, 48),
        "mode": "RGB",
        "mean": [0.5, 0.5, 0.5],
        "std": 0.25,
        "interpolation": "random",
        "resize_mode": "squash",
        "fill_color": 0,
    }
    expected = Preprocessing(48, (0.5,) * 3, (0.25,) * 3, "bicubic", "squash")
    assert Preprocessing.from_open_clip(config, "here") == expected
    assert Preprocessing.from_open_clip({}, "here") == Preprocessing(224)


@pytest.mark.parametrize(
    ("config", "word"),
    [
        ({"size": (48, 32)}, "size"),
        ({"size": "48"}, "size"),
        ({"size": 0}, "size"),
        ({"resize_mode": "longest"}, "shortest, squash"),
        ({"interpolation": "nearest"}, "bicubic, bilinear"),
        ({"mean": [0.5, 0.5]}, "mean"),
        ({"std": [0.5, 0.0, 0.5]}, "std"),
        ({"std": [0.5, math.nan, 0.5]}, "std"),
    ],
)
def test_anything_else_is_refused(config, word):
    with pytest.raises(InputError, match=word) as raised:
        Preprocessing.from_open_clip(config, "model.json")
    assert str(raised.value).startswith("model.json") and "\n" not in str(raised.value)


def test_key_names_what_the_pixels_depend_on():
    base = Preprocessing(32)
    assert base.key() == Preprocessing(32, mean=(0.5,) * 3).key()
    others = [
        Preprocessing(33),
        Preprocessing(32, interpolation="bilinear"),
        Preprocessing(32, resize="squash"),
    ]
    assert len({base.key(), *(other.key() for other in others)}) == 4
