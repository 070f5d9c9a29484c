"""Which methods of a ranking tie, by paired tests on the same examples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

from shiftbench.core.errors import InputError
from shiftbench.report.reading import ranked_methods

if TYPE_CHECKING:
    from shiftbench.evaluation.comparison import Predictions, Seed
    from shiftbench.report.ranking import Ranking
    from shiftbench.report.reading import Reader


@dataclass(frozen=True)
class Ties:
    """Groups of methods that cannot be told apart.

    Attributes:
        letters: of the groups, by name; those that share a letter tie.
        note: how they were found, or why there are none.
        known: whether all that can be known of ties is in the letters.
    """

    letters: Mapping[str, str]
    note: str
    known: bool


def ties(ranking: Ranking, reader: Reader) -> Ties:
    """Compare the ranked methods, best first, on what the ranking is by."""
    from shiftbench.evaluation.comparison import SAME, compare, decisions
    from shiftbench.evaluation.letters import groups, letters

    ranked = ranked_methods(ranking)
    if len(ranked) < 2:
        return Ties({}, "There is nothing to compare with.", True)
    metrics = {name: ranking.metrics[name] for name in ranking.by}
    predictions: dict[str, Mapping[Seed, Predictions]] = {}
    missing = []
    for method in ranked:
        try:
            predictions[method.name] = {
                None if method.shared else member.seed: reader.read(
                    member.run_id, member.variant, ranking, [*metrics]
                )
                for member in method.members
            }
        except InputError:
            missing.append(method.name)
    absent = ", ".join(missing)
    if len(predictions) < 2:
        there = f"Predictions are missing of {absent}."
        why = there if reader.folders.results else "There is no results folder."
        return Ties({}, f"Ties are not known. {why}", False)
    try:
        differences = compare(predictions, metrics)
    except InputError as error:
        return Ties({}, f"Ties are not known: {error}.", False)
    names = list(predictions)
    differs = decisions(differences, names)
    of_methods = groups(differs)
    last = max(chain.from_iterable(of_methods))
    labels = {name: letters(own, last) for name, own in zip(names, of_methods, strict=True)}
    tested = [difference.test for difference in differences if difference.test != SAME]
    how = f"{', '.join(sorted({*tested}))}; {len(tested)} pairs, Holm's correction, 5 %"
    note = (
        f"Methods that share a letter tie: their difference is within chance on the same examples "
        f"({how if tested else SAME})."
    )
    if missing:
        note += f" Not compared, since predictions are missing: {absent}."
    return Ties(labels, note, True)
