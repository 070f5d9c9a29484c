"""Image files: decoding them, and a fingerprint of what was found."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shiftbench.core import locations
from shiftbench.core.errors import InputError, one_line
from shiftbench.data.images import Names
from shiftbench.data.rgb import as_rgb

if TYPE_CHECKING:
    from PIL.Image import Image

DECODE_ERRORS = (OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error)
"""Errors that Pillow and the readers raise for a broken file; IndexError would be a bug."""


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
            return as_rgb(image.copy() if image.mode == "RGB" else image)
    except (*DECODE_ERRORS, Image.DecompressionBombError) as error:
        reason = one_line(error)
        raise InputError(f"{name}: cannot be decoded as an image: {reason}") from error


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

    def encoded(self, index: int) -> bytes | None:
        """The file at ``index``; ``None`` where a border is cut off."""
        return None if self.border else locations.read(f"{self.folder}/{self.names[index]}")


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
