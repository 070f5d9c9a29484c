"""Images in arrays, as CIFAR's authors and those after them publish: pickles, npy and npz files.

A pickle may hold plain containers and arrays, and nothing that could run code.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt

from shiftbench.core import locations
from shiftbench.core.errors import InputError
from shiftbench.data.images import ImageSet, Labels
from shiftbench.data.sources.files import fingerprint

if TYPE_CHECKING:
    from PIL.Image import Image

Layout = Literal["batch", "npy", "npz", "dictionary"]
Content = Mapping[str, Any]
Pixels = npt.NDArray[np.uint8]

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


def load(location: str, layout: Layout) -> Content:
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
    pixels = load(location, layout).get("images")
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8:
        raise InputError(f"{location}: it has no uint8 images")
    if pixels.ndim != 4 or pixels.shape[1:] != (32, 32, 3):
        raise InputError(f"{location}: images of shape {pixels.shape}, not (n, 32, 32, 3)")
    return pixels


def labels_of(location: str, labels: object, n: int, classes: int) -> Labels:
    """Return labels as int64 (n,) if they are n whole numbers from 0 up to ``classes``.

    Raises:
        InputError: they are not.
    """
    found = np.asarray(labels)
    if found.shape != (n,) or found.dtype.kind not in "iu":
        raise InputError(
            f"{location}: {n} integer labels are expected, not {found.dtype} of shape {found.shape}"
        )
    if n and not 0 <= found.min() <= found.max() < classes:
        most = classes - 1
        raise InputError(f"{location}: labels from {found.min()} to {found.max()}, not 0 to {most}")
    return found.astype(np.int64)


@dataclass(frozen=True)
class ArrayFile:
    """A file of images, its layout, and a digest by which a changed file is told."""

    location: str
    layout: Layout
    digest: str

    @property
    def images(self) -> Pixels:
        """The pixels, uint8 (n, 32, 32, 3)."""
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

    files: tuple[ArrayFile, ...]
    starts: npt.NDArray[np.int64]
    first_row: int = 0

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, index: int) -> Image:
        from PIL import Image

        file = int(np.searchsorted(self.starts, index, side="right")) - 1
        row = self.first_row + index - int(self.starts[file])
        return Image.fromarray(np.ascontiguousarray(self.files[file].images[row]))


def image_set(
    names: list[str], labels: list[Labels], files: list[ArrayFile], first_row: int = 0
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


def read_file(
    location: str, layout: Layout, classes: int, key: str = "labels"
) -> tuple[ArrayFile, Labels]:
    """Return a file that holds images, and the labels (n,) that it has under ``key``."""
    file = ArrayFile(location, layout, locations.file_digest(location))
    labels = load(location, layout).get(key)
    return file, labels_of(location, labels, len(file.images), classes)
