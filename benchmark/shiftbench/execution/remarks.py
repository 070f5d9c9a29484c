"""What is known about the data before anything runs, and the rows must say. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Remarks:
    """What the rows must say of the data.

    Attributes:
        incomplete: what is missing, by names of task and evaluation set.
        leakage: test images that a method sees, by name of the task and whether it searches.
    """

    incomplete: Mapping[tuple[str, str], str] = field(default_factory=dict)
    leakage: Mapping[tuple[str, bool], str] = field(default_factory=dict)
