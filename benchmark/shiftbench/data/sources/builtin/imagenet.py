"""The ImageNet family in its published layouts, one folder a class.

A class is a WordNet id (*wnid*), and its label the position of its folder among all of them in
sorted order. ImageNet-R and -A have 200 of the classes and are scored on those alone. Facts:
``datasets.md`` of the project's reference notes, after the loaders of wise-ft and FLYP.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from typing import Annotated, Literal, TypeVar

import numpy as np
from pydantic import Field

from shiftbench.core import locations
from shiftbench.core.errors import InputError
from shiftbench.data.images import ImageSet, Projection
from shiftbench.data.sources.base import AbsentError, Documented
from shiftbench.data.sources.corruptions import CorruptedSource
from shiftbench.data.sources.files import FileImages, fingerprint, read_json
from shiftbench.data.sources.listing import folders, list_images, unread_remarks
from shiftbench.data.sources.published import PublishedSource, miniature_count

TRAIN_PLACES = ("imagenet/train", "ILSVRC2012/train")
VAL_PLACES = (
    "imagenet/val_in_folder",
    "imagenet/val",
    "ILSVRC2012/val_dirs",
    "ILSVRC2012/val",
)

_WNID = re.compile(r"n\d{8}")


def wnid_folders(location: str) -> list[str]:
    """Return the class folders in a folder, sorted: those with names such as ``n01440764``."""
    return [name for name in folders(location) if _WNID.fullmatch(name)]


def wnids(root: str) -> list[str]:
    """Return the classes of ImageNet, sorted: all that its training or validation folders name.

    Raises:
        InputError: there are none, so that no label can be told.
    """
    places = (locations.join(root, place) for place in TRAIN_PLACES + VAL_PLACES)
    found = {wnid for place in places if _exists(place) for wnid in wnid_folders(place)}
    if not found:
        raise InputError(
            f"{root}: labels are positions in the sorted class folders of ImageNet, and neither "
            f"{TRAIN_PLACES[0]} nor {VAL_PLACES[1]} has any"
        )
    return sorted(found)


def _exists(location: str) -> bool:
    return locations.kind_of(location) == "folder"


Item = TypeVar("Item")


def _positions(items: list[Item]) -> dict[Item, int]:
    return {item: position for position, item in enumerate(items)}


class _ImageNetLabels(PublishedSource):
    """A set whose folders are wnids and whose labels are those of ImageNet."""

    def read(self, root: str) -> ImageSet:
        """Return all images; a class without a folder has none."""
        folder = self.folder(root)
        present, position = self._classes(root, folder)
        listing = list_images(folder, present)
        labels = np.array([position[wnid] for wnid in present], np.int64)[listing.folders]
        return listing.image_set(labels)

    def _classes(self, root: str, folder: str) -> tuple[list[str], dict[str, int]]:
        """Return the class folders that are there, and the label of every class of ImageNet."""
        present = wnid_folders(folder)
        if not present:
            raise InputError(f"{folder}: no class folders such as n01440764")
        position = _positions(self._order(root, present))
        unknown = [wnid for wnid in present if wnid not in position]
        if unknown:
            raise InputError(f"{folder}/{unknown[0]}: ImageNet has no such class folder")
        return present, position

    def _order(self, root: str, present: list[str]) -> list[str]:
        del present
        return wnids(root)

    def class_count(self, root: str) -> int | None:
        """Return the number of ImageNet's classes on disk."""
        return len(wnids(root))


class ImageNet(_ImageNetLabels):
    """ImageNet (ILSVRC 2012): ``imagenet/train``, ``imagenet/val`` or FLYP's ``ILSVRC2012/…``."""

    kind: Literal["imagenet"] = "imagenet"
    split: Annotated[Literal["train", "val"], Field(description="which of the published parts")]

    home = "https://image-net.org/download.php (registration), extracted into class folders"
    licence = "non-commercial research, its own terms"

    def folder(self, root: str) -> str:
        """Return the first customary folder that has class folders.

        Raises:
            AbsentError: there is none.
        """
        if self.path is None:
            for place in TRAIN_PLACES if self.split == "train" else VAL_PLACES:
                location = locations.join(root, place)
                if _exists(location) and wnid_folders(location):
                    return location
            wanted = locations.join(root, f"imagenet/{self.split}")
            raise AbsentError(f"{self.title}: there are no class folders in {wanted}")
        return super().folder(root)

    def _order(self, root: str, present: list[str]) -> list[str]:
        # With a path of its own, the set need not lie beside the rest of ImageNet.
        return present if self.path is not None else wnids(root)

    def class_count(self, root: str) -> int | None:
        """Return the number of class folders."""
        return len(self._order(root, wnid_folders(self.folder(root))))

    def documented(self, root: str) -> Documented:
        """Return 1,281,167 training images, or 50 validation images of each of 1,000 classes."""
        miniature = miniature_count(root, f"imagenet/{self.split}")
        if self.split == "train":
            return miniature or Documented(1_281_167, classes=1000)
        return miniature or Documented(50_000, per_class=50, classes=1000)

    @property
    def title(self) -> str:
        """The set with its split."""
        return f"imagenet ({self.split})"


