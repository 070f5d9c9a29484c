"""ImageNet-C, CIFAR-10-C and CIFAR-100-C: 15 corruptions in 5 severities, each a shift.

Shifts are called ``<corruption>-<severity>``, as ``gaussian_noise-3``; every image says both in the
columns ``corruption`` and ``severity``.
"""

from __future__ import annotations

from collections.abc import Callable

from shiftbench.data.sources.base import Source
from shiftbench.data.sources.builtin.cifar import Cifar10, Cifar10C, Cifar100, Cifar100C
from shiftbench.data.sources.builtin.imagenet import ImageNet, ImageNetC
from shiftbench.data.sources.corruptions import (
    SEVERITIES,
    STANDARD_CORRUPTIONS,
    CorruptedSource,
)
from shiftbench.data.tasks.definition import EvaluationSet, Holdout, Task

TITLE = "Corruptions: 15 in 5 severities"


def _task(
    name: str,
    classes: str,
    train: Source,
    test: Source,
    held_out: float,
    corrupted: Callable[..., CorruptedSource],
) -> Task:
    return Task(
        name=name,
        classes=classes,
        templates="openai-80",
        train=train,
        id_val=Holdout(holdout=held_out),
        id_test=EvaluationSet(source=test),
        shifts={
            f"{corruption}-{severity}": EvaluationSet(
                source=corrupted(corruptions=(corruption,), severity=severity)
            )
            for corruption in STANDARD_CORRUPTIONS
            for severity in SEVERITIES
        },
    )


def _cifar(kind: type[Cifar10] | type[Cifar100], corrupted: Callable[..., CorruptedSource]) -> Task:
    train, test = kind(split="train"), kind(split="test")
    return _task(f"{train.kind}-c", train.kind, train, test, 0.1, corrupted)


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        _task(
            "imagenet-c",
            "imagenet",
            ImageNet(split="train"),
            ImageNet(split="val"),
            0.02,
            ImageNetC,
        ),
        _cifar(Cifar10, Cifar10C),
        _cifar(Cifar100, Cifar100C),
    )
}
