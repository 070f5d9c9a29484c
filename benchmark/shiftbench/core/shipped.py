"""Files that come with the package but are kept elsewhere in its repository."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

_IN_CHECKOUT = {"suites": "suites", "published": "results/published"}


def shipped(what: Literal["suites", "published"]) -> Path:
    """The folder of the shipped suites, or of the published results.

    A wheel holds them inside the package (see ``setup.py``); a checkout has them at its top level.
    """
    package = Path(__file__).parents[1]
    installed = package / what
    return installed if installed.is_dir() else package.parents[1] / _IN_CHECKOUT[what]
