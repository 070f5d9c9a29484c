"""Names beside the few marks that a reader looks for, where there is room for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import altair as alt

from shiftbench.report.html.charts.encodings import fade
from shiftbench.report.html.charts.figure import Records

Ends: TypeAlias = tuple[float, float]

NARROWEST = 330  # pixels of a chart on a phone: names that fit there fit everywhere
LETTER, LINE = 6.6, 13.0  # pixels
MARK = 9.0  # pixels from the middle of a mark to a name beside it
Align: TypeAlias = Literal["left", "center", "right"]
SIDES: Mapping[str, tuple[Align, float, float]] = {
    "right": ("left", MARK, 0),
    "left": ("right", -MARK, 0),
    "above": ("center", 0, -MARK - 3),
    "below": ("center", 0, MARK + 4),
}
"""Of a mark: how a name there is aligned, and how far it is moved."""


class Point(NamedTuple):
    """A mark to name.

    Attributes:
        x: where it is, on the axis as it is drawn.
        y: likewise.
        record: its method, and what the chart's axes are of.
    """

    x: float
    y: float
    record: Mapping[str, Any]

    @property
    def method(self) -> str:
        """The name."""
        return str(self.record["method"])


class _Box(NamedTuple):
    left: float
    right: float
    top: float
    bottom: float

    def meets(self, other: _Box) -> bool:
        apart = self.right <= other.left or other.right <= self.left
        return not (apart or self.bottom <= other.top or other.bottom <= self.top)


def placed(
    points: Sequence[Point], wanted: Sequence[str], x: Ends, y: Ends, size: tuple[float, float]
) -> Records:
    """A record for each name that has room, with the side of its mark that it is on.

    A name covers no other name, no axis, and no mark but those that are pale.

    Args:
        points: all marks.
        wanted: methods to name, those first that matter most.
        x: ends of the axis.
        y: ends of the axis.
        size: width and height of the chart in pixels, where it is smallest.
    """
    width, height = size
    half = 0.6 * MARK
    places, marks = {}, {}
    for point in points:
        left = width * (point.x - x[0]) / (x[1] - x[0])
        top = height * (y[1] - point.y) / (y[1] - y[0])
        places[point.method] = (left, top)
        if point.method in wanted or not point.record.get("muted"):
            marks[point.method] = _Box(left - half, left + half, top - half, top + half)
    by_method = {point.method: point for point in points}
    names: list[_Box] = []
    found: Records = []
    for method in (name for name in dict.fromkeys(wanted) if name in by_method):
        others = [*names, *(mark for of, mark in marks.items() if of != method)]
        for side in SIDES:
            box = _name_box(side, *places[method], LETTER * len(method))
            inside = box.left >= 0 and box.right <= width and 0 <= box.top <= height - LINE
            if inside and not any(box.meets(other) for other in others):
                names.append(box)
                found.append({**by_method[method].record, "side": side})
                break
    return found


def layers(data: alt.Chart, x: alt.X, y: alt.Y) -> list[alt.Chart]:
    """The names as text.

    Args:
        data: what ``placed`` gave; records without a side are not named.
        x: of the chart.
        y: of the chart.
    """
    return [
        data.transform_filter(alt.datum.side == side)
        .mark_text(align=align, dx=dx, dy=dy, fontWeight=600)
        .encode(x=x, y=y, text="method:N", opacity=fade())
        for side, (align, dx, dy) in SIDES.items()
    ]


def _name_box(side: str, left: float, top: float, width: float) -> _Box:
    align, dx, dy = SIDES[side]
    start = left + dx - {"left": 0.0, "center": width / 2, "right": width}[align]
    middle = top + dy
    return _Box(start, start + width, middle - LINE / 2, middle + LINE / 2)
