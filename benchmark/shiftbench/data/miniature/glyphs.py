"""The things that the miniature world is made of, as sampled signed-distance fields.

A glyph is drawn once, on a grid in its own coordinates, from a handful of primitives; drawing an
image then only samples that grid. Coordinates span [-EXTENT, EXTENT] on both axes with y pointing
down, and a glyph fills about the unit disc. Distances are negative inside.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from shiftbench.data.miniature.definition import CLASSES

Field = NDArray[np.float32]
Layers = tuple[Field, Field]

EXTENT = 1.6
RESOLUTION = 96
_FAR = 9.0

EXTRA = ("spiral", "zigzag", "plus sign")
"""Glyphs outside every task's classes: ObjectNet folders without an ImageNet counterpart."""


def _axes() -> tuple[Field, Field]:
    line = np.linspace(-EXTENT, EXTENT, RESOLUTION, dtype=np.float32)
    x, y = np.meshgrid(line, line)
    return x, y


_X, _Y = _axes()
_NONE: Field = np.full_like(_X, _FAR)


def _disc(x: float, y: float, radius: float) -> Field:
    return np.asarray(np.hypot(_X - x, _Y - y) - radius, np.float32)


def _ellipse(x: float, y: float, a: float, b: float) -> Field:
    """An ellipse; the distance is exact on its axes and close elsewhere."""
    u, v = _X - np.float32(x), _Y - np.float32(y)
    k = np.hypot(u / a, v / b)
    slope = np.hypot(u / (a * a), v / (b * b))
    return np.asarray(k * (k - 1) / np.maximum(slope, 1e-3), np.float32)


def _box(x: float, y: float, half_w: float, half_h: float) -> Field:
    u, v = np.abs(_X - x) - half_w, np.abs(_Y - y) - half_h
    outside = np.hypot(np.maximum(u, 0), np.maximum(v, 0))
    return np.asarray(outside + np.minimum(np.maximum(u, v), 0), np.float32)


def _stroke(points: Sequence[tuple[float, float]], width: float) -> Field:
    """A polyline of the given half-width with round joints."""
    best = _NONE
    for (x0, y0), (x1, y1) in pairwise(points):
        dx, dy = x1 - x0, y1 - y0
        along = ((_X - x0) * dx + (_Y - y0) * dy) / (dx * dx + dy * dy)
        t = np.clip(along, 0, 1)
        best = np.minimum(best, np.hypot(_X - x0 - t * dx, _Y - y0 - t * dy))
    return (best - width).astype(np.float32)


def _polygon(points: Sequence[tuple[float, float]]) -> Field:
    """Any simple polygon: distance to its edges, signed by the parity of crossings."""
    closed = [*points, points[0]]
    inside = np.zeros_like(_X, dtype=bool)
    for (x0, y0), (x1, y1) in pairwise(closed):
        if y0 == y1:
            continue
        crosses = (y0 > _Y) != (y1 > _Y)
        edge = x0 + (_Y - y0) * (x1 - x0) / (y1 - y0)
        inside ^= crosses & (edge > _X)
    distance = _stroke(closed, 0.0)
    return np.where(inside, -distance, distance)


def _union(*parts: Field) -> Field:
    return np.asarray(np.minimum.reduce(parts), np.float32)


def _cut(body: Field, hole: Field) -> Field:
    return np.maximum(body, -hole)


def _both(first: Field, second: Field) -> Field:
    return np.maximum(first, second)


def _radial(count: int, inner: float, outer: float = 1.0) -> Field:
    """A star of `count` points, or a regular polygon of 2*count sides if inner = outer."""
    turns = np.arange(2 * count) * np.pi / count
    radius = np.where(np.arange(2 * count) % 2 == 0, outer, inner)
    return _polygon(list(zip(radius * np.sin(turns), -radius * np.cos(turns), strict=True)))


