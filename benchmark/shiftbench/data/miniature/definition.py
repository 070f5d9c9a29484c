"""The miniature world's version, classes and backbone, without drawing anything.

Importing this module costs next to nothing (no NumPy, no torch): it is all that a plan needs.
"""

from __future__ import annotations

from pathlib import Path

VERSION = 3
"""Bumped whenever any drawn pixel, label or file name changes."""

MARKER = "miniature.json"
"""The file that makes a world complete: its version, counts and class names."""

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
