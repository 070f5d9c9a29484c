"""Files that come with the package but are kept elsewhere in its repository."""

from __future__ import annotations

from pathlib import Path
from typing import Literal


def shipped(what: Literal["suites", "published"]) -> Path:
    """The folder of the shipped suites, or of the published results.

    In a checkout the package has links to where they are kept. Wheels, and what Ray uploads for a
    job, hold the files themselves in their place.
    """
    return (Path(__file__).parents[1] / what).resolve()
