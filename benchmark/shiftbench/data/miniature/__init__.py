"""The miniature world: all nine shifts, drawn by the suite in the real data sets' layouts.

Importing this module costs next to nothing (no NumPy, no torch): a plan only needs `CLASSES` and
`VERSION`. Drawing happens in `generate`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

VERSION = 2
"""Bumped whenever any drawn pixel, label or file name changes."""

CLASSES: dict[str, tuple[str, ...]] = {
    "imagenet": (
        "circle",
        "ring",
        "square",
        "diamond",
        "triangle",
        "pentagon",
        "hexagon",
        "four pointed star",
        "five pointed star",
        "six pointed star",
        "heart",
        "cross",
        "crescent",
        "arrow",
        "flower",
        "gear",
        "teardrop",
        "lightning bolt",
    ),
    "cifar10": (
        "sailboat",
        "car",
        "house",
        "tree",
        "fish",
        "mushroom",
        "umbrella",
        "rocket",
        "mug",
        "key",
    ),
    "iwildcam": (
        "empty",
        "brown deer",
        "spotted deer",
        "striped deer",
        "plain boar",
        "striped boar",
        "black bear",
        "spotted cat",
        "striped cat",
        "tall bird",
        "tortoise",
        "hare",
    ),
    "fmow": (
        "airport",
        "crop_field",
        "golf_course",
        "interchange",
        "lake_or_pond",
        "parking_lot_or_garage",
        "race_track",
        "road_bridge",
        "solar_farm",
        "stadium",
        "storage_tank",
        "wind_farm",
    ),
}
"""Class names of every task, in the label order of the loader of the real layout."""


def backbone_dir() -> Path:
    """Return the directory of the shipped backbone, in the layout of open_clip's `local-dir:`."""
    return Path(__file__).parent / "backbone"


def generate(root: Path, progress: Callable[[str], None] | None = None) -> None:
    """Draw the whole world under `root`, unless a complete one of this version is there.

    The world is drawn beside `root` and renamed into place, so that `root` is never half a world
    and two processes may call this at once: the slower one discards its own drawing.

    Args:
        root: the data directory to make (what the real data sets call `--data-location`).
        progress: called with the name of each data set when it is about to be drawn.
    """
    from shiftbench.data.miniature.layout import generate_world

    generate_world(root, progress)
