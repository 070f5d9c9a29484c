from __future__ import annotations

import pytest
import torch
from shiftbench.models.precision import autocast, matrix_precision


def state() -> tuple[str, bool]:
    return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize(
    ("precision", "expected"),
    [("fp32", ("highest", False)), ("tf32", ("high", True)), ("bf16", ("highest", False))],
)
def test_tf32_is_as_asked_and_as_before_afterwards(precision, expected):
    before = state()
    with pytest.raises(KeyError), matrix_precision(precision):
        assert state() == expected
        raise KeyError
    assert state() == before


def test_only_bf16_casts():
    weight = torch.randn(4, 4)
    for precision, dtype in [("fp32", torch.float32), ("bf16", torch.bfloat16)]:
        with autocast(precision, torch.device("cpu")):
            assert (weight @ weight).dtype == dtype
    with autocast("tf32", torch.device("cpu")):
        assert torch.equal(weight @ weight, torch.matmul(weight, weight))
