"""The transfer sets of FLYP and AutoFT, in the folders that FLYP's scripts make.

Folders and splits are those of ``DATA.md`` and ``datacreation_scripts/`` of locuslab/FLYP. Rendered
SST2 may also lie as torchvision has it, and PatchCamelyon is read from the Hub's Parquet files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from pydantic import Field

from shiftbench.core import locations
from shiftbench.core.errors import InputError
from shiftbench.data.images import ImageSet
from shiftbench.data.sources.base import AbsentError, Documented, Terms
from shiftbench.data.sources.builtin.coop import LAYOUTS as COOP
from shiftbench.data.sources.builtin.parquet import Parquet
from shiftbench.data.sources.listing import folders, list_images
from shiftbench.data.sources.published import PublishedSource

Name = Literal["caltech101", "flowers102", "stanford-cars", "rendered-sst2"]
Split = Literal["train", "val", "test"]


@dataclass(frozen=True)
class Layout:
    """Where a data set is, and what is in it.

    Attributes:
        places: folders under the data root, of which the first that is there is taken.
        classes: how many.
        counts: images for training, validation and test; ``None`` where the split is random.
        terms: where to get it.
    """

    places: tuple[str, ...]
    classes: int
    counts: tuple[int, int, int] | None
    terms: Terms


LAYOUTS: dict[Name, Layout] = {
    "caltech101": Layout(("caltech-101",), 101, None, COOP["caltech101"].terms),
    "flowers102": Layout(("flowers102",), 102, (1_020, 1_020, 6_149), COOP["flowers102"].terms),
    "stanford-cars": Layout(
        ("StanfordCars",), 196, (6_515, 1_629, 8_041), COOP["stanford-cars"].terms
    ),
    "rendered-sst2": Layout(
        ("sst2", "rendered-sst2"),
        2,
        (6_920, 872, 1_821),
        Terms("https://github.com/openai/CLIP/blob/main/data/rendered-sst2.md", ""),
    ),
}
SCRIPTS_HOME = "split by the scripts of https://github.com/locuslab/FLYP"


class Transfer(PublishedSource):
    """One of FLYP's transfer sets: ``<split>/<class>/…``; labels are the sorted class folders."""

    kind: Literal["transfer"] = "transfer"
    dataset: Annotated[Name, Field(description="which data set")]
    split: Annotated[Split, Field(description="which of its parts")]

    def customary(self) -> tuple[str, ...]:
        """Return FLYP's folder of the data set."""
        return LAYOUTS[self.dataset].places

    def read(self, root: str) -> ImageSet:
        """Return the images of the split, class by class."""
        folder = self._folder_of(root, self.split)
        names = folders(folder)
        if names != self._names(root):
            raise InputError(f"{self.title}: {folder} has other class folders than training")
        listing = list_images(folder, names)
        return listing.image_set(listing.folders)

    def documented(self, root: str) -> Documented:
        """Return the sizes of the splits, where they are the same for everyone."""
        del root
        layout = LAYOUTS[self.dataset]
        counts = layout.counts
        examples = None if counts is None else counts[get_args(Split).index(self.split)]
        return Documented(examples, classes=layout.classes)

    def label_names(self, root: str) -> tuple[str, ...] | None:
        """Return the sorted names of the class folders."""
        return tuple(self._names(root))

    def terms(self) -> Terms:
        """Return the data set's own, and what makes the splits."""
        terms = LAYOUTS[self.dataset].terms
        made = "" if self.dataset == "rendered-sst2" else f", {SCRIPTS_HOME}"
        return Terms(terms.home + made, terms.licence)

    @property
    def title(self) -> str:
        """The data set with its split, and whose."""
        return f"{self.dataset} of FLYP ({self.split})"

    def _names(self, root: str) -> list[str]:
        return folders(self._folder_of(root, "train"))

    def _folder_of(self, root: str, split: Split) -> str:
        base = self.folder(root)
        for name in (split, "valid") if split == "val" else (split,):  # torchvision's SST2
            if locations.kind_of(f"{base}/{name}") == "folder":
                return f"{base}/{name}"
        raise AbsentError(f"{self.title}: there is no folder {base}/{split}")


class PatchCamelyon(PublishedSource):
    """PatchCamelyon, tumour or none, as the Hub has it: ``data/<split>-*.parquet``."""

    kind: Literal["patch-camelyon"] = "patch-camelyon"
    split: Annotated[Split, Field(description="which of the published parts")]

    places = ("PatchCamelyon", "patchcamelyon", "pcam")
    home = "https://huggingface.co/datasets/1aurent/PatchCamelyon (the HDF5 files are not read)"
    licence = "CC0"

    def read(self, root: str) -> ImageSet:
        """Return the rows of the split, in the order of the files."""
        folder = self.folder(root)
        below = f"{folder}/data"
        place = below if locations.kind_of(below) == "folder" else folder
        try:
            return Parquet(path=place, split=self.split, where={}, rename={}).read(root)
        except InputError as error:
            raise type(error)(f"{self.title}: {error}") from error

    def documented(self, root: str) -> Documented:
        """Return the 327,680 published patches, half of them with a tumour."""
        del root
        return Documented(262_144 if self.split == "train" else 32_768, classes=2)

    def class_count(self, root: str) -> int | None:
        """Return two: no tumour, and tumour."""
        del root
        return 2

    @property
    def title(self) -> str:
        """The set with its split."""
        return f"{self.kind} ({self.split})"
