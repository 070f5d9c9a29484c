"""Waterbirds and CelebA, whose groups are classes within backgrounds, or within sexes.

Layouts, labels and splits are those of ``wilds.datasets.WaterbirdsDataset`` and ``CelebADataset``
(wilds 2.0), after Sagawa et al. (arXiv 1911.08731); CelebA's own text files, as torchvision reads
them, do as well. ``worst-group:<column>*<column>`` is the metric.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from shiftbench.core import locations
from shiftbench.core.errors import InputError
from shiftbench.data.images import ImageSet, Labels, Names
from shiftbench.data.sources.base import Documented
from shiftbench.data.sources.files import fingerprint
from shiftbench.data.sources.published import PublishedSource
from shiftbench.data.sources.tables import Columns, integers, listed_set, read_table

Split = Literal["train", "val", "test"]
NUMBERS: dict[Split, int] = {"train": 0, "val": 1, "test": 2}
"""What both tables call the splits."""

WATERBIRDS = ("landbird", "waterbird")
CELEBA = ("not blond", "blond")

_BLOND, _MALE = "Blond_Hair", "Male"


class _Groups(PublishedSource):
    split: Annotated[Split, Field(description="which of the published parts")]

    @property
    def title(self) -> str:
        """The set with its split."""
        return f"{self.kind} ({self.split})"


class Waterbirds(_Groups):
    """Waterbirds: ``metadata.csv`` and the images that it names; columns background and bird."""

    kind: Literal["waterbirds"] = "waterbirds"

    places = ("waterbirds_v1.0", "waterbird_complete95_forest2water2")
    home = "https://github.com/kohpangwei/group_DRO"
    licence = "non-commercial research"

    def read(self, root: str) -> ImageSet:
        """Return the rows of the split in the table's order, with ``background`` and ``bird``."""
        folder = self.folder(root)
        table = f"{folder}/metadata.csv"
        columns = read_table(table, ["img_filename", "y", "split", "place"])
        split = integers(table, "split", columns["split"])
        rows = np.flatnonzero(split == NUMBERS[self.split])
        labels = _binary(table, "y", columns)[rows]
        places = np.array(["land", "water"], np.str_)[_binary(table, "place", columns)]
        metadata: dict[str, npt.NDArray[np.generic]] = {
            "background": places[rows],
            "bird": np.array(WATERBIRDS, np.str_)[labels],
        }
        names = np.array(columns["img_filename"], np.str_)[rows]
        digest = locations.file_digest(table)
        return listed_set(self.title, folder, names, labels, metadata, digest, self.split)

    def documented(self, root: str) -> Documented:
        """Return the sizes of the splits of the published 11,788 images."""
        del root
        return Documented({"train": 4_795, "val": 1_199, "test": 5_794}[self.split], classes=2)

    def label_names(self, root: str) -> tuple[str, ...] | None:
        """Return land and water birds."""
        del root
        return WATERBIRDS


class CelebA(_Groups):
    """CelebA, blond hair or not: ``img_align_celeba/`` and two lists, as ``.csv`` or ``.txt``.

    Columns: hair and sex.
    """

    kind: Literal["celeba"] = "celeba"

    places = ("celebA_v1.0", "celeba")
    home = "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"
    licence = "non-commercial research"

    def read(self, root: str) -> ImageSet:
        """Return the images of the split in the list's order, with ``hair`` and ``sex``."""
        folder = self.folder(root)
        attributes, names, blond, male = _attributes(folder)
        partition, split_of = _partition(folder)
        split = np.array([split_of.get(name, -1) for name in names.tolist()], np.int64)
        rows = np.flatnonzero(split == NUMBERS[self.split])
        metadata: dict[str, npt.NDArray[np.generic]] = {
            "hair": np.array(CELEBA, np.str_)[blond[rows]],
            "sex": np.array(["female", "male"], np.str_)[male[rows]],
        }
        images = f"{folder}/img_align_celeba"
        digest = fingerprint(*map(locations.file_digest, (attributes, partition)))
        return listed_set(
            self.title, images, names[rows], blond[rows], metadata, digest, self.split
        )

    def documented(self, root: str) -> Documented:
        """Return the sizes of the splits of the published 202,599 images."""
        del root
        counts = {"train": 162_770, "val": 19_867, "test": 19_962}
        return Documented(counts[self.split], classes=2)

    def label_names(self, root: str) -> tuple[str, ...] | None:
        """Return blond and not."""
        del root
        return CELEBA


def _attributes(folder: str) -> tuple[str, Names, Labels, Labels]:
    """Return the list of attributes, and of every image in it name, hair and sex, 0 or 1."""
    location = f"{folder}/list_attr_celeba.csv"
    if locations.kind_of(location) == "file":
        columns = read_table(location, ["image_id", _BLOND, _MALE])
    else:  # a line with their number, one with the attributes, then a line an image
        location = f"{folder}/list_attr_celeba.txt"
        lines = locations.read(location).decode().splitlines()[1:]
        header = ["image_id", *(lines[0].split() if lines else [])]
        rows = [line.split() for line in lines[1:] if line.strip()]
        if _BLOND not in header or any(len(row) != len(header) for row in rows):
            raise InputError(f"{location}: not CelebA's list of attributes")
        columns = {name: [row[header.index(name)] for row in rows] for name in (_BLOND, _MALE)}
        columns["image_id"] = [row[0] for row in rows]
    found = [
        (integers(location, name, columns[name]) > 0).astype(np.int64) for name in (_BLOND, _MALE)
    ]
    return location, np.array(columns["image_id"], np.str_), found[0], found[1]


def _partition(folder: str) -> tuple[str, dict[str, int]]:
    """Return the list of splits, and the number of its split for every image."""
    location = f"{folder}/list_eval_partition.csv"
    if locations.kind_of(location) == "file":
        columns = read_table(location, ["image_id", "partition"])
        rows = list(zip(columns["image_id"], columns["partition"], strict=True))
    else:
        location = f"{folder}/list_eval_partition.txt"
        lines = locations.read(location).decode().splitlines()
        rows = [(name, number) for name, _, number in (line.partition(" ") for line in lines)]
    numbers = integers(location, "partition", [number for _, number in rows])
    return location, dict(zip((name for name, _ in rows), numbers.tolist(), strict=True))


def _binary(location: str, name: str, columns: Columns) -> Labels:
    found = integers(location, name, columns[name])
    if len(found) and not 0 <= found.min() <= found.max() <= 1:
        raise InputError(f"{location}: column {name}: values other than 0 and 1")
    return found
