"""Calibration and selective classification of ranked methods, from what their runs predicted.

Rows hold the headline metrics alone; predictions are kept so that any other can be had of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import pyarrow as pa

from shiftbench.data.tasks.definition import ID_TEST, OUTLIERS
from shiftbench.evaluation.metrics.base import Metric
from shiftbench.evaluation.metrics.registry import metric
from shiftbench.report.corruptions import corruption_of
from shiftbench.report.detection import detected
from shiftbench.report.ranking import Ranking
from shiftbench.report.reading import Reader, outliers_of, ranked_methods, sets_of
from shiftbench.report.scale import scale_of
from shiftbench.report.scores import MEAN, Estimate, over_seeds
from shiftbench.report.words import short

ECE = "ece:15"
HEADINGS = {
    ECE: "ECE",
    "ece-adaptive:15": "adaptive ECE",
    "nll": "NLL",
    "brier": "Brier",
    "aurc": "AURC",
}
"""Metrics that are measured of every ranked method on ID test and all shifts; less is better."""
NOTE = (
    "Less is better in all columns. ECE: expected calibration error in percent, with 15 bins of "
    "equal width (arXiv 1706.04599); adaptive: with 15 bins of equally many examples. NLL: "
    "negative log-likelihood in nats. Brier: score over all classes. AURC: the error among the "
    "most confident examples, averaged over how many are answered (arXiv 1805.08206). OOD: mean "
    "over shifts. Probabilities are as the model gives them, without a temperature fitted "
    "afterwards, unless the method fits one."
)

Values: TypeAlias = dict[str, dict[str, dict[str, list[float]]]]
"""By method, evaluation set and metric: a number for each of its runs."""


@dataclass(frozen=True)
class Measures:
    """What is measured of a ranking's methods beside their headline scores.

    Attributes:
        estimates: by name of the method, set (or ``MEAN``) and metric; methods without
            predictions, or with those of classes only, are not there.
        sets: that there are numbers of, ID first, then the mean over shifts, then each of them.
    """

    estimates: Mapping[str, Mapping[str, Mapping[str, Estimate]]] = field(default_factory=dict)
    sets: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.estimates)

    @property
    def main_sets(self) -> tuple[str, ...]:
        """ID test and the mean over shifts, as far as there are numbers of them."""
        return tuple(name for name in self.sets if name in (ID_TEST, MEAN))

    @property
    def single_sets(self) -> tuple[str, ...]:
        """The shifts that there are numbers of, where there are several."""
        shifts = tuple(
            name
            for name in self.sets
            if name not in (ID_TEST, MEAN)
            and not corruption_of(name)
            and not name.startswith(OUTLIERS)
        )
        return shifts if len(shifts) > 1 else ()

    @property
    def outliers(self) -> tuple[str, ...]:
        """The sets of images of none of the classes that there are numbers of."""
        return tuple(name for name in self.sets if name.startswith(OUTLIERS))

    def get(self, method: str, set_name: str, name: str) -> Estimate | None:
        """A method's number; ``None`` where it is not known."""
        return self.estimates.get(method, {}).get(set_name, {}).get(name)

    def text(self, method: str, set_name: str, name: str) -> str:
        """The same for people."""
        estimate = self.get(method, set_name, name)
        return scale_of(name).text(None if estimate is None else estimate.mean)


def measured_metrics() -> list[Metric]:
    """The metrics of ``HEADINGS``."""
    return [metric(text) for text in HEADINGS]


def values(ranking: Ranking, reader: Reader) -> Values:
    """The numbers of every ranked method all of whose runs have predictions with logits."""
    found: Values = {}
    for method in ranked_methods(ranking):
        for name in sets_of(ranking):
            of_runs = []
            for member in method.members:
                here = reader.find(member.run_id, member.variant, ranking, name)
                if name.startswith(OUTLIERS):
                    inside = reader.find(member.run_id, member.variant, ranking, ID_TEST)
                    of_runs.append(detected(inside, here))
                else:
                    of_runs.append({} if here is None else _measured(here))
            if all(of_runs):
                texts = [text for text in of_runs[0] if all(text in of_run for of_run in of_runs)]
                found.setdefault(method.name, {})[name] = {
                    text: [of_run[text] for of_run in of_runs] for text in texts
                }
    return found


def measures(ranking: Ranking, found: Values) -> Measures:
    """Means over seeds of what was found of a ranking, and over its shifts."""
    estimates: dict[str, dict[str, dict[str, Estimate]]] = {}
    for method in ranked_methods(ranking):
        of_sets = found.get(method.name, {})
        seeds = [member.seed for member in method.members]
        if ranking.shifts and all(shift in of_sets for shift in ranking.shifts):
            means = {
                text: np.mean([of_sets[s][text] for s in ranking.shifts], axis=0).tolist()
                for text in HEADINGS
                if all(text in of_sets[shift] for shift in ranking.shifts)
            }
            of_sets = {**of_sets, MEAN: means}
        if of_sets:
            estimates[method.name] = {
                name: {text: over_seeds(numbers, seeds) for text, numbers in of.items()}
                for name, of in of_sets.items()
            }
    known = {name for of in estimates.values() for name in of}
    order = (ID_TEST, MEAN, *ranking.shifts, *outliers_of(ranking))
    return Measures(estimates, tuple(name for name in order if name in known))


def header(sets: Sequence[str]) -> list[str]:
    """The headings of a table of measures, after that of the methods."""
    return [f"{heading} {short(name)}" for heading in HEADINGS.values() for name in sets]


def cells(found: Measures, method: str, sets: Sequence[str]) -> list[str]:
    """A method's numbers under ``header``."""
    return [found.text(method, name, text) for text in HEADINGS for name in sets]


def _measured(table: pa.Table) -> dict[str, float]:
    """The metrics that can be had of one variant's predictions on one set."""
    from shiftbench.evaluation.predictions import examples_of

    examples = examples_of(table)
    each = measured_metrics()
    return {one.text: one.value(examples) for one in each if one.missing(examples) is None}
