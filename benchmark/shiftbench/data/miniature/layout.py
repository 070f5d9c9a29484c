"""Writes the miniature world as one directory, whole or not at all."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from shiftbench.data.miniature import cifar, fmow, imagenet, iwildcam
from shiftbench.data.miniature.definition import CLASSES, MARKER, VERSION

_FAMILIES: dict[str, Callable[[Path], dict[str, int]]] = {
    "imagenet": imagenet.write,
    "cifar10": cifar.write,
    "iwildcam": iwildcam.write,
    "fmow": fmow.write,
}


def is_complete(root: Path) -> bool:
    """Say whether `root` holds a complete world of this version."""
    try:
        found = json.loads((root / MARKER).read_text())
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.get("version") == VERSION


def _replace(drawn: Path, root: Path) -> None:
    """Move a finished drawing to `root`, unless another process has just put one there."""
    while not is_complete(root):
        if root.exists():
            outdated = Path(tempfile.mkdtemp(dir=root.parent, prefix=f".{root.name}-outdated-"))
            with contextlib.suppress(FileNotFoundError):  # another process moved it first
                root.rename(outdated / root.name)
            shutil.rmtree(outdated)
        try:
            drawn.rename(root)
        except OSError:
            if not root.exists():
                raise


def generate(root: Path, progress: Callable[[str], None] | None = None) -> None:
    """Draw the whole world under `root`, unless a complete one of this version is there.

    The world is drawn beside `root` and renamed into place, so that `root` is never half a world
    and two processes may call this at once: the slower one discards its own drawing.

    Args:
        root: the data directory to make (what the real data sets call `--data-location`).
        progress: called with the name of each data set when it is about to be drawn.
    """
    root = root.resolve()
    if is_complete(root):
        return
    if root.exists() and any(root.iterdir()) and not (root / MARKER).exists():
        raise FileExistsError(f"{root} exists and is no miniature world: choose another directory")
    root.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(dir=root.parent, prefix=f".{root.name}-"))
    try:
        drawn = beside / root.name
        drawn.mkdir()
        counts: dict[str, int] = {}
        for name, write in _FAMILIES.items():
            if progress is not None:
                progress(name)
            counts.update(write(drawn))
        marker = {"version": VERSION, "counts": counts, "classes": CLASSES}
        (drawn / MARKER).write_text(json.dumps(marker, indent=2) + "\n")
        _replace(drawn, root)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
