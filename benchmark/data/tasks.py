"""A task: what to fine-tune on, how its classes are called, and what to evaluate on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from benchmark.data.base import Labels, draw, part_of, rank_within_class
from benchmark.data.folder import Custom
from benchmark.data.imagenet import STANDARD_CORRUPTIONS
from benchmark.data.images import ImageSet, Projection
from benchmark.data.prompts import (
    CLASS_LISTS,
    FROM_DATA,
    TEMPLATE_SETS,
    check_template,
    resolve_classes,
    resolve_templates,
)
from benchmark.data.sources import (
    Cifar10,
    Cifar10C,
    Cifar101,
    Cifar102,
    Closed,
    FMoW,
    ImageNet,
    ImageNetA,
    ImageNetC,
    ImageNetR,
    ImageNetSketch,
    ImageNetV2,
    IWildCam,
    ObjectNet,
    Source,
    SourceBase,
)
from benchmark.errors import InputError

Metric = Literal["accuracy", "macro-f1", "worst-region"]
RESERVED = ("id-val", "id-test", "ood-val")
MOST_VALIDATION_SHOTS = 4
"""Few-shot validation sets have min(k, 4) images of every class, as in CoOp."""


class EvaluationSet(Closed):
    """A set to score on.

    By default the answer may be any of the task's classes, also where the set has images of only
    some of them. With ``scored_on: own`` it is the best among those that the set has images of.
    """

    source: Source
    metric: Metric = "accuracy"
    scored_on: Annotated[
        Literal["task", "own"],
        Field(description="which classes compete: all of the task's, or those with images here"),
    ] = "task"


class Holdout(Closed):
    """A validation set that is cut off the training set, the same one for all seeds."""

    holdout: Annotated[
        float, Field(gt=0, lt=1, description="fraction of the training images of every class")
    ]


class Task(Closed):
    """One fine-tuning problem, described without opening any file."""

    name: Annotated[str, Field(min_length=1)]
    classes: Annotated[
        str | tuple[str, ...],
        Field(description=f"{', '.join(CLASS_LISTS)}, {FROM_DATA}, or the names in label order"),
    ]
    templates: Annotated[
        str | tuple[str, ...],
        Field(description=f"{', '.join(TEMPLATE_SETS)}, or texts with {{}} for the class name"),
    ] = "simple"
    train: Source
    id_val: Source | Holdout = Holdout(holdout=0.1)
    id_test: EvaluationSet
    ood_val: EvaluationSet | None = None
    shifts: dict[str, EvaluationSet] = Field(default_factory=dict)

    @field_validator("classes")
    @classmethod
    def _classes_exist(cls, classes: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if isinstance(classes, str) and classes not in (*CLASS_LISTS, FROM_DATA):
            known = ", ".join((*CLASS_LISTS, FROM_DATA))
            raise ValueError(f'"{classes}" is none of {known}, nor a list of names')
        if len(classes) < 2 or not all(classes):
            raise ValueError("name at least two classes")
        return classes

    @field_validator("templates")
    @classmethod
    def _templates_exist(cls, templates: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if isinstance(templates, str):
            if templates not in TEMPLATE_SETS:
                known = ", ".join(TEMPLATE_SETS)
                raise ValueError(f'"{templates}" is none of {known}, nor a list of texts with {{}}')
            return templates
        if not templates:
            raise ValueError("name at least one template")
        return tuple(check_template(template) for template in templates)

    @model_validator(mode="after")
    def _shifts_have_names_of_their_own(self) -> Task:
        for name in self.shifts:
            if name in RESERVED or not name:
                raise ValueError(f'a shift cannot be called "{name}"')
        return self

    def evaluation_sets(self) -> dict[str, EvaluationSet]:
        """All sets to score on but ID validation, by role: ``id-test``, ``ood-val``, the shifts."""
        sets = {"id-test": self.id_test}
        if self.ood_val is not None:
            sets["ood-val"] = self.ood_val
        return sets | self.shifts

    def sources(self) -> dict[str, SourceBase]:
        """Every source by the role it has: ``train``, ``id-val``, ``id-test``, …, the shifts."""
        found: dict[str, SourceBase] = {"train": self.train}
        if isinstance(self.id_val, SourceBase):
            found["id-val"] = self.id_val
        return found | {name: item.source for name, item in self.evaluation_sets().items()}


@dataclass(frozen=True)
class TaskData:
    """A task, opened: labels and ids are in memory, images are decoded on access.

    Attributes:
        classes: names in label order.
        templates: format strings, see ``benchmark.data.prompts``.
        train: training images, labelled by the task's classes.
        id_val: ID validation images.
        evaluation: every set to score on, ``id-val`` included.
        notes: what the reader of the results should know, such as classes with too few images.
    """

    classes: tuple[str, ...]
    templates: tuple[str, ...]
    train: ImageSet
    id_val: ImageSet
    evaluation: dict[str, tuple[EvaluationSet, ImageSet]]
    notes: tuple[str, ...] = ()


def open_task(task: Task, root: str, shots: int | None, seed: int) -> TaskData:
    """Open every set of a task and bring all labels to the task's classes.

    Args:
        task: what to open.
        root: the data root.
        shots: training images of every class, drawn with the seed; ``None`` takes all. With the
            same seed, fewer shots are a part of more. Validation has min(shots, 4).
        seed: of the few-shot draw.

    Raises:
        InputError: a set is absent or broken, or does not fit the task's classes.
    """
    if shots is not None and shots < 1:
        raise InputError(f"shots: {shots} is not at least 1")
    classes = task_classes(task, root)
    train = _opened(task.train, "train", classes, root)
    if isinstance(task.id_val, Holdout):
        train, id_val = split_holdout(train, task.id_val.holdout)
        held: Source = task.train
    else:
        id_val, held = _opened(task.id_val, "id-val", classes, root), task.id_val
    notes = []
    if shots is not None:
        train, note = few_shot(train, shots, seed, len(classes))
        id_val, _ = few_shot(id_val, min(shots, MOST_VALIDATION_SHOTS), seed, len(classes))
        notes += [f"{task.name}: {note}"] if note else []
    if not len(train) or not len(id_val):
        raise InputError(f"task {task.name}: no images are left for training or ID validation")
    evaluation = {"id-val": (EvaluationSet(source=held, metric=task.id_test.metric), id_val)}
    for name, item in task.evaluation_sets().items():
        images = _opened(item.source, name, classes, root)
        evaluation[name] = (item, own_classes(images) if item.scored_on == "own" else images)
    for name, (item, images) in evaluation.items():
        if item.metric == "worst-region" and "region" not in images.metadata:
            raise InputError(f"task {task.name}: {name}: worst-region needs a column of regions")
    return TaskData(
        classes, resolve_templates(task.templates), train, id_val, evaluation, tuple(notes)
    )


def task_classes(task: Task, root: str) -> tuple[str, ...]:
    """The task's class names in label order.

    Raises:
        InputError: they are to come from the data, and the data have none.
    """
    if task.classes != FROM_DATA:
        return resolve_classes(task.classes)
    names = task.train.label_names(root)
    if names is None:
        raise InputError(
            f"task {task.name}: the files of {task.train.title} do not name their labels; "
            'list them under "classes"'
        )
    if isinstance(task.train, Custom):
        renamed = (task.train.rename.get(name, name) for name in names)
        names = tuple(dict.fromkeys(name for name in renamed if name is not None))
    return names


def _opened(source: SourceBase, role: str, classes: tuple[str, ...], root: str) -> ImageSet:
    """A source with labels that are positions in ``classes``."""
    images = source.open(root)
    if not len(images):
        raise InputError(f"{role}: {source.title} has no images")
    aligned = _aligned(source, images, classes, root)
    if aligned.projection is None:
        highest = int(aligned.labels.max())
    else:
        highest = max(max(group) for group in aligned.projection.groups)
    if highest >= len(classes):
        raise InputError(
            f"{role}: {source.title} has label {highest}, but the task has {len(classes)} classes"
        )
    return aligned


def _aligned(source: SourceBase, images: ImageSet, classes: tuple[str, ...], root: str) -> ImageSet:
    """Labels by name where names are known and fit, else as the data set defines them."""
    names = source.label_names(root)
    if names == classes:
        return images
    if names is not None:
        relabelled = _by_name(source, images, names, classes)
        if isinstance(relabelled, ImageSet):
            return relabelled
        if not source.fixed_labels:
            raise InputError(
                f'{source.title}: the label "{relabelled}" is none of the task\'s classes '
                f"({', '.join(classes[:8])}{', …' if len(classes) > 8 else ''}); "
                '"rename" can map it to one of them, or to null to leave it out'
            )
    count = source.class_count(root)
    if count is not None and count != len(classes):
        raise InputError(f"{source.title} has {count:,} classes, but the task has {len(classes):,}")
    return images


def _by_name(
    source: SourceBase, images: ImageSet, names: Sequence[str], classes: Sequence[str]
) -> ImageSet | str:
    """The set with labels matched by name, or the first name that no class has."""
    rename = source.rename if isinstance(source, Custom) else {}
    position: dict[str, int] = {}
    for k, name in enumerate(classes):
        position.setdefault(_plain(name), k)
    table = np.full(len(names), -1, np.int64)
    left_out = np.zeros(len(names), bool)
    for k, name in enumerate(names):
        target = rename.get(name, name)
        left_out[k] = target is None
        table[k] = position.get(_plain(target), -1) if target is not None else -1
    kept = np.flatnonzero(~left_out[images.labels])
    labels = table[images.labels[kept]]
    if (labels < 0).any():
        return names[int(images.labels[kept][np.argmin(labels)])]
    return replace(images.subset(kept), labels=labels)


def _plain(name: str) -> str:
    """A class name without case and with underscores as spaces."""
    return " ".join(name.replace("_", " ").lower().split())


def own_classes(images: ImageSet) -> ImageSet:
    """A set scored on the classes that it has images of."""
    if images.projection is not None:
        return images
    present, labels = np.unique(images.labels, return_inverse=True)
    projection = Projection(tuple((int(label),) for label in present))
    return replace(images, labels=labels.astype(np.int64), projection=projection)


def split_holdout(images: ImageSet, fraction: float) -> tuple[ImageSet, ImageSet]:
    """Cut a fraction of every class off, by the hashes of the ids.

    Returns:
        what is left, and what was cut off: of a class with n images round(fraction · n), and at
        least one image of all of them.
    """
    held = part_of(images.ids, images.labels, 0.0, fraction)
    if not len(held):
        held = draw(images.ids, images.labels, 1, balanced=False)
    return images.subset(np.setdiff1d(np.arange(len(images)), held)), images.subset(held)


def few_shot(images: ImageSet, shots: int, seed: int, classes: int) -> tuple[ImageSet, str]:
    """``shots`` images of every class, drawn with the seed, in the order of the set.

    Returns:
        the images, and a note when some of the classes have fewer, of which all are taken.
    """
    order = np.random.default_rng(seed).permutation(len(images))
    chosen: Labels = np.flatnonzero(rank_within_class(images.labels, order) < shots)
    counts = np.bincount(images.labels, minlength=classes)
    few = int((counts < shots).sum())
    note = f"{few} of {classes} classes have fewer than {shots} training images" if few else ""
    return images.subset(chosen), note


def _imagenet(holdout: float) -> Task:
    return Task(
        name="imagenet",
        classes="imagenet",
        templates="openai-80",
        train=ImageNet(split="train"),
        id_val=Holdout(holdout=holdout),
        id_test=EvaluationSet(source=ImageNet(split="val")),
        ood_val=EvaluationSet(source=ImageNetC(limit=15_000, balanced=True)),
        shifts={
            "imagenet-v2": EvaluationSet(source=ImageNetV2()),
            "imagenet-r": EvaluationSet(source=ImageNetR()),
            "imagenet-sketch": EvaluationSet(source=ImageNetSketch()),
            "objectnet": EvaluationSet(source=ObjectNet()),
            "imagenet-a": EvaluationSet(source=ImageNetA()),
        },
    )


def _cifar10(corrupted: Cifar10C) -> Task:
    return Task(
        name="cifar10",
        classes="cifar10",
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


def _iwildcam() -> Task:
    def scored(split: Literal["id_test", "val", "test"]) -> EvaluationSet:
        return EvaluationSet(source=IWildCam(split=split), metric="macro-f1")

    return Task(
        name="iwildcam",
        classes="iwildcam",
        templates="iwildcam",
        train=IWildCam(split="train"),
        id_val=IWildCam(split="id_val"),
        id_test=scored("id_test"),
        ood_val=scored("val"),
        shifts={"iwildcam-ood": scored("test")},
    )


def _fmow() -> Task:
    return Task(
        name="fmow",
        classes="fmow",
        templates="fmow",
        train=FMoW(split="train"),
        id_val=FMoW(split="id_val"),
        id_test=EvaluationSet(source=FMoW(split="id_test")),
        ood_val=EvaluationSet(source=FMoW(split="val"), metric="worst-region"),
        shifts={"fmow-ood": EvaluationSet(source=FMoW(split="test"), metric="worst-region")},
    )


BUILTIN_TASKS: dict[str, Task] = {
    "imagenet": _imagenet(holdout=0.02),
    "cifar10": _cifar10(Cifar10C(limit=10_000, balanced=True)),
    "iwildcam": _iwildcam(),
    "fmow": _fmow(),
}
"""The tasks of the nine shifts.

OOD validation is that of AutoFT: severity 5 of ImageNet-C (15 corruptions, 15 images of every
class) and of CIFAR-10-C (19 corruptions, 1,000 images of every class), and WILDS's own ``val``.
ImageNet and CIFAR-10 have no ID validation set apart from their test sets, so one is held out.
"""


def miniature_tasks() -> dict[str, Task]:
    """The same tasks for the miniature world, which has other classes and fewer images."""
    from benchmark.data.miniature import CLASSES

    corrupted = Cifar10C(corruptions=STANDARD_CORRUPTIONS, limit=10_000, balanced=True)
    tasks = BUILTIN_TASKS | {"imagenet": _imagenet(holdout=0.1), "cifar10": _cifar10(corrupted)}
    return {
        name: task.model_copy(update={"classes": CLASSES[name]}) for name, task in tasks.items()
    }
