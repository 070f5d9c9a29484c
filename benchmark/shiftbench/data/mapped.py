"""Decoded images in files that processes map into memory; each pickles as its path."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from shiftbench.data.preprocessing import Pixels

if TYPE_CHECKING:
    from PIL.Image import Image

RAW_PIXELS, INDEX = "pixels.bin", "index.npy"


@dataclass(frozen=True)
class PixelFile:
    """An array of a .npy file in memory-mapped pages; pickles as its path.

    Attributes:
        path: of the file; uint8 (n, size, size, 3).
    """

    path: Path

    @cached_property
    def array(self) -> Pixels:
        """Return the whole array, read-only; its pages are read when they are looked at."""
        return np.asarray(np.load(self.path, mmap_mode="r"))

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, size, size, 3)."""
        return self.array.shape

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, index: int | slice | npt.NDArray[np.integer]) -> Pixels:
        part: Pixels = self.array[index]
        return part

    def __reduce__(self) -> tuple[type[PixelFile], tuple[Path]]:
        return PixelFile, (self.path,)


@dataclass(frozen=True)
class RawImages:
    """Decoded images of any sizes in memory-mapped pages; pickles as its path.

    Attributes:
        directory: of a store entry, with ``pixels.bin`` and ``index.npy``.
    """

    directory: Path

    @cached_property
    def _index(self) -> npt.NDArray[np.int64]:
        index: npt.NDArray[np.int64] = np.load(self.directory / INDEX)
        return index

    @cached_property
    def _bytes(self) -> Pixels:
        return np.asarray(np.memmap(self.directory / RAW_PIXELS, np.uint8, mode="r"))

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, index: int) -> Image:
        from PIL import Image as Pillow

        start, height, width = (int(v) for v in self._index[index])
        pixels = self._bytes[start : start + height * width * 3]
        return Pillow.fromarray(pixels.reshape(height, width, 3))

    def __reduce__(self) -> tuple[type[RawImages], tuple[Path]]:
        return RawImages, (self.directory,)
