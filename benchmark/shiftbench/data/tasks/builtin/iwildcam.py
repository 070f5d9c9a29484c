"""WILDS iWildCam: animals at camera traps; the shift is cameras that training has not seen.

OOD validation is 1,000 images of WILDS's own ``val``, as in AutoFT (arXiv 2401.10220), which
repeats images of a class that has too few. Here such a class gives all it has, and others more.
"""

from __future__ import annotations

from shiftbench.data.miniature.definition import CLASSES
from shiftbench.data.sources.builtin.wilds import IWildCam
from shiftbench.data.tasks.definition import EvaluationSet, Task


def _task(classes: str | tuple[str, ...], ood_val: int) -> Task:
    def scored(source: IWildCam) -> EvaluationSet:
        return EvaluationSet(source=source, metric="macro-f1")

    return Task(
        name="iwildcam",
        classes=classes,
        templates="iwildcam",
        train=IWildCam(split="train"),
        id_val=IWildCam(split="id_val"),
        id_test=scored(IWildCam(split="id_test")),
        ood_val=scored(IWildCam(split="val", limit=ood_val, balanced=True)),
        shifts={"iwildcam-ood": scored(IWildCam(split="test"))},
    )


TASK = _task("iwildcam", ood_val=1_000)
MINIATURE = _task(CLASSES["iwildcam"], ood_val=240)
"""Its OOD validation set is small: a search scores it hundreds of times, on a laptop."""
