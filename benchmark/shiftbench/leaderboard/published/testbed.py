"""The ImageNet testbed: ``imagenet-testbed.csv`` has a model trained on ImageNet a line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from shiftbench.evaluation.results import role_of
from shiftbench.leaderboard.published.cells import Cells, score
from shiftbench.leaderboard.published.schema import PublishedRow

_SETS = {
    "val": ("id-test", "accuracy"),
    "val-on-imagenet-a-classes": ("id-test-on-imagenet-a-classes", "accuracy"),
    "val-on-imagenet-r-classes": ("id-test-on-imagenet-r-classes", "accuracy"),
    "val-on-objectnet-classes": ("id-test-on-objectnet-classes", "accuracy"),
    "imagenetv2-matched-frequency-format-val": ("imagenet-v2", "accuracy"),
    "imagenet-sketch": ("imagenet-sketch", "accuracy"),
    "imagenet-r": ("imagenet-r", "accuracy"),
    "imagenet-a": ("imagenet-a", "accuracy"),
    "objectnet-1.0-beta": ("objectnet", "accuracy"),
    "imagenet-vid-robust_pm0": ("imagenet-vid-robust", "pm0-accuracy"),
    "imagenet-vid-robust_pm10": ("imagenet-vid-robust", "pm10-accuracy"),
    "ytbb-robust_pm0": ("ytbb-robust", "pm0-accuracy"),
    "ytbb-robust_pm10": ("ytbb-robust", "pm10-accuracy"),
}


UNTYPED = "untyped"
"""The method of testbed models whose type the file leaves open."""


def testbed(lines: Sequence[Cells]) -> Iterator[PublishedRow]:
    """The rows of ``imagenet-testbed.csv``.

    ``method`` is the testbed's type: ``standard`` models are the baseline of robustness.

    A model that was evaluated nowhere has no row.
    """
    for number, cells in enumerate(lines, start=2):
        for column, text in cells.items():
            if column in ("model", "type"):
                continue
            evaluation_set, metric = _SETS[column]
            if not text:
                continue  # the model was not evaluated there
            yield PublishedRow(
                task="imagenet",
                backbone=cells["model"],
                method=cells["type"] or UNTYPED,
                label=cells["model"],
                evaluation_set=evaluation_set,
                role=role_of(evaluation_set),
                metric=metric,
                value=score(text, number, column, percent=True),
                source="arXiv:2007.00644, the testbed of its repository",
                url="https://github.com/modestyachts/imagenet-testbed",
                note="ObjectNet 1.0-beta" if evaluation_set == "objectnet" else None,
                collection="imagenet-testbed",
                line=number,
                column=column,
            )
