"""From pixels to logits: exact, in a fixed order, the same for any number of workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from shiftbench.core.cpus import available_cpus
from shiftbench.data.decoding import image_at
from shiftbench.models.precision import autocast, matrix_precision
from shiftbench.models.transfer import Upload, ahead

if TYPE_CHECKING:
    from shiftbench.data.images import Images
    from shiftbench.data.preprocessing import Preprocessing
    from shiftbench.models.classifier import ImageClassifier
    from shiftbench.models.precision import Precision

BATCH, GPU_BATCH = 256, 512  # images; fixed, since they can change the last bit of a logit
BLOCK = 4096  # examples whose logits are held at a time: 16 MB of 1,000 classes
AHEAD = 3  # batches read while one is computed

Array = npt.NDArray[np.float32]


class Pixels(Protocol):
    """Preprocessed images, uint8 (n, size, size, 3), read a part at a time."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice | npt.NDArray[np.int64], /) -> npt.NDArray[np.uint8]: ...


@dataclass(frozen=True)
class DecodedOnAccess:
    """Pixels of images that are read only once, so not worth keeping."""

    images: Images
    preprocessing: Preprocessing
    threads: int = field(default_factory=available_cpus)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, part: slice | npt.NDArray[np.int64], /) -> npt.NDArray[np.uint8]:
        def read(index: int) -> npt.NDArray[np.uint8]:
            return self.preprocessing.pixels(image_at(self.images, index))

        with ThreadPoolExecutor(self.threads) as pool:
            return np.stack(list(pool.map(read, np.arange(len(self))[part].tolist())))


def image_features(
    model: ImageClassifier,
    pixels: Pixels,
    preprocessing: Preprocessing,
    device: torch.device,
    precision: Precision = "fp32",
) -> Array:
    """Normalised features (n, width) fp32 of ``pixels``, the tower computed in ``precision``."""

    def features(batch: Tensor) -> Tensor:
        return model.features(preprocessing.normalise(batch))

    # Around all batches, so that the weights are cast once.
    with matrix_precision(precision), autocast(precision, device):
        return _in_batches(pixels, features, device)


def head_logits(head: nn.Module, features: Array, device: torch.device) -> Array:
    """Logits (n, classes) fp32 of normalised features (n, width), a matrix product."""
    with matrix_precision("fp32"):
        return _in_batches(features, head, device)


def blocks(n: int) -> Iterator[slice]:
    """Parts of n examples whose logits are held at a time.

    They are whole batches, so that logits are the same as of all examples at once.
    """
    for start in range(0, n, BLOCK):
        yield slice(start, min(start + BLOCK, n))


def _in_batches(
    source: Pixels | Array, compute: Callable[[Tensor], Tensor], device: torch.device
) -> Array:
    """``compute`` of all examples, fp32 (n, …), a batch at a time.

    A GPU is waited for at the end only, and gets batches of one size, the last one filled up with
    zeros: so no result depends on how many others there are, and nothing is compiled twice.

    Args:
        source: (n, …), read ahead by another thread.
        compute: gets some of it on the device.
        device: where to compute.
    """
    on_gpu = device.type == "cuda"
    n, size = len(source), GPU_BATCH if on_gpu else BATCH
    if n == 0:
        raise ValueError("there are no examples")

    def read(part: slice) -> Tensor:
        values = np.asarray(source[part])
        rows = size if on_gpu else len(values)
        dtype = torch.uint8 if values.dtype == np.uint8 else torch.float32
        # One copy, out of mapped pages into memory that a GPU can fetch from by itself.
        batch = torch.empty((rows, *values.shape[1:]), dtype=dtype, pin_memory=on_gpu)
        np.copyto(batch[: len(values)].numpy(), values)
        batch[len(values) :] = 0
        return batch

    upload = Upload(device)
    out = torch.empty(0)
    parts = [slice(start, min(start + size, n)) for start in range(0, n, size)]
    several = len(parts) > 1  # else starting threads takes as long as reading
    with torch.inference_mode():
        batches = ahead(read, parts, AHEAD) if several else map(read, parts)
        for part, batch in zip(parts, batches, strict=True):
            result = compute(*upload([batch]))[: part.stop - part.start]
            if not len(out):
                out = torch.empty((n, *result.shape[1:]), pin_memory=on_gpu)
            out[part].copy_(result, non_blocking=True)
    if on_gpu:
        torch.cuda.synchronize(device)
    return out.numpy()
