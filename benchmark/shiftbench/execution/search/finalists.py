"""The choice at the end of a search: of its best trials, the one that is best on fresh seeds too.

The best of many noisy scores is partly luck, so the best few are tried again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING, cast

from optuna.trial import FrozenTrial, TrialState

from shiftbench.core.errors import RunFailedError

if TYPE_CHECKING:
    from shiftbench.evaluation.metrics.base import Metric
    from shiftbench.methods.search import SearchConfig


def finalists(
    trials: Sequence[FrozenTrial], config: SearchConfig, measured: Metric
) -> list[FrozenTrial]:
    """The best trials that trained to the end, best first; of equal ones the earlier first.

    Raises:
        RunFailedError: there is none.
    """
    whole = [t for t in trials if t.state == TrialState.COMPLETE and not t.user_attrs.get("error")]
    if not whole:
        reasons = {trial.user_attrs.get("error", "") for trial in trials} - {""}
        why = f": {min(reasons)}" if reasons else ""
        raise RunFailedError(f"no trial of the search got to its end{why}")
    whole.sort(key=lambda trial: (-measured.merit(score_of(trial)), trial.number))
    return whole[: max(1, config.finalists)]


def best_finalist(
    best: Sequence[FrozenTrial], repeats: Sequence[FrozenTrial], measured: Metric
) -> tuple[FrozenTrial, float]:
    """The finalist with the best mean over fresh seeds, and that mean.

    Args:
        best: as ``finalists`` gives them; of equal means, the better in the search wins.
        repeats: their trials on fresh seeds; those whose process died have no score.
        measured: the metric of their scores.

    Raises:
        RunFailedError: no trial has a score.
    """
    scores: dict[int, list[float]] = defaultdict(list)
    for trial in repeats:
        if trial.value is not None:
            scores[trial.params["finalist"]].append(score_of(trial))
    if not scores:
        raise RunFailedError("the processes of all finalists' trials died")
    means = {finalist: fmean(of) for finalist, of in sorted(scores.items())}
    winner = max(means, key=lambda finalist: measured.merit(means[finalist]))
    return best[winner], means[winner]


def score_of(trial: FrozenTrial) -> float:
    """The score of a trial that has ended."""
    return cast("float", trial.value)
