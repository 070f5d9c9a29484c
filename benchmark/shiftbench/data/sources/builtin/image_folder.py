"""Any image folder: one folder a class, no code needed."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from shiftbench.core import locations
from shiftbench.core.errors import InputError
from shiftbench.data.images import ImageSet
from shiftbench.data.sources.base import AbsentError
from shiftbench.data.sources.custom import CustomSource
from shiftbench.data.sources.listing import folders, list_images, list_outside, unread_remarks

_NAMED = 5  # empty folders that a message names


class ImageFolder(CustomSource):
    """``path/<class>/…`` with images of any common format; labels are the sorted folder names."""

    kind: Literal["image-folder"] = "image-folder"
    path: Annotated[str, Field(min_length=1, description="relative to the data root, or a URI")]
    empty_folders: Annotated[
        Literal["refuse", "leave-out"],
        Field(description="of a folder without images: stop, or make it no class"),
    ] = "refuse"

    def read(self, root: str) -> ImageSet:
        """Return all images, folder by folder."""
        folder = self._folder(root)
        names = folders(folder)
        if not names:
            raise InputError(f"{self.title}: {folder} has no class folders")
        listing = list_images(folder, names)
        faults, outside = list_outside(folder)
        counts = np.bincount(listing.folders, minlength=len(names))
        empty = [name for name, count in zip(names, counts, strict=True) if not count]
        remarks = unread_remarks(listing.unread + outside)
        if self.empty_folders == "refuse":
            kept = zip(empty, self.targets(empty), strict=True)
            self._refuse([name for name, target in kept if target], folder, remarks)
        elif empty:
            remarks += (f"folders without images left out: {_listed(empty)}",)
        if not len(listing.paths):
            raise InputError(f"{self.title}: there are no images in the folders of {folder}")
        labels = listing.folders
        if self.empty_folders == "leave-out":
            labels = (np.cumsum(counts > 0) - 1)[labels].astype(np.int64)
        images = listing.image_set(labels)
        return replace(images, faults=faults + listing.faults, remarks=remarks)

    @property
    def title(self) -> str:
        """Kind and path."""
        return f"{self.kind} {self.path}"

    def label_names(self, root: str) -> tuple[str, ...] | None:
        """Return the sorted names of the class folders."""
        folder = self._folder(root)
        names = tuple(folders(folder))
        if self.empty_folders == "refuse":
            return names
        filled = set(list_images(folder, names).folders.tolist())
        return tuple(name for position, name in enumerate(names) if position in filled)

    def _refuse(self, empty: list[str], folder: str, remarks: tuple[str, ...]) -> None:
        if empty:
            plural = "s" if len(empty) > 1 else ""
            unread = f" ({remarks[0]})" if remarks else ""
            raise InputError(
                f"{self.title}: no images in the class folder{plural} {_listed(empty)} of "
                f'{folder}{unread}; "empty_folders: leave-out" makes such folders no classes'
            )

    def _folder(self, root: str) -> str:
        folder = locations.join(root, self.path)
        if locations.kind_of(folder) != "folder":
            raise AbsentError(f"{self.title}: there is no folder {folder}")
        return folder


def _listed(names: list[str]) -> str:
    more = ", …" if len(names) > _NAMED else ""
    return ", ".join(map(locations.shown, names[:_NAMED])) + more
