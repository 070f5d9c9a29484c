"""The largest difference between two arrays, and what of it rounding explains."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

FP32 = 2e-6
FP64 = 1e-12


@dataclass(frozen=True)
class Difference:
    """The largest difference between our numbers and official ones.

    Attributes:
        subject: what was compared.
        largest: max |ours - theirs|.
        scale: max |theirs|.
        tolerance: the greatest ``largest / scale`` that rounding explains.
    """

    subject: str
    largest: float
    scale: float
    tolerance: float

    @property
    def agrees(self) -> bool:
        return self.largest <= self.tolerance * self.scale


def difference(
    subject: str, ours: ArrayLike | Tensor, theirs: ArrayLike | Tensor, tolerance: float = FP32
) -> Difference:
    """Of two arrays, which must have the same shape."""
    one, other = _array(ours), _array(theirs)
    if one.shape != other.shape:
        raise ValueError(f"{subject}: ours has shape {one.shape}, theirs {other.shape}")
    largest = float(np.abs(one - other).max())
    return Difference(subject, largest, float(np.abs(other).max()), tolerance)


def _array(values: ArrayLike | Tensor) -> np.ndarray:
    return np.asarray(values.detach() if isinstance(values, Tensor) else values, np.float64)


Comparison = tuple[str, str, Callable[[Path], Iterator[Difference]]]
"""Name of a checkout, the folder in it that holds its packages, and what is compared."""
