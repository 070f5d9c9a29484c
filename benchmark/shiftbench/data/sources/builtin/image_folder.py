"""Any image folder: one folder a class, no code needed."""

from __future__ import annotations

from typing import Literal

import numpy as np

from shiftbench.core import locations
from shiftbench.core.errors import InputError
from shiftbench.data.images import ImageSet
from shiftbench.data.sources.base import AbsentError
from shiftbench.data.sources.custom import CustomSource
from shiftbench.data.sources.files import FileImages, folders, image_files


class ImageFolder(CustomSource):
    """``path/<class>/…`` with images of any common format; labels are the sorted folder names."""

    kind: Literal["image-folder"] = "image-folder"

    def read(self, root: str) -> ImageSet:
        """Return all images, folder by folder."""
        folder = self._folder(root)
        names = folders(folder)
        if not names:
            raise InputError(f"{self.title}: {folder} has no class folders")
        ids, labels, digest = image_files(folder, names)
        if not len(ids):
            raise InputError(f"{self.title}: there are no images in the folders of {folder}")
        return ImageSet(ids, labels.astype(np.int64), FileImages(folder, ids), digest)

    def label_names(self, root: str) -> tuple[str, ...] | None:
        """Return the sorted names of the class folders."""
        return tuple(folders(self._folder(root)))

    def _folder(self, root: str) -> str:
        folder = locations.join(root, self.path)
        if locations.kind_of(folder) != "folder":
            raise AbsentError(f"{self.title}: there is no folder {folder}")
        return folder
