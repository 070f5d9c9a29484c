"""Which recipe to take: a recommendation by a stated rule, with its risk and its cost."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from shiftbench.data.tasks.definition import ID_TEST
from shiftbench.leaderboard.schema import Row
from shiftbench.report.differences import Difference, difference
from shiftbench.report.over_tasks import OverallRanking
from shiftbench.report.ranking import RankedMethod, Ranking, Variant
from shiftbench.report.regret import ID_VAL, Regret, mean_regret, pool_of, regret_of
from shiftbench.report.runs import NOT_RUN, Runs
from shiftbench.report.scale import Scale
from shiftbench.report.scores import MEAN, Estimate
from shiftbench.report.ties import Ties

BLIND = ("fixed", ID_VAL)
"""Selections that look at no OOD data."""
ID_LIMIT = 0.01
"""How far below the best ID score a recipe may be, of a fraction."""
ROUNDING = 1e-9
SAME_COST = 1.25
"""Costs count as equal up to this ratio: they are measured times."""
RULE = (
    "Candidates were trained here and chosen without OOD data (selection fixed or id-val). Those "
    f"whose ID score is more than {100 * ID_LIMIT:g} point below the best candidate's, by more "
    "than one standard error of the difference, are left out; of the others the best mean OOD "
    "counts, and of those that tie with it the cheapest; costs within a factor of "
    f"{SAME_COST:g} count as equal."
)


@dataclass(frozen=True)
class Candidate:
    """A method that may be recommended, or that others are measured against.

    Attributes:
        name: unique in its ranking.
        variants: the variants that were selected; empty where they have no name.
        id_test: its ID score.
        mean_ood: its mean over shifts.
        shifts: its score on each shift.
        cost_seconds: device time; ``None`` when it is not known.
        reference: whether it is zero-shot, or what stands for it.
        eligible: trained here, and chosen without OOD data.
        leaks: test images that it has seen, a line for each task.
    """

    name: str
    variants: tuple[str, ...]
    id_test: Estimate
    mean_ood: Estimate
    shifts: Mapping[str, Estimate]
    cost_seconds: float | None
    reference: bool
    eligible: bool
    leaks: tuple[str, ...] = ()


@dataclass(frozen=True)
class OnShift:
    """The recipe on one shift.

    Attributes:
        name: of the shift.
        score: of the recipe.
        reference: zero-shot's score; ``None`` without it.
        change: the recipe's minus zero-shot's.
    """

    name: str
    score: Estimate
    reference: Estimate | None
    change: Difference | None


@dataclass(frozen=True)
class Answer:
    """A recommendation, or why there is none.

    Attributes:
        recipe: what is recommended; ``None`` where nothing can be.
        reason: why nothing can be; empty where something is.
        scale: of all scores.
        gain: mean OOD minus zero-shot's; ``None`` without zero-shot.
        best: name of the candidate with the best mean OOD of those within the limit.
        best_id: name of the candidate with the best ID score.
        id_change: ID score minus that of the best candidate.
        on_shifts: the recipe on every shift, in the task's order.
        worst: the shift on which it is worst.
        most_lost: the shift on which it is worst in relation to zero-shot; ``None`` without it.
        tied: candidates within the limit that tie with the best of them, without the recipe.
        tested: whether ties are those of paired tests; else they are by intervals.
        alone: whether no other candidate is within the limit.
        left_out: candidates whose ID score is too low, by name.
        regret: of choosing by ID validation; ``None`` where it is not known.
    """

    recipe: Candidate | None
    reason: str
    scale: Scale
    gain: Difference | None = None
    best: str = ""
    best_id: str = ""
    id_change: Difference | None = None
    on_shifts: tuple[OnShift, ...] = ()
    worst: OnShift | None = None
    most_lost: OnShift | None = None
    tied: tuple[str, ...] = ()
    tested: bool = False
    alone: bool = False
    left_out: tuple[str, ...] = ()
    regret: Regret | None = None


def answer(ranking: Ranking, ties: Ties, runs: Runs) -> Answer:
    """The recommendation of one ranking.

    Args:
        ranking: of one task.
        ties: of its methods.
        runs: all runs, for what the methods build on.
    """
    scale = ranking.scale_on(MEAN)
    if not ranking.shifts:
        return Answer(None, "the task has no shift", scale)
    if not (scale.percent and scale.higher_is_better and scale == ranking.scale_on(ID_TEST)):
        reason = "the rule is for scores in percent, in distribution and under shift"
        return Answer(None, reason, scale)
    found = [_candidate(method, ranking, runs) for method in ranking.methods]
    candidates = [candidate for candidate in found if candidate is not None]

    def tie(first: Candidate, second: Candidate) -> bool | None:
        own, other = (ties.letters.get(candidate.name) for candidate in (first, second))
        return None if own is None or other is None else bool(set(own) & set(other))

    variants = eligible_variants(ranking, runs)
    return recommend(candidates, scale, tie, regret_of(pool_of(variants)))


def eligible_variants(ranking: Ranking, runs: Runs) -> list[Variant]:
    """Every variant of the methods that were trained here and chosen without OOD data."""
    eligible = {m.label for m in ranking.methods if _eligible(m, runs)}
    return [variant for variant in ranking.variants if variant.label in eligible]


def answer_over_tasks(
    ranking: OverallRanking, answers: Iterable[tuple[Ranking, Answer]], runs: Runs
) -> Answer:
    """The recommendation of a ranking over tasks.

    Args:
        ranking: over several tasks.
        answers: rankings of a report, those of its tasks among them, with their recommendations.
        runs: all runs, for what the methods build on.
    """
    found = [
        (of, answer)
        for of, answer in answers
        if of.task in ranking.tasks
        and (of.data_kind, of.backbone, of.shots, of.images)
        == (ranking.data_kind, ranking.backbone, ranking.shots, ranking.images)
    ]
    of_tasks = [of for of, _ in found]
    barred = {m.name for of in of_tasks for m in of.methods if not _eligible(m, runs)}
    references = {m.name for of in of_tasks for m in of.methods if m.reference}
    leaks: dict[str, dict[str, None]] = defaultdict(dict)
    for of in of_tasks:
        for m in of.methods:
            leaks[m.name] |= dict.fromkeys(f"{of.task}: {leak}" for leak in _leaks(m, runs))
    if not (ranking.scale.percent and ranking.scale.higher_is_better):
        return Answer(None, "the rule is for scores in percent", ranking.scale)
    candidates = [
        Candidate(
            name=method.name,
            variants=(),
            id_test=method.id_test,
            mean_ood=method.mean_ood,
            shifts=method.shifts,
            cost_seconds=method.cost_seconds,
            reference=method.name in references,
            eligible=method.name not in barred,
            leaks=tuple(leaks[method.name]),
        )
        for method in ranking.methods
    ]
    regrets = [answer.regret for _, answer in found if answer.regret is not None]
    regret = mean_regret(regrets) if len(regrets) == len(found) else None
    return recommend(candidates, ranking.scale, lambda first, second: None, regret)


def recommend(
    candidates: Sequence[Candidate],
    scale: Scale,
    tie: Callable[[Candidate, Candidate], bool | None],
    regret: Regret | None,
) -> Answer:
    """Apply ``RULE``.

    Args:
        candidates: all that rank, best mean OOD first; those that are not eligible are only there
            to be measured against.
        scale: of their scores; more is better.
        tie: whether two tie by a paired test; ``None`` where there is no test: then their intervals
            tell.
        regret: of choosing by ID validation.
    """
    eligible = [candidate for candidate in candidates if candidate.eligible]
    if len(eligible) < 2:
        who = f"{eligible[0].name} is the only method" if eligible else "there is no method"
        reason = (
            f"{who} that was trained here, was chosen without OOD data, and has all scores: there "
            "is nothing to choose from"
        )
        return Answer(None, reason, scale, regret=regret)
    best_id = max(eligible, key=lambda candidate: candidate.id_test.mean)
    able = [c for c in eligible if not _too_low(c.id_test, best_id.id_test)]
    best = max(able, key=lambda candidate: candidate.mean_ood.mean)
    tests = {c.name: tie(best, c) for c in able if c is not best}
    alike = [c for c in able if c is best or _alike(best, c, tests[c.name])]
    least = min(_cost(candidate) for candidate in alike)
    cheap = [c for c in alike if _cost(c) <= SAME_COST * least]
    recipe = max(cheap, key=lambda candidate: candidate.mean_ood.mean)
    reference = next((c for c in candidates if c.reference), None)
    on_shifts = tuple(_on_shift(name, recipe, reference) for name in recipe.shifts)
    return Answer(
        recipe=recipe,
        reason="",
        scale=scale,
        gain=None if reference is None else difference(recipe.mean_ood, reference.mean_ood),
        best=best.name,
        best_id=best_id.name,
        id_change=difference(recipe.id_test, best_id.id_test),
        on_shifts=on_shifts,
        worst=min(on_shifts, key=lambda on: on.score.mean),
        most_lost=None if reference is None else min(on_shifts, key=_change),
        tied=tuple(c.name for c in alike if c is not recipe),
        tested=all(tested is not None for tested in tests.values()),
        alone=len(able) == 1,
        left_out=tuple(c.name for c in eligible if c not in able),
        regret=regret,
    )


def _too_low(score: Estimate, best: Estimate) -> bool:
    """Whether an ID score is below the limit by more than one standard error."""
    error = 0.0 if score is best else math.hypot(_standard_error(score), _standard_error(best))
    return best.mean - score.mean > ID_LIMIT + error + ROUNDING


def _standard_error(estimate: Estimate) -> float:
    """Over seeds that differ; else of the examples, a quarter of their interval; 0 if not known."""
    if estimate.sd:
        return estimate.sd / math.sqrt(len(estimate.seeds))
    if estimate.low is None or estimate.high is None:
        return 0.0
    return (estimate.high - estimate.low) / 4


def _alike(best: Candidate, other: Candidate, tested: bool | None) -> bool:
    if tested is not None:
        return tested
    change = difference(best.mean_ood, other.mean_ood)
    return change.value == 0 if change.low is None else change.low <= 0


def _cost(candidate: Candidate) -> float:
    return math.inf if candidate.cost_seconds is None else candidate.cost_seconds


def _eligible(method: RankedMethod, runs: Runs) -> bool:
    """Trained here with all that it builds on, chosen without OOD data, answering one by one."""
    family = _family(method, runs)
    known = all(parent.run_id in runs.by_id for row in family for parent in row.parents)
    here = all(row.origin not in NOT_RUN for row in family)
    searched = any(row.search_id is not None for row in family)  # on OOD validation
    alone = not any(row.transductive for row in family)
    return method.selection in BLIND and known and here and alone and not searched


def _leaks(method: RankedMethod, runs: Runs) -> tuple[str, ...]:
    """Test images that a method or what it builds on has seen; nothing of what trains nothing."""
    seen = () if method.reference else _family(method, runs)
    return tuple(dict.fromkeys(row.leakage for row in seen if row.leakage is not None))


def _family(method: RankedMethod, runs: Runs) -> list[Row]:
    return [row for member in method.members for row in runs.family(member.run_id)]


def _candidate(method: RankedMethod, ranking: Ranking, runs: Runs) -> Candidate | None:
    """A method of a ranking; ``None`` where it does not rank or has no ID score."""
    id_test, mean_ood = method.scores.by_set.get(ID_TEST), method.scores.mean_ood
    if method.rank is None or mean_ood is None or id_test is None or id_test.remark is not None:
        return None
    return Candidate(
        name=method.name,
        variants=tuple(filter(None, method.variants)),
        id_test=id_test,
        mean_ood=mean_ood,
        shifts={name: method.scores.by_set[name] for name in ranking.shifts},
        cost_seconds=method.cost_seconds,
        reference=method.reference,
        eligible=_eligible(method, runs),
        leaks=_leaks(method, runs),
    )


def _on_shift(name: str, recipe: Candidate, reference: Candidate | None) -> OnShift:
    score = recipe.shifts[name]
    theirs = None if reference is None else reference.shifts[name]
    return OnShift(name, score, theirs, None if theirs is None else difference(score, theirs))


def _change(on: OnShift) -> float:
    return math.inf if on.change is None else on.change.value