def _regular(sides: int) -> Field:
    turns = np.arange(sides) * 2 * np.pi / sides
    return _polygon(list(zip(np.sin(turns), -np.cos(turns), strict=True)))


def _around(count: int, radius: float, size: float) -> Field:
    turns = np.arange(count) * 2 * np.pi / count
    return _union(*(_disc(radius * np.sin(t), -radius * np.cos(t), size) for t in turns))


def _dots(spacing: float, radius: float) -> Field:
    """Staggered dots over the whole plane."""
    row = np.floor(_Y / spacing)
    u = np.mod(_X + 0.5 * spacing * np.mod(row, 2), spacing) - spacing / 2
    v = np.mod(_Y, spacing) - spacing / 2
    return np.asarray(np.hypot(u, v) - radius, np.float32)


def _bars(spacing: float, width: float) -> Field:
    """Vertical bars over the whole plane."""
    return (np.abs(np.mod(_X, spacing) - spacing / 2) - width).astype(np.float32)


def _plain(body: Field) -> Layers:
    return body, _NONE


def _shapes() -> dict[str, Layers]:
    heart = _union(
        _disc(-0.45, -0.35, 0.5),
        _disc(0.45, -0.35, 0.5),
        _polygon([(-0.9, -0.12), (0.0, 1.0), (0.9, -0.12), (0.0, -0.3)]),
    )
    teeth = [_radial(8, 0.72, 1.1), _disc(0, 0, 0.78)]
    bolt = [(0.25, -1.0), (-0.6, 0.15), (-0.05, 0.15), (-0.3, 1.0), (0.6, -0.25), (0.05, -0.25)]
    arrow = [(-0.28, 1), (-0.28, 0), (-0.75, 0), (0, -1), (0.75, 0), (0.28, 0), (0.28, 1)]
    drop = _union(_disc(0, 0.35, 0.6), _polygon([(0, -1.0), (-0.53, 0.08), (0.53, 0.08)]))
    return {
        "circle": _plain(_disc(0, 0, 0.9)),
        "ring": _plain(np.abs(_disc(0, 0, 0.7)) - np.float32(0.22)),
        "square": _plain(_box(0, 0, 0.8, 0.8)),
        "diamond": _plain(_polygon([(0, -1.05), (0.68, 0), (0, 1.05), (-0.68, 0)])),
        "triangle": _plain(_polygon([(0, -0.95), (0.95, 0.75), (-0.95, 0.75)])),
        "pentagon": _plain(_regular(5)),
        "hexagon": _plain(_regular(6)),
        "four pointed star": _plain(_radial(4, 0.36, 1.1)),
        "five pointed star": _plain(_radial(5, 0.42, 1.05)),
        "six pointed star": _plain(_radial(6, 0.52, 1.05)),
        "heart": _plain(heart),
        "cross": _plain(_union(_box(0, 0, 0.3, 0.95), _box(0, 0, 0.95, 0.3))),
        "crescent": _plain(_cut(_disc(0, 0, 0.95), _disc(0.42, 0, 0.75))),
        "arrow": _plain(_polygon(arrow)),
        "flower": (_union(_around(5, 0.6, 0.4), _disc(0, 0, 0.5)), _disc(0, 0, 0.28)),
        "gear": _plain(_cut(_both(_union(*teeth), _disc(0, 0, 0.98)), _disc(0, 0, 0.33))),
        "teardrop": _plain(drop),
        "lightning bolt": _plain(_polygon(bolt)),
    }


