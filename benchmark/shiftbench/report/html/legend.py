"""The marks of methods as in the charts, and the page's legend of them."""

from __future__ import annotations

from collections.abc import Mapping

from markupsafe import Markup

from shiftbench.report.html.charts.figure import Style
from shiftbench.report.model import RankingReport
from shiftbench.report.ranking import ORACLE, RankedMethod
from shiftbench.report.runs import NOT_RUN

SHAPE_PATHS = {
    "circle": "M8 2.5a5.5 5.5 0 1 0 .01 0z",
    "square": "M3 3h10v10H3z",
    "triangle-up": "M8 2l6 11H2z",
    "diamond": "M8 1.5l4.5 6.5L8 14.5 3.5 8z",
    "cross": "M6 2h4v4h4v4h-4v4H6v-4H2V6h4z",
    "triangle-down": "M8 14L2 3h12z",
}
PRETRAINED, TRAINED, DERIVED, SEARCHED, ELSEWHERE = (
    "pretrained",
    "trained",
    "made from other methods",
    "settings found on OOD validation data",
    "not trained here",
)


def marker(style: Style | None) -> Markup:
    """A method's mark as in the charts."""
    if style is None:
        return Markup("")
    return Markup(
        '<svg class="marker" viewBox="0 0 16 16" aria-hidden="true">'
        '<path d="{}" fill="{}" stroke="{}" stroke-width="1.8"/></svg>'
    ).format(SHAPE_PATHS[style.shape], style.fill, style.colour)


def legend(of_ranking: RankingReport, style: Mapping[str, Style]) -> dict[str, list[str]]:
    """Names of all methods that the charts of a ranking show, by family, best first."""
    families: dict[str, list[str]] = {
        family: [] for family in (PRETRAINED, TRAINED, DERIVED, SEARCHED, ELSEWHERE)
    }
    for method in of_ranking.ranking.methods:
        if method.selection != ORACLE and method.name in style:
            families[_family(method)].append(method.name)
    known = {name for names in families.values() for name in names}
    families[DERIVED] += dict.fromkeys(
        point.label for point in of_ranking.curves if point.label not in known
    )
    return {family: names for family, names in families.items() if names}


def _family(method: RankedMethod) -> str:
    if method.reference:
        return PRETRAINED
    if method.origin in NOT_RUN:
        return ELSEWHERE
    if method.selection == "ood-val":
        return SEARCHED
    return DERIVED if method.parents else TRAINED
