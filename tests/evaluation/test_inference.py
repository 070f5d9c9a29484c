"""Batches, prefetching and precision change nothing but what they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from shiftbench.data.preprocessing import Preprocessing
from shiftbench.evaluation.inference import BATCH, head_logits, image_features
from shiftbench.models.classifier import ImageClassifier
from shiftbench.testing.toys import make_model

CPU = torch.device("cpu")
PREPROCESSING = Preprocessing(4)


@pytest.fixture
def model() -> ImageClassifier:
    return make_model().eval()


@pytest.fixture
def pixels() -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (2 * BATCH + 77, 4, 4, 3), dtype=np.uint8)


@torch.inference_mode()
def plainly(model: ImageClassifier, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features and logits in a loop without anything clever."""
    features, logits = [], []
    for start in range(0, len(pixels), BATCH):
        images = PREPROCESSING.normalise(torch.from_numpy(pixels[start : start + BATCH]))
        features.append(model.features(images).numpy())
        logits.append(model.classify(torch.from_numpy(features[-1])).numpy())
    return np.concatenate(features), np.concatenate(logits)


def test_logits_equal_a_plain_loop_bit_for_bit(model, pixels):
    features = image_features(model, pixels, PREPROCESSING, CPU)
    expected_features, expected_logits = plainly(model, pixels)
    np.testing.assert_array_equal(features, expected_features)
    np.testing.assert_array_equal(head_logits(model.head, features, CPU), expected_logits)


def test_bf16_is_close_and_the_head_stays_in_fp32(model, pixels):
    exact = image_features(model, pixels, PREPROCESSING, CPU)
    rounded = image_features(model, pixels, PREPROCESSING, CPU, "bf16")
    assert rounded.dtype == np.float32
    assert 0 < np.abs(rounded - exact).max() < 0.03
    np.testing.assert_allclose(np.linalg.norm(rounded, axis=1), 1, rtol=1e-6)


def test_nothing_to_do_is_refused(model):
    with pytest.raises(ValueError, match="no examples"):
        image_features(model, np.zeros((0, 4, 4, 3), np.uint8), PREPROCESSING, CPU)
