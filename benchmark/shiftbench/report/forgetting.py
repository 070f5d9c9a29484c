"""What fine-tuning forgets: scores on other tasks' test sets, against zero-shot's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from shiftbench.data.tasks.definition import ALSO
from shiftbench.evaluation.results import OTHER_CLASSES
from shiftbench.report.corruptions import corruption_of
from shiftbench.report.differences import Difference, difference
from shiftbench.report.over_tasks import mean_of
from shiftbench.report.ranking import RankedMethod, Ranking
from shiftbench.report.runs import Runs
from shiftbench.report.scale import ACCURACY
from shiftbench.report.scores import Estimate

NOTE = (
    "Scores on the test sets of other tasks, in percent, which are in neither ID nor OOD. Their "
    "classes are named by the text tower of the fine-tuned model where that was trained, and else "
    "by the pretrained one, so that what changes is the image tower alone (nothing, for a head "
    "that was trained on frozen features); an ensemble of outputs combines those of its members. "
    "Change: the mean minus zero-shot's, with its 95 % interval."
)


@dataclass(frozen=True)
class OnOthers:
    """A method on other tasks.

    Attributes:
        name: of the method.
        named_by: what names their classes; empty where that is not known.
        scores: by task.
        mean: over them.
        change: of the mean against zero-shot's; ``None`` without it.
    """

    name: str
    named_by: str
    scores: Mapping[str, Estimate]
    mean: Estimate
    change: Difference | None


@dataclass(frozen=True)
class Forgetting:
    """The methods of a ranking on other tasks' test sets.

    Attributes:
        tasks: the other tasks.
        methods: by name, those that have a score on all of them, in the order of the ranking.
    """

    tasks: tuple[str, ...] = ()
    methods: Mapping[str, OnOthers] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.methods)

    def change_text(self, method: str) -> str:
        """How much a method's mean differs from zero-shot's, for people."""
        found = self.methods.get(method)
        change = None if found is None else found.change
        return ACCURACY.difference(None if change is None else change.value)


def forgetting(ranking: Ranking, runs: Runs) -> Forgetting:
    """What the methods of a ranking score on other tasks, as far as these are in percent."""
    sets = [
        name
        for name in ranking.metrics
        if name.startswith(ALSO)
        and ranking.scale_on(name) == ACCURACY
        and corruption_of(name) is None
    ]
    scored = [m for m in ranking.methods if sets and all(s in m.scores.by_set for s in sets)]
    means = {m.name: mean_of([m.scores.by_set[s] for s in sets]) for m in scored}
    reference = next((means[m.name] for m in scored if m.reference), None)
    methods = {
        m.name: OnOthers(
            name=m.name,
            named_by=_named_by(m, runs),
            scores={s.removeprefix(ALSO): m.scores.by_set[s] for s in sets},
            mean=means[m.name],
            change=None if reference is None else difference(means[m.name], reference),
        )
        for m in scored
    }
    return Forgetting(tuple(s.removeprefix(ALSO) for s in sets), methods)


def _named_by(method: RankedMethod, runs: Runs) -> str:
    found = (runs.by_id[member.run_id].details.get(OTHER_CLASSES, "") for member in method.members)
    return ", ".join(dict.fromkeys(map(str, filter(None, found))))
