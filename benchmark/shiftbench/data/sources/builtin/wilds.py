"""iWildCam, FMoW and Camelyon17, from the tables that the WILDS package ships its data with.

Splits, labels and metadata are those of ``wilds.datasets.IWildCamDataset``, ``FMoWDataset`` and
``Camelyon17Dataset`` (wilds 2.0, split scheme "official"); a test compares them. The package itself
is not imported, because it brings torch, and because it cannot read FMoW's two forms of time stamps
with pandas 3.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from shiftbench.core import locations
from shiftbench.core.errors import InputError
from shiftbench.data.images import ImageSet, Names
from shiftbench.data.prompts import FMOW_CATEGORIES
from shiftbench.data.sources.base import Documented
from shiftbench.data.sources.files import fingerprint
from shiftbench.data.sources.published import PublishedSource, miniature_count
from shiftbench.data.sources.tables import integers, listed_set, read_table

Split = Literal["train", "id_val", "id_test", "val", "test"]

OTHER = "Other"
"""The region of countries that the mapping lacks; worst-region accuracy leaves it out."""

UNUSED_Y = 99999
"""The y of iWildCam categories without images."""

FIRST_VAL_YEAR, FIRST_TEST_YEAR = 2013, 2016
"""FMoW's OOD validation begins with the one, its OOD test with the other."""

VAL_HOSPITAL, TEST_HOSPITAL = 1, 2
"""Of Camelyon17, counted from 0 as its table does."""

_TIME = re.compile(r"(\d{4})-\d{2}-\d{2}[T ]\d{2}:\d{2}:\d{2}(\.\d+)?(Z|\+00:00)?")


def years(location: str, column: str, times: list[str]) -> npt.NDArray[np.int64]:
    """Return the years of UTC time stamps, with or without fractions of a second."""
    found = [_TIME.fullmatch(time) for time in times]
    for row, match in enumerate(found):
        if match is None:
            raise InputError(f'{location}: {column} {row + 1} is "{times[row]}", not a UTC time')
    return np.array([int(match.group(1)) for match in found if match], np.int64)


class _Wilds(PublishedSource):
    """A WILDS data set: a table beside a folder of images, split by the table."""

    split: Annotated[Split, Field(description="which of the published parts")]

    @property
    def title(self) -> str:
        """The set with its split."""
        return f"{self.kind} ({self.split})"


class IWildCam(_Wilds):
    """WILDS iWildCam 2.0: ``metadata.csv``, and the images of all splits in ``train/``."""

    kind: Literal["iwildcam"] = "iwildcam"

    places = ("iwildcam_v2.0",)
    home = "https://wilds.stanford.edu/datasets/#iwildcam"
    licence = "CDLA-Permissive-1.0"

    def read(self, root: str) -> ImageSet:
        """Return the rows of the split in the table's order, with ``location`` and ``year``."""
        base = self.folder(root)
        table = f"{base}/metadata.csv"
        columns = read_table(table, ["split", "location_remapped", "y", "datetime", "filename"])
        rows = np.array(columns["split"], np.str_) == self.split
        metadata: dict[str, npt.NDArray[np.generic]] = {
            "location": np.array(columns["location_remapped"], np.str_)[rows],
            "year": years(table, "datetime", columns["datetime"])[rows],
        }
        names = np.array(columns["filename"], np.str_)[rows]
        labels = integers(table, "y", columns["y"])[rows]
        digest = locations.file_digest(table)
        return listed_set(self.title, f"{base}/train", names, labels, metadata, digest, self.split)

    def documented(self, root: str) -> Documented:
        """Return the sizes of the splits of version 2.0, as FLYP's code asserts them."""
        counts = {
            "train": 129_809,
            "val": 14_961,
            "test": 42_791,
            "id_val": 7_314,
            "id_test": 8_154,
        }
        return miniature_count(root, f"iwildcam/{self.split}") or Documented(counts[self.split])

    def label_names(self, root: str) -> tuple[str, ...] | None:
        """Return the (Latin) names in ``categories.csv``, by y, without the unused ones."""
        location = f"{self.folder(root)}/categories.csv"
        columns = read_table(location, ["y", "name"])
        name_of = dict(zip(integers(location, "y", columns["y"]), columns["name"], strict=True))
        name_of.pop(UNUSED_Y, None)
        if set(name_of) != set(range(len(name_of))):
            raise InputError(f"{location}: the y of its categories are not 0, 1, 2, …")
        return tuple(name_of[y] for y in range(len(name_of)))


