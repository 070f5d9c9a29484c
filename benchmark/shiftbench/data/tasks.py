"""A task: what to fine-tune on, how its classes are called, and what to evaluate on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator, model_validator

from shiftbench.core.errors import InputError
from shiftbench.data.base import Labels, draw, part_of, rank_within_class
from shiftbench.data.folder import Custom
from shiftbench.data.imagenet import ALL_CORRUPTIONS, STANDARD_CORRUPTIONS
from shiftbench.data.images import ImageSet, Projection
from shiftbench.data.prompts import (
    CLASS_LISTS,
    FROM_DATA,
    TEMPLATE_SETS,
    check_template,
    resolve_classes,
    resolve_templates,
)
from shiftbench.data.sources import (
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

Metric = Literal["accuracy", "macro-f1", "worst-region"]
ID_TEST = "id-test"
RESERVED = ("id-val", ID_TEST, "ood-val")
NEW = "new"
_PART = f"{ID_TEST}-on-"
"""The shift of a task with a class split."""
MOST_VALIDATION_SHOTS = 4
"""Few-shot validation sets have min(k, 4) images of every class, as in CoOp."""

Texts = str | tuple[str, ...]
Vocabulary = tuple[tuple[str, ...], tuple[str, ...]]
"""Class names in label order, and templates."""


def known_classes(classes: Texts | None) -> Texts | None:
    """``classes``, when it is a list of names, what stands for one, or nothing."""
    if isinstance(classes, str) and classes not in (*CLASS_LISTS, FROM_DATA):
        known = ", ".join((*CLASS_LISTS, FROM_DATA))
        raise ValueError(f'"{classes}" is none of {known}, nor a list of names')
    if classes is not None and (len(classes) < 2 or not all(classes)):
        raise ValueError("name at least two classes")
    return classes


def known_templates(templates: Texts | None) -> Texts | None:
    """``templates``, when it is a list of texts, what stands for one, or nothing."""
    if templates is None:
        return None
    if isinstance(templates, str):
        if templates not in TEMPLATE_SETS:
            known = ", ".join(TEMPLATE_SETS)
            raise ValueError(f'"{templates}" is none of {known}, nor a list of texts with {{}}')
        return templates
    if not templates:
        raise ValueError("name at least one template")
    return tuple(check_template(template) for template in templates)


class EvaluationSet(Closed):
    """A set to score on.

    By default the answer may be any of the task's classes, also where the set has images of only
    some of them. With ``scored_on: own`` it is the best among those that the set has images of.

    A shift may have ``classes`` of its own, which then compete in place of the task's: CIFAR-10 as
    a shift of ImageNet is scored among CIFAR-10's names (cross-dataset transfer).
    """

    source: Source
    metric: Metric = "accuracy"
    scored_on: Annotated[
        Literal["task", "own"],
        Field(description="which classes compete: all that are named, or those with images here"),
    ] = "task"
    classes: Annotated[
        Texts | None, Field(description="of a shift whose classes are not the task's; as there")
    ] = None
    templates: Annotated[
        Texts | None, Field(description="for classes of its own; null: the task's")
    ] = None

    _known_classes = field_validator("classes")(known_classes)
    _known_templates = field_validator("templates")(known_templates)

    @model_validator(mode="after")
    def _templates_go_with_classes(self) -> EvaluationSet:
        if self.templates is not None and self.classes is None:
            raise ValueError('"templates" of its own go with "classes" of its own')
        return self


class Holdout(Closed):
    """A validation set that is cut off the training set, the same one for all seeds."""

    holdout: Annotated[
        float, Field(gt=0, lt=1, description="fraction of the training images of every class")
    ]


class Task(Closed):
    """One fine-tuning problem, described without opening any file.

    With ``class_split: base-to-new`` it is cut in two by classes, as for CoCoOp (arXiv 2203.05557,
    ``subsample_classes`` in its code): of n in label order the first ⌈n/2⌉ are *base*, the others
    *new*.
    Training and both validation sets have base classes only. ``id-test`` is its images of base
    classes among the base names, and the one shift, ``new``, its images of new classes among the
    new names. The task's other shifts are left out: they mix both.
    """

    name: Annotated[str, Field(min_length=1)]
    classes: Annotated[
        Texts,
        Field(description=f"{', '.join(CLASS_LISTS)}, {FROM_DATA}, or the names in label order"),
    ]
    templates: Annotated[
        Texts,
        Field(description=f"{', '.join(TEMPLATE_SETS)}, or texts with {{}} for the class name"),
    ] = "simple"
    train: Source
    id_val: Source | Holdout = Holdout(holdout=0.1)
    id_test: EvaluationSet
    ood_val: EvaluationSet | None = None
    shifts: dict[str, EvaluationSet] = Field(default_factory=dict)
    class_split: Annotated[
        Literal["base-to-new"] | None,
        Field(description="train on the first half of the classes, and test on each half"),
    ] = None
    overlap: Annotated[
        Literal["refuse", "label"],
        Field(description="what to do when a test set holds images that a method sees"),
    ] = "refuse"

    _known_classes = field_validator("classes")(known_classes)
    _known_templates = field_validator("templates")(known_templates)

    @model_validator(mode="after")
    def _sets_are_consistent(self) -> Task:
        for name in self.shifts:
            if name in RESERVED or name.startswith(_PART) or not name:
                raise ValueError(f'a shift cannot be called "{name}"')
        for name, item in (("id_test", self.id_test), ("ood_val", self.ood_val)):
            if item is not None and item.classes is not None:
                raise ValueError(f"{name} has the task's classes; only a shift may have its own")
        return self

    def evaluation_sets(self) -> dict[str, EvaluationSet]:
        """All sets to score on but ID validation, by role: ``id-test``, ``ood-val``, the shifts."""
        sets = {"id-test": self.id_test}
        if self.ood_val is not None:
            sets["ood-val"] = self.ood_val
        return sets | ({NEW: self.id_test} if self.class_split else self.shifts)

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
        classes: names in label order; with a class split, of the base classes.
        templates: format strings, see ``shiftbench.data.prompts``.
        train: training images, labelled by the task's classes.
        id_val: ID validation images.
        evaluation: every set to score on, ``id-val`` included.
        notes: what the reader of the results should know, such as classes with too few images.
        vocabularies: class names and templates of the evaluation sets that have their own; labels
            and projections of such a set are positions in those names.
    """

    classes: tuple[str, ...]
    templates: tuple[str, ...]
    train: ImageSet
    id_val: ImageSet
    evaluation: dict[str, tuple[EvaluationSet, ImageSet]]
    notes: tuple[str, ...] = ()
    vocabularies: dict[str, Vocabulary] = field(default_factory=dict)

    def on_classes_of_shifts(
        self, images: ImageSet
    ) -> dict[str, tuple[str, npt.NDArray[np.int64], ImageSet]]:
        """The parts of the ID test images that have the classes of a shift which has only some.

        Accuracy on such a shift compares with accuracy on these, scored among the same classes
        (Taori et al., 2020, arXiv 2007.00644, for ImageNet-A, -R and ObjectNet).

        Args:
            images: the ID test set, or a part of it.

        Returns:
            by name (``id-test-on-imagenet-a-classes``): the shift, the positions of the images, and
            the images as a set with the shift's labels and projection. Empty ones are left out.
        """
        found = {}
        for shift, (_, shifted) in self.evaluation.items():
            own_names = shift in self.vocabularies
            if shifted.projection is None or own_names or images.projection is not None:
                continue
            kept, part = on_classes_of(images, shifted.projection)
            if len(kept):
                found[f"{_PART}{shift}-classes"] = shift, kept, part
        return found


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
    classes, new = _base_and_new(task, root)
    names = classes + new
    templates = resolve_templates(task.templates)
    train = _base(task, _opened(task.train, "train", names, root), "train", classes)
    if isinstance(task.id_val, Holdout):
        train, id_val = split_holdout(train, task.id_val.holdout)
        held: Source = task.train
    else:
        held = task.id_val
        id_val = _base(task, _opened(held, "id-val", names, root), "id-val", classes)
    notes = []
    if shots is not None:
        train, note = few_shot(train, shots, seed, len(classes))
        id_val, _ = few_shot(id_val, min(shots, MOST_VALIDATION_SHOTS), seed, len(classes))
        notes += [f"{task.name}: {note}"] if note else []
    if not len(train) or not len(id_val):
        raise InputError(f"task {task.name}: no images are left for training or ID validation")
    evaluation = {"id-val": (EvaluationSet(source=held, metric=task.id_test.metric), id_val)}
    vocabularies: dict[str, Vocabulary] = {}
    for name, item in task.evaluation_sets().items():
        if task.class_split and name == NEW:
            images = _of_classes(_scored(item, name, names, root), name, len(classes), len(names))
            vocabularies[name] = new, templates
        elif item.classes is not None:
            own = _resolved(item.classes, item.source, f"task {task.name}: {name}", root)
            images = _scored(item, name, own, root)
            vocabularies[name] = own, resolve_templates(item.templates or task.templates)
        else:
            images = _base(task, _scored(item, name, names, root), name, classes)
        evaluation[name] = (item, images)
    for name, (item, images) in evaluation.items():
        _check_regions(task, name, item, images)
    return TaskData(
        classes, templates, train, id_val, evaluation, tuple(notes), vocabularies=vocabularies
    )


