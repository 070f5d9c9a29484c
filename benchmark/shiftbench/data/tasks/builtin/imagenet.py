"""ImageNet, with V2, R, Sketch, ObjectNet and A as shifts.

OOD validation is of the size that AutoFT's public scripts use (arXiv 2401.10220): of severity 5 of
ImageNet-C 15 images of every class, over 15 corruptions. There is no ID validation set apart from
the test set, so one is held out.
"""

from __future__ import annotations

from shiftbench.data.miniature.definition import CLASSES
from shiftbench.data.sources.builtin.imagenet import (
    ImageNet,
    ImageNetA,
    ImageNetC,
    ImageNetR,
    ImageNetSketch,
    ImageNetV2,
    ObjectNet,
)
from shiftbench.data.tasks.definition import EvaluationSet, Holdout, Task


def _task(classes: str | tuple[str, ...], holdout: float, ood_val: int) -> Task:
    return Task(
        name="imagenet",
        classes=classes,
        templates="openai-80",
        train=ImageNet(split="train"),
        id_val=Holdout(holdout=holdout),
        id_test=EvaluationSet(source=ImageNet(split="val")),
        ood_val=EvaluationSet(source=ImageNetC(limit=ood_val, balanced=True)),
        shifts={
            "imagenet-v2": EvaluationSet(source=ImageNetV2()),
            "imagenet-r": EvaluationSet(source=ImageNetR()),
            "imagenet-sketch": EvaluationSet(source=ImageNetSketch()),
            "objectnet": EvaluationSet(source=ObjectNet()),
            "imagenet-a": EvaluationSet(source=ImageNetA()),
        },
    )


TASK = _task("imagenet", holdout=0.02, ood_val=15_000)
MINIATURE = _task(CLASSES["imagenet"], holdout=0.1, ood_val=270)
"""Its OOD validation set is small: a search scores it hundreds of times, on a laptop."""
