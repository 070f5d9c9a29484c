"""A labelled set of images with stable example ids: the result of every reader."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from PIL.Image import Image

Labels = npt.NDArray[np.int64]
Names = npt.NDArray[np.str_]
Unreadable = Mapping[str, frozenset[str]]
"""Ids of images that cannot be decoded, by the fingerprint of their set."""
NONE_UNREADABLE: Unreadable = {}


class Images(Protocol):
    """Random access to decoded images. Picklable and cheap to send: paths, not pixels."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Image:
        """Decode the image at ``index``; its mode is RGB."""
        ...


@runtime_checkable
class EncodedImages(Images, Protocol):
    """Images whose files can be had as they are, for decoders other than Pillow."""

    def encoded(self, index: int) -> bytes | None:
        """The file at ``index``; ``None`` where the image is not all of a file's pixels."""
        ...


@dataclass(frozen=True)
class Projection:
    """The map from a task's class logits to the classes of an evaluation set.

    Output class ``i`` scores the maximum over the task classes ``groups[i]``: single-element groups
    select columns (ImageNet-A and -R), larger ones merge them (ObjectNet).
    """

    groups: tuple[tuple[int, ...], ...]

    def __call__(self, logits: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        """Project ``logits`` of shape (n, task classes) to (n, len(groups)), keeping the dtype."""
        columns = np.fromiter((c for group in self.groups for c in group), dtype=np.int64)
        starts = np.cumsum([0, *(len(group) for group in self.groups[:-1])])
        return np.maximum.reduceat(logits[:, columns], starts, axis=1)


@dataclass(frozen=True)
class ImageSet:
    """A labelled set of images.

    Attributes:
        ids: (n,) unique strings that name the examples wherever they are stored (a relative path,
            ``test/17``), in the set's deterministic order.
        labels: (n,) int64, positions in the set's own output classes (see ``projection``).
        images: the n decoded images, by index.
        fingerprint: hex digest that changes when the files change (from names, sizes, headers;
            reading every byte is not needed).
        metadata: columns of length n that metrics group by, such as ``region``.
        projection: from task logits to this set's classes; ``None`` when they are the same.
        faults: files that belong to the set and cannot be used, a line each that names the file;
            the examples are the others.
        remarks: other things to know of the files, such as how many were not read.
    """

    ids: npt.NDArray[np.str_]
    labels: npt.NDArray[np.int64]
    images: Images
    fingerprint: str
    metadata: Mapping[str, npt.NDArray[np.generic]] = field(default_factory=dict)
    projection: Projection | None = None
    faults: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def without(self, unreadable: Unreadable) -> ImageSet:
        """Return the set without the images that are known not to be readable."""
        ids = unreadable.get(self.fingerprint)
        if not ids:
            return self
        return self.subset(np.flatnonzero(~np.isin(self.ids, sorted(ids))).astype(np.int64))

    def subset(self, indices: npt.NDArray[np.int64]) -> ImageSet:
        """Return the examples at ``indices``, in that order."""
        return replace(
            self,
            ids=self.ids[indices],
            labels=self.labels[indices],
            images=ImageSubset(self.images, indices),
            metadata={name: column[indices] for name, column in self.metadata.items()},
        )


@dataclass(frozen=True)
class ImageSubset:
    """Some of the images of another set, in a given order."""

    images: Images
    indices: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Image:
        return self.images[int(self.indices[index])]

    def encoded(self, index: int) -> bytes | None:
        """The file of the image at ``index``, if it is kept in one."""
        if not isinstance(self.images, EncodedImages):
            return None
        return self.images.encoded(int(self.indices[index]))
