"""Writes the miniature world as one directory, whole or not at all."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from shiftbench.core.cpus import available_cpus
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


def _draw(root: Path, names: Iterable[str]) -> dict[str, int]:
    """Draw some families, and return the number of images of each of their sets."""
    counts: dict[str, int] = {}
    for name in names:
        counts.update(_FAMILIES[name](root))
    return counts


def _draw_apart(root: Path) -> dict[str, int]:
    """Draw each family in a process of its own: none looks at another's files or random numbers.

    Raises:
        OSError: one of them failed.
    """
    command = [sys.executable, "-m", __spec__.name, str(root)]
    drawing = [
        subprocess.Popen([*command, name], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for name in _FAMILIES
    ]
    counts: dict[str, int] = {}
    try:
        for process in drawing:
            output, errors = process.communicate()
            if process.returncode:
                lines = errors.decode(errors="replace").split("\n")
                raise OSError(next((line for line in reversed(lines) if line), "killed"))
            counts.update(json.loads(output))
    finally:
        for process in drawing:
            process.kill()
            process.wait()
    return counts


def generate(root: Path, progress: Callable[[str], None] | None = None) -> None:
    """Draw the whole world under `root`, unless a complete one of this version is there.

    The world is drawn beside `root` and renamed into place, so that `root` is never half a world
    and two processes may call this at once: the slower one discards its own drawing.

    Args:
        root: the data directory to make (what the real data sets call `--data-location`).
        progress: called with the name of each data set before any is drawn.

    Raises:
        OSError: the files cannot be written.
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
        if progress is not None:
            for name in _FAMILIES:
                progress(name)
        counts = _draw_apart(drawn) if available_cpus() > 1 else _draw(drawn, _FAMILIES)
        marker = {"version": VERSION, "counts": counts, "classes": CLASSES}
        (drawn / MARKER).write_text(json.dumps(marker, indent=2) + "\n")
        _replace(drawn, root)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


if __name__ == "__main__":
    print(json.dumps(_draw(Path(sys.argv[1]), sys.argv[2:])))
