"""The order of examples: a function of the seed, whole epochs, the same for any sharing."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from shiftbench.data.batches import WorkerPlace, global_batch, micro_batches


def test_each_example_is_seen_equally_often() -> None:
    seen = Counter(
        index for step in range(10) for index in global_batch(35, 14, 0, step)[1].tolist()
    )
    assert set(seen.values()) == {4}
    assert len(seen) == 35


def test_every_epoch_has_its_own_order() -> None:
    first, second = global_batch(8, 8, 3, 0)[1], global_batch(8, 8, 3, 1)[1]
    assert sorted(first) == sorted(second) == list(range(8))
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, global_batch(8, 8, 4, 0)[1])


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("micro", [2, 4])
def test_workers_share_each_step_without_overlap(size: int, micro: int) -> None:
    shares = [
        list(micro_batches(50, 24, 1, range(2, 5), WorkerPlace(rank, size), micro))
        for rank in range(size)
    ]
    per_step = 24 // size // micro
    for i, step in enumerate(range(2, 5)):
        together = [
            pair
            for share in shares
            for batch in share[i * per_step : (i + 1) * per_step]
            for pair in batch
        ]
        positions, indices = global_batch(50, 24, 1, step)
        assert together == list(zip(positions.tolist(), indices.tolist(), strict=True))


def test_a_resumed_run_goes_on_where_it_stopped() -> None:
    whole = list(micro_batches(50, 8, 1, range(10), WorkerPlace(), 8))
    assert list(micro_batches(50, 8, 1, range(6, 10), WorkerPlace(), 8)) == whole[6:]
