"""What was found before, as JSON in the cache's folder, under a digest of all that decides it.

Nothing is lost without it but time: what cannot be read is found again, and what cannot be written
is found again the next time.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from shiftbench.core.files import written_atomically
from shiftbench.core.locations import cache_dir

T = TypeVar("T")

_log = logging.getLogger(__name__)


def place_of(kind: str, parts: Any) -> Path:
    """The file of a finding.

    Args:
        kind: of findings; each has a folder.
        parts: all that decides what is found, as JSON knows it.
    """
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
    return cache_dir() / kind / f"{digest}.json"


def recalled(place: Path, read: Callable[[Any], T | None]) -> T | None:
    """What was found before; ``None`` where nothing was, or it does not hold any more.

    Args:
        place: of ``place_of``.
        read: makes the finding of what ``remember`` was given, or ``None`` if it does not hold.
    """
    try:
        return read(json.loads(place.read_text()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        _log.info("found again: %s cannot be read: %s", place, error)
        return None


def remember(place: Path, content: Any) -> None:
    """Keep a finding, as JSON knows it."""
    try:
        with written_atomically(place) as temporary:
            temporary.write_text(json.dumps(content))
    except OSError as error:
        _log.info("%s: cannot be written: %s", place, error)
