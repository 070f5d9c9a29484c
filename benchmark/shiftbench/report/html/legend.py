"""The marks of methods as in the charts, for tables and the page's legend."""

from __future__ import annotations

from markupsafe import Markup

from shiftbench.report.html.charts.figure import Style

SHAPE_PATHS = {
    "circle": "M8 2.5a5.5 5.5 0 1 0 .01 0z",
    "square": "M3 3h10v10H3z",
    "triangle-up": "M8 2l6 11H2z",
    "triangle-down": "M8 14L2 3h12z",
    "diamond": "M8 1.5l4.5 6.5L8 14.5 3.5 8z",
    "cross": "M6 2h4v4h4v4h-4v4H6v-4H2V6h4z",
    "triangle-right": "M14 8L3 14V2z",
}


def marker(style: Style | None) -> Markup:
    """A method's mark as in the charts."""
    if style is None:
        return Markup("")
    return Markup(
        '<svg class="marker" viewBox="0 0 16 16" aria-hidden="true">'
        '<path d="{}" fill="{}" stroke="{}" stroke-width="1.8"/></svg>'
    ).format(SHAPE_PATHS[style.shape], style.fill, style.colour)
