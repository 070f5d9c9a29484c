"""Data sets of one's own, whose labels are matched to the task's classes by name."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from shiftbench.data.sources.base import Source


class CustomSource(Source):
    """A set whose labels have names of their own, matched to the task's classes by name."""

    path: Annotated[str, Field(min_length=1, description="relative to the data root, or a URI")]
    rename: Annotated[
        dict[str, str | None],
        Field(
            default_factory=dict,
            description="the task's class for labels called otherwise; null leaves them out",
        ),
    ]

    fixed_labels = False

    @property
    def title(self) -> str:
        """Kind and path."""
        return f"{self.kind} {self.path}"
