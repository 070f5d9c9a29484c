"""The fifteen standard corruptions at five severities, as cheap approximations in NumPy.

They play the part of ImageNet-C and CIFAR-10-C: other pictures, the same names, layout and order
of difficulty. Every function takes uint8 (n, h, w, 3) and a severity from 1 to 5.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from shiftbench.data.miniature.world import GRID, Floats, Images, smooth

Corruption = Callable[[Floats, float, np.random.Generator], Floats]
"""Takes images in [0, 1], a strength (severity / 5) and a generator."""


def _gather(images: Floats, rows: Floats, columns: Floats) -> Floats:
    """Take each image's nearest pixels at the given positions, float (n, h, w), clamped."""
    n, h, w, _ = images.shape
    r = np.clip(np.rint(rows), 0, h - 1).astype(np.intp)
    c = np.clip(np.rint(columns), 0, w - 1).astype(np.intp)
    taken: Floats = images[np.arange(n)[:, None, None], r, c]
    return taken


def _positions(images: Floats) -> tuple[Floats, Floats]:
    n, h, w, _ = images.shape
    rows, columns = np.mgrid[0:h, 0:w].astype(np.float32)
    return np.broadcast_to(rows, (n, h, w)), np.broadcast_to(columns, (n, h, w))


def _mean_of_shifts(images: Floats, offsets: list[tuple[float, float]]) -> Floats:
    rows, columns = _positions(images)
    shifted = [_gather(images, rows + dy, columns + dx) for dy, dx in offsets]
    return np.asarray(np.mean(shifted, axis=0), np.float32)


def gaussian_noise(images: Floats, strength: float, rng: np.random.Generator) -> Floats:
    """Add Gaussian noise."""
    return images + 0.3 * strength * rng.standard_normal(images.shape, dtype=np.float32)


def shot_noise(images: Floats, strength: float, rng: np.random.Generator) -> Floats:
    """Count photons: noise that grows with brightness."""
    photons = 60 - 50 * strength
    return (rng.poisson(images * photons) / photons).astype(np.float32)


def impulse_noise(images: Floats, strength: float, rng: np.random.Generator) -> Floats:
    """Replace some values with black or white."""
    hit = rng.random(images.shape, dtype=np.float32) < 0.22 * strength
    return np.where(hit, np.rint(rng.random(images.shape, dtype=np.float32)), images)


def defocus_blur(images: Floats, strength: float, rng: np.random.Generator) -> Floats:
    """Average over a disc."""
    radius = 0.8 + 1.4 * strength
    reach = [(y, x) for y in range(-2, 3) for x in range(-2, 3) if np.hypot(y, x) <= radius]
    return _mean_of_shifts(images, [(float(y), float(x)) for y, x in reach])


def glass_blur(images: Floats, strength: float, rng: np.random.Generator) -> Floats:
    """Swap pixels with near neighbours."""
    rows, columns = _positions(images)
    jitter = rng.uniform(-0.4 - 1.8 * strength, 0.4 + 1.8 * strength, (2, *rows.shape))
    return _gather(images, rows + jitter[0], columns + jitter[1])


def motion_blur(images: Floats, strength: float, rng: np.random.Generator) -> Floats:
    """Average along a line."""
    steps = np.linspace(-1, 1, 7) * (1 + 3 * strength)
    angle = rng.uniform(0, np.pi)
    return _mean_of_shifts(images, [(s * np.sin(angle), s * np.cos(angle)) for s in steps])


def zoom_blur(images: Floats, strength: float, rng: np.random.Generator) -> Floats:
    """Average over enlargements."""
    rows, columns = _positions(images)
    y0, x0 = (images.shape[1] - 1) / 2, (images.shape[2] - 1) / 2
    zooms = 1 / np.linspace(1, 1 + 0.6 * strength, 6)
    views = [_gather(images, y0 + (rows - y0) * z, x0 + (columns - x0) * z) for z in zooms]
    return np.asarray(np.mean(views, axis=0), np.float32)


