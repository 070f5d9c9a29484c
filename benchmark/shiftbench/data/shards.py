"""Training images in shards: large files that processes map, and that say if they are whole.

A shard holds ``SHARD`` consecutive images of a set, the last one what is left. It begins with its
own index, so it needs no other file: int64 format version, number of images n and CRC-32 of what
follows; then int64 (n, 5), a row for each image with where it starts, its bytes, its height and
width (0 and 0 where the bytes are a JPEG file) and their CRC-32; then the images, one after the
other. It appears by a rename, complete.
"""

from __future__ import annotations

import io
import math
import os
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from shiftbench.core.errors import InputError
from shiftbench.core.files import written_atomically
from shiftbench.data.entries import rgb
from shiftbench.data.preprocessing import Pixels
from shiftbench.data.rgb import as_rgb
from shiftbench.data.sources.files import decode

if TYPE_CHECKING:
    from PIL.Image import Image

SHARD = 1024  # images
_VERSION, _HEADER, _COLUMNS = 1, 3, 5
_START, _BYTES, _HEIGHT, _WIDTH, _CRC = range(_COLUMNS)
_WORD = 8  # bytes of an int64
_SAMPLE = 4  # images of a shard whose bytes are looked at when it is opened
_QUALITY = 95

Format = Literal["uint8", "jpeg"]


class Form(NamedTuple):
    """What is kept of an image.

    Attributes:
        side: its shorter side is shrunk to so many pixels; ``None`` keeps it as it is.
        format: ``uint8``, pixels, or ``jpeg``, a file of quality 95.
    """

    side: int | None = None
    format: Format = "uint8"

    def key(self) -> str:
        """Return a cache key; of whole pixels the empty one."""
        return "" if self == Form() else f"{self.side}-{self.format}"

    def of(self, image: Image) -> Part:
        """Return what is kept of an image."""
        image = as_rgb(image)
        pixels = rgb(image if self.side is None else shrunk(image, self.side))
        if self.format == "uint8":
            return Part(np.ascontiguousarray(pixels).tobytes(), *pixels.shape[:2])
        from PIL import Image as Pillow

        file = io.BytesIO()
        Pillow.fromarray(pixels).save(file, "JPEG", quality=_QUALITY)
        return Part(file.getvalue(), 0, 0)


class Part(NamedTuple):
    """An image in a shard: its bytes, and the height and width of pixels."""

    data: bytes | memoryview
    height: int
    width: int


def shrunk(image: Image, side: int) -> Image:
    """Return an image whose shorter side is at most ``side``, bicubic."""
    from PIL import Image as Pillow

    short = min(image.size)
    if short <= side:
        return image
    width, height = (side * length // short for length in image.size)
    return image.resize((width, height), Pillow.Resampling.BICUBIC)


def write_shard(path: Path, parts: Iterable[Part], n: int) -> None:
    """Write ``n`` images; a file that is there is replaced."""
    index = np.zeros((n, _COLUMNS), dtype=np.int64)
    start = (_HEADER + index.size) * _WORD
    with written_atomically(path) as temporary, temporary.open("wb") as file:
        file.seek(start)
        for row, part in zip(index, parts, strict=True):
            row[:] = start, len(part.data), part.height, part.width, zlib.crc32(part.data)
            start += file.write(part.data)
        file.seek(0)
        header = np.array([_VERSION, n, zlib.crc32(index.tobytes())], dtype=np.int64)
        file.write(header.tobytes() + index.tobytes())
        file.flush()
        os.fsync(file.fileno())  # before it gets its name


class Shard:
    """One open shard.

    Raises:
        ValueError: it is damaged, or holds another number of images; the message says what it is.
        OSError: it cannot be read.
    """

    def __init__(self, path: Path, n: int) -> None:
        self._bytes: Pixels = np.asarray(np.memmap(path, np.uint8, mode="r"))
        begin = (_HEADER + n * _COLUMNS) * _WORD
        if len(self._bytes) < begin:
            raise ValueError("truncated")
        words = self._bytes[:begin].view(np.int64)
        self._index: npt.NDArray[np.int64] = words[_HEADER:].reshape(n, _COLUMNS)
        head = [_VERSION, n, zlib.crc32(self._bytes[_HEADER * _WORD : begin].data)]
        if words[:_HEADER].tolist() != head:
            raise ValueError("its index is damaged")
        if len(self._bytes) != begin + int(self._index[:, _BYTES].sum()):
            raise ValueError("truncated")
        self._checked = np.zeros(n, dtype=bool)

    def read(self, position: int) -> Part | None:
        """Return an image; ``None`` if it is damaged."""
        start, size, height, width, crc = (int(v) for v in self._index[position])
        data = self._bytes[start : start + size]
        if not self._checked[position]:
            if zlib.crc32(data.data) != crc:
                return None
            self._checked[position] = True
        return Part(data.data, height, width)

    def sound(self) -> bool:
        """True if some images, the first and the last among them, are as they were written."""
        sample = np.linspace(0, len(self._index) - 1, _SAMPLE).astype(int)
        return all(self.read(int(position)) is not None for position in sample)


@dataclass(frozen=True)
class ShardedImages:
    """Images of a directory of shards; pickles as its path.

    Attributes:
        directory: of the shards.
        count: images in all.
        per_shard: images of a shard.
    """

    directory: Path
    count: int
    per_shard: int = SHARD

    @cached_property
    def _open(self) -> dict[int, Shard]:
        return {}

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Image:
        from PIL import Image as Pillow

        part = self._part(index)
        if not part.height:
            return decode(bytes(part.data), f"{self.directory}: image {index}")
        pixels = np.frombuffer(part.data, np.uint8).reshape(part.height, part.width, 3)
        return Pillow.fromarray(pixels)

    def encoded(self, index: int) -> bytes | None:
        """The JPEG file of the image at ``index``; ``None`` where pixels are kept."""
        part = self._part(index)
        return None if part.height else bytes(part.data)

    def path(self, shard: int) -> Path:
        """Where a shard is."""
        return self.directory / f"{shard:06}.shard"

    def rows(self, shard: int) -> range:
        """The images of a shard."""
        return range(shard * self.per_shard, min((shard + 1) * self.per_shard, self.count))

    @property
    def shards(self) -> range:
        """Numbers of all shards."""
        return range(math.ceil(self.count / self.per_shard))

    def defect(self, shard: int) -> str | None:
        """Return why a shard has to be made again; ``None`` when it is sound."""
        try:
            opened = Shard(self.path(shard), len(self.rows(shard)))
        except (OSError, ValueError) as error:
            return "missing" if isinstance(error, FileNotFoundError) else str(error)
        return None if opened.sound() else "its images are damaged"

    def _part(self, index: int) -> Part:
        if not 0 <= index < self.count:
            raise IndexError(index)
        number, position = divmod(int(index), self.per_shard)
        path = self.path(number)
        if number not in self._open:
            self._open[number] = Shard(path, len(self.rows(number)))
        part = self._open[number].read(position)
        if part is None:
            path.unlink(missing_ok=True)
            raise InputError(
                f"{path}: image {position} of it is damaged; the file is removed, and the next "
                "start makes it again"
            )
        return part

    def __reduce__(self) -> tuple[type[ShardedImages], tuple[Path, int, int]]:
        return ShardedImages, (self.directory, self.count, self.per_shard)
