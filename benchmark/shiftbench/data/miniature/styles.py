"""Styles: how scenes are sampled, from clean photographs to embroidery and camera traps.

Every function takes an explicit generator and the glyph index of each image, int (n,), and returns
a `Scene` of n rows. None knows of classes: what correlates with a class is decided by the layouts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shiftbench.data.miniature.world import GRID, Floats, Scene

Glyphs = NDArray[np.intp]
Style = Callable[[np.random.Generator, Glyphs], Scene]


@dataclass(frozen=True)
class Pose:
    """Ranges of the nuisance parameters of a pose (uniform, symmetric unless low/high)."""

    turn: float = 0.25
    shift: float = 0.2
    low: float = 0.5
    high: float = 0.78
    squeeze: float = 0.12
    shear: float = 0.1
    warp: float = 0.05


UPRIGHT = Pose(turn=0.12, shift=0.1, low=0.62, high=0.8, squeeze=0.06, shear=0.04, warp=0.03)
ANY = Pose(turn=np.pi, shift=0.25, low=0.48, high=0.75, squeeze=0.15, shear=0.12, warp=0.05)


def uniform(rng: np.random.Generator, low: float, high: float, *shape: int) -> Floats:
    """Return uniform float32 of the given shape in [low, high)."""
    return (low + (high - low) * rng.random(shape, dtype=np.float32)).astype(np.float32)


def hsv(hue: Floats, saturation: Floats, value: Floats) -> Floats:
    """Return RGB float32 (..., 3) of hue in turns, saturation and value in [0, 1]."""
    offsets = np.array([0.0, 2 / 3, 1 / 3], np.float32)
    wheel = np.clip(np.abs(np.mod(hue[..., None] + offsets, 1) * 6 - 3) - 1, 0, 1)
    mixed = 1 + saturation[..., None] * (wheel - 1)
    return np.asarray(value[..., None] * mixed, np.float32)


def colours(
    rng: np.random.Generator,
    n: int,
    saturation: tuple[float, float] = (0.2, 1.0),
    value: tuple[float, float] = (0.2, 1.0),
) -> Floats:
    """Return n random colours, float32 (n, 3)."""
    return hsv(uniform(rng, 0, 1, n), uniform(rng, *saturation, n), uniform(rng, *value, n))


def farthest(rng: np.random.Generator, other: Floats, tries: int = 4) -> Floats:
    """Return for each colour (n, 3) the farthest of a few random ones: a visible contrast."""
    n = len(other)
    options = np.stack([colours(rng, n, (0.0, 0.8), (0.1, 1.0)) for _ in range(tries)])
    weights = np.array([0.3, 0.59, 0.11], np.float32)
    gap = np.abs((options - other) @ weights) + 0.3 * np.abs(options - other).mean(-1)
    chosen: Floats = options[gap.argmax(0), np.arange(n)]
    return chosen


def base(rng: np.random.Generator, glyph: Glyphs, pose: Pose = Pose()) -> Scene:
    """A plain filled glyph on a calm two-colour ground: what the other styles start from."""
    n = len(glyph)
    fill = colours(rng, n, (0.3, 1.0), (0.3, 1.0))
    first = farthest(rng, fill)
    second = np.clip(first + uniform(rng, -0.15, 0.15, n, 3), 0, 1)
    low, high = np.log(pose.low), np.log(pose.high)
    detail = np.where(uniform(rng, 0, 1, n, 1) < 0.5, fill * 0.35, 0.4 * fill + 0.6)
    return Scene(
        glyph=np.asarray(glyph, np.intp),
        centre=uniform(rng, -pose.shift, pose.shift, n, 2),
        scale=np.exp(uniform(rng, low, high, n)),
        angle=uniform(rng, -pose.turn, pose.turn, n),
        aspect=uniform(rng, -pose.squeeze, pose.squeeze, n),
        shear=uniform(rng, -pose.shear, pose.shear, n),
        flip=np.where(rng.random(n) < 0.5, -1, 1).astype(np.float32),
        warp=pose.warp * rng.standard_normal((n, 2, GRID, GRID), dtype=np.float32),
        fill=fill,
        detail=detail.astype(np.float32),
        ground=np.stack([first, second], 1).astype(np.float32),
        mix=uniform(rng, 0, 1, n, GRID, GRID),
        pattern=np.zeros((n, 4), np.float32),
        texture=np.zeros((n, 3), np.float32),
        outline=np.zeros(n, np.float32),
        ink=np.zeros((n, 3), np.float32),
        solid=np.ones(n, np.float32),
        light=np.zeros((n, 3), np.float32),
        grey=np.zeros(n, np.float32),
        noise=np.full(n, 0.01, np.float32),
        negative=np.zeros(n, np.float32),
    )


def _waves(rng: np.random.Generator, n: int, frequency: tuple[float, float]) -> Floats:
    """Return float32 (n, 3): x and y frequency of a random direction, and a phase."""
    direction, rate = uniform(rng, 0, np.pi, n), uniform(rng, *frequency, n)
    phase = uniform(rng, 0, 2 * np.pi, n)
    return np.stack([rate * np.cos(direction), rate * np.sin(direction), phase], 1)


def photo(rng: np.random.Generator, glyph: Glyphs, pose: Pose = Pose()) -> Scene:
    """A natural photograph: uneven ground and light, a little texture and noise."""
    n = len(glyph)
    scene = base(rng, glyph, pose)
    texture = np.concatenate([_waves(rng, n, (4, 12))[:, :2], uniform(rng, 0, 0.2, n, 1)], 1)
    return scene.using(
        texture=texture,
        light=uniform(rng, -0.2, 0.2, n, 3),
        noise=uniform(rng, 0.01, 0.06, n),
    )


def portrait(rng: np.random.Generator, glyph: Glyphs) -> Scene:
    """A tidy photograph: upright, centred and large, as in a curated training set."""
    return photo(rng, glyph, UPRIGHT)


def hard_photo(rng: np.random.Generator, glyph: Glyphs) -> Scene:
    """A cluttered photograph: small, off-centre, low contrast, on an uneven ground."""
    n = len(glyph)
    scene = photo(
        rng, glyph, Pose(turn=0.5, shift=0.3, low=0.45, high=0.68, squeeze=0.2, warp=0.06)
    )
    fade = uniform(rng, 0, 0.4, n, 1)
    fill = scene.fill + fade * (scene.ground.mean(1) - scene.fill)
    second = np.clip(scene.ground[:, 0] + uniform(rng, -0.35, 0.35, n, 3), 0, 1)
    return scene.using(
        fill=fill,
        ground=np.stack([scene.ground[:, 0], second], 1),
        noise=uniform(rng, 0.02, 0.08, n),
    )


def unposed(rng: np.random.Generator, glyph: Glyphs) -> Scene:
    """ObjectNet's idea: any rotation, unusual place, patterned ground."""
    n = len(glyph)
    scene = photo(rng, glyph, ANY)
    second = np.clip(scene.ground[:, 0] + uniform(rng, -0.4, 0.4, n, 3), 0, 1)
    pattern = np.concatenate([_waves(rng, n, (4, 9)), uniform(rng, 0.2, 0.5, n, 1)], 1)
    return scene.using(ground=np.stack([scene.ground[:, 0], second], 1), pattern=pattern, mix=0.5)