def snow(images: Floats, strength: float, rng: np.random.Generator) -> Floats:
    """Scatter white flakes over a brighter, paler image."""
    flakes = rng.random(images.shape[:3], dtype=np.float32) < 0.15 * strength
    streak = flakes | np.roll(flakes, 1, axis=1)
    pale = images + 0.3 * strength * (images.mean(-1, keepdims=True) + 0.3 - images)
    return np.where(streak[..., None], np.float32(0.95), pale)


def frost(images: Floats, strength: float, rng: np.random.Generator) -> Floats:
    """Lay bluish crystals over part of the image."""
    grid = rng.standard_normal((len(images), GRID, GRID), dtype=np.float32)
    cover = np.clip(smooth(grid, *images.shape[1:3]) + 0.2, 0, 1)[..., None] * 0.9 * strength
    grain = 0.85 + 0.15 * rng.standard_normal(images.shape[:3], dtype=np.float32)[..., None]
    ice = np.array([0.8, 0.9, 1.0], np.float32) * grain
    return np.asarray(images + cover * (ice - images), np.float32)


def fog(images: Floats, strength: float, rng: np.random.Generator) -> Floats:
    """Mix with an uneven white veil."""
    grid = rng.random((len(images), GRID, GRID), dtype=np.float32)
    veil = (0.45 + 0.4 * smooth(grid, *images.shape[1:3]))[..., None] * strength
    return (images + veil * (0.9 - images)).astype(np.float32)


def brightness(images: Floats, strength: float, rng: np.random.Generator) -> Floats:
    """Brighten."""
    return images + np.float32(0.45 * strength)


def contrast(images: Floats, strength: float, rng: np.random.Generator) -> Floats:
    """Pull every pixel to the image's mean."""
    mean = images.mean(axis=(1, 2, 3), keepdims=True)
    return np.asarray(mean + (1 - 0.8 * strength) * (images - mean), np.float32)


def elastic_transform(images: Floats, strength: float, rng: np.random.Generator) -> Floats:
    """Bend the image."""
    rows, columns = _positions(images)
    grid = rng.standard_normal((len(images), 2, GRID, GRID), dtype=np.float32)
    bend = 3.0 * strength * smooth(grid, *images.shape[1:3])
    return _gather(images, rows + bend[:, 0], columns + bend[:, 1])


def pixelate(images: Floats, strength: float, rng: np.random.Generator) -> Floats:
    """Enlarge coarse pixels."""
    block = 1 + 2 * strength
    rows, columns = _positions(images)
    return _gather(images, np.floor(rows / block) * block, np.floor(columns / block) * block)


def jpeg_compression(images: Floats, strength: float, rng: np.random.Generator) -> Floats:
    """Save with a low JPEG quality and read back."""
    from PIL import Image

    decoded = []
    for pixels in (images * 255).astype(np.uint8):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=int(30 - 22 * strength))
        decoded.append(np.asarray(Image.open(buffer)))
    return np.asarray(np.stack(decoded), np.float32) / np.float32(255)


CORRUPTIONS: dict[str, Corruption] = {
    function.__name__: function
    for function in (
        gaussian_noise,
        shot_noise,
        impulse_noise,
        defocus_blur,
        glass_blur,
        motion_blur,
        zoom_blur,
        snow,
        frost,
        fog,
        brightness,
        contrast,
        elastic_transform,
        pixelate,
        jpeg_compression,
    )
}
"""The fifteen corruptions by their standard names, in their standard order."""


def corrupt(
    images: Images, name: str, severity: int, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Corrupt images.

    Args:
        images: uint8 (n, h, w, 3).
        name: one of `CORRUPTIONS`.
        severity: 1 (mild) to 5.
        rng: source of randomness.

    Returns:
        uint8 (n, h, w, 3).
    """
    if len(images) == 0:
        return images
    changed = CORRUPTIONS[name](np.asarray(images, np.float32) / np.float32(255), severity / 5, rng)
    return (np.clip(changed, 0, 1) * 255 + 0.5).astype(np.uint8)