class FMoW(_Wilds):
    """WILDS FMoW 1.1: ``rgb_metadata.csv``, and row i's image in ``images/rgb_img_<i>.png``."""

    kind: Literal["fmow"] = "fmow"

    places = ("fmow_v1.1",)
    home = "https://wilds.stanford.edu/datasets/#fmow"
    licence = "FMoW Challenge Public License"

    def read(self, root: str) -> ImageSet:
        """Return the rows of the split in the table's order, with ``region`` and ``year``."""
        base = self.folder(root)
        table, countries = f"{base}/rgb_metadata.csv", f"{base}/country_code_mapping.csv"
        columns = read_table(table, ["split", "category", "country_code", "timestamp"])
        codes = read_table(countries, ["alpha-3", "region"])
        region_of = dict(zip(codes["alpha-3"], codes["region"], strict=True))
        regions = [region_of.get(code) or OTHER for code in columns["country_code"]]
        year = years(table, "timestamp", columns["timestamp"])
        rows = np.flatnonzero(fmow_splits(np.array(columns["split"], np.str_), year) == self.split)
        metadata: dict[str, npt.NDArray[np.generic]] = {
            "region": np.array(regions, np.str_)[rows],
            "year": year[rows],
        }
        names = np.array([f"rgb_img_{row}.png" for row in rows], np.str_)
        digest = fingerprint(locations.file_digest(table), locations.file_digest(countries))
        labels = self._labels(table, columns["category"])[rows]
        return listed_set(self.title, f"{base}/images", names, labels, metadata, digest, self.split)

    @staticmethod
    def _labels(table: str, categories: list[str]) -> npt.NDArray[np.int64]:
        position = {name: k for k, name in enumerate(FMOW_CATEGORIES)}
        unknown = next((name for name in categories if name not in position), None)
        if unknown is not None:
            raise InputError(f'{table}: FMoW has no category "{unknown}"')
        return np.array([position[name] for name in categories], np.int64)

    def documented(self, root: str) -> Documented:
        """Return the sizes of train and OOD test, as FLYP's code asserts them; others unknown."""
        counts = {"train": 76_863, "test": 22_108}
        return miniature_count(root, f"fmow/{self.split}") or Documented(counts.get(self.split))

    def label_names(self, root: str) -> tuple[str, ...] | None:
        """Return the 62 categories."""
        del root
        return FMOW_CATEGORIES


class Camelyon17(_Wilds):
    """WILDS Camelyon17 1.0, tumour or none: ``metadata.csv`` and the patches of five hospitals.

    Hospital 1 is OOD validation, hospital 2 the OOD test; there is no ``id_test``. Patches of one
    slide are resampled together, so ``location`` is the slide.
    """

    kind: Literal["camelyon17"] = "camelyon17"
    split: Annotated[
        Literal["train", "id_val", "val", "test"],
        Field(description="which of the published parts"),
    ]

    places = ("camelyon17_v1.0",)
    home = "https://wilds.stanford.edu/datasets/#camelyon17"
    licence = "CC0"

    def read(self, root: str) -> ImageSet:
        """Return the rows of the split in the table's order, with ``hospital`` and ``location``."""
        base = self.folder(root)
        table = f"{base}/metadata.csv"
        wanted = ["patient", "node", "x_coord", "y_coord", "tumor", "slide", "center", "split"]
        columns = read_table(table, wanted)
        hospital = integers(table, "center", columns["center"])
        own = integers(table, "split", columns["split"])
        split = np.select(
            [hospital == VAL_HOSPITAL, hospital == TEST_HOSPITAL, own == 0, own == 1],
            ["val", "test", "train", "id_val"],
            default="",
        )
        rows = np.flatnonzero(split == self.split)
        patches = zip(*(columns[name] for name in wanted[:4]), strict=True)
        names = [
            f"patient_{patient}_node_{node}/patch_patient_{patient}_node_{node}_x_{x}_y_{y}.png"
            for patient, node, x, y in patches
        ]
        metadata: dict[str, npt.NDArray[np.generic]] = {
            "hospital": hospital[rows],
            "location": np.array(columns["slide"], np.str_)[rows],
        }
        labels = integers(table, "tumor", columns["tumor"])[rows]
        paths = np.array(names, np.str_)[rows]
        digest = locations.file_digest(table)
        return listed_set(
            self.title, f"{base}/patches", paths, labels, metadata, digest, self.split
        )

    def documented(self, root: str) -> Documented:
        """Return the sizes of the splits, by the paper of WILDS (arXiv 2012.07421)."""
        del root
        counts = {"train": 302_436, "id_val": 33_560, "val": 34_904, "test": 85_054}
        return Documented(counts[self.split], classes=2)

    def class_count(self, root: str) -> int | None:
        """Return two: no tumour, and tumour."""
        del root
        return 2


def fmow_splits(splits: Names, year: npt.NDArray[np.int64]) -> Names:
    """Return the WILDS split of every row of FMoW's table, "" for rows that belong to none.

    WILDS compares whole time stamps with 1 January; years say the same.

    Args:
        splits: (n,) the table's own ``split``: train, val, test or seq.
        year: (n,) of the time stamps, UTC.
    """
    before = year < FIRST_VAL_YEAR
    after = year >= FIRST_TEST_YEAR
    return np.select(
        [
            (splits == "train") & before,
            (splits == "val") & before,
            (splits == "test") & before,
            (splits == "val") & ~before & ~after,
            (splits == "test") & after,
        ],
        ["train", "id_val", "id_test", "val", "test"],
        default="",
    )