class ImageNetSketch(_ImageNetLabels):
    """ImageNet-Sketch: ``sketch/<wnid>/``, all classes."""

    kind: Literal["imagenet-sketch"] = "imagenet-sketch"

    places = ("sketch", "imagenet-sketch", "ImageNet-Sketch/sketch")
    home = "https://github.com/HaohanWang/ImageNet-Sketch"
    licence = "MIT"
    fetched_as = "imagenet-sketch"

    def documented(self, root: str) -> Documented:
        """Return 50,889 images, by the literature; the original source gives no number."""
        return miniature_count(root, "imagenet-sketch") or Documented(
            50_889, classes=1000, certain=False
        )


class _OwnClasses(_ImageNetLabels):
    """A set with a part of ImageNet's classes, scored on those alone."""

    def read(self, root: str) -> ImageSet:
        """Return all images, labelled by the position of their class among those of the set."""
        folder = self.folder(root)
        present, position = self._classes(root, folder)
        listing = list_images(folder, present)
        projection = Projection(tuple((position[wnid],) for wnid in present))
        return replace(listing.image_set(listing.folders), projection=projection)


class ImageNetR(_OwnClasses):
    """ImageNet-R(enditions): ``imagenet-r/<wnid>/``, 200 classes."""

    kind: Literal["imagenet-r"] = "imagenet-r"

    places = ("imagenet-r",)
    home = "https://github.com/hendrycks/imagenet-r"
    licence = "MIT"
    fetched_as = "imagenet-r"

    def documented(self, root: str) -> Documented:
        """Return 30,000 images of 200 classes (the data set's README)."""
        return miniature_count(root, "imagenet-r") or Documented(30_000, classes=200)


class ImageNetA(_OwnClasses):
    """ImageNet-A(dversarial): ``imagenet-a/<wnid>/``, 200 classes."""

    kind: Literal["imagenet-a"] = "imagenet-a"

    places = ("imagenet-a",)
    home = "https://github.com/hendrycks/natural-adv-examples"
    licence = "MIT"
    fetched_as = "imagenet-a"

    def documented(self, root: str) -> Documented:
        """Return 7,500 images of 200 classes."""
        return miniature_count(root, "imagenet-a") or Documented(7_500, classes=200)


class ImageNetV2(PublishedSource):
    """ImageNet-V2, matched frequency: folders ``0`` … ``999``, whose names are the labels."""

    kind: Literal["imagenet-v2"] = "imagenet-v2"

    places = ("ImageNetV2-matched-frequency", "imagenetv2-matched-frequency-format-val")
    home = "https://github.com/modestyachts/ImageNetV2"
    licence = "MIT"
    fetched_as = "imagenet-v2"

    def read(self, root: str) -> ImageSet:
        """Return all images, in the numerical order of their folders."""
        folder = self.folder(root)
        numbers = sorted(int(name) for name in folders(folder) if name.isdecimal())
        if not numbers:
            raise InputError(f"{folder}: no class folders 0, 1, 2, …")
        listing = list_images(folder, [str(number) for number in numbers])
        return listing.image_set(np.array(numbers, np.int64)[listing.folders])

    def documented(self, root: str) -> Documented:
        """Return 10 images of each of 1,000 classes."""
        return miniature_count(root, "imagenet-v2") or Documented(10_000, 10, 1000)