def _objects() -> dict[str, Layers]:
    sails = _union(
        _polygon([(0.05, -1.0), (0.05, 0.25), (0.8, 0.25)]),
        _polygon([(-0.1, -0.75), (-0.1, 0.25), (-0.65, 0.25)]),
    )
    hull = _polygon([(-0.95, 0.4), (0.95, 0.4), (0.6, 0.9), (-0.6, 0.9)])
    cabin = _polygon([(-0.55, 0.0), (-0.35, -0.5), (0.35, -0.5), (0.6, 0.0)])
    wheels = _union(_disc(-0.5, 0.45, 0.26), _disc(0.5, 0.45, 0.26))
    roof = _polygon([(0, -1.0), (1.0, -0.1), (-1.0, -0.1)])
    crown = _union(_disc(0, -0.45, 0.55), _disc(-0.4, -0.1, 0.4), _disc(0.4, -0.1, 0.4))
    tail = _polygon([(0.5, 0), (1.1, -0.5), (1.1, 0.5)])
    cap = _both(_ellipse(0, -0.1, 0.95, 0.8), _box(0, -0.9, 1.2, 0.9))
    canopy = _cut(
        _both(_disc(0, 0, 1.0), _box(0, -0.9, 1.2, 0.9)),
        _union(_disc(-0.66, 0.12, 0.3), _disc(0, 0.12, 0.3), _disc(0.66, 0.12, 0.3)),
    )
    hook = _stroke([(0, 0), (0, 0.75), (0.12, 0.92), (0.32, 0.92), (0.4, 0.75)], 0.08)
    nose = _both(_ellipse(0, 0, 0.38, 1.05), _box(0, -0.2, 1, 0.85))
    fins = _polygon([(-0.3, 0.1), (-0.8, 0.85), (0.8, 0.85), (0.3, 0.1)])
    handle = np.abs(_disc(0.6, 0.05, 0.32)) - np.float32(0.1)
    bow = np.abs(_disc(-0.6, 0, 0.33)) - np.float32(0.14)
    bits = _union(
        _box(0.35, 0, 0.65, 0.11), _box(0.85, 0.2, 0.09, 0.25), _box(0.5, 0.18, 0.09, 0.2)
    )
    return {
        "sailboat": (_union(sails, hull), hull),
        "car": (_union(cabin, _box(0, 0.2, 0.95, 0.25), wheels), wheels),
        "house": (_union(roof, _box(0, 0.4, 0.75, 0.55)), _box(0.1, 0.6, 0.2, 0.35)),
        "tree": (_union(crown, _box(0, 0.5, 0.16, 0.5)), _both(_box(0, 0.6, 0.16, 0.4), -crown)),
        "fish": (_union(_ellipse(-0.15, 0, 0.8, 0.48), tail), _disc(-0.55, -0.12, 0.13)),
        "mushroom": (
            _union(cap, _box(0, 0.4, 0.28, 0.5)),
            _union(_disc(-0.4, -0.35, 0.17), _disc(0.1, -0.6, 0.17), _disc(0.5, -0.25, 0.15)),
        ),
        "umbrella": (_union(canopy, hook), hook),
        "rocket": (_union(nose, fins), _disc(0, -0.25, 0.2)),
        "mug": (_union(_box(-0.15, 0.05, 0.6, 0.75), handle), _box(-0.15, -0.55, 0.6, 0.12)),
        "key": _plain(_union(bow, bits)),
    }


def _legs(xs: Sequence[float], top: float, bottom: float, width: float) -> Field:
    return _union(*(_stroke([(x, top), (x, bottom)], width) for x in xs))