def open_ood_val(task: Task, root: str) -> tuple[EvaluationSet, ImageSet]:
    """The OOD validation set alone, as a search needs it, labelled by the task's classes.

    Few-shot runs have the whole of it. With a class split it is the base classes' part of what the
    source gives: a limited draw is made before.

    Raises:
        InputError: the task has none; or as for ``open_task``.
    """
    item = task.ood_val
    if item is None:
        raise InputError(f'task {task.name} has no OOD validation set: name one as "ood_val"')
    classes, new = _base_and_new(task, root)
    images = _base(task, _scored(item, "ood-val", classes + new, root), "ood-val", classes)
    _check_regions(task, "ood-val", item, images)
    return item, images


def whole_set(name: str) -> str:
    """The set that an evaluation set is a part of: itself, but for parts of the ID test set."""
    return ID_TEST if name.startswith(_PART) else name


def on_classes_of(
    images: ImageSet, projection: Projection
) -> tuple[npt.NDArray[np.int64], ImageSet]:
    """The images whose classes a projection keeps, with its labels, and where they were.

    Args:
        images: labelled by the task's classes.
        projection: from the task's classes to fewer.
    """
    size = 1 + max(int(images.labels.max(initial=0)), *map(max, projection.groups))
    label_of = np.full(size, -1, np.int64)
    for label, group in enumerate(projection.groups):
        label_of[list(group)] = label
    labels = label_of[images.labels]
    kept = np.flatnonzero(labels >= 0).astype(np.int64)
    return kept, replace(images.subset(kept), labels=labels[kept], projection=projection)


