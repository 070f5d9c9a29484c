"""Data sets of one's own, whose labels are matched to the task's classes by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated
from unicodedata import normalize

from pydantic import Field

from shiftbench.data.sources.base import Source


class CustomSource(Source):
    """A set whose labels have names of their own, matched to the task's classes by name."""

    rename: Annotated[
        dict[str, str | None],
        Field(
            default_factory=dict,
            description="the task's class for labels called otherwise; null leaves them out",
        ),
    ]

    fixed_labels = False

    def targets(self, names: Sequence[str]) -> tuple[str | None, ...]:
        """Return for every label name that of the task's class; ``None`` leaves the label out."""
        renamed = {normalize("NFC", name): target for name, target in self.rename.items()}
        return tuple(renamed.get(normalize("NFC", name), name) for name in names)