def sketch(rng: np.random.Generator, glyph: Glyphs) -> Scene:
    """A pencil outline on paper."""
    n = len(glyph)
    scene = base(rng, glyph, Pose(warp=0.06))
    paper = uniform(rng, 0.88, 1.0, n, 1, 1)
    dark = np.repeat(uniform(rng, 0.0, 0.35, n, 1), 3, 1)
    return scene.using(
        ground=paper, solid=0, outline=uniform(rng, 0.25, 0.8, n), ink=dark, grey=1, noise=0.02
    )


def cartoon(rng: np.random.Generator, glyph: Glyphs) -> Scene:
    """Flat saturated colours and a black outline."""
    n = len(glyph)
    scene = base(rng, glyph, Pose(turn=0.4, warp=0.08))
    flat = farthest(rng, scene.fill)[:, None]
    return scene.using(
        fill=colours(rng, n, (0.8, 1.0), (0.8, 1.0)),
        ground=flat,
        outline=uniform(rng, 0.5, 1.0, n),
        noise=0.0,
    )


def painting(rng: np.random.Generator, glyph: Glyphs) -> Scene:
    """Wobbly shapes, colours that run and broad brush strokes."""
    n = len(glyph)
    scene = base(rng, glyph, Pose(turn=0.4, warp=0.12))
    second = np.clip(scene.ground[:, 0] + uniform(rng, -0.4, 0.4, n, 3), 0, 1)
    texture = np.concatenate([_waves(rng, n, (6, 12))[:, :2], uniform(rng, 0.15, 0.4, n, 1)], 1)
    pattern = np.concatenate([_waves(rng, n, (6, 14)), uniform(rng, 0.1, 0.25, n, 1)], 1)
    return scene.using(
        ground=np.stack([scene.ground[:, 0], second], 1),
        texture=texture,
        pattern=pattern,
        solid=uniform(rng, 0.75, 1.0, n),
    )


def embroidery(rng: np.random.Generator, glyph: Glyphs) -> Scene:
    """Stitches: fine hatching on the body, over pale cloth."""
    n = len(glyph)
    scene = base(rng, glyph, Pose(warp=0.06))
    cloth = hsv(uniform(rng, 0.05, 0.18, n), uniform(rng, 0.1, 0.3, n), uniform(rng, 0.75, 0.95, n))
    thread = colours(rng, n, (0.5, 1.0), (0.2, 0.7))
    texture = np.concatenate([_waves(rng, n, (14, 20))[:, :2], uniform(rng, 0.4, 0.7, n, 1)], 1)
    weave = np.tile(np.array([30.0, 0.0, 0.0, 0.15], np.float32), (n, 1))
    return scene.using(
        fill=thread,
        detail=np.clip(thread + 0.4, 0, 1),
        ground=np.stack([cloth, cloth * 0.85], 1),
        pattern=weave,
        texture=texture,
        noise=0.04,
    )


