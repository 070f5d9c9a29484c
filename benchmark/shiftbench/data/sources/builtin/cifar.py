"""The CIFAR-10 family: arrays of 32 × 32 pixels in the published files.

Facts: ``datasets.md`` of the project's reference notes, after torchvision's CIFAR-10, the files of
CIFAR-10.1 v6 and CIFAR-10.2, and hendrycks/robustness for CIFAR-10-C.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator

from shiftbench.core import locations
from shiftbench.core.errors import InputError
from shiftbench.data.images import ImageSet
from shiftbench.data.sources.base import AbsentError, Documented
from shiftbench.data.sources.corruptions import ALL_CORRUPTIONS, check_corruptions
from shiftbench.data.sources.files import fingerprint
from shiftbench.data.sources.published import PublishedSource, miniature_count

if TYPE_CHECKING:
    from PIL.Image import Image

CLASSES = 10
Layout = Literal["batch", "npy", "npz", "dictionary"]
Content = Mapping[str, Any]
Pixels = npt.NDArray[np.uint8]

_CIFAR_HOME = "https://www.cs.toronto.edu/~kriz/cifar.html"
_TRAIN_FILES = tuple(f"data_batch_{number}" for number in range(1, 6))
_PICKLED = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy._core.numeric", "_frombuffer"),
    ("numpy.core.numeric", "_frombuffer"),
    ("_codecs", "encode"),
}
"""All that a pickled array needs; anything else in such a file is refused."""


class _ArrayUnpickler(pickle.Unpickler):
    """Loads plain containers and NumPy arrays, and nothing that could run code."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _PICKLED:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}")
        if module.startswith("numpy.core"):
            module = module.replace("numpy.core", "numpy._core")
        return super().find_class(module, name)


def _unpickle(file: BinaryIO) -> Any:
    return _ArrayUnpickler(file, encoding="bytes").load()