def _animals() -> dict[str, Layers]:
    antlers = _union(
        _stroke([(0.8, -0.75), (0.65, -1.05), (0.4, -1.15)], 0.05),
        _stroke([(0.85, -0.75), (1.0, -1.1), (1.2, -1.15)], 0.05),
    )
    neck = _union(_stroke([(0.5, -0.1), (0.8, -0.65)], 0.16), _ellipse(0.95, -0.65, 0.26, 0.15))
    deer = _union(
        _ellipse(-0.05, 0.0, 0.7, 0.34), neck, antlers, _legs((-0.6, -0.4, 0.3, 0.5), 0.1, 1, 0.08)
    )
    boar = _union(
        _ellipse(-0.1, 0.05, 0.85, 0.5),
        _polygon([(0.5, -0.3), (1.2, 0.2), (1.15, 0.42), (0.5, 0.4)]),
        _legs((-0.6, -0.35, 0.3, 0.55), 0.3, 0.75, 0.1),
    )
    bear = _union(
        _ellipse(0, 0.35, 0.62, 0.68),
        _disc(0, -0.5, 0.42),
        _disc(-0.36, -0.85, 0.17),
        _disc(0.36, -0.85, 0.17),
        _stroke([(-0.5, 0.1), (-0.8, 0.6)], 0.17),
        _stroke([(0.5, 0.1), (0.8, 0.6)], 0.17),
    )
    ears = _union(
        _polygon([(0.45, -0.4), (0.5, -0.85), (0.72, -0.5)]),
        _polygon([(0.75, -0.5), (0.98, -0.85), (1.0, -0.4)]),
    )
    cat = _union(
        _ellipse(-0.1, 0.15, 0.75, 0.33),
        _disc(0.72, -0.2, 0.34),
        ears,
        _stroke([(-0.75, 0.1), (-1.1, -0.3), (-0.95, -0.8)], 0.09),
        _legs((-0.6, -0.4, 0.25, 0.45), 0.3, 0.8, 0.09),
    )
    bird = _union(
        _ellipse(-0.1, 0.05, 0.55, 0.32),
        _stroke([(0.3, -0.1), (0.45, -0.8)], 0.1),
        _disc(0.48, -0.85, 0.19),
        _polygon([(0.6, -0.98), (1.1, -0.82), (0.6, -0.75)]),
        _legs((-0.15, 0.1), 0.2, 1.05, 0.06),
    )
    shell = _both(_ellipse(-0.1, 0.3, 0.85, 0.8), _box(0, -0.45, 1.2, 0.8))
    tortoise = _union(shell, _disc(0.9, 0.15, 0.24), _legs((-0.55, 0.35), 0.3, 0.55, 0.16))
    hare = _union(
        _ellipse(-0.15, 0.35, 0.6, 0.5),
        _disc(0.45, -0.1, 0.3),
        _disc(-0.75, 0.35, 0.18),
        _stroke([(0.35, -0.3), (0.2, -0.95)], 0.11),
        _stroke([(0.52, -0.3), (0.6, -0.95)], 0.11),
    )
    dots, bars = _dots(0.36, 0.11), _bars(0.34, 0.08)
    return {
        "brown deer": _plain(deer),
        "spotted deer": (deer, dots),
        "striped deer": (deer, bars),
        "plain boar": _plain(boar),
        "striped boar": (boar, bars),
        "black bear": (bear, _ellipse(0, -0.42, 0.2, 0.14)),
        "spotted cat": (cat, dots),
        "striped cat": (cat, bars),
        "tall bird": (bird, _ellipse(-0.2, 0.0, 0.35, 0.15)),
        "tortoise": (tortoise, _both(shell, _dots(0.44, 0.15))),
        "hare": _plain(hare),
    }


