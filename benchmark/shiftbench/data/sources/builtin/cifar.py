"""The families of CIFAR-10 and CIFAR-100: arrays of 32 × 32 pixels in the published files.

Facts: ``datasets.md`` of the project's reference notes, after torchvision's CIFAR-10 and CIFAR-100,
the files of CIFAR-10.1 v6 and CIFAR-10.2, and hendrycks/robustness for CIFAR-10-C.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from shiftbench.core import locations
from shiftbench.core.errors import InputError
from shiftbench.data.images import ImageSet
from shiftbench.data.sources.arrays import ArrayFile, Layout, image_set, labels_of, load, read_file
from shiftbench.data.sources.base import AbsentError, Documented
from shiftbench.data.sources.corruptions import ALL_CORRUPTIONS, SEVERITIES, CorruptedSource
from shiftbench.data.sources.files import fingerprint
from shiftbench.data.sources.published import PublishedSource, miniature_count

CLASSES = 10


class _Cifar(PublishedSource):
    """A training and a test set in Python pickles, beside one that names the classes."""

    split: Annotated[Literal["train", "test"], Field(description="which of the published parts")]

    files: ClassVar[Mapping[str, tuple[str, ...]]]
    classes: ClassVar[int]
    label_key: ClassVar[str]
    meta: ClassVar[tuple[str, str]]
    """The file that names the classes, and the key that it does so under."""

    home = "https://www.cs.toronto.edu/~kriz/cifar.html"

    def read(self, root: str) -> ImageSet:
        """Return all images, in the order of the files."""
        folder, names = self.folder(root), self.files[self.split]
        parts = [
            read_file(f"{folder}/{name}", "batch", self.classes, self.label_key) for name in names
        ]
        return image_set(list(names), [labels for _, labels in parts], [file for file, _ in parts])

    def documented(self, root: str) -> Documented:
        """Return 50,000 training or 10,000 test images, as many of every class."""
        examples = 50_000 if self.split == "train" else 10_000
        miniature = miniature_count(root, f"{self.kind}/{self.split}")
        return miniature or Documented(examples, examples // self.classes, self.classes)

    def label_names(self, root: str) -> tuple[str, ...] | None:
        """Return the names in the file beside the batches."""
        name, key = self.meta
        location = f"{self.folder(root)}/{name}"
        names = load(location, "batch").get(key)
        if not isinstance(names, list) or len(names) != self.classes:
            raise InputError(f"{location}: it does not name {self.classes} classes")
        return tuple(name.decode() if isinstance(name, bytes) else str(name) for name in names)

    @property
    def title(self) -> str:
        """The set with its split."""
        return f"{self.kind} ({self.split})"


class Cifar10(_Cifar):
    """CIFAR-10 in Python pickles: ``cifar-10-batches-py/data_batch_1`` … ``test_batch``."""

    kind: Literal["cifar10"] = "cifar10"

    places = ("cifar-10-batches-py",)
    files: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "train": tuple(f"data_batch_{k}" for k in range(1, 6)),
        "test": ("test_batch",),
    }
    classes = CLASSES
    label_key = "labels"
    meta = ("batches.meta", "label_names")
    fetched_as = "cifar10"


class Cifar100(_Cifar):
    """CIFAR-100, its 100 fine classes: ``cifar-100-python/train``, ``test`` and ``meta``."""

    kind: Literal["cifar100"] = "cifar100"

    places = ("cifar-100-python",)
    files: ClassVar[Mapping[str, tuple[str, ...]]] = {"train": ("train",), "test": ("test",)}
    classes = 100
    label_key = "fine_labels"
    meta = ("meta", "fine_label_names")
    fetched_as = "cifar100"


class _Shift(PublishedSource):
    """A test set with CIFAR-10's classes."""

    def class_count(self, root: str) -> int | None:
        """Return ten, as CIFAR-10 has."""
        del root
        return CLASSES


