"""Kinds of methods: their marks have shapes of their own, and legends list them apart."""

from __future__ import annotations

from shiftbench.report.model import RankingReport, Report
from shiftbench.report.ranking import ORACLE, RankedMethod
from shiftbench.report.runs import NOT_RUN

PRETRAINED, TRAINED, DERIVED, SEARCHED, ELSEWHERE = (
    "pretrained",
    "trained",
    "made from other methods",
    "settings found on OOD validation data",
    "not trained here",
)
FAMILIES = (PRETRAINED, TRAINED, DERIVED, SEARCHED, ELSEWHERE)


def families(of_ranking: RankingReport) -> dict[str, list[str]]:
    """Names of all methods that the charts of a ranking show, by family, best first."""
    found: dict[str, list[str]] = {family: [] for family in FAMILIES}
    for method in of_ranking.ranking.methods:
        if method.selection != ORACLE:
            found[_family(method)].append(method.name)
    known = {name for names in found.values() for name in names}
    found[DERIVED] += dict.fromkeys(
        point.label for point in of_ranking.curves if point.label not in known
    )
    return {family: names for family, names in found.items() if names}


def family_of_each(report: Report) -> dict[str, str]:
    """The family of each method of a report; that of its first ranking."""
    found: dict[str, str] = {}
    for of_ranking in report.rankings:
        for family, names in families(of_ranking).items():
            found = dict.fromkeys(names, family) | found
    return found


def _family(method: RankedMethod) -> str:
    if method.reference:
        return PRETRAINED
    if method.origin in NOT_RUN:
        return ELSEWHERE
    if method.selection == "ood-val":
        return SEARCHED
    return DERIVED if method.parents else TRAINED
