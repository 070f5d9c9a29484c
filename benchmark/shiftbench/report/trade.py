"""What fine-tuning gained and lost against zero-shot and what won it back, in a sentence."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from shiftbench.data.tasks.definition import ID_TEST
from shiftbench.report.over_tasks import OverallRanking
from shiftbench.report.ranking import RankedMethod, Ranking
from shiftbench.report.scale import Scale

FULL = "full"


@dataclass(frozen=True)
class Scored:
    """A method with what the sentence is about.

    Attributes:
        name: of the line in a ranking.
        id_test: its ID score.
        ood: its mean over shifts.
    """

    name: str
    id_test: float
    ood: float


def trade_of(ranking: Ranking) -> str | None:
    """The sentence on one task; ``None`` where zero-shot or full fine-tuning is missing."""
    reference = next((m.name for m in ranking.methods if m.reference and m.rank), None)
    scored = [
        Scored(method.name, method.scores.by_set[ID_TEST].mean, method.scores.mean_ood.mean)
        for method in ranking.methods
        if _ranks(method) and method.scores.mean_ood is not None
    ]
    if ranking.scale is None or ranking.scale_on(ID_TEST) != ranking.scale:
        return None
    return trade(scored, reference, ranking.scale)


def trade_over_tasks(ranking: OverallRanking, reference: str | None) -> str | None:
    """The sentence on the means over tasks; likewise.

    Args:
        ranking: over tasks.
        reference: name of the method that others are compared with.
    """
    scored = [Scored(m.name, m.id_test.mean, m.mean_ood.mean) for m in ranking.methods]
    return trade(scored, reference, ranking.scale)


def trade(scored: Iterable[Scored], reference: str | None, scale: Scale) -> str | None:
    """Say what full fine-tuning gained and lost, and which method won most of the loss back.

    That is, of the methods that keep at least half of the ID gain, the one with the best OOD.
    """
    by_name = {of.name: of for of in scored}
    before, full = by_name.get(reference or ""), by_name.get(FULL)
    if before is None or full is None:
        return None
    gained = scale.gain(full.id_test - before.id_test)
    lost = scale.gain(before.ood - full.ood)
    text = f"Against {before.name}, {full.name} fine-tuning changed ID by "
    text += f"{scale.difference(gained)} and OOD by {scale.difference(-lost)}"
    keeping = [
        of
        for of in by_name.values()
        if of not in (before, full) and 2 * scale.gain(of.id_test - before.id_test) >= gained
    ]
    best = max(keeping, key=lambda of: scale.gain(of.ood), default=None)
    if lost <= 0 or best is None or scale.gain(best.ood - full.ood) <= 0:
        return f"{text}."
    kept = scale.difference(scale.gain(best.id_test - before.id_test))
    left = scale.difference(scale.gain(best.ood - before.ood))
    return f"{text}; {best.name} changed ID by {kept} and OOD by {left}."


def _ranks(method: RankedMethod) -> bool:
    return method.rank is not None and ID_TEST in method.scores.by_set
