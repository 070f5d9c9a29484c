"""The broad drawing of the world: every style of every task's classes, and no spurious cue.

The backbone is pretrained on it; each task's training set is a narrow corner of the same world.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shiftbench.data.miniature import styles
from shiftbench.data.miniature.captions import caption, colour_name
from shiftbench.data.miniature.corruptions import CORRUPTIONS, corrupt
from shiftbench.data.miniature.definition import CLASSES
from shiftbench.data.miniature.glyphs import glyphs_of
from shiftbench.data.miniature.world import Images, Scene, render

SIZE = 32

_OBJECT_STYLES: dict[str, styles.Style] = {
    "photo": styles.photo,
    "hard photo": styles.hard_photo,
    "unposed": styles.unposed,
    "sketch": styles.sketch,
    **styles.RENDITIONS,
}

SHARES: dict[str, dict[str, float]] = {
    "imagenet": {
        "photo": 0.09,
        "hard photo": 0.08,
        "unposed": 0.08,
        "sketch": 0.05,
        "cartoon": 0.03,
        "painting": 0.03,
        "embroidery": 0.03,
        "negative": 0.03,
    },
    "cifar10": {"photo": 0.08, "hard photo": 0.08, "unposed": 0.02},
    "iwildcam": {"day": 0.12, "night": 0.07},
    "fmow": {"aerial": 0.21},
}
"""Share of every style in the drawing."""

_CORRUPTED = 0.15  # of the photographs


@dataclass(frozen=True)
class Drawing:
    """A labelled, captioned set of images."""

    images: Images
    """uint8 (n, SIZE, SIZE, 3)."""
    label: NDArray[np.intp]
    """(n,) index into the task's classes."""
    task: str
    style: str
    captions: list[str]
    """n captions."""


def _scene(rng: np.random.Generator, style: str, glyph: styles.Glyphs) -> Scene:
    n = len(glyph)
    if style in ("day", "night"):
        known = styles.places(rng, n)
        dark = np.full(n, float(style == "night"), np.float32)
        return styles.camera(rng, glyph, np.arange(n), known, dark)
    if style == "aerial":
        age, haze = styles.uniform(rng, 0, 1, n), styles.uniform(rng, 0, 0.6, n)
        return styles.aerial(rng, glyph, styles.terrain(rng, n), age, haze)
    return _OBJECT_STYLES[style](rng, glyph)


def draw_style(rng: np.random.Generator, task: str, style: str, count: int) -> Drawing:
    """Draw `count` images of one task's classes, uniformly, in one style."""
    label = rng.integers(0, len(CLASSES[task]), count)
    scene = _scene(rng, style, glyphs_of(task)[label])
    images = render(scene, (SIZE, SIZE), rng)
    said = np.full(count, style, dtype=object)
    if "photo" in style:
        hit = np.flatnonzero(rng.random(count) < _CORRUPTED)
        for kind, rows in zip(CORRUPTIONS, np.array_split(hit, len(CORRUPTIONS)), strict=True):
            images[rows] = corrupt(images[rows], kind, int(rng.integers(2, 6)), rng)
        said[hit] = "corrupted"
    names = CLASSES[task]
    tinted = task in ("imagenet", "cifar10") and style not in ("sketch", "negative")
    captions = [
        caption(
            rng, task, names[k], said[i], colour_name(scene.fill[i].tolist()) if tinted else None
        )
        for i, k in enumerate(label)
    ]
    return Drawing(images, label, task, style, captions)


def draw(seed: int, count: int) -> list[Drawing]:
    """Draw about `count` images of everything, in the shares of `SHARES`.

    Returns:
        one `Drawing` for every task and style; the same seed draws the same bytes.
    """
    rng = np.random.default_rng([seed, count])
    return [
        draw_style(rng, task, style, max(1, round(share * count)))
        for task, shares in SHARES.items()
        for style, share in shares.items()
    ]
