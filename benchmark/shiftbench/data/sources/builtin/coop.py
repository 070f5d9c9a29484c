"""The ten data sets beside ImageNet of CoOp, CLIPood and SAFT, in CoOp's layouts and splits.

Places, split files and their form are those of ``DATASETS.md`` and ``datasets/`` of
KaiyangZhou/CoOp; the numbers of images are in its paper (arXiv 2109.01134, Table 4). Class names
are read from the split files.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

import numpy as np
from pydantic import Field

from shiftbench.core import locations
from shiftbench.core.errors import InputError
from shiftbench.data.images import ImageSet
from shiftbench.data.sources.base import Documented, Terms
from shiftbench.data.sources.files import fingerprint
from shiftbench.data.sources.published import PublishedSource
from shiftbench.data.sources.tables import listed_set

Name = Literal[
    "caltech101",
    "oxford-pets",
    "stanford-cars",
    "flowers102",
    "food101",
    "fgvc-aircraft",
    "sun397",
    "dtd",
    "eurosat",
    "ucf101",
]
Split = Literal["train", "val", "test"]
Example = tuple[str, int, str]
"""Path in the folder of images, label, class name."""


@dataclass(frozen=True)
class Layout:
    """Where a data set is, and what is in it.

    Attributes:
        folder: under the data root.
        images: folder in it that holds the images; "" where paths begin in the folder itself.
        splits: file in it that lists the three splits; "" for FGVC Aircraft, which has its own.
        classes: how many.
        counts: images for training, validation and test.
        terms: where to get it.
    """

    folder: str
    images: str
    splits: str
    classes: int
    counts: tuple[int, int, int]
    terms: Terms


_OXFORD = "https://www.robots.ox.ac.uk/~vgg/data"
LAYOUTS: dict[Name, Layout] = {
    "caltech101": Layout(
        "caltech-101",
        "101_ObjectCategories",
        "split_zhou_Caltech101.json",
        100,
        (4_128, 1_649, 2_465),
        Terms("https://data.caltech.edu/records/mzrjq-6wc02", "CC BY 4.0"),
    ),
    "oxford-pets": Layout(
        "oxford_pets",
        "images",
        "split_zhou_OxfordPets.json",
        37,
        (2_944, 736, 3_669),
        Terms(f"{_OXFORD}/pets", "CC BY-SA 4.0"),
    ),
    "stanford-cars": Layout(
        "stanford_cars",
        "",
        "split_zhou_StanfordCars.json",
        196,
        (6_509, 1_635, 8_041),
        Terms("https://ai.stanford.edu/~jkrause/cars/car_dataset.html", "non-commercial research"),
    ),
    "flowers102": Layout(
        "oxford_flowers",
        "jpg",
        "split_zhou_OxfordFlowers.json",
        102,
        (4_093, 1_633, 2_463),
        Terms(f"{_OXFORD}/flowers/102", ""),
    ),
    "food101": Layout(
        "food-101",
        "images",
        "split_zhou_Food101.json",
        101,
        (50_500, 20_200, 30_300),
        Terms("https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101", "research"),
    ),
    "fgvc-aircraft": Layout(
        "fgvc_aircraft",
        "images",
        "",
        100,
        (3_334, 3_333, 3_333),
        Terms(f"{_OXFORD}/fgvc-aircraft", "non-commercial research"),
    ),
    "sun397": Layout(
        "sun397",
        "SUN397",
        "split_zhou_SUN397.json",
        397,
        (15_880, 3_970, 19_850),
        Terms("https://vision.princeton.edu/projects/2010/SUN", ""),
    ),
    "dtd": Layout(
        "dtd",
        "images",
        "split_zhou_DescribableTextures.json",
        47,
        (2_820, 1_128, 1_692),
        Terms(f"{_OXFORD}/dtd", "research"),
    ),
    "eurosat": Layout(
        "eurosat",
        "2750",
        "split_zhou_EuroSAT.json",
        10,
        (13_500, 5_400, 8_100),
        Terms("https://github.com/phelber/EuroSAT", "MIT"),
    ),
    "ucf101": Layout(
        "ucf101",
        "UCF-101-midframes",
        "split_zhou_UCF101.json",
        101,
        (7_639, 1_898, 3_783),
        Terms("https://www.crcv.ucf.edu/data/UCF101.php", ""),
    ),
}
SPLITS_HOME = "the split file as in https://github.com/KaiyangZhou/CoOp/blob/main/DATASETS.md"

_VARIANTS = "variants.txt"


class CoOp(PublishedSource):
    """One of CoOp's data sets, with its ``split_zhou_*.json``: path, label and class name of each.

    FGVC Aircraft has the lists of its authors, ``images_variant_<split>.txt`` and ``variants.txt``.
    """

    kind: Literal["coop"] = "coop"
    dataset: Annotated[Name, Field(description="which data set")]
    split: Annotated[Split, Field(description="which of CoOp's parts")]

    def customary(self) -> tuple[str, ...]:
        """Return CoOp's folder of the data set."""
        return (LAYOUTS[self.dataset].folder,)

    def read(self, root: str) -> ImageSet:
        """Return the images of the split, in the order of the list."""
        folder, layout = self.folder(root), LAYOUTS[self.dataset]
        examples, digest = self._examples(folder, self.split)
        images = f"{folder}/{layout.images}" if layout.images else folder
        names = np.array([path for path, _, _ in examples], np.str_)
        labels = np.array([label for _, label, _ in examples], np.int64)
        return listed_set(self.title, images, names, labels, {}, digest, self.split)

    def documented(self, root: str) -> Documented:
        """Return what CoOp's paper says."""
        del root
        layout = LAYOUTS[self.dataset]
        examples = layout.counts[get_args(Split).index(self.split)]
        return Documented(examples, classes=layout.classes)

    def label_names(self, root: str) -> tuple[str, ...] | None:
        """Return the names that the training split gives its labels.

        Raises:
            InputError: they are not numbered from 0, or one is called differently.
        """
        folder = self.folder(root)
        examples, _ = self._examples(folder, "train")
        named = {(label, name) for _, label, name in examples}
        if {label for label, _ in named} != set(range(len(named))):
            raise InputError(
                f"{self.title}: {folder}: its labels and class names do not go together"
            )
        return tuple(name for _, name in sorted(named))

    def terms(self) -> Terms:
        """Return the data set's own, and that the split file is needed."""
        layout = LAYOUTS[self.dataset]
        needed = f" and {SPLITS_HOME}" if layout.splits else ""
        return Terms(layout.terms.home + needed, layout.terms.licence)

    @property
    def title(self) -> str:
        """The data set with its split."""
        return f"{self.dataset} ({self.split})"

    def _examples(self, folder: str, split: Split) -> tuple[list[Example], str]:
        """Return the examples of a split, and a digest of the files that list them."""
        if file := LAYOUTS[self.dataset].splits:
            location = f"{folder}/{file}"
            return _of_json(location, split), locations.file_digest(location)
        names, listed = f"{folder}/{_VARIANTS}", f"{folder}/images_variant_{split}.txt"
        digest = fingerprint(locations.file_digest(names), locations.file_digest(listed))
        return _of_variants(names, listed), digest


def _of_json(location: str, split: Split) -> list[Example]:
    """Read one split of a ``split_zhou_*.json``: ``{"train": [[path, label, class name], …], …}``.

    Raises:
        InputError: the file is absent or of another form.
    """
    try:
        rows = json.loads(locations.read(location))[split]
        return [(str(path), int(label), str(name)) for path, label, name in rows]
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(
            f'{location}: "{split}" is no list of paths, labels and class names: {error}'
        ) from error


def _of_variants(names: str, listed: str) -> list[Example]:
    """Read a list of FGVC Aircraft: an image's number and the name of its variant in every line.

    Raises:
        InputError: a file is absent, or a variant has no name.
    """
    variants = locations.read(names).decode().split("\n")
    label_of = {name.strip(): label for label, name in enumerate(variants) if name.strip()}
    examples = []
    for line in locations.read(listed).decode().splitlines():
        number, _, name = line.strip().partition(" ")
        if name not in label_of:
            raise InputError(f'{listed}: "{line}" names none of the variants in {names}')
        examples.append((f"{number}.jpg", label_of[name], name))
    return examples