def negative(rng: np.random.Generator, glyph: Glyphs) -> Scene:
    """A photographic negative."""
    return photo(rng, glyph).using(negative=1, grey=1)


RENDITIONS: dict[str, Style] = {
    "cartoon": cartoon,
    "painting": painting,
    "embroidery": embroidery,
    "negative": negative,
}
"""The styles of ImageNet-R."""


@dataclass(frozen=True)
class Places:
    """Fixed scenes, one a row: camera locations or the terrain of world regions."""

    ground: Floats
    """(p, 2, 3) colours."""
    mix: Floats
    """(p, GRID, GRID) where the second colour lies."""
    pattern: Floats
    """(p, 4) tree trunks, as ground stripes."""
    light: Floats
    """(p, 3) illumination."""


def places(rng: np.random.Generator, count: int) -> Places:
    """Invent camera locations: ground and foliage, trunks and a typical illumination."""
    hue = uniform(rng, 0.05, 0.45, count, 2)
    earth = hsv(hue, uniform(rng, 0.2, 0.6, count, 2), uniform(rng, 0.45, 0.9, count, 2))
    trunks = np.zeros((count, 4), np.float32)
    trunks[:, 0] = uniform(rng, 4, 8, count)
    trunks[:, 2] = uniform(rng, 0, 6, count)
    trunks[:, 3] = uniform(rng, 0.0, 0.35, count)
    return Places(
        ground=earth,
        mix=uniform(rng, 0, 1, count, GRID, GRID),
        pattern=trunks,
        light=uniform(rng, -0.2, 0.2, count, 3),
    )


def camera(
    rng: np.random.Generator, glyph: Glyphs, place: NDArray[np.intp], known: Places, night: Floats
) -> Scene:
    """A camera trap's frame.

    Args:
        rng: source of randomness.
        glyph: (n,) glyph index.
        place: (n,) row of `known` where each frame is taken.
        known: the camera locations.
        night: (n,) 1 for an infrared frame (grey, dim, noisy), 0 for daylight.
    """
    n = len(glyph)
    pose = Pose(turn=0.1, shift=0.28, low=0.5, high=0.8, squeeze=0.12, shear=0.12, warp=0.04)
    scene = base(rng, glyph, pose)
    coat = hsv(uniform(rng, 0.02, 0.12, n), uniform(rng, 0.2, 0.7, n), uniform(rng, 0.12, 0.4, n))
    light = known.light[place] + uniform(rng, -0.1, 0.1, n, 3)
    light[:, 0] -= 0.35 * night
    return scene.using(
        fill=coat,
        detail=np.clip(coat + uniform(rng, 0.4, 0.6, n, 1), 0, 1),
        ground=known.ground[place],
        mix=known.mix[place],
        pattern=known.pattern[place],
        light=light,
        grey=night,
        noise=0.02 + 0.05 * night,
    )


def terrain(rng: np.random.Generator, count: int) -> Floats:
    """Return two ground colours for each of `count` terrains, float32 (count, 2, 3)."""
    hue = uniform(rng, 0.05, 0.5, count, 2)
    return hsv(hue, uniform(rng, 0.15, 0.7, count, 2), uniform(rng, 0.3, 0.7, count, 2))


def aerial(
    rng: np.random.Generator, glyph: Glyphs, ground: Floats, age: Floats, haze: Floats
) -> Scene:
    """A satellite view: any heading, terrain below, older images greyer.

    Args:
        rng: source of randomness.
        glyph: (n,) glyph index.
        ground: (n, 2, 3) terrain colours.
        age: (n,) 0 for the newest images, 1 for the oldest.
        haze: (n,) contrast lost between site and terrain, 0 to 1.
    """
    n = len(glyph)
    scene = base(rng, glyph, Pose(np.pi, 0.18, 0.6, 0.88, 0.1, 0.1, 0.03))
    roof = colours(rng, n, (0.0, 0.6), (0.75, 1.0))
    dark = uniform(rng, 0, 1, n, 1) < 0.3
    fill = np.where(dark, colours(rng, n, (0.0, 0.6), (0.05, 0.2)), roof)
    middle = ground.mean(1)
    fill = fill + haze[:, None] * (middle - fill)
    detail = np.where(
        dark, fill + 0.5 * (1 - haze[:, None]), fill * 0.4 + 0.6 * middle * haze[:, None]
    )
    light = uniform(rng, -0.1, 0.1, n, 3)
    return scene.using(
        fill=fill,
        detail=np.clip(detail, 0, 1),
        ground=ground,
        light=light,
        grey=0.6 * age,
        noise=0.02 + 0.04 * age,
    )
