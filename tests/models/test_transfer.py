from __future__ import annotations

import threading

import pytest
import torch
from shiftbench.models.transfer import Upload, ahead


def test_an_upload_joins_parts_in_order():
    upload = Upload(torch.device("cpu"))
    parts = [torch.arange(6).view(2, 3), torch.arange(6, 9).view(1, 3)]
    joined, alone = upload(parts, [torch.tensor([1.5])])
    assert torch.equal(joined, torch.arange(9).view(3, 3))
    assert torch.equal(alone, torch.tensor([1.5]))


def test_values_are_read_ahead_in_order():
    started: list[int] = []
    third = threading.Event()

    def read(key: int) -> int:
        started.append(key)
        if key == 2:
            third.set()
        return key * key

    values = ahead(read, range(5), depth=3)
    assert next(values) == 0
    assert third.wait(10) and len(started) >= 3
    assert list(values) == [1, 4, 9, 16]
    assert started == list(range(5))


def test_an_error_arrives_where_its_value_would():
    def read(key: int) -> int:
        if key == 1:
            raise KeyError("broken")
        return key

    values = ahead(read, range(3), depth=2)
    assert next(values) == 0
    with pytest.raises(KeyError, match="broken"):
        next(values)