def task_classes(task: Task, root: str) -> tuple[str, ...]:
    """The names of the classes that the task trains on, in label order.

    Raises:
        InputError: they are to come from the data, and the data have none; or there are too few
            for a class split.
    """
    return _base_and_new(task, root)[0]


def _base_and_new(task: Task, root: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The classes to train on, and those that a class split leaves for the shift ``new``."""
    names = _resolved(task.classes, task.train, f"task {task.name}", root)
    if task.class_split is None:
        return names, ()
    base = (len(names) + 1) // 2
    if len(names) - base < 2:
        raise InputError(
            f"task {task.name}: class_split needs two base and two new classes, "
            f"but there are {len(names)} in all"
        )
    return names[:base], names[base:]


def _resolved(classes: Texts, source: SourceBase, owner: str, root: str) -> tuple[str, ...]:
    """Class names in label order: those of the source's own labels where ``classes`` says so."""
    if classes != FROM_DATA:
        return resolve_classes(classes)
    names = source.label_names(root)
    if names is None:
        raise InputError(
            f"{owner}: the files of {source.title} do not name their labels; "
            'list them under "classes"'
        )
    if isinstance(source, Custom):
        renamed = (source.rename.get(name, name) for name in names)
        names = tuple(dict.fromkeys(name for name in renamed if name is not None))
    return names


def _base(task: Task, images: ImageSet, role: str, classes: tuple[str, ...]) -> ImageSet:
    """The images of the task's ``classes``: all of them, or the base ones' with a class split."""
    return _of_classes(images, role, 0, len(classes)) if task.class_split else images


def _of_classes(images: ImageSet, role: str, first: int, end: int) -> ImageSet:
    """The images with labels from ``first`` up to ``end``, which are counted from 0 again.

    Raises:
        InputError: there are none, or the labels are not positions in the task's classes.
    """
    if images.projection is not None:
        raise InputError(f"{role}: class_split cannot cut a set scored on classes of its own")
    kept = np.flatnonzero((images.labels >= first) & (images.labels < end)).astype(np.int64)
    if not len(kept):
        raise InputError(f"{role}: no images of the classes that class_split leaves it")
    part = images.subset(kept)
    return replace(part, labels=part.labels - first)


def _scored(item: EvaluationSet, role: str, classes: tuple[str, ...], root: str) -> ImageSet:
    """The images of an evaluation set, labelled by ``classes`` or projected from them."""
    images = _opened(item.source, role, classes, root)
    return own_classes(images) if item.scored_on == "own" else images


def _check_regions(task: Task, role: str, item: EvaluationSet, images: ImageSet) -> None:
    if item.metric == "worst-region" and "region" not in images.metadata:
        raise InputError(f"task {task.name}: {role}: worst-region needs a column of regions")


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
    renamed = isinstance(source, Custom) and source.rename
    if names == classes and not renamed:
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


def _imagenet(holdout: float, ood_val: int) -> Task:
    return Task(
        name="imagenet",
        classes="imagenet",
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


def _cifar10(corruptions: tuple[str, ...]) -> Task:
    corrupted = Cifar10C(corruptions=corruptions, limit=100, balanced=True)
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


def _iwildcam(ood_val: int) -> Task:
    def scored(source: IWildCam) -> EvaluationSet:
        return EvaluationSet(source=source, metric="macro-f1")

    return Task(
        name="iwildcam",
        classes="iwildcam",
        templates="iwildcam",
        train=IWildCam(split="train"),
        id_val=IWildCam(split="id_val"),
        id_test=scored(IWildCam(split="id_test")),
        ood_val=scored(IWildCam(split="val", limit=ood_val, balanced=True)),
        shifts={"iwildcam-ood": scored(IWildCam(split="test"))},
    )


def _fmow(ood_val: int) -> Task:
    def by_region(source: FMoW) -> EvaluationSet:
        return EvaluationSet(source=source, metric="worst-region")

    return Task(
        name="fmow",
        classes="fmow",
        templates="fmow",
        train=FMoW(split="train"),
        id_val=FMoW(split="id_val"),
        id_test=EvaluationSet(source=FMoW(split="id_test")),
        ood_val=by_region(FMoW(split="val", limit=ood_val, balanced=True)),
        shifts={"fmow-ood": by_region(FMoW(split="test"))},
    )


BUILTIN_TASKS: dict[str, Task] = {
    "imagenet": _imagenet(holdout=0.02, ood_val=15_000),
    "cifar10": _cifar10(ALL_CORRUPTIONS),
    "iwildcam": _iwildcam(ood_val=1_000),
    "fmow": _fmow(ood_val=1_000),
}
"""The tasks of the nine shifts.

OOD validation sets have the sizes of AutoFT (arXiv 2401.10220; those of ImageNet and CIFAR-10 are
known from its public scripts only): of severity 5 of ImageNet-C 15 images of every class, over 15
corruptions; of severity 5 of CIFAR-10-C 10 of every class, over 19; of WILDS's own ``val`` 1,000.
AutoFT repeats images of a class that has too few; here such a class gives all it has, and the
others more. ImageNet and CIFAR-10 have no ID validation set apart from their test sets, so one is
held out.
"""


def miniature_tasks() -> dict[str, Task]:
    """The same tasks for the miniature world, which has other classes and fewer images.

    Its OOD validation sets are small: a search scores them hundreds of times, on a laptop.
    """
    from shiftbench.data.miniature import CLASSES

    tasks = {
        "imagenet": _imagenet(holdout=0.1, ood_val=270),
        "cifar10": _cifar10(STANDARD_CORRUPTIONS),
        "iwildcam": _iwildcam(ood_val=240),
        "fmow": _fmow(ood_val=240),
    }
    return {
        name: task.model_copy(update={"classes": CLASSES[name]}) for name, task in tasks.items()
    }
