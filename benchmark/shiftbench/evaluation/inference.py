"""From pixels to logits: exact, in a fixed order, the same for any number of workers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from shiftbench.core.files import written_atomically

if TYPE_CHECKING:
    from shiftbench.data.images import Images
    from shiftbench.data.preprocessing import Preprocessing
    from shiftbench.models.classifier import ImageClassifier

BATCH = 256  # images; fixed, since it can change the last bit of a logit

Array = npt.NDArray[np.float32]


class Pixels(Protocol):
    """Preprocessed images, uint8 (n, size, size, 3), read a slice at a time."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> npt.NDArray[np.uint8]: ...


@dataclass(frozen=True)
class DecodedOnAccess:
    """Pixels of images that are read only once, so not worth keeping."""

    images: Images
    preprocessing: Preprocessing
    threads: int = 4

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, part: slice, /) -> npt.NDArray[np.uint8]:
        indices = range(len(self))[part]
        with ThreadPoolExecutor(self.threads) as pool:
            decoded = pool.map(lambda i: self.preprocessing.pixels(self.images[i]), indices)
        return np.stack(list(decoded))


def image_features(
    model: ImageClassifier, pixels: Pixels, preprocessing: Preprocessing, device: torch.device
) -> Array:
    """Normalised features (n, width) fp32 of ``pixels``."""

    def features(batch: slice) -> Tensor:
        images = torch.from_numpy(np.array(pixels[batch])).to(device)
        return model.features(preprocessing.normalise(images))

    return _in_batches(len(pixels), features)


def head_logits(model: ImageClassifier, features: Array, device: torch.device) -> Array:
    """Logits (n, classes) fp32 of normalised features (n, width)."""

    def logits(batch: slice) -> Tensor:
        return model.classify(torch.from_numpy(np.array(features[batch])).to(device))

    return _in_batches(len(features), logits)


def cached_features(file: Path, compute: Callable[[], Array]) -> Array:
    """Features kept in ``file`` (.npy, memory-mapped), computed when it is not there."""
    if not file.exists():
        with written_atomically(file) as temporary, temporary.open("wb") as stream:
            np.save(stream, compute())
    features: Array = np.load(file, mmap_mode="r")
    return features


def same_image_tower(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    """True if two classifiers' weights differ at most in their heads."""
    return all(torch.equal(a[key], b[key]) for key in a if not key.startswith("head."))


def _in_batches(n: int, compute: Callable[[slice], Tensor]) -> Array:
    with torch.inference_mode():
        batches = (slice(start, start + BATCH) for start in range(0, n, BATCH))
        return np.concatenate([compute(batch).float().cpu().numpy() for batch in batches])
