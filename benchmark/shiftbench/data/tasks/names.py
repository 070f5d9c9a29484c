"""Class names: which are the same, and that no two of a list are."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence


def composed(name: str) -> str:
    """Return a name in Unicode's composed form (NFC), in which equal texts are equal strings."""
    return unicodedata.normalize("NFC", name)


def plain(name: str) -> str:
    """Return the form by which class names are matched: composed, lower case, spaces for "_"."""
    return " ".join(composed(name).replace("_", " ").lower().split())


def twins(names: Iterable[str]) -> tuple[str, str] | None:
    """Return the first two names that are matched as one and the same; ``None`` without such."""
    seen: dict[str, str] = {}
    for name in names:
        form = plain(name)
        if form in seen:
            return seen[form], name
        seen[form] = name
    return None


def not_distinct(names: Sequence[str], what: str = "class") -> str:
    """Return the reason to refuse names of which two are the same, with both; "" if none are."""
    found = twins(names)
    if found is None:
        return ""
    if found[0] == found[1]:
        return f'the {what} "{found[0]}" is named twice'
    one, other = (
        map(ascii, found) if composed(found[0]) == composed(found[1]) else (f'"{n}"' for n in found)
    )
    return f"{one} and {other} are the same {what} (case, underscores and Unicode form aside)"