class Cifar101(_Shift):
    """CIFAR-10.1 v6: ``CIFAR-10.1/cifar10.1_v6_data.npy`` and ``…_labels.npy``."""

    kind: Literal["cifar10.1"] = "cifar10.1"

    places = ("CIFAR-10.1", "CIFAR-10.1/datasets")
    home = "https://github.com/modestyachts/CIFAR-10.1"
    licence = "MIT"
    fetched_as = "cifar10.1"

    def read(self, root: str) -> ImageSet:
        """Return all images, in the order of the file."""
        folder = self.folder(root)
        location, labels = f"{folder}/cifar10.1_v6_data.npy", f"{folder}/cifar10.1_v6_labels.npy"
        digest = fingerprint(locations.file_digest(location), locations.file_digest(labels))
        file = ArrayFile(location, "npy", digest)
        found = labels_of(labels, load(labels, "npy")["images"], len(file.images), CLASSES)
        return image_set(["cifar10.1_v6"], [found], [file])

    def documented(self, root: str) -> Documented:
        """Return 200 images of every class (version 6; version 4 has 2,021 in all)."""
        return miniature_count(root, "cifar10.1") or Documented(2000, 200, CLASSES)


class Cifar102(_Shift):
    """CIFAR-10.2, test: ``CIFAR-10.2/cifar102_test.npz``, else the older pickled ``….npy``."""

    kind: Literal["cifar10.2"] = "cifar10.2"

    places = ("CIFAR-10.2",)
    home = "https://github.com/modestyachts/cifar-10.2"
    fetched_as = "cifar10.2"

    def read(self, root: str) -> ImageSet:
        """Return all images, in the order of the file."""
        folder = self.folder(root)
        layouts: dict[str, Layout] = {"npz": "npz", "npy": "dictionary"}
        for ending, layout in layouts.items():
            location = f"{folder}/cifar102_test.{ending}"
            if locations.kind_of(location) == "file":
                file, labels = read_file(location, layout, CLASSES)
                return image_set(["cifar102_test"], [labels], [file])
        raise AbsentError(
            f"{self.title}: there is no {folder}/cifar102_test.npz, nor an older .npy"
        )

    def documented(self, root: str) -> Documented:
        """Return 2,000 images, 200 of every class."""
        return miniature_count(root, "cifar10.2") or Documented(2000, 200, CLASSES)


class _Corrupted(CorruptedSource):
    """A file for each corruption, of which one fifth of the rows are of each severity."""

    corruptions: Annotated[
        tuple[str, ...], Field(description="kinds of corruption, each with images of its own")
    ] = ALL_CORRUPTIONS

    classes: ClassVar[int]

    def read(self, root: str) -> ImageSet:
        """Return the rows of one severity of every corruption in turn; ids such as ``fog/5/17``."""
        folder = self.folder(root)
        location = f"{folder}/labels.npy"
        digest = locations.file_digest(location)
        content = load(location, "npy")["images"]
        labels = labels_of(location, content, len(np.atleast_1d(content)), self.classes)
        if len(labels) % len(SEVERITIES):
            raise InputError(f"{location}: {len(labels)} labels are not five severities")
        n = len(labels) // len(SEVERITIES)
        first = n * (self.severity - 1)
        files = []
        for corruption in self.corruptions:
            name = f"{folder}/{corruption}.npy"
            file = ArrayFile(name, "npy", fingerprint(digest, locations.file_digest(name)))
            if len(file.images) != len(labels):
                raise InputError(f"{name}: {len(file.images)} images, but {len(labels)} labels")
            files.append(file)
        parts = [labels[first : first + n]] * len(files)
        names = [f"{corruption}/{self.severity}" for corruption in self.corruptions]
        images = image_set(names, parts, files, first)
        return replace(images, metadata=self.columns([n] * len(files)))

    def documented(self, root: str) -> Documented:
        """Return the 10,000 test images under every corruption."""
        examples = 10_000 * len(self.corruptions)
        real = Documented(examples, examples // self.classes, self.classes)
        return Documented() if miniature_count(root, self.kind) else real

    def class_count(self, root: str) -> int | None:
        """Return the number of CIFAR's classes."""
        del root
        return self.classes


class Cifar10C(_Corrupted):
    """CIFAR-10-C: ``CIFAR-10-C/<corruption>.npy``, one fifth of the rows for each severity."""

    kind: Literal["cifar10-c"] = "cifar10-c"

    places = ("CIFAR-10-C",)
    classes = CLASSES
    home = "https://zenodo.org/records/2535967"


class Cifar100C(_Corrupted):
    """CIFAR-100-C: ``CIFAR-100-C/<corruption>.npy``, as CIFAR-10-C."""

    kind: Literal["cifar100-c"] = "cifar100-c"

    places = ("CIFAR-100-C",)
    classes = 100
    home = "https://zenodo.org/records/3555552"
