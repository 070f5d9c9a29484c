"""What must hold of the results of a run before they become rows."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from shiftbench.evaluation.metrics.registry import metric
from shiftbench.evaluation.results import Result


def check_results(results: Sequence[Result]) -> None:
    """See that they are those of a run that is done.

    Raises:
        ValueError: no result, the same result twice, no or several headline metrics of a set, or a
            value outside its metric's range or its interval's order.
    """
    if not results:
        raise ValueError("a run that is done has results")
    for result in results:
        score = result.score
        least, most = metric(result.metric).range
        inside = all(
            math.isfinite(number) and least <= number <= most
            for number in (score.value, score.low, score.high)
        )
        if not inside or score.low > score.high:
            raise ValueError(f"{_name(result)}: not a score: {score}")
    keys = Counter((r.variant, r.selection, r.evaluation_set, r.metric) for r in results)
    for key, times in keys.items():
        if times > 1:
            raise ValueError(f"the same result {times} times: {key}")
    headlines = Counter((r.variant, r.selection, r.evaluation_set) for r in results if r.primary)
    for result in results:
        if headlines[result.variant, result.selection, result.evaluation_set] != 1:
            raise ValueError(f"{_name(result)}: a set has one headline metric")


def _name(result: Result) -> str:
    return f"{result.variant or 'weights'} on {result.evaluation_set}"