def _load(location: str, layout: Layout) -> Content:
    """Load the named parts of a file; ``images`` is uint8 (n, 32, 32, 3), unchecked.

    Raises:
        InputError: the file is broken or not of this layout.
    """
    try:
        if layout == "npy" and not locations.is_remote(location):
            return {"images": np.load(location, mmap_mode="r", allow_pickle=False)}
        with _readable(location) as file:
            if layout == "npy":
                return {"images": np.load(file, allow_pickle=False)}
            if layout == "npz":
                return _load_npz(file)
            if layout == "dictionary":
                return _named(_load_object_array(file).item())
            batch = _named(_unpickle(file))
            if "data" in batch:
                batch["images"] = batch["data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
            return batch
    except FileNotFoundError:
        raise InputError(f"{location}: there is no such file") from None
    except (
        OSError,
        ValueError,
        EOFError,
        TypeError,
        AttributeError,
        KeyError,
        IndexError,
        ImportError,
        MemoryError,
        pickle.UnpicklingError,
        zipfile.BadZipFile,
    ) as error:
        raise InputError(f"{location}: cannot be read: {error}") from error


def _readable(location: str) -> BinaryIO:
    """Open a file for NumPy and pickle; a remote one is read into memory, since they seek in it."""
    if not locations.is_remote(location):
        return locations.opened(location)
    with locations.opened(location) as file:
        return io.BytesIO(file.read())


def _load_npz(file: BinaryIO) -> Content:
    """Load the arrays that need no unpickling; the real file pickles some of the others."""
    with np.load(file, allow_pickle=False) as content:
        return {name: content[name] for name in ("images", "labels")}


def _load_object_array(file: BinaryIO) -> npt.NDArray[Any]:
    """Load an array of objects saved by ``numpy.save``, refusing a pickle that could run code."""
    version = np.lib.format.read_magic(file)
    header = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    _, _, dtype = header(file)
    if not dtype.hasobject:
        raise ValueError("it holds no dictionary")
    array = _unpickle(file)
    if not isinstance(array, np.ndarray):
        raise TypeError("it holds no array")
    return array


def _named(content: Any) -> dict[str, Any]:
    """Return a dictionary with text keys, whether Python 2 or 3 wrote it."""
    if not isinstance(content, dict):
        raise TypeError("it holds no dictionary")
    return {
        key.decode() if isinstance(key, bytes) else str(key): value
        for key, value in content.items()
    }


@lru_cache(maxsize=32)
def _images(location: str, layout: Layout, digest: str) -> Pixels:
    """Return the pixels of a file; ``digest`` makes a changed file another entry of the cache."""
    del digest
    pixels = _load(location, layout).get("images")
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8:
        raise InputError(f"{location}: it has no uint8 images")
    if pixels.ndim != 4 or pixels.shape[1:] != (32, 32, 3):
        raise InputError(f"{location}: images of shape {pixels.shape}, not (n, 32, 32, 3)")
    return pixels


def _labels(location: str, labels: object, n: int) -> npt.NDArray[np.int64]:
    """Return labels as int64 (n,) if they are n whole numbers from 0 to 9."""
    found = np.asarray(labels)
    if found.shape != (n,) or found.dtype.kind not in "iu":
        raise InputError(
            f"{location}: {n} integer labels are expected, not {found.dtype} of shape {found.shape}"
        )
    if n and not 0 <= found.min() <= found.max() < CLASSES:
        raise InputError(f"{location}: labels from {found.min()} to {found.max()}, not 0 to 9")
    return found.astype(np.int64)


@dataclass(frozen=True)
class _File:
    location: str
    layout: Layout
    digest: str

    @property
    def images(self) -> Pixels:
        return _images(self.location, self.layout, self.digest)


@dataclass(frozen=True, eq=False)
class ArrayImages:
    """Images in arrays on disk, which every process opens for itself.

    Attributes:
        files: the files.
        starts: (number of files + 1,) int64: image i is in the file f with
            starts[f] ≤ i < starts[f + 1].
        first_row: the row of the first image in every file.
    """

    files: tuple[_File, ...]
    starts: npt.NDArray[np.int64]
    first_row: int = 0

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, index: int) -> Image:
        from PIL import Image

        file = int(np.searchsorted(self.starts, index, side="right")) - 1
        row = self.first_row + index - int(self.starts[file])
        return Image.fromarray(np.ascontiguousarray(self.files[file].images[row]))


def _image_set(
    names: list[str], labels: list[npt.NDArray[np.int64]], files: list[_File], first_row: int = 0
) -> ImageSet:
    """Join several files; an id is a file's name and the image's number in it."""
    starts = np.cumsum([0, *(len(part) for part in labels)], dtype=np.int64)
    ids = [
        f"{name}/{i}" for name, part in zip(names, labels, strict=True) for i in range(len(part))
    ]
    return ImageSet(
        ids=np.array(ids, np.str_),
        labels=np.concatenate(labels),
        images=ArrayImages(tuple(files), starts, first_row),
        fingerprint=fingerprint(*(file.digest for file in files)),
    )


def _one_file(location: str, name: str, layout: Layout) -> ImageSet:
    """Read a file that holds ``images`` and ``labels``."""
    file = _File(location, layout, locations.file_digest(location))
    labels = _load(location, layout).get("labels")
    return _image_set([name], [_labels(location, labels, len(file.images))], [file])


