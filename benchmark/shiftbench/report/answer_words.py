"""Words on recommendations that all printers share."""

from __future__ import annotations

from collections.abc import Sequence

from shiftbench.report.answer import Answer, Candidate, OnShift
from shiftbench.report.differences import Difference
from shiftbench.report.model import Report
from shiftbench.report.regret import Regret
from shiftbench.report.scale import NONE, Scale
from shiftbench.report.scores import Estimate
from shiftbench.report.words import duration, short, title_of

ANSWER_HEADER = (
    *("recipe", "ID", "OOD", "against zero-shot", "worst shift", "worst change"),
    *("regret of ID validation", "cost"),
)

LISTED = 5
"""Names in a sentence."""


def answers(report: Report) -> list[tuple[str, Answer]]:
    """Every recommendation with its title, those over tasks first.

    What all titles share is left out of them where there are several.
    """
    found = [(title_of(of.ranking), of.answer) for of in report.overall]
    found += [(title_of(of.ranking), of.answer) for of in report.rankings]
    titles = without_common([title for title, _ in found])
    return [(title, answer) for title, (_, answer) in zip(titles, found, strict=True)]


def without_common(titles: Sequence[str]) -> list[str]:
    """Titles without the parts that are in all of them; a single one is whole."""
    parts = [title.split(" · ") for title in titles]
    common = set.intersection(*map(set, parts)) if len(parts) > 1 else set()
    own = [[part for part in of if part not in common] for of in parts]
    return [" · ".join(short or of) for short, of in zip(own, parts, strict=True)]


def recipe_text(recipe: Candidate) -> str:
    """Its name with the variants that were selected."""
    return " ".join([recipe.name, *recipe.variants])


def answer_cells(answer: Answer) -> list[str]:
    """A row of the table of recommendations, after its title."""
    recipe, scale = answer.recipe, answer.scale
    regret = NONE if answer.regret is None else scale.difference(answer.regret.loss.value)
    if recipe is None:
        return ["none", *[NONE] * 5, regret, NONE]
    return [
        recipe_text(recipe),
        with_interval(recipe.id_test, scale),
        with_interval(recipe.mean_ood, scale),
        change_text(answer.gain, scale),
        NONE if answer.worst is None else shift_text(answer.worst, scale),
        NONE if answer.most_lost is None else loss_text(answer.most_lost, scale),
        regret if answer.regret is None else change_text(answer.regret.loss, scale),
        duration(recipe.cost_seconds),
    ]


def reasons(answer: Answer) -> list[str]:
    """Sentences on why this recipe, how sure that is, and what else would have been chosen."""
    recipe = answer.recipe
    if recipe is None:
        found = [f"No recommendation: {answer.reason}."]
    else:
        found = [_why(answer, recipe), *_limits(answer, recipe)]
    return found if answer.regret is None else [*found, _regret(answer.regret, answer.scale)]


def with_interval(estimate: Estimate, scale: Scale) -> str:
    """``88.2 (87.1 to 89.3)``."""
    ends = scale.interval(estimate.low, estimate.high)
    return scale.text(estimate.mean) + (f" ({ends})" if ends else "")


def change_text(change: Difference | None, scale: Scale, *, points: bool = False) -> str:
    """``-2.3 (-3.1 to -1.5)``; with ``points`` an amount, such as ``2.3 points (1.5 to 3.1)``."""
    if change is None:
        return NONE
    number = scale.text if points else scale.difference
    ends = "" if change.low is None else f" ({number(change.low)} to {number(change.high)})"
    return f"{number(change.value)}{' points' if points else ''}{ends}"


def shift_text(on: OnShift, scale: Scale) -> str:
    """A shift with the recipe's score on it."""
    return f"{short(on.name)} {with_interval(on.score, scale)}"


def loss_text(on: OnShift, scale: Scale) -> str:
    """A shift with the difference to zero-shot on it."""
    return f"{short(on.name)} {change_text(on.change, scale)}"


def _why(answer: Answer, recipe: Candidate) -> str:
    if answer.alone:
        return f"{recipe.name} is the only candidate that keeps its ID score."
    among = "of the candidates that keep their ID score"
    how = "on the same examples" if answer.tested else "by their intervals"
    if not answer.tied:
        return f"{recipe.name} has the best mean OOD {among}, and none ties with it {how}."
    if recipe.name == answer.best:
        tie = f"{_listed(answer.tied)} {'ties' if len(answer.tied) == 1 else 'tie'} with it {how}"
        return f"{recipe.name} has the best mean OOD {among}; {tie}, at no much lower cost."
    others = [name for name in answer.tied if name != answer.best]
    do = f", as {'does' if len(others) == 1 else 'do'} {_listed(others)}" if others else ""
    return (
        f"{recipe.name} ties {how} with {answer.best}, which has the best mean OOD {among}{do}; "
        "it costs less."
    )


def _limits(answer: Answer, recipe: Candidate) -> list[str]:
    found = []
    if recipe.reference:
        found.append("That is the pretrained model: by this rule, fine-tuning does not pay here.")
    if answer.best_id != recipe.name:
        change = change_text(answer.id_change, answer.scale)
        found.append(f"Its ID score against the best candidate's, {answer.best_id}: {change}.")
    if answer.left_out:
        found.append(f"Left out for their ID score: {_listed(answer.left_out)}.")
    if recipe.leaks:
        found.append(f"It has seen test images: {'; '.join(recipe.leaks)}.")
    if len(recipe.mean_ood.seeds) == 1 and not recipe.reference:
        found.append("One seed: what another training would change is not in its interval.")
    return found


def _regret(regret: Regret, scale: Scale) -> str:
    loss = change_text(regret.loss, scale, points=True)
    if regret.chosen is None:
        return (
            f"Choosing on ID validation alone in each task would lose {loss} of mean OOD against "
            "the best on the test shifts, which nobody can know beforehand."
        )
    if regret.loss.value <= 0:
        return f"Choosing on ID validation alone would lose nothing here: it takes {regret.chosen}."
    return (
        f"Choosing on ID validation alone would take {regret.chosen}, {loss} of mean OOD below the "
        f"best on the test shifts, {regret.best}, which nobody can know beforehand."
    )


def _listed(names: Sequence[str]) -> str:
    """Names, of many only the first."""
    shown = names[:LISTED] if len(names) > LISTED + 1 else names
    more = f" and {len(names) - len(shown)} more" if len(shown) < len(names) else ""
    return f"{', '.join(shown)}{more}"
