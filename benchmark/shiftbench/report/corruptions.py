"""Errors under corruptions: of each over its severities, and their mean (mCE)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from shiftbench.data.sources.corruptions import ALL_CORRUPTIONS, STANDARD_CORRUPTIONS
from shiftbench.data.tasks.definition import ALSO
from shiftbench.leaderboard.schema import REAL
from shiftbench.report.ranking import RankedMethod, Ranking
from shiftbench.report.scale import ACCURACY
from shiftbench.report.scores import Estimate, over_seeds

SEVERITIES = 5
ALEXNET: Mapping[str, float] = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}
"""AlexNet's errors on ImageNet-C, mean over the severities.

Hendrycks and Dietterich (2019, arXiv 1903.12261) print them with one decimal of a percent; these
digits are of the authors' repository (hendrycks/robustness), as AugMix's evaluation has them.
"""
IMAGENET_C = ("imagenet", "imagenet-c")
"""Tasks whose corruptions AlexNet's errors are of."""


@dataclass(frozen=True)
class Corrupted:
    """A method under corruptions.

    Attributes:
        errors: error rate by corruption, mean over its severities.
        mean: over all corruptions and severities.
        mce: mean over corruptions of the error divided by AlexNet's; ``None`` but for all standard
            ones of the real ImageNet-C.
    """

    errors: Mapping[str, Estimate]
    mean: Estimate
    mce: Estimate | None


@dataclass(frozen=True)
class Corruptions:
    """The methods of a ranking under the corruptions that it has in all severities.

    Attributes:
        names: of the corruptions.
        methods: by name, those that have them all, in the order of the ranking.
    """

    names: tuple[str, ...] = ()
    methods: Mapping[str, Corrupted] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.methods)

    @property
    def normalised(self) -> bool:
        """Whether there is an mCE."""
        return any(method.mce is not None for method in self.methods.values())

    @property
    def note(self) -> str:
        """What the numbers are."""
        text = (
            "Error in percent under each corruption, mean over its 5 severities; mean: over all "
            "corruptions and severities."
        )
        if self.normalised:
            text += (
                " mCE: mean over corruptions of the error divided by AlexNet's (arXiv 1903.12261)."
            )
        return text


def corruption_of(set_name: str) -> tuple[str, int] | None:
    """``("fog", 3)`` for ``fog-3`` or ``also-fog-3``; ``None`` for other sets."""
    name, _, severity = set_name.removeprefix(ALSO).rpartition("-")
    known = name in ALL_CORRUPTIONS and severity in map(str, range(1, SEVERITIES + 1))
    return (name, int(severity)) if known else None


def shown_shifts(ranking: Ranking) -> tuple[str, ...]:
    """The shifts that have a place of their own: corruptions and severities are a table apart."""
    return tuple(name for name in ranking.shifts if corruption_of(name) is None)


def corruptions(ranking: Ranking) -> Corruptions:
    """Errors of a ranking's methods, where its sets are scored by accuracy."""
    sets: dict[str, dict[int, str]] = {}
    for name in ranking.metrics:
        found = corruption_of(name)
        if found is not None and ranking.metrics[name] == "accuracy":
            sets.setdefault(found[0], {})[found[1]] = name
    whole = {name: [*of.values()] for name, of in sets.items() if len(of) == SEVERITIES}
    real = ranking.data_kind == REAL and ranking.task in IMAGENET_C
    normalised = real and set(STANDARD_CORRUPTIONS) <= whole.keys()
    methods = {
        method.name: _corrupted(method, whole, normalised=normalised)
        for method in ranking.methods
        if whole and all(_on_all_seeds(method, s) for of in whole.values() for s in of)
    }
    return Corruptions(tuple(whole), methods)


def _on_all_seeds(method: RankedMethod, set_name: str) -> bool:
    found = method.scores.by_set.get(set_name)
    return found is not None and found.seeds == method.seeds


def _corrupted(
    method: RankedMethod, sets: Mapping[str, list[str]], *, normalised: bool
) -> Corrupted:
    by_set = method.scores.by_set

    def mean(of: Callable[[int], float]) -> Estimate:
        """A number of each seed, averaged; of seeds that lack a set nothing is known apart."""
        first = by_set[next(iter(sets.values()))[0]]
        return over_seeds([of(k) for k in range(len(first.seeds))], first.seeds)

    def error(corruption: str, k: int) -> float:
        return 1 - float(np.mean([by_set[name].values[k] for name in sets[corruption]]))

    def mce(k: int) -> float:
        return float(np.mean([error(name, k) / ALEXNET[name] for name in STANDARD_CORRUPTIONS]))

    return Corrupted(
        errors={name: mean(lambda k, name=name: error(name, k)) for name in sets},  # type: ignore[misc]
        mean=mean(lambda k: float(np.mean([error(name, k) for name in sets]))),
        mce=mean(mce) if normalised else None,
    )


def numbers(found: Corruptions, method: str) -> list[Estimate | None]:
    """A method's row, after its name: mCE where there is one, the mean, and each corruption."""
    of = found.methods[method]
    return [*([of.mce] if found.normalised else []), of.mean, *of.errors.values()]


def cells(found: Corruptions, method: str) -> list[str]:
    """The same for people."""
    each = numbers(found, method)
    return [ACCURACY.text(None if number is None else number.mean) for number in each]


def header(found: Corruptions) -> list[str]:
    """The headings of these columns."""
    names = [name.replace("_", " ") for name in found.names]
    return [*(["mCE"] if found.normalised else []), "mean", *names]
