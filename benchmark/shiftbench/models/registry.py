"""The backbones that a suite can name beside those of open_clip and folders."""

from __future__ import annotations

from shiftbench.core.plugins import Registry


def _accept(name: str, loaded: object) -> object:
    del name
    return loaded


BACKBONES = Registry(
    "backbones", lambda: {"miniature": "shiftbench.data.miniature.definition:backbone_dir"}, _accept
)
"""A backbone is a directory, or a function that returns one; ``models.backbones`` reads it."""
