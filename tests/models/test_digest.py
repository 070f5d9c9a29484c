"""Equal weights have one digest, and whatever differs has another."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from shiftbench.models.digest import _WORDS, _keys, _reduced, weights_digest
from torch import Tensor

SIZES = (0, 1, 5, 2 * _WORDS, 4 * _WORDS + 3, 2 * 65 * _WORDS + 1)  # of fp32: rows and parts of one


def tensor(size: int) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(size))


@pytest.mark.parametrize("size", SIZES)
def test_rows_are_sums_of_words_times_keys(size: int) -> None:
    keys = [int(key) for key in _keys(torch.device("cpu")).tolist()]
    content = tensor(size).numpy().tobytes()
    content += bytes(-len(content) % (8 * _WORDS))
    words = np.frombuffer(content, dtype="<i8").reshape(-1, _WORDS).tolist()
    expected = [sum(w * k for w, k in zip(row, keys, strict=True)) % 2**64 for row in words]
    assert [number % 2**64 for number in _reduced(tensor(size)).tolist()] == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
def test_one_bit_makes_another_digest(dtype: torch.dtype) -> None:
    before = tensor(9000).mul(100).to(dtype)
    for place in (0, 4095, 4096, 8999):
        after = before.clone()
        bits = after.view(torch.uint8)
        bits[place * before.element_size()] ^= 1
        assert weights_digest({"a": before}) != weights_digest({"a": after})


def test_names_shapes_and_dtypes_count_and_the_order_of_names_does_not() -> None:
    a, b = tensor(12), tensor(10)
    digest = weights_digest({"a": a, "b": b})
    assert weights_digest({"b": b, "a": a.clone()}) == digest
    others = [
        {"a": b, "b": a},
        {"a": a.view(3, 4), "b": b},
        {"a": a.view(torch.int32), "b": b},
        {"a": a},
        {"a": torch.cat([a, torch.zeros(1)]), "b": b},
    ]
    assert len({digest, *map(weights_digest, others)}) == len(others) + 1


def test_where_and_how_a_tensor_lies_in_memory_does_not_count() -> None:
    a = tensor(6000).view(60, 100)
    storage = torch.cat([torch.zeros(1), a.flatten()])
    shifted, turned = storage[1:].view(60, 100), a.T.contiguous().T
    assert weights_digest({"a": a}) == weights_digest({"a": shifted})
    assert weights_digest({"a": a}) == weights_digest({"a": turned})
