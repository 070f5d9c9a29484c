"""Reading the cells of CSV files of published results."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

Cells = Mapping[str, str]


def score(text: str, line: int, column: str, *, percent: bool) -> float:
    """A score in [0, 1], the float nearest to what is written."""
    try:
        value = float(Decimal(text).scaleb(-2 if percent else 0))
    except InvalidOperation as error:
        raise ValueError(f'line {line}, {column}: "{text}" is not a number') from error
    if not 0 <= value <= 1:
        raise ValueError(f"line {line}, {column}: {text} is not a score")
    return value


def settings(values: Mapping[str, str]) -> dict[str, Any] | None:
    """The cells that are not empty, numbers as such; ``None`` when all are empty."""
    return {name: _typed(text) for name, text in values.items() if text} or None


def _typed(text: str) -> float | int | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def without(notes: str | None, note: str) -> str | None:
    """Notes that ``joined`` gave, without one of them."""
    return joined(*(part for part in (notes or "").split("; ") if part != note))


def joined(*notes: str | None) -> str | None:
    """One note of several; ``None`` when there are none."""
    return "; ".join(note for note in notes if note) or None
