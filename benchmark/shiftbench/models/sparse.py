"""Some scalars of a model: which ones, and how to train only those.

A scalar is named by its index in its flattened tensor, or by its position in the concatenation of
all flattened tensors. A selection of density ρ has k = ⌊ρ · N⌋ of N scalars, where ρ is the decimal
number it is written as (0.29 · 100 is 29, though 28.999… in floating point).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from shiftbench.core.errors import RunFailedError

Scope = Literal["global", "per-tensor"]

CHUNK = 1 << 20
"""Scalars looked at at a time: what bounds the temporaries of ``select_mask``."""

_BINS = 1 << 16


def selected_count(density: float, n: int) -> int:
    """The number of scalars that density ρ selects of n: k = ⌊ρ · n⌋, exactly.

    Raises:
        ValueError: the density is not in (0, 1].
    """
    if not 0 < density <= 1:
        raise ValueError(f"a density must be in (0, 1], got {density}")
    return int(Fraction(str(float(density))) * n)


def select_mask(scores: Sequence[Tensor], density: float, scope: Scope = "global") -> list[Tensor]:
    """The scalars with the largest scores: exactly k of all, or of each tensor.

    Equal scores are taken in the order of the concatenation, so that zeros, too, make no more than
    k. Nothing is sorted, concatenated or copied whole: the bits of non-negative floats order like
    integers, so a count of their upper 16 bits and then one of the lower 16 bits within the bin
    where the k-th largest lies give it exactly. With the collection of the indices these are three
    passes; the temporaries are the counts (0.5 MB) and less than 64 MB for ``CHUNK`` scalars,
    whatever the sizes of the tensors.

    Args:
        scores: non-negative and finite, any shapes, compared in fp32.
        density: ρ.
        scope: ``global`` compares all scores with each other, k = ⌊ρ · N⌋; ``per-tensor`` takes
            ⌊ρ · n⌋ of each tensor of n scalars, so none of one smaller than 1 / ρ.

    Returns:
        For each tensor the indices of the selected scalars, ascending, int64 on its device.

    Raises:
        RunFailedError: a score is not finite.
        ValueError: a score is negative, or the density is not in (0, 1].
    """
    _check(scores)
    if scope == "per-tensor":
        return [_top([part], selected_count(density, part.numel()))[0] for part in scores]
    return _top(scores, selected_count(density, sum(part.numel() for part in scores)))


def kth_largest(scores: Sequence[Tensor], k: int) -> float:
    """The k-th largest of all scores; what ``select_mask`` compares with, and costs as little.

    Args:
        scores: non-negative and finite, any shapes, compared in fp32.
        k: from 1 to their number.

    Raises:
        RunFailedError: a score is not finite.
        ValueError: a score is negative.
    """
    _check(scores)
    bits, _ = _threshold(scores, k)
    return float(torch.tensor(bits, dtype=torch.int32).view(torch.float32))


def sampled(
    sizes: Sequence[int], density: float, scope: Scope = "global", seed: int | Sequence[int] = 0
) -> list[Tensor]:
    """As many scalars as ``select_mask`` takes, drawn uniformly without replacement.

    Costs O(k) memory, or 8 bytes a scalar for densities above 1/50.

    Args:
        sizes: scalars of each tensor.
        density: ρ.
        scope: as in ``select_mask``.
        seed: of NumPy's generator.

    Returns:
        For each tensor the indices of the selected scalars, ascending, int64 on the CPU.
    """
    generator = np.random.default_rng(seed)

    def drawn(n: int) -> Tensor:
        k = selected_count(density, n)
        chosen = generator.choice(n, k, replace=False, shuffle=False)
        return torch.from_numpy(np.sort(chosen.astype(np.int64)))

    if scope == "per-tensor":
        return [drawn(n) for n in sizes]
    return split_positions(drawn(sum(sizes)), sizes)


def split_positions(positions: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """Ascending positions (k,) in the concatenation as indices in each tensor of ``sizes``."""
    ends = torch.tensor(sizes, dtype=torch.int64).cumsum(0)
    bounds = torch.searchsorted(positions, ends.to(positions.device)).tolist()
    starts = (ends - torch.tensor(sizes, dtype=torch.int64)).tolist()
    begins = [0, *bounds[:-1]]
    return [
        positions[begin:end] - start
        for begin, end, start in zip(begins, bounds, starts, strict=True)
    ]


def join_positions(indices: Sequence[Tensor], sizes: Sequence[int]) -> Tensor:
    """The inverse of ``split_positions``: (k,) int64, ascending."""
    starts = np.cumsum([0, *sizes[:-1]]).tolist()
    return torch.cat([part + start for part, start in zip(indices, starts, strict=True)])


class SparseParameters:
    """The selected scalars of some tensors as one compact parameter.

    An optimizer over ``values`` alone keeps moments and a master copy of k scalars, decays no
    others, and leaves all others bit for bit as they are. Gradients are still those of the dense
    tensors, so the backward pass through them is as slow and as large as ever.

    Attributes:
        values: (k,) fp32, the master copy of the selected scalars; always the same object.
        indices: of each tensor, as from ``select_mask``.
    """

    def __init__(self, tensors: Sequence[nn.Parameter], indices: Sequence[Tensor]) -> None:
        self._tensors = list(tensors)
        device = self._tensors[0].device
        k = sum(len(part) for part in indices)
        self.values = nn.Parameter(torch.empty(k, dtype=torch.float32, device=device))
        self.indices: list[Tensor] = []
        self.select(indices)

    def select(self, indices: Sequence[Tensor]) -> None:
        """Select other scalars, as many as before, with the values that they have now.

        Raises:
            ValueError: another number of them.
        """
        found = sum(len(part) for part in indices)
        if found != len(self.values):
            raise ValueError(f"{len(self.values)} scalars are trained, not {found}")
        self.indices = [
            part.to(tensor.device) for part, tensor in zip(indices, self._tensors, strict=True)
        ]
        pieces = [tensor.detach().take(part) for tensor, part in self._pairs()]
        with torch.no_grad():
            self.values.copy_(torch.cat([piece.float() for piece in pieces]))

    def gather_gradient(self) -> None:
        """Set the gradient of ``values`` from those of the tensors; zero where there is none."""
        pieces = [
            tensor.new_zeros(len(part)) if tensor.grad is None else tensor.grad.take(part)
            for tensor, part in self._pairs()
        ]
        self.values.grad = torch.cat([piece.float() for piece in pieces])

    def scatter(self) -> None:
        """Write ``values`` into the tensors."""
        counts = [len(part) for part in self.indices]
        pieces = torch.split(self.values.detach(), counts)
        for tensor, part, piece in zip(self._tensors, self.indices, pieces, strict=True):
            if len(part):
                # As put_ would, which has no deterministic form.
                where = torch.unravel_index(part, tensor.shape)
                tensor.detach()[where] = piece.to(tensor.dtype)

    def _pairs(self) -> Iterator[tuple[nn.Parameter, Tensor]]:
        pairs = zip(self._tensors, self.indices, strict=True)
        return ((tensor, part) for tensor, part in pairs if len(part))


def _check(scores: Sequence[Tensor]) -> None:
    for part in scores:
        if not part.numel():
            continue
        lowest, highest = (float(end) for end in part.detach().aminmax())
        if not (math.isfinite(lowest) and math.isfinite(highest)):  # NaN is the extreme of any set
            raise RunFailedError("the score of a weight is not finite")
        if lowest < 0:
            raise ValueError("scores must not be negative")


def _top(scores: Sequence[Tensor], k: int) -> list[Tensor]:
    """Indices of the k largest scores, ascending, of each tensor."""
    if k == 0:
        return [torch.zeros(0, dtype=torch.int64, device=part.device) for part in scores]
    threshold, ties = _threshold(scores, k)
    found = []
    for part in scores:
        pieces = []
        for i, bits in enumerate(_bits(part)):
            chosen = bits > threshold
            if ties:
                equal = (bits == threshold).nonzero().squeeze(1)[:ties]
                chosen[equal] = True
                ties -= len(equal)
            pieces.append(chosen.nonzero().squeeze(1) + i * CHUNK)
        found.append(torch.cat(pieces))
    return found


def _threshold(scores: Sequence[Tensor], k: int) -> tuple[int, int]:
    """The bits of the k-th largest score, and how many scores equal to it are among the k."""
    upper = torch.zeros(_BINS, dtype=torch.int64)
    for part in scores:
        for bits in _bits(part):
            upper += torch.bincount(bits >> 16, minlength=_BINS).cpu()
    high, above = _bin_of(upper, k)
    lower = torch.zeros(_BINS, dtype=torch.int64)
    for part in scores:
        for bits in _bits(part):
            inside = bits[(bits >> 16) == high] & 0xFFFF
            lower += torch.bincount(inside, minlength=_BINS).cpu()
    low, more = _bin_of(lower, k - above)
    return (high << 16) | low, k - above - more


def _bin_of(counts: Tensor, k: int) -> tuple[int, int]:
    """The bin that holds the k-th from the top, and how many are in the bins above it."""
    from_top = counts.flip(0).cumsum(0)
    place = int(torch.searchsorted(from_top, k))
    found = len(counts) - 1 - place
    return found, int(from_top[place] - counts[found])


def _bits(scores: Tensor) -> Iterator[Tensor]:
    """Flattened scores as int32 of the same order, ``CHUNK`` at a time."""
    for part in torch.split(scores.detach().reshape(-1), CHUNK):
        # Adding zero makes +0 of -0, whose bits are those of a negative number.
        yield (part.float() + 0.0).view(torch.int32)
