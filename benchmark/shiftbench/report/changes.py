"""What got better or worse between two results folders, and which of it is more than chance.

Methods are matched by their names in the rankings of the same task, backbone, shots and data. Where
both sides kept their predictions, each set is tested on the same examples (``comparison.compare``),
all tests of a comparison corrected together (Holm, 1979). Training anew with another seed can
change more than that, which only several seeds show.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from shiftbench.core.errors import InputError
from shiftbench.evaluation.metrics.registry import metric
from shiftbench.leaderboard.merging import Folders
from shiftbench.report.scale import Scale, scale_of

if TYPE_CHECKING:
    import pyarrow as pa

    from shiftbench.evaluation.comparison import Difference, Seed
    from shiftbench.report.ranking import RankedMethod, Ranking
    from shiftbench.report.scores import Estimate, Member

Verdict: TypeAlias = Literal["better", "worse", "chance", "equal", "not tested"]
Key: TypeAlias = tuple[object, ...]


@dataclass(frozen=True)
class Change:
    """One method's score on one set, before and after.

    Attributes:
        ranking: that it is a line of, after.
        method: its name.
        evaluation_set: the set's name.
        scale: of the values.
        before: the value in the first results.
        after: that in the second.
        low: lower end of the 95 % interval of the difference; ``None`` where it is not tested.
        high: upper end.
        p: corrected for all tests of the comparison; ``None`` where it is not tested.
        verdict: better or worse beyond chance, within chance, equal, or not tested.
        reason: why it is not tested.
    """

    ranking: Ranking
    method: str
    evaluation_set: str
    scale: Scale
    before: float
    after: float
    low: float | None = None
    high: float | None = None
    p: float | None = None
    verdict: Verdict = "not tested"
    reason: str | None = None


@dataclass(frozen=True)
class Changes:
    """The comparison of two results folders.

    Attributes:
        changes: every method and set that both have.
        only_before: names of the methods that only the first has, with their rankings.
        only_after: the same of the second.
    """

    changes: tuple[Change, ...]
    only_before: tuple[tuple[Ranking, str], ...]
    only_after: tuple[tuple[Ranking, str], ...]


def changes_between(
    before: tuple[list[Ranking], Path | Folders | None],
    after: tuple[list[Ranking], Path | Folders | None],
) -> Changes:
    """Compare what two results folders have in common.

    Args:
        before: rankings of the first folder, and the folder where its predictions are.
        after: those of the second.
    """
    from shiftbench.evaluation.comparison import SIGNIFICANT
    from shiftbench.evaluation.pair_tests import holm

    was, now = (Folders.of(folders) for _, folders in (before, after))
    ours, theirs = (dict(_methods(rankings)) for rankings, _ in (before, after))
    found = [
        change
        for key, (ranking, method) in theirs.items()
        if key in ours
        for change in _of_method(ranking, ours[key][1], method, was, now)
    ]
    tested = {i: change.p for i, change in enumerate(found) if change.p is not None}
    for i, p in zip(tested, holm([*tested.values()]), strict=True):
        change = found[i]
        verdict = _verdict(change, float(p) <= SIGNIFICANT)
        found[i] = replace(change, p=float(p), verdict=verdict)
    return Changes(
        tuple(found),
        tuple((r, m.name) for key, (r, m) in ours.items() if key not in theirs),
        tuple((r, m.name) for key, (r, m) in theirs.items() if key not in ours),
    )


def _methods(rankings: list[Ranking]) -> Iterator[tuple[Key, tuple[Ranking, RankedMethod]]]:
    """Every line of every ranking, by what makes it the same line in another report."""
    for of in rankings:
        place = of.task, of.task_digest, of.data_kind, of.backbone, of.shots, of.images
        for method in of.methods:
            yield (*place, method.name), (of, method)


def _of_method(
    ranking: Ranking,
    old: RankedMethod,
    new: RankedMethod,
    before: Folders,
    after: Folders,
) -> Iterator[Change]:
    for name, estimate in new.scores.by_set.items():
        was: Estimate | None = old.scores.by_set.get(name)
        if was is None:
            continue
        text = ranking.metrics[name]
        change = Change(ranking, new.name, name, scale_of(text), was.mean, estimate.mean)
        try:
            found = _tested(old, new, before, after, name, text)
        except InputError as error:
            yield replace(change, reason=str(error))
        else:
            yield replace(change, low=found.low, high=found.high, p=found.p)


def _tested(
    old: RankedMethod,
    new: RankedMethod,
    before: Folders,
    after: Folders,
    name: str,
    text: str,
) -> Difference:
    """The difference on one set, after less before.

    Raises:
        InputError: predictions are missing, of other examples, or of other seeds.
    """
    from shiftbench.evaluation.comparison import compare

    sides: dict[str, Mapping[Seed, Mapping[str, pa.Table]]] = {
        side: {
            None if method.shared else member.seed: {name: _predictions(folders, member, name)}
            for member in method.members
        }
        for side, method, folders in (("after", new, after), ("before", old, before))
    }
    (found,) = compare(sides, {name: text})
    return found


def _predictions(folders: Folders, member: Member, name: str) -> pa.Table:
    import pyarrow.compute as pc

    from shiftbench.evaluation.predictions import read

    folder = folders.run(member.run_id)
    if folder is None or not folder.predictions.is_file():
        raise InputError("no predictions are there")
    wanted = (pc.field("variant") == member.variant) & (pc.field("set") == name)
    return read(folder.predictions).filter(wanted)


def _verdict(change: Change, significant: bool) -> Verdict:
    if change.before == change.after and change.p == 1:
        return "equal"
    if not significant:
        return "chance"
    measured = metric(change.ranking.metrics[change.evaluation_set])
    return "better" if measured.better(change.after, change.before) else "worse"
