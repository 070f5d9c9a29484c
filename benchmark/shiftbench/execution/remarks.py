"""Faults of the data that are known before anything runs, and that rows must name. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from shiftbench.data.images import Unreadable


@dataclass(frozen=True)
class Remarks:
    """Remarks on the data, for the rows.

    Attributes:
        incomplete: missing files, by names of task and evaluation set.
        leakage: test images that a method sees, by name of the task and if it searches.
        files: other things to know of the files, by names of task and evaluation set.
        unreadable: images that are left out, since they cannot be decoded.
    """

    incomplete: Mapping[tuple[str, str], str] = field(default_factory=dict)
    leakage: Mapping[tuple[str, bool], str] = field(default_factory=dict)
    files: Mapping[tuple[str, str], str] = field(default_factory=dict)
    unreadable: Unreadable = field(default_factory=dict)
