"""Two accounts of one run: they agree in all that its id determines, whenever and wherever made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from shiftbench.data.tasks.definition import beside
from shiftbench.leaderboard.schema import Row
from shiftbench.leaderboard.verify import ROUNDING, place
from shiftbench.suite.identity import NAMES

_OF_RUN = ("task", "task_digest", "data_kind", "backbone", "method", "seed", "shots", "budget")
_OF_RESULT = ("value", "n", "primary", "role", "complete", "interval", "data_fingerprint")


def differences(ours: Sequence[Row], theirs: Sequence[Row]) -> list[str]:
    """A line for each thing in which the rows of one run id disagree.

    Clocks, machines, versions and names that a suite gives do not count. Ends of intervals may
    differ by ``ROUNDING``, as other versions of NumPy make them.

    Args:
        ours: all rows of the run here.
        theirs: all rows of the run there.
    """
    found = [
        f"{name} is {getattr(ours[0], name)!r} here and {getattr(theirs[0], name)!r} there"
        for name in _OF_RUN
        if getattr(ours[0], name) != getattr(theirs[0], name)
    ]
    if _unnamed(ours[0].config) != _unnamed(theirs[0].config):
        found.append("its settings differ")
    if [p.run_id for p in ours[0].parents] != [p.run_id for p in theirs[0].parents]:
        found.append("its parents differ")
    here, there = ({row.key: row for row in of} for of in (ours, theirs))
    for key in dict.fromkeys((*here, *there)):
        where = f"{place(key[0], key[2])}, {key[3]}"
        if key not in here or key not in there:
            if beside(key[2]):  # a set that only one suite asked for
                continue
            found.append(f"{where}: a row only {'here' if key in here else 'there'}")
            continue
        for name in _OF_RESULT:
            mine, other = getattr(here[key], name), getattr(there[key], name)
            if mine != other:
                found.append(f"{where}: {name} is {mine!r} here and {other!r} there")
        for name in ("low", "high"):
            mine, other = getattr(here[key], name), getattr(there[key], name)
            if abs(mine - other) > ROUNDING * max(1.0, abs(mine)):
                found.append(f"{where}: {name} is {mine!r} here and {other!r} there")
    return found


def _unnamed(value: Any) -> Any:
    """Settings without what only names other runs."""
    if isinstance(value, Mapping):
        return {key: _unnamed(item) for key, item in value.items() if key not in NAMES}
    return [_unnamed(item) for item in value] if isinstance(value, list) else value
