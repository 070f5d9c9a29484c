"""WILDS FMoW: buildings and land use seen by satellites; the shift is later years.

OOD validation is 1,000 images of WILDS's own ``val``, as in AutoFT (arXiv 2401.10220), which
repeats images of a class that has too few. Here such a class gives all it has, and others more.
"""

from __future__ import annotations

from shiftbench.data.miniature.definition import CLASSES
from shiftbench.data.sources.builtin.wilds import FMoW
from shiftbench.data.tasks.definition import EvaluationSet, Task


def _task(classes: str | tuple[str, ...], ood_val: int) -> Task:
    def by_region(source: FMoW) -> EvaluationSet:
        return EvaluationSet(source=source, metric="worst-region")

    return Task(
        name="fmow",
        classes=classes,
        templates="fmow",
        train=FMoW(split="train"),
        id_val=FMoW(split="id_val"),
        id_test=EvaluationSet(source=FMoW(split="id_test")),
        ood_val=by_region(FMoW(split="val", limit=ood_val, balanced=True)),
        shifts={"fmow-ood": by_region(FMoW(split="test"))},
    )


TASK = _task("fmow", ood_val=1_000)
MINIATURE = _task(CLASSES["fmow"], ood_val=240)
"""Its OOD validation set is small: a search scores it hundreds of times, on a laptop."""
