"""What selection rules lose against an oracle that knows the test shifts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from shiftbench.report.differences import Difference, difference
from shiftbench.report.ranking import ORACLE, RankedMethod, Ranking, Variant
from shiftbench.report.scale import ACCURACY
from shiftbench.report.scores import Estimate, vary

ID_VAL, OOD_VAL, FIXED = "id-val", "ood-val", "fixed"
NOTE = (
    "What each way to choose takes, its mean OOD, worst shift, and regret: how far it stays "
    "below the oracle, which is the best on the test shifts and which nobody can know beforehand. "
    "With several seeds the oracle is picked for each seed on the others, so that it is not paid "
    "for its luck, and the interval is Student's t over seeds; a regret may then be negative. The "
    "first lines choose among all variants of the candidates of the recommendation; ood-val: "
    "methods whose settings were searched on OOD validation data, against the same oracle; the "
    "last lines choose a variant within each method that has several, against the method's own "
    "oracle, mean over methods."
)


@dataclass(frozen=True)
class Regret:
    """What choosing by ID validation alone costs, among all variants of the candidates.

    Attributes:
        chosen: label and variant of the best on ID validation; ``None`` for a mean over tasks, in
            each of which another may be.
        best: label and variant of the best on the test shifts, which nobody can know: the oracle.
        loss: mean OOD of the oracle minus that of the chosen one; see ``against_oracle``.
    """

    chosen: str | None
    best: str | None
    loss: Difference


@dataclass(frozen=True)
class Rule:
    """A way to choose, and what comes of it.

    Attributes:
        name: of the rule.
        takes: what it chooses; of a rule within methods the one that it serves worst.
        mean_ood: of what it takes; ``None`` for a rule within methods.
        worst: the shift that this is worst on, with its score.
        regret: against the oracle.
    """

    name: str
    takes: str
    mean_ood: Estimate | None
    worst: tuple[str, Estimate] | None
    regret: Difference


@dataclass(frozen=True)
class Choice:
    """A variant that can be chosen."""

    name: str
    variant: Variant
    mean_ood: Estimate

    @property
    def id_val(self) -> Estimate | None:
        """Its score on ID validation."""
        return self.variant.scores.by_set.get(ID_VAL)


def pool_of(variants: Iterable[Variant]) -> list[Choice]:
    """The variants that have a mean over shifts and a score on ID validation, by name."""
    pool = [
        Choice(" ".join(filter(None, (v.label, v.variant))), v, v.scores.mean_ood)
        for v in variants
        if v.scores.mean_ood is not None and ID_VAL in v.scores.by_set
    ]
    # Of equal scores the first name counts: never the better OOD.
    return sorted(pool, key=lambda choice: choice.name)


def regret_of(pool: Sequence[Choice]) -> Regret | None:
    """Of choosing in a pool by ID validation; ``None`` where there is nothing to choose from."""
    if len(pool) < 2:
        return None
    chosen, best = _by_id_val(pool), max(pool, key=lambda choice: choice.mean_ood.mean)
    return Regret(chosen.name, best.name, against_oracle(chosen.mean_ood, _means(pool)))


def against_oracle(chosen: Estimate, pool: Sequence[Estimate]) -> Difference:
    """The oracle's mean OOD minus that of what was chosen.

    With several seeds, the oracle of each is the one that is best on the others, so that it is not
    high only for having been picked; the interval is Student's t over seeds. With one seed it is
    the highest, and its interval does not know that it was picked for that.

    Args:
        chosen: of the pool.
        pool: what the oracle picks from; what has one seed stands for every seed.
    """
    seeds = sorted({seed for e in (*pool, chosen) for seed in e.seeds if len(e.seeds) > 1})
    several = [e for e in (*pool, chosen) if len(e.seeds) > 1]
    if len(seeds) < 2 or any(list(e.seeds) != seeds or not e.values for e in several):
        return difference(max(pool, key=lambda e: e.mean), chosen)
    from shiftbench.evaluation.intervals import student_t

    def values(estimate: Estimate) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        alone = len(estimate.seeds) == 1
        return np.full(len(seeds), estimate.mean) if alone else np.array(estimate.values)

    each, own = np.stack([values(e) for e in pool]), values(chosen)
    losses = []
    for k in range(len(seeds)):
        on_others = np.delete(each, k, axis=1).mean(axis=1)
        losses.append(float(each[int(on_others.argmax()), k] - own[k]))
    if not vary(losses):  # then the examples' intervals tell
        return difference(max(pool, key=lambda e: e.mean), chosen)
    low, high = student_t(losses)
    return Difference(float(np.mean(losses)), float(low), float(high))


def mean_regret(regrets: Sequence[Regret]) -> Regret:
    """The mean over tasks, each of which is chosen for on its own."""
    from shiftbench.evaluation.intervals import of_mean

    losses = [regret.loss for regret in regrets]
    known = [
        (loss.value, loss.low, loss.high)
        for loss in losses
        if loss.low is not None and loss.high is not None
    ]
    value = sum(loss.value for loss in losses) / len(losses)
    if len(known) < len(losses):
        return Regret(None, None, Difference(value, None, None))
    return Regret(None, None, Difference(value, *of_mean(*zip(*known, strict=True))))


def rules(ranking: Ranking, variants: Sequence[Variant], recommended: str | None) -> list[Rule]:
    """Every way to choose on a ranking, with its worst shift and its regret.

    Args:
        ranking: of one task.
        variants: of the candidates of the recommendation.
        recommended: name of the recommended method; ``None`` without one.
    """
    pool = pool_of(variants)
    if len(pool) < 2 or not ranking.scale == ranking.scale_on(ID_VAL) == ACCURACY:
        return []
    oracle, by_id_val = max(pool, key=lambda choice: choice.mean_ood.mean), _by_id_val(pool)
    of_all = _means(pool)

    def rule(name: str, takes: str, mean: Estimate, by_set: Mapping[str, Estimate]) -> Rule:
        on_shifts = [(shift, by_set[shift]) for shift in ranking.shifts if shift in by_set]
        worst = min(on_shifts, key=lambda on: on[1].mean) if on_shifts else None
        return Rule(name, takes, mean, worst, against_oracle(mean, of_all))

    found = [
        rule(name, choice.name, choice.mean_ood, choice.variant.scores.by_set)
        for name, choice in (("oracle", oracle), ("id-val, of all", by_id_val))
    ]
    for method in ranking.methods:
        if method.scores.mean_ood is None or method.rank is None:
            continue
        for name in _roles(method, recommended):
            found.append(rule(name, method.name, method.scores.mean_ood, method.scores.by_set))
    return [*found, *_within(ranking, pool)]


def _roles(method: RankedMethod, recommended: str | None) -> list[str]:
    """The rules by which a method of the ranking is taken as a whole."""
    roles = {
        "the recommendation's": method.name == recommended,
        "none: zero-shot": method.reference,
        OOD_VAL: method.selection == OOD_VAL,
    }
    return [name for name, taken in roles.items() if taken]


def _within(ranking: Ranking, pool: Sequence[Choice]) -> list[Rule]:
    """Rules for a variant of each method: as configured, by ID validation, always the same."""
    by_label: dict[str, list[Choice]] = {}
    for choice in pool:
        by_label.setdefault(choice.variant.label, []).append(choice)
    several = {label: of for label, of in by_label.items() if len(of) > 1}
    selected = {
        (m.label, m.selection): m.scores.mean_ood for m in ranking.methods if m.selection != ORACLE
    }
    every = sorted({choice.variant.variant for of in several.values() for choice in of})

    def always(variant: str) -> Callable[[str], Estimate | None]:
        return lambda label: next(
            (c.mean_ood for c in several[label] if c.variant.variant == variant), None
        )

    ways: dict[str, Callable[[str], Estimate | None]] = {
        "as configured, within methods": lambda label: selected.get((label, FIXED)),
        "id-val, within methods": lambda label: selected.get((label, ID_VAL)),
        **{f"always {variant}, within methods": always(variant) for variant in every},
    }
    found = []
    for name, way in ways.items():
        losses = {
            label: against_oracle(chosen, _means(several[label])).value
            for label in several
            if (chosen := way(label)) is not None
        }
        if losses:
            worst = max(losses, key=losses.__getitem__)
            number = f"{len(losses)} method{'' if len(losses) == 1 else 's'}"
            takes = f"{number}, most lost: {worst} {ACCURACY.text(losses[worst])}"
            mean = Difference(float(np.mean([*losses.values()])), None, None)
            found.append(Rule(name, takes, None, None, mean))
    return found


def _by_id_val(pool: Sequence[Choice]) -> Choice:
    return max(pool, key=lambda choice: -np.inf if choice.id_val is None else choice.id_val.mean)


def _means(pool: Sequence[Choice]) -> list[Estimate]:
    return [choice.mean_ood for choice in pool]
