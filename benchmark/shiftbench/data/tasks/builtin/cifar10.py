"""CIFAR-10, with CIFAR-10.1 and CIFAR-10.2 as shifts.

OOD validation is of the size that AutoFT's public scripts use (arXiv 2401.10220): of severity 5 of
CIFAR-10-C 10 images of every class, over 19 corruptions. There is no ID validation set apart from
the test set, so one is held out.
"""

from __future__ import annotations

from shiftbench.data.miniature.definition import CLASSES
from shiftbench.data.sources.builtin.cifar import Cifar10, Cifar10C, Cifar101, Cifar102
from shiftbench.data.sources.corruptions import ALL_CORRUPTIONS, STANDARD_CORRUPTIONS
from shiftbench.data.tasks.definition import EvaluationSet, Holdout, Task


def _task(classes: str | tuple[str, ...], corruptions: tuple[str, ...]) -> Task:
    corrupted = Cifar10C(corruptions=corruptions, limit=100, balanced=True)
    return Task(
        name="cifar10",
        classes=classes,
        templates="openai-80",
        train=Cifar10(split="train"),
        id_val=Holdout(holdout=0.1),
        id_test=EvaluationSet(source=Cifar10(split="test")),
        ood_val=EvaluationSet(source=corrupted),
        shifts={
            "cifar10.1": EvaluationSet(source=Cifar101()),
            "cifar10.2": EvaluationSet(source=Cifar102()),
        },
    )


TASK = _task("cifar10", ALL_CORRUPTIONS)
MINIATURE = _task(CLASSES["cifar10"], STANDARD_CORRUPTIONS)
"""Its OOD validation set is small: a search scores it hundreds of times, on a laptop."""