class Cifar10(PublishedSource):
    """CIFAR-10 in Python pickles: ``cifar-10-batches-py/data_batch_1`` … ``test_batch``."""

    kind: Literal["cifar10"] = "cifar10"
    split: Annotated[Literal["train", "test"], Field(description="which of the published parts")]

    places = ("cifar-10-batches-py",)
    home = _CIFAR_HOME
    fetched_as = "cifar10"

    def read(self, root: str) -> ImageSet:
        """Return all images, in the order of the files."""
        folder = self.folder(root)
        names = _TRAIN_FILES if self.split == "train" else ("test_batch",)
        parts = [_one_file(f"{folder}/{name}", name, "batch") for name in names]
        files = [file for part in parts for file in _files(part)]
        return _image_set(list(names), [part.labels for part in parts], files)

    def documented(self, root: str) -> Documented:
        """Return 5,000 training or 1,000 test images of every class."""
        miniature = miniature_count(root, f"cifar10/{self.split}")
        per_class = 5000 if self.split == "train" else 1000
        return miniature or Documented(CLASSES * per_class, per_class, CLASSES)

    def label_names(self, root: str) -> tuple[str, ...] | None:
        """Return the names in ``batches.meta``."""
        location = f"{self.folder(root)}/batches.meta"
        names = _load(location, "batch").get("label_names")
        if not isinstance(names, list) or len(names) != CLASSES:
            raise InputError(f"{location}: it does not name {CLASSES} classes")
        return tuple(name.decode() if isinstance(name, bytes) else str(name) for name in names)

    @property
    def title(self) -> str:
        """The set with its split."""
        return f"cifar10 ({self.split})"


def _files(images: ImageSet) -> tuple[_File, ...]:
    assert isinstance(images.images, ArrayImages)  # noqa: S101 - this module made it
    return images.images.files


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
    fetched_as = "cifar10.1"

    def read(self, root: str) -> ImageSet:
        """Return all images, in the order of the file."""
        folder = self.folder(root)
        location, labels = f"{folder}/cifar10.1_v6_data.npy", f"{folder}/cifar10.1_v6_labels.npy"
        digest = fingerprint(locations.file_digest(location), locations.file_digest(labels))
        file = _File(location, "npy", digest)
        found = _labels(labels, _load(labels, "npy")["images"], len(file.images))
        return _image_set(["cifar10.1_v6"], [found], [file])

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
                return _one_file(location, "cifar102_test", layout)
        raise AbsentError(
            f"{self.title}: there is no {folder}/cifar102_test.npz, nor an older .npy"
        )

    def documented(self, root: str) -> Documented:
        """Return 2,000 images, 200 of every class."""
        return miniature_count(root, "cifar10.2") or Documented(2000, 200, CLASSES)


class Cifar10C(_Shift):
    """CIFAR-10-C: ``CIFAR-10-C/<corruption>.npy``, one fifth of the rows for each severity."""

    kind: Literal["cifar10-c"] = "cifar10-c"
    corruptions: Annotated[
        tuple[str, ...], Field(description="kinds of corruption, each with images of its own")
    ] = ALL_CORRUPTIONS
    severity: Annotated[int, Field(ge=1, le=5, description="how strong they are")] = 5

    places = ("CIFAR-10-C",)
    home = "https://zenodo.org/records/2535967"

    _known = field_validator("corruptions")(check_corruptions)

    def read(self, root: str) -> ImageSet:
        """Return the rows of one severity of every corruption in turn; ids such as ``fog/5/17``."""
        folder = self.folder(root)
        location = f"{folder}/labels.npy"
        digest = locations.file_digest(location)
        content = _load(location, "npy")["images"]
        labels = _labels(location, content, len(np.atleast_1d(content)))
        if len(labels) % 5:
            raise InputError(f"{location}: {len(labels)} labels are not five severities")
        n = len(labels) // 5
        first = n * (self.severity - 1)
        files = []
        for corruption in self.corruptions:
            name = f"{folder}/{corruption}.npy"
            file = _File(name, "npy", fingerprint(digest, locations.file_digest(name)))
            if len(file.images) != len(labels):
                raise InputError(f"{name}: {len(file.images)} images, but {len(labels)} labels")
            files.append(file)
        parts = [labels[first : first + n]] * len(files)
        names = [f"{corruption}/{self.severity}" for corruption in self.corruptions]
        return _image_set(names, parts, files, first)

    def documented(self, root: str) -> Documented:
        """Return the 10,000 test images under every corruption."""
        per_class = 1000 * len(self.corruptions)
        real = Documented(CLASSES * per_class, per_class, CLASSES)
        return Documented() if miniature_count(root, "cifar10-c") else real
