"""open_clip's zero-shot table: ``openclip-zero-shot.csv`` has a model a line, a set a column."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from shiftbench.evaluation.results import role_of
from shiftbench.leaderboard.published.cells import Cells, score, settings
from shiftbench.leaderboard.published.schema import HEADLINE, PublishedRow

_NAMES = ("name", "pretrained")
_DETAILS = {"params (M)": "params_millions", "FLOPs (B)": "flops_billions"}
_AVERAGE = "Average perf. on 38 datasets"
WORST_OF_ALL_REGIONS = "worst-region-with-other"
"""FMoW's metric there: it takes "Other" for a region, so 31 of 121 models have 0. WILDS does not,
nor do we, so nothing of ours is compared with it."""
_SETS = {
    _AVERAGE: ("open-clip-38-datasets", "average", HEADLINE),
    "ImageNet 1k": ("imagenet", "id-test", "accuracy"),
    "ImageNet v2": ("imagenet", "imagenet-v2", "accuracy"),
    "ImageNet-R": ("imagenet", "imagenet-r", "accuracy"),
    "ImageNet Sketch": ("imagenet", "imagenet-sketch", "accuracy"),
    "ObjectNet": ("imagenet", "objectnet", "accuracy"),
    "ImageNet-A": ("imagenet", "imagenet-a", "accuracy"),
    "ImageNet-O": ("imagenet", "imagenet-o", "accuracy"),
    "CIFAR-10": ("cifar10", "id-test", "accuracy"),
    "CIFAR-100": ("cifar100", "id-test", "accuracy"),
    "iWildCam": ("iwildcam", "iwildcam-ood", "macro-f1"),
    "FMoW": ("fmow", "fmow-ood", WORST_OF_ALL_REGIONS),
    "Camelyon17": ("camelyon17", "camelyon17-ood", HEADLINE),
    "Describable Textures": ("dtd", "id-test", HEADLINE),
    "Food-101": ("food101", "id-test", HEADLINE),
    "Caltech-101": ("caltech101", "id-test", HEADLINE),
}
_NOTES = {
    "ObjectNet": "with ObjectNet's own class names, which add about 2 points to ImageNet's",
    "FMoW": 'of all regions, "Other" among them, so it is not WILDS\'s worst region',
}


def openclip(lines: Sequence[Cells]) -> Iterator[PublishedRow]:
    """The rows of ``openclip-zero-shot.csv``."""
    for number, cells in enumerate(lines, start=2):
        details = settings({name: cells[column] for column, name in _DETAILS.items()})
        for column, text in cells.items():
            if column in _NAMES or column in _DETAILS:
                continue
            task, evaluation_set, metric = _SETS.get(column, (_slug(column), "id-test", HEADLINE))
            yield PublishedRow(
                task=task,
                backbone=f"{cells['pretrained']}/{cells['name']}",
                method="zero-shot",
                label="zero-shot",
                evaluation_set=evaluation_set,
                role=None if column == _AVERAGE else role_of(evaluation_set),
                metric=metric,
                value=score(text, number, column, percent=False),
                details=details,
                source="open_clip zero-shot table",
                url="https://github.com/mlfoundations/open_clip/blob/main/docs/openclip_results.csv",
                note=_NOTES.get(column),
                collection="openclip-zero-shot",
                line=number,
                column=column,
            )


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
