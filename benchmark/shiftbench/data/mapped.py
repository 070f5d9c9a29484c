"""Decoded images in files that processes map into memory; each pickles as its path."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shiftbench.data.preprocessing import Pixels


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