class ImageNetC(_ImageNetLabels, CorruptedSource):
    """ImageNet-C: ``<corruption>/<severity>/<wnid>/``, images that need no resizing."""

    kind: Literal["imagenet-c"] = "imagenet-c"

    places = ("imagenet-c", "ImageNet-C")
    home = "https://zenodo.org/records/2235448"

    def read(self, root: str) -> ImageSet:
        """Return the images of every corruption in turn; an id starts with its corruption."""
        folder = self.folder(root)
        parts: list[ImageSet] = []
        unread: Counter[str] = Counter()
        for corruption in self.corruptions:
            part = f"{corruption}/{self.severity}"
            if not _exists(f"{folder}/{part}"):
                raise InputError(f"{self.title}: there is no folder {folder}/{part}")
            present, position = self._classes(root, f"{folder}/{part}")
            listing = list_images(folder, [f"{part}/{wnid}" for wnid in present])
            labels = np.array([position[wnid] for wnid in present], np.int64)[listing.folders]
            parts.append(listing.image_set(labels))
            unread += listing.unread
        ids = np.concatenate([part.ids for part in parts])
        return ImageSet(
            ids=ids,
            labels=np.concatenate([part.labels for part in parts]),
            images=FileImages(folder, ids),
            fingerprint=fingerprint(*(part.fingerprint for part in parts)),
            metadata=self.columns([len(part) for part in parts]),
            faults=tuple(fault for part in parts for fault in part.faults),
            remarks=unread_remarks(unread),
        )

    def documented(self, root: str) -> Documented:
        """Return the 50,000 validation images under every corruption."""
        per_class = 50 * len(self.corruptions)
        real = Documented(1000 * per_class, per_class, classes=1000)
        return Documented() if miniature_count(root, "imagenet-c") else real


class ImageNetFolder(_ImageNetLabels):
    """Any folder in ImageNet-Sketch's layout: ``path/<wnid>/``, all of the classes or some.

    ``scored_on: own`` of the evaluation set scores it on the classes that it has, as ImageNet-R.
    """

    kind: Literal["imagenet-folder"] = "imagenet-folder"
    path: Annotated[str, Field(min_length=1, description="relative to the data root, or a URI")]

    @property
    def title(self) -> str:
        """Kind and path."""
        return f"{self.kind} {self.path}"


class ObjectNet(PublishedSource):
    """ObjectNet 1.0: its own classes, each the maximum over the ImageNet classes it covers.

    Which those are is read from the four files of its ``mappings`` folder. Folders without an
    ImageNet counterpart are left out. The red border is cut off (2 pixels) before any resizing.
    """

    kind: Literal["objectnet"] = "objectnet"

    places = ("objectnet-1.0",)
    home = "https://objectnet.dev/download.html"
    licence = "its own terms, on its page"

    def read(self, root: str) -> ImageSet:
        """Return the images of the overlapping classes, labelled by their sorted folders."""
        base = self.folder(root)
        covered = imagenet_classes_of_folders(f"{base}/mappings")
        classes = sorted(covered)
        folder = f"{base}/images"
        if not _exists(folder):
            raise InputError(f"{self.title}: there is no folder {folder}")
        position = _positions(classes)
        present = [name for name in folders(folder) if name in position]
        if not present:
            raise InputError(f"{folder}: none of the {len(classes)} folders that {base} maps")
        listing = list_images(folder, present)
        labels = np.array([position[name] for name in present], np.int64)[listing.folders]
        projection = Projection(tuple(covered[name] for name in classes))
        digest = fingerprint(listing.fingerprint, repr(projection.groups))
        images = listing.image_set(labels, border=2)
        return replace(images, fingerprint=digest, projection=projection)

    def documented(self, root: str) -> Documented:
        """Return 18,574 images: of 50,273, those in the 113 folders that overlap with ImageNet."""
        miniature = Documented() if miniature_count(root, "objectnet") else None
        return miniature or Documented(18_574, classes=113)


def imagenet_classes_of_folders(mappings: str) -> dict[str, tuple[int, ...]]:
    """Return the ImageNet labels that every overlapping folder of ObjectNet covers, by folder name.

    ObjectNet's files lead there in four steps: a folder has an ObjectNet label, that label has
    ImageNet 2012 texts (joined by "; "), a text has its line number, the 2012 id, in
    ``imagenet_to_label_2012_v2``, and an id has a position among the sorted wnids.

    Args:
        mappings: location of the data set's own ``mappings`` folder.

    Raises:
        InputError: one of the files is absent, or they contradict each other.
    """
    label_of = read_json(f"{mappings}/folder_to_objectnet_label.json")
    texts_of = read_json(f"{mappings}/objectnet_to_imagenet_1k.json")
    id_of = read_json(f"{mappings}/pytorch_to_imagenet_2012_id.json")
    lines = locations.read(f"{mappings}/imagenet_to_label_2012_v2").decode().splitlines()
    folder_of = {label: folder for folder, label in label_of.items()}
    position_of = {int(id_2012): int(position) for position, id_2012 in id_of.items()}
    class_of = {text.strip(): position_of.get(line) for line, text in enumerate(lines)}
    covered = {}
    for label, joined in texts_of.items():
        found = [class_of.get(text) for text in joined.split("; ")]
        known = tuple(position for position in found if position is not None)
        if label not in folder_of or len(known) < len(found):
            raise InputError(f'{mappings}: the files do not say which classes "{label}" covers')
        covered[str(folder_of[label])] = known
    return covered
