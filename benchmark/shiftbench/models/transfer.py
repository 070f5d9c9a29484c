"""Batches on their way to the device: read ahead, and copied while the one before is worked on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import torch
from torch import Tensor

from shiftbench.core.pulse import beat

BEHIND = 4  # batches that a GPU may be behind

T = TypeVar("T")
K = TypeVar("K")


class Upload:
    """Copies tensors to a device; to a GPU on a stream of its own.

    So a copy goes on while the GPU computes, if the tensor is in page-locked memory. A GPU that is
    several batches behind is waited for, or they would pile up in its memory.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        on_gpu = device.type == "cuda"
        self._stream = torch.cuda.Stream(device) if on_gpu else None  # type: ignore[no-untyped-call]
        self._given: deque[torch.cuda.Event] = deque()

    def __call__(self, *tensors: Sequence[Tensor]) -> list[Tensor]:
        """One batch: every tensor, given in parts, as one on the device."""
        if self._stream is None:
            return [torch.cat(list(parts)).to(self._device) for parts in tensors]
        current = torch.cuda.current_stream(self._device)
        self._given.append(current.record_event())
        if len(self._given) > BEHIND:
            self._given.popleft().synchronize()
        with torch.cuda.stream(self._stream):
            there = [self._joined(parts) for parts in tensors]
        current.wait_stream(self._stream)
        for tensor in there:
            tensor.record_stream(current)  # its memory is not used again before it was read
        return there

    def _joined(self, parts: Sequence[Tensor]) -> Tensor:
        sizes = [len(part) for part in parts]
        shape = (sum(sizes), *parts[0].shape[1:])
        whole = torch.empty(shape, dtype=parts[0].dtype, device=self._device)
        for place, part in zip(torch.split(whole, sizes), parts, strict=True):
            place.copy_(part, non_blocking=True)
        return whole


def ahead(read: Callable[[K], T], keys: Iterable[K], depth: int) -> Iterator[T]:
    """``read`` of every key, in order, ``depth`` of them done ahead by two threads."""
    keys = iter(keys)
    with ThreadPoolExecutor(2) as pool:
        waiting: deque[Future[T]] = deque(pool.submit(read, key) for key in islice(keys, depth))
        try:
            while waiting:
                value = waiting.popleft().result()
                beat()
                waiting.extend(pool.submit(read, key) for key in islice(keys, 1))
                yield value
        finally:
            for future in waiting:
                future.cancel()
