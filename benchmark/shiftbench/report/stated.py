"""Whether a run has the settings behind a published value, as far as its source states them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from shiftbench.leaderboard.published.schema import PublishedRow
from shiftbench.leaderboard.published.settings import StatedSettings
from shiftbench.leaderboard.schema import Row
from shiftbench.report.runs import NOT_RUN, settings

THE_PAPERS = "the paper's"
NOT_STATED = "not stated"
NONE = "none to set"
NOT_KNOWN = "ours are not known"


def settings_verdict(row: PublishedRow, family: Sequence[Row], stated: StatedSettings) -> str:
    """``the paper's``; what differs, as in ``differ: lr, epochs``; or that the source is silent.

    A method that builds on others has the paper's settings if these do too. Only what a source
    states is compared.

    Args:
        row: the published value.
        family: the run first, then all that it builds on.
        stated: what sources state.
    """
    members: dict[tuple[str, str], Row] = {}
    for member in family:
        if not member.reference:
            config = json.dumps(settings(member.config), sort_keys=True)
            members.setdefault((member.method, config), member)
    if not members:
        return NONE
    if any(member.origin in NOT_RUN for member in members.values()):
        return NOT_KNOWN
    differing: list[str] = []
    silent: list[str] = []
    for member in members.values():
        whose = "" if member is family[0] else f"{member.label}'s "
        said = stated.of(row, member.method)
        if said is None:
            silent.append(member.label)
        else:
            differing += [f"{whose}{name}" for name in _differing(member.config, said)]
        if member.budget.get("steps") is not None:
            differing.append(f"{whose}steps")
    if differing:
        return f"differ: {', '.join(differing)}"
    if len(silent) == len(members):
        return NOT_STATED
    return f"{NOT_STATED} of {', '.join(silent)}" if silent else THE_PAPERS


def _differing(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    return [name for name, value in theirs.items() if not _equal(ours.get(name), value)]


def _equal(ours: Any, theirs: Any) -> bool:
    """Equal JSON; numbers as far as they are written."""
    if isinstance(ours, list) and isinstance(theirs, list):
        return len(ours) == len(theirs) and all(map(_equal, ours, theirs))
    numbers = all(isinstance(x, int | float) and not isinstance(x, bool) for x in (ours, theirs))
    return math.isclose(ours, theirs, rel_tol=1e-9) if numbers else bool(ours == theirs)
