"""Drawing: a scene of parameters in, a batch of images out.

Everything is vectorised over the batch. A `Scene` holds one row of parameters an image; the styles
in `styles.py` sample scenes, and `render` paints them: sample the glyph's distance fields at the
transformed pixel coordinates, blend fill, detail, outline and ground, then light, tone and noise.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shiftbench.data.miniature.glyphs import EXTENT, RESOLUTION
from shiftbench.data.miniature.glyphs import fields as glyph_fields

Floats = NDArray[np.float32]
Images = NDArray[np.uint8]

GRID = 6
"""Side of the coarse grids that smooth noise is interpolated from."""

_CHUNK = 64  # images drawn at once: their temporaries fit in the cache


@dataclass(frozen=True)
class Scene:
    """Parameters of n images; every field's first axis is n. Colours are RGB in [0, 1]."""

    glyph: NDArray[np.intp]
    """(n,) glyph index."""
    centre: Floats
    """(n, 2) x and y of the glyph's centre, in half-sides from the image's centre."""
    scale: Floats
    """(n,) glyph radius in half-sides."""
    angle: Floats
    """(n,) rotation in radians."""
    aspect: Floats
    """(n,) log of the stretch along the glyph's x axis."""
    shear: Floats
    """(n,) shear."""
    flip: Floats
    """(n,) +1, or -1 for a mirrored glyph."""
    warp: Floats
    """(n, 2, GRID, GRID) displacement of the glyph's coordinates, in glyph units."""
    fill: Floats
    """(n, 3) colour of the body."""
    detail: Floats
    """(n, 3) colour of the detail."""
    ground: Floats
    """(n, 2, 3) the two colours that the ground mixes."""
    mix: Floats
    """(n, GRID, GRID) coarse weights of the second ground colour, about 0 to 1."""
    pattern: Floats
    """(n, 4) x and y frequency, phase and strength of ground stripes."""
    texture: Floats
    """(n, 3) x and y frequency and strength of stripes on the body."""
    outline: Floats
    """(n,) half-width of the outline in pixels, 0 for none."""
    ink: Floats
    """(n, 3) colour of the outline."""
    solid: Floats
    """(n,) opacity of the fill, 0 to 1."""
    light: Floats
    """(n, 3) illumination: offset, x slope, y slope."""
    grey: Floats
    """(n,) how far colours are pulled to grey, 0 to 1."""
    noise: Floats
    """(n,) standard deviation of pixel noise, in [0, 1] units."""
    negative: Floats
    """(n,) 1 to invert the image, else 0."""

    def __len__(self) -> int:
        return len(self.glyph)

    def __getitem__(self, rows: Any) -> Scene:
        return Scene(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    def using(self, **values: Any) -> Scene:
        """Return a copy with some fields replaced, broadcast to their shape and type."""
        shaped = {
            name: np.broadcast_to(
                np.asarray(value, getattr(self, name).dtype), getattr(self, name).shape
            )
            for name, value in values.items()
        }
        return replace(self, **shaped)


def concatenate(scenes: list[Scene]) -> Scene:
    """Join scenes along the batch."""
    names = [field.name for field in fields(Scene)]
    return Scene(**{name: np.concatenate([getattr(s, name) for s in scenes]) for name in names})


def _spread(size: int) -> Floats:
    """Return float32 (size, GRID): weights that interpolate a coarse grid smoothly."""
    at = np.linspace(0, GRID - 1, size, dtype=np.float32)[:, None]
    reach = np.clip(1 - np.abs(at - np.arange(GRID, dtype=np.float32)), 0, 1)
    smooth = reach * reach * (3 - 2 * reach)
    return np.asarray(smooth / smooth.sum(1, keepdims=True), np.float32)


def smooth(grid: Floats, height: int, width: int) -> Floats:
    """Interpolate coarse grids float32 (..., GRID, GRID) to float32 (..., height, width)."""
    return np.asarray(_spread(height) @ grid @ _spread(width).T, np.float32)


def _sample(glyph: NDArray[np.intp], u: Floats, v: Floats) -> tuple[Floats, Floats]:
    """Sample both layers of each image's glyph, bilinearly, at glyph coordinates (n, h, w)."""
    table = glyph_fields()
    scale = np.float32((RESOLUTION - 1) / (2 * EXTENT))
    column = np.clip((u + np.float32(EXTENT)) * scale, 0, RESOLUTION - 1.001).astype(np.float32)
    row = np.clip((v + np.float32(EXTENT)) * scale, 0, RESOLUTION - 1.001).astype(np.float32)
    left, top = column.astype(np.int32), row.astype(np.int32)
    fx, fy = column - left, row - top
    corner = top * RESOLUTION + left
    layers: list[Floats] = []
    for layer in range(2):
        flat = table[:, layer].reshape(-1)
        at = corner + (glyph * RESOLUTION * RESOLUTION).astype(np.int32)[:, None, None]
        upper = flat[at] * (1 - fx) + flat[at + 1] * fx
        lower = flat[at + RESOLUTION] * (1 - fx) + flat[at + RESOLUTION + 1] * fx
        layers.append(upper * (1 - fy) + lower * fy)
    return layers[0], layers[1]


def _column(values: Floats) -> Floats:
    return values[:, None, None]


def _colour(values: Floats) -> Floats:
    return values[:, None, None, :]


def _glyph_coordinates(scene: Scene, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Move pixel coordinates (h, w) in half-sides into each glyph's frame: two (n, h, w)."""
    px = x - _column(scene.centre[:, 0])
    py = y - _column(scene.centre[:, 1])
    cos, sin = _column(np.cos(scene.angle)), _column(np.sin(scene.angle))
    size = _column(scene.scale)
    u, v = (cos * px + sin * py) / size, (cos * py - sin * px) / size
    stretch = _column(np.exp(scene.aspect))
    u = (u + _column(scene.shear) * v) * _column(scene.flip) / stretch
    v = v * stretch
    bend = smooth(scene.warp, *x.shape)
    return np.asarray(u + bend[:, 0], np.float32), np.asarray(v + bend[:, 1], np.float32)


def _ground(scene: Scene, x: Floats, y: Floats) -> Floats:
    """Return the ground behind the glyphs, float32 (n, h, w, 3)."""
    share = smooth(scene.mix, *x.shape)
    fx, fy, phase, strength = (_column(scene.pattern[:, i]) for i in range(4))
    share = share + strength * np.clip(3 * np.sin(fx * x + fy * y + phase), -1, 1)
    share = np.clip(share, 0, 1)[..., None]
    first, second = _colour(scene.ground[:, 0]), _colour(scene.ground[:, 1])
    return np.asarray(first + share * (second - first), np.float32)


def _paint(scene: Scene, height: int, width: int, rng: np.random.Generator) -> Images:
    half = min(height, width) / 2
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    x, y = (x + np.float32(0.5 - width / 2)) / half, (y + np.float32(0.5 - height / 2)) / half
    u, v = _glyph_coordinates(scene, x, y)
    body, detail = _sample(scene.glyph, u, v)
    pixels = _column(scene.scale * half).astype(np.float32)  # pixels to one glyph unit
    inside = np.clip(0.5 - body * pixels, 0, 1)
    marks = np.clip(0.5 - detail * pixels, 0, 1)
    stripes = np.sin(_column(scene.texture[:, 0]) * u + _column(scene.texture[:, 1]) * v)
    shade = 1 + _column(scene.texture[:, 2]) * stripes
    paint = _colour(scene.fill) + marks[..., None] * _colour(scene.detail - scene.fill)
    paint = paint * shade[..., None]
    ground = _ground(scene, x, y)
    image = ground + (inside * _column(scene.solid))[..., None] * (paint - ground)
    width_px = _column(scene.outline)
    drawn = _column((scene.outline > 0).astype(np.float32))
    edge = np.minimum(np.abs(body), np.where(inside > 0, np.abs(detail), np.float32(9)))
    line = drawn * np.clip(0.5 + width_px - edge * pixels, 0, 1)
    image = image + line[..., None] * (_colour(scene.ink) - image)
    lit = 1 + _column(scene.light[:, 0])
    lit = lit + _column(scene.light[:, 1]) * x + _column(scene.light[:, 2]) * y
    image = image * lit[..., None]
    image = image + _column(scene.grey)[..., None] * (image.mean(-1, keepdims=True) - image)
    negative = _colour(np.repeat(scene.negative[:, None], 3, 1))
    image = negative + (1 - 2 * negative) * image
    grain = rng.standard_normal(image.shape, dtype=np.float32)
    image = image + _column(scene.noise)[..., None] * grain
    return np.asarray(np.clip(image, 0, 1) * 255 + 0.5, np.uint8)


def render(scene: Scene, size: tuple[int, int], rng: np.random.Generator) -> Images:
    """Paint a scene.

    Args:
        scene: n images' parameters.
        size: height and width in pixels.
        rng: source of the pixel noise.

    Returns:
        uint8 (n, height, width, 3), RGB.
    """
    parts = [
        _paint(scene[start : start + _CHUNK], *size, rng) for start in range(0, len(scene), _CHUNK)
    ]
    return np.concatenate(parts) if parts else np.zeros((0, *size, 3), np.uint8)
