"""Published data sets, in their customary folders and in the miniature world."""

from __future__ import annotations

import json
from typing import Annotated, ClassVar

from pydantic import Field

from shiftbench.core import locations
from shiftbench.core.errors import InputError
from shiftbench.data.miniature.definition import MARKER
from shiftbench.data.sources.base import AbsentError, Documented, Source


class PublishedSource(Source):
    """A published data set, at a customary place under the data root or at ``path``."""

    path: Annotated[
        str | None, Field(description="its folder, when it is not at the customary place")
    ] = None

    places: ClassVar[tuple[str, ...]] = ()

    def customary(self) -> tuple[str, ...]:
        """Return the places that are looked at without a ``path``, relative to the data root."""
        return self.places

    def folder(self, root: str) -> str:
        """Return the set's folder: ``path``, or the first customary place that exists.

        Raises:
            AbsentError: nowhere.
        """
        places = self.customary() if self.path is None else (self.path,)
        for place in places:
            location = locations.join(root, place)
            if locations.kind_of(location) == "folder":
                return location
        accepted = " or ".join(locations.join(root, place) for place in places)
        raise AbsentError(f"{self.title}: there is no folder {accepted}")


def miniature_count(root: str, key: str) -> Documented | None:
    """Return the size of a set of the miniature world; ``None`` when ``root`` is not one."""
    marker = locations.join(root, MARKER)
    if locations.kind_of(marker) != "file":
        return None
    try:
        counts = json.loads(locations.read(marker))["counts"]
        return Documented(examples=None if key not in counts else int(counts[key]))
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{marker}: not a description of the miniature world") from error