def _sites() -> dict[str, Layers]:
    plane = _union(
        _stroke([(0, -0.95), (0, 0.9)], 0.15),
        _polygon([(0, -0.3), (1.0, 0.3), (1.0, 0.5), (-1.0, 0.5), (-1.0, 0.3)]),
        _box(0, 0.85, 0.4, 0.12),
    )
    plot = _box(0, 0, 0.95, 0.95)
    greens = _union(
        _ellipse(-0.45, -0.5, 0.5, 0.25),
        _ellipse(0.5, -0.1, 0.25, 0.6),
        _ellipse(-0.4, 0.6, 0.6, 0.22),
    )
    roads = _union(_box(0, 0, 1.3, 0.14), _box(0, 0, 0.14, 1.3))
    loops = _union(
        *(
            np.abs(_disc(x, y, 0.34)) - np.float32(0.09)
            for x in (-0.48, 0.48)
            for y in (-0.48, 0.48)
        )
    )
    pond = _union(_disc(-0.35, 0.1, 0.55), _disc(0.3, -0.3, 0.5), _disc(0.35, 0.4, 0.42))
    stalls = _both(_bars(0.3, 0.07), _union(_box(0, -0.55, 0.95, 0.28), _box(0, 0.55, 0.95, 0.28)))
    track = np.abs(_box(0, 0, 0.55, 0.12) - np.float32(0.42)) - np.float32(0.13)
    span = _both(_box(0, 0, 0.2, 1.4), _box(0, 0, 0.2, 1.4))
    river = _box(0, 0, 1.4, 0.45)
    tilted = np.abs(np.mod(_Y, 0.5) - np.float32(0.25)) - np.float32(0.16)
    panels = _both(_both(plot, tilted.astype(np.float32)), -_bars(0.64, 0.05))
    bowl = _cut(_ellipse(0, 0, 1.0, 0.8), _ellipse(0, 0, 0.6, 0.42))
    tanks = _union(*(_disc(x, y, 0.36) for x in (-0.48, 0.48) for y in (-0.48, 0.48)))
    blades = [
        _stroke([(0, 0), (np.sin(t), -np.cos(t))], 0.11) for t in np.arange(3) * 2 * np.pi / 3
    ]
    return {
        "airport": _plain(plane),
        "crop_field": (plot, _bars(0.42, 0.1)),
        "golf_course": (greens, _union(_disc(-0.4, -0.5, 0.1), _disc(0.5, 0.1, 0.1))),
        "interchange": _plain(_union(roads, loops)),
        "lake_or_pond": _plain(pond),
        "parking_lot_or_garage": (_union(plot), stalls),
        "race_track": _plain(track),
        "road_bridge": (_union(river, span), span),
        "solar_farm": _plain(panels),
        "stadium": (_union(bowl, _ellipse(0, 0, 0.6, 0.42)), _box(0, 0, 0.4, 0.25)),
        "storage_tank": (tanks, _around(4, 0.68, 0.0) - np.float32(0.12)),
        "wind_farm": _plain(_union(*blades, _disc(0, 0, 0.2))),
    }


def _extras() -> dict[str, Layers]:
    turns = np.linspace(0, 5 * np.pi, 40)
    spiral = [(t / 16 * np.cos(t), t / 16 * np.sin(t)) for t in turns]
    zigzag = [(-1.0, 0.5), (-0.6, -0.5), (-0.2, 0.5), (0.2, -0.5), (0.6, 0.5), (1.0, -0.5)]
    return {
        "spiral": _plain(_stroke(spiral, 0.09)),
        "zigzag": _plain(_stroke(zigzag, 0.12)),
        "plus sign": _plain(_union(_box(0, 0, 0.14, 0.95), _box(0, 0, 0.95, 0.14))),
    }


_FAMILIES: tuple[Callable[[], dict[str, Layers]], ...] = (
    _shapes,
    _objects,
    _animals,
    _sites,
    _extras,
)

NAMES: tuple[str, ...] = (*(name for names in CLASSES.values() for name in names), *EXTRA)
"""Every glyph; the index here is the glyph index that a scene takes. "empty" draws nothing."""

INDEX: dict[str, int] = {name: index for index, name in enumerate(NAMES)}


@lru_cache(maxsize=1)
def fields() -> NDArray[np.float32]:
    """Return the distance fields of all glyphs, float32 (glyph, layer, RESOLUTION, RESOLUTION).

    Layer 0 is the body and layer 1 the detail painted upon it (far away where there is none).
    """
    drawn = {"empty": (_NONE, _NONE)}
    for family in _FAMILIES:
        drawn.update(family())
    return np.stack([np.stack(drawn[name]) for name in NAMES]).astype(np.float32)


def glyphs_of(task: str) -> NDArray[np.intp]:
    """Return the glyph index of every class of a task, in label order."""
    return np.array([INDEX[name] for name in CLASSES[task]], dtype=np.intp)
