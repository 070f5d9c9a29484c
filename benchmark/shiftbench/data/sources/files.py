"""Image files: finding them in folders, decoding them, and a fingerprint of what was found."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from shiftbench.core import locations
from shiftbench.core.errors import InputError
from shiftbench.data.images import Labels, Names

if TYPE_CHECKING:
    from PIL.Image import Image

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
"""Endings, in lower case, of the files that are taken for images."""

_SAMPLED = 16  # files whose contents are part of a fingerprint


def fingerprint(*parts: str | bytes) -> str:
    """Return the hex SHA-256 of some texts, in order."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def decode(data: bytes | str, name: str) -> Image:
    """Decode an image file, or its bytes, as RGB.

    Raises:
        InputError: it cannot be decoded; the message names it.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data) if isinstance(data, bytes) else data) as image:
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{name}: cannot be decoded as an image: {error}") from error


@dataclass(frozen=True, eq=False)
class FileImages:
    """Image files under one folder.

    Attributes:
        folder: its location.
        names: (n,) paths in it.
        border: pixels cut off at every side.
    """

    folder: str
    names: Names
    border: int = 0

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Image:
        location = f"{self.folder}/{self.names[index]}"
        data = locations.read(location) if locations.is_remote(location) else location
        image = decode(data, location)
        if self.border == 0:
            return image
        width, height, b = *image.size, self.border
        if min(width, height) <= 2 * b:
            raise InputError(f"{location}: {width} × {height} pixels are too few to cut the border")
        return image.crop((b, b, width - b, height - b))


def folders(location: str) -> list[str]:
    """Return the names of the folders in a folder, sorted."""
    return [entry.name for entry in locations.entries(location) if entry.is_folder]


def image_files(location: str, names: Sequence[str]) -> tuple[Names, Labels, str]:
    """List the images in some folders of ``location``, nested ones included.

    Args:
        location: the folder that holds them.
        names: the folders to read, in this order.

    Returns:
        paths relative to ``location`` (n,), the position in ``names`` of each one's folder (n,)
        int64, and a fingerprint of all paths and sizes, and of some contents. Within a folder,
        paths are sorted.
    """
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(partial(_walk, location), names))
    files = [file for folder in found for file in folder]
    groups = np.repeat(np.arange(len(names), dtype=np.int64), [len(folder) for folder in found])
    listing = "\n".join(f"{path}\t{size}" for path, size in files)
    # Two sets may have files of the same names and sizes, so a sample of the contents tells them.
    sample = np.unique(np.linspace(0, len(files) - 1, _SAMPLED).astype(int)) if files else ()
    contents = [locations.read(f"{location}/{files[i][0]}") for i in sample]
    paths = np.array([path for path, _ in files], dtype=np.str_)
    return paths, groups, fingerprint(listing, *contents)


def _walk(location: str, folder: str) -> list[tuple[str, int]]:
    found = []
    for entry in locations.entries(f"{location}/{folder}"):
        path = f"{folder}/{entry.name}"
        if entry.is_folder:
            found += _walk(location, path)
        elif entry.name.lower().endswith(EXTENSIONS):
            found.append((path, entry.size))
    return found


def read_json(location: str) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        InputError: it is absent or holds something else.
    """
    try:
        content = json.loads(locations.read(location))
    except ValueError as error:
        raise InputError(f"{location}: not valid JSON: {error}") from error
    if not isinstance(content, Mapping):
        raise InputError(f"{location}: must hold a JSON object")
    return dict(content)
