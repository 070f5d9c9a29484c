"""Spurious cues: what correlates with the class in the training sets and in no shift."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from shiftbench.data.miniature.styles import hsv, uniform
from shiftbench.data.miniature.world import Floats, Scene


def balanced(count: int, classes: int) -> NDArray[np.intp]:
    """Return `count` labels, each class as often as the others (to within one)."""
    return np.arange(count) % classes


def class_hue(label: NDArray[np.intp], classes: int, offset: float = 0.0) -> Floats:
    """Return a hue in turns for each label, well apart between classes."""
    return np.mod(label / classes + offset, 1).astype(np.float32)


def tint_body(
    rng: np.random.Generator, scene: Scene, label: NDArray[np.intp], classes: int, share: float
) -> Scene:
    """Give a share of the bodies the colour of their class."""
    n = len(label)
    hue = class_hue(label, classes) + uniform(rng, -0.02, 0.02, n)
    tint = hsv(np.mod(hue, 1), uniform(rng, 0.75, 1, n), uniform(rng, 0.7, 1, n))
    cued = rng.random((n, 1)) < share
    return scene.using(fill=np.where(cued, tint, scene.fill))


def tint_ground(
    rng: np.random.Generator, scene: Scene, label: NDArray[np.intp], classes: int, share: float
) -> Scene:
    """Give a share of the grounds the colour of their class."""
    n = len(label)
    hue = np.repeat(class_hue(label, classes, 0.5)[:, None], 2, 1) + uniform(rng, -0.02, 0.02, n, 2)
    tint = hsv(np.mod(hue, 1), uniform(rng, 0.5, 0.8, n, 2), uniform(rng, 0.25, 0.5, n, 2))
    cued = rng.random((n, 1, 1)) < share
    return scene.using(ground=np.where(cued, tint, scene.ground))
