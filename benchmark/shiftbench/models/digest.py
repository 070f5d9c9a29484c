"""A digest of weights, computed at the speed of memory and on the device that they are on.

Each row of 16 KiB is reduced to one number, the sum of its 64-bit words times fixed random odd
numbers modulo 2**64 (multilinear hashing: Carter and Wegman, 1979); SHA-256 takes these numbers,
with names, dtypes and shapes. Integers add up to the same in any order, so every device gives the
same digest. Rows that differ in one word always differ in their numbers, others but for one in
2**32 pairs or fewer, and weights that were trained or averaged differently differ in many rows. It
tells weights apart that nobody made to collide; it is no signature.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache

import torch
from torch import Tensor

_WORDS = 2048  # 64-bit words of a row
_ROWS = 64  # reduced at once, so that the products stay in a processor's cache


def weights_digest(weights: Mapping[str, Tensor]) -> str:
    """Hex digest of the names, dtypes, shapes and bytes of some weights, in any order of names."""
    names = sorted(weights)
    reduced = [_reduced(weights[name]) for name in names]
    digest = hashlib.sha256()
    for name, numbers in zip(names, _on_cpu(reduced), strict=True):
        tensor = weights[name]
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(numbers.numpy().tobytes())
    return digest.hexdigest()


def _reduced(tensor: Tensor) -> Tensor:
    """One int64 for each row of a tensor's bytes, the last row filled up with zeros."""
    flat = tensor.detach().contiguous().flatten()
    if flat.storage_offset() * flat.element_size() % 8:
        flat = flat.clone()  # words can only be looked at where they begin
    content = flat.view(torch.uint8)
    keys = _keys(tensor.device)
    whole = content.numel() // (8 * _WORDS) * (8 * _WORDS)
    words = content[:whole].view(torch.int64).view(-1, _WORDS)
    parts = [(rows * keys).sum(dim=1) for rows in torch.split(words, _ROWS)] if whole else []
    if whole < content.numel():
        rest = torch.zeros(8 * _WORDS, dtype=torch.uint8, device=tensor.device)
        rest[: content.numel() - whole] = content[whole:]
        parts.append((rest.view(torch.int64) * keys).sum().view(1))
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.int64, device=tensor.device)


def _on_cpu(reduced: list[Tensor]) -> list[Tensor]:
    """The same tensors on the CPU, moved at once."""
    if not reduced:
        return []
    return list(torch.split(torch.cat(reduced).cpu(), [len(numbers) for numbers in reduced]))


@cache
def _keys(device: torch.device) -> Tensor:
    """Fixed random odd numbers, int64 (2048,)."""
    generator = torch.Generator().manual_seed(0)
    limits = torch.iinfo(torch.int64)
    drawn = torch.randint(limits.min, limits.max, (_WORDS,), generator=generator)
    return (drawn | 1).to(device)
