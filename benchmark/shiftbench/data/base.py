"""What every source of images has in common, and reading of folders and image files."""

from __future__ import annotations

import hashlib
import io
import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from shiftbench.core import locations
from shiftbench.core.errors import InputError
from shiftbench.data.images import ImageSet

if TYPE_CHECKING:
    from PIL.Image import Image

Labels = npt.NDArray[np.int64]
Names = npt.NDArray[np.str_]
Fraction = Annotated[float, Field(ge=0, le=1)]

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
"""Endings, in lower case, of the files that are taken for images."""

MINIATURE_MARKER = "miniature.json"
_SHOWN = 5
_SAMPLED = 16  # files whose contents are part of a fingerprint


class AbsentError(InputError):
    """A data set is not there at all, as opposed to broken or incomplete."""


class Closed(BaseModel):
    """A specification: unknown keys are refused, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


@dataclass(frozen=True)
class Finding:
    """What ``data verify`` says of one set.

    Attributes:
        name: the set, such as ``imagenet-r`` or ``cifar10 (train)``.
        status: ``ok``, ``incomplete`` or ``absent``.
        detail: one line: what is missing, or where to get it.
        examples: how many examples were found.
        fingerprint: of the image set, empty when it could not be opened.
    """

    name: str
    status: Literal["ok", "incomplete", "absent"]
    detail: str
    examples: int = 0
    fingerprint: str = ""


@dataclass(frozen=True)
class Documented:
    """What the authors of a data set, or of the literature, say that it holds.

    Attributes:
        examples: images.
        per_class: images of every class, where they are all the same.
        classes: classes that have images.
        certain: whether a difference means that something is missing.
    """

    examples: int | None = None
    per_class: int | None = None
    classes: int | None = None
    certain: bool = True


class SourceBase(Closed):
    """A labelled set of images somewhere, described without opening it.

    Attributes:
        part: the examples of every class from one fraction to another, in the order of the hashes
            of their ids: [0, 0.8] and [0.8, 1] split a set in two, the same way every time.
        limit: at most so many examples, those whose ids have the smallest hashes.
        balanced: whether the limited draw takes equally many of every class, as far as it can.
    """

    kind: str
    part: Annotated[
        tuple[Fraction, Fraction],
        Field(description="a part of every class, by hashes of ids: from and to, as fractions"),
    ] = (0.0, 1.0)
    limit: Annotated[int | None, Field(ge=1, description="at most so many examples")] = None
    balanced: Annotated[bool, Field(description="the limited draw is the same for all classes")] = (
        False
    )

    fixed_labels: ClassVar[bool] = True
    """Whether labels are positions in the task's classes by the data set's own definition."""
    home: ClassVar[str] = ""
    """Where to get the data."""
    fetched_as: ClassVar[str] = ""
    """What ``shiftbench data fetch`` calls it, where it can."""

    @abstractmethod
    def read(self, root: str) -> ImageSet:
        """The whole set, before ``limit``; same errors as ``open``."""

    def open(self, root: str) -> ImageSet:
        """Labels and ids, nothing decoded.

        Raises:
            AbsentError: there are no such files.
            InputError: there are, but they cannot be used.
        """
        images = self.read(root)
        if self.part != (0.0, 1.0):
            images = images.subset(part_of(images.ids, images.labels, *self.part))
        if self.limit is not None and self.limit < len(images):
            images = images.subset(draw(images.ids, images.labels, self.limit, self.balanced))
        return images

    def check(self, root: str) -> Finding:
        """What there is, against what there should be; never raises for absent data."""
        return self.inspect(root)[0]

    def inspect(self, root: str) -> tuple[Finding, ImageSet | None]:
        """``check``, and the whole set when it could be opened."""
        try:
            images = self.read(root)
            fault, remark = compare(images, self.documented(root))
        except AbsentError as error:
            return Finding(self.title, "absent", f"{error}; {self.advice(root)}"), None
        except InputError as error:
            return Finding(self.title, "incomplete", str(error)), None
        status: Literal["ok", "incomplete"] = "incomplete" if fault else "ok"
        detail = fault or remark or f"{len(images):,} images"
        return Finding(self.title, status, detail, len(images), images.fingerprint), images

    def size(self, root: str) -> int:
        """Number of examples: the documented one where there is one, else counted.

        Raises:
            InputError: it had to be counted, and the data cannot be opened.
        """
        known = self.documented(root).examples if self.part == (0.0, 1.0) else None
        if known is None:
            return len(self.open(root))
        return known if self.limit is None else min(known, self.limit)

    def documented(self, root: str) -> Documented:
        """What the set should hold."""
        del root
        return Documented()

    def label_names(self, root: str) -> tuple[str, ...] | None:
        """Names of the labels, by label, where the files carry them."""
        del root
        return None

    def class_count(self, root: str) -> int | None:
        """How many classes a task needs for these labels, where the files tell."""
        names = self.label_names(root)
        return None if names is None else len(names)

    @model_validator(mode="after")
    def _part_is_one(self) -> SourceBase:
        if self.part[0] >= self.part[1]:
            raise ValueError("part goes from a smaller fraction to a larger one")
        return self

    @property
    def title(self) -> str:
        """What to call the set in one line."""
        return self.kind

    def advice(self, root: str) -> str:
        """Where to get the data, and what to type."""
        typed = f"shiftbench data fetch {self.fetched_as} --to {root}" if self.fetched_as else ""
        parts = (f"get it from {self.home}" if self.home else "", typed and f"or type: {typed}")
        return " ".join(filter(None, parts)) or "check the path"


class DataSet(SourceBase):
    """A published data set, at a customary place under the data root or at ``path``."""

    path: Annotated[
        str | None, Field(description="its folder, when it is not at the customary place")
    ] = None

    places: ClassVar[tuple[str, ...]] = ()

    def folder(self, root: str) -> str:
        """Where the set is: ``path``, or the first customary place that exists.

        Raises:
            AbsentError: nowhere.
        """
        places = self.places if self.path is None else (self.path,)
        for place in places:
            location = locations.join(root, place)
            if locations.kind_of(location) == "folder":
                return location
        accepted = " or ".join(locations.join(root, place) for place in places)
        raise AbsentError(f"{self.title}: there is no folder {accepted}")


def miniature_count(root: str, key: str) -> Documented | None:
    """What the miniature world says of one of its sets; ``None`` when ``root`` is not one."""
    marker = locations.join(root, MINIATURE_MARKER)
    if locations.kind_of(marker) != "file":
        return None
    try:
        counts = json.loads(locations.read(marker))["counts"]
        return Documented(examples=None if key not in counts else int(counts[key]))
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{marker}: not a description of the miniature world") from error


def compare(images: ImageSet, documented: Documented) -> tuple[str, str]:
    """What is wrong with a set, and what is worth a remark; each empty when there is nothing."""
    found = len(images)
    counts = np.bincount(images.labels) if found else np.zeros(0, np.int64)
    faults = [] if found else ["no images"]
    if documented.examples not in (None, found):
        faults.append(f"{found:,} images instead of {documented.examples:,}")
    present = int(np.count_nonzero(counts))
    if documented.classes not in (None, present):
        faults.append(f"{present:,} classes instead of {documented.classes:,}")
    if documented.per_class is not None:
        odd = np.flatnonzero((counts != documented.per_class) & (counts > 0))
        if len(odd):
            shown = ", ".join(f"label {k} has {counts[k]}" for k in odd[:_SHOWN])
            more = f" and {len(odd) - _SHOWN} more" if len(odd) > _SHOWN else ""
            faults.append(f"every class should have {documented.per_class}: {shown}{more}")
    text = "; ".join(faults)
    if documented.certain or not found:
        return text, ""
    return "", f"{text} (the documented number is not certain)" if text else ""


def hashes(ids: Names) -> npt.NDArray[np.uint64]:
    """(n,) uint64 hashes of example ids, the same on every machine."""
    digests = (hashlib.blake2b(name.encode(), digest_size=8).digest() for name in ids.tolist())
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


def rank_within_class(labels: Labels, order: npt.NDArray[np.intp]) -> Labels:
    """For every example, how many of its class come before it in ``order``.

    Args:
        labels: (n,) of the examples.
        order: (n,) a permutation of their indices.

    Returns:
        (n,) int64.
    """
    by_class = order[np.argsort(labels[order], kind="stable")]
    counts = np.bincount(labels[by_class]) if len(labels) else np.zeros(0, np.int64)
    starts = np.repeat(np.cumsum(counts) - counts, counts)
    ranks = np.empty(len(labels), np.int64)
    ranks[by_class] = np.arange(len(labels)) - starts
    return ranks


def draw(ids: Names, labels: Labels, n: int, balanced: bool) -> Labels:
    """The indices, ascending, of ``n`` examples chosen by the hashes of their ids."""
    order = np.argsort(hashes(ids), kind="stable")
    if balanced:
        order = order[np.argsort(rank_within_class(labels, order)[order], kind="stable")]
    return np.sort(order[:n]).astype(np.int64)


def part_of(ids: Names, labels: Labels, start: float, end: float) -> Labels:
    """The indices, ascending, of the part of every class between two fractions.

    A class with n examples gives those from round(start · n) up to round(end · n) in the order of
    the hashes of their ids, so that adjoining parts neither overlap nor leave one out.
    """
    ranks = rank_within_class(labels, np.argsort(hashes(ids), kind="stable"))
    counts = np.bincount(labels)
    first, last = (np.rint(fraction * counts)[labels] for fraction in (start, end))
    return np.flatnonzero((ranks >= first) & (ranks < last)).astype(np.int64)


def fingerprint(*parts: str | bytes) -> str:
    """Hex digest of some texts, in order."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def decode(data: bytes | str, name: str) -> Image:
    """An image file, or its bytes, as RGB.

    Raises:
        InputError: it cannot be decoded; the message names it.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data) if isinstance(data, bytes) else data) as image:
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{name}: cannot be decoded as an image: {error}") from error


@dataclass(frozen=True, eq=False)
class FileImages:
    """Image files under one folder.

    Attributes:
        folder: its location.
        names: (n,) paths in it.
        border: pixels cut off at every side.
    """

    folder: str
    names: Names
    border: int = 0

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Image:
        location = f"{self.folder}/{self.names[index]}"
        data = locations.read(location) if locations.is_remote(location) else location
        image = decode(data, location)
        if self.border == 0:
            return image
        width, height, b = *image.size, self.border
        if min(width, height) <= 2 * b:
            raise InputError(f"{location}: {width} × {height} pixels are too few to cut the border")
        return image.crop((b, b, width - b, height - b))


def folders(location: str) -> list[str]:
    """Names of the folders in a folder, sorted."""
    return [entry.name for entry in locations.entries(location) if entry.is_folder]


def image_files(location: str, names: Sequence[str]) -> tuple[Names, Labels, str]:
    """The images in some folders of ``location``, nested ones included.

    Args:
        location: the folder that holds them.
        names: the folders to read, in this order.

    Returns:
        paths relative to ``location`` (n,), the position in ``names`` of each one's folder (n,)
        int64, and a fingerprint of all paths and sizes, and of some contents. Within a folder,
        paths are sorted.
    """
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(partial(_walk, location), names))
    files = [file for folder in found for file in folder]
    groups = np.repeat(np.arange(len(names), dtype=np.int64), [len(folder) for folder in found])
    listing = "\n".join(f"{path}\t{size}" for path, size in files)
    # Two sets may have files of the same names and sizes, so a sample of the contents tells them.
    sample = np.unique(np.linspace(0, len(files) - 1, _SAMPLED).astype(int)) if files else ()
    contents = [locations.read(f"{location}/{files[i][0]}") for i in sample]
    paths = np.array([path for path, _ in files], dtype=np.str_)
    return paths, groups, fingerprint(listing, *contents)


def _walk(location: str, folder: str) -> list[tuple[str, int]]:
    found = []
    for entry in locations.entries(f"{location}/{folder}"):
        path = f"{folder}/{entry.name}"
        if entry.is_folder:
            found += _walk(location, path)
        elif entry.name.lower().endswith(EXTENSIONS):
            found.append((path, entry.size))
    return found


def read_json(location: str) -> dict[str, Any]:
    """A JSON file that holds an object.

    Raises:
        InputError: it is absent or holds something else.
    """
    try:
        content = json.loads(locations.read(location))
    except ValueError as error:
        raise InputError(f"{location}: not valid JSON: {error}") from error
    if not isinstance(content, Mapping):
        raise InputError(f"{location}: must hold a JSON object")
    return dict(content)
