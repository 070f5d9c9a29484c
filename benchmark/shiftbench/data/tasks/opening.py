"""Opens a task: every set of images, labelled by the classes that it is scored among."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from shiftbench.core.errors import InputError
from shiftbench.data.images import NONE_UNREADABLE, ImageSet, Unreadable
from shiftbench.data.prompts import FROM_DATA, Prompts
from shiftbench.data.sources.base import Source
from shiftbench.data.sources.custom import CustomSource
from shiftbench.data.subsets import few_shot, split_holdout
from shiftbench.data.tasks.alignment import on_classes_of, open_aligned, open_scored
from shiftbench.data.tasks.classes import base_and_new, class_names, of_base_classes, of_classes
from shiftbench.data.tasks.definition import (
    MOST_VALIDATION_SHOTS,
    NEW,
    OUTLIERS,
    PART,
    EvaluationSet,
    Holdout,
    Task,
    Templates,
    Vocabulary,
)
from shiftbench.data.tasks.prompting import class_prompts

_NAMED = 5  # classes that a message names


@dataclass(frozen=True)
class TaskData:
    """An opened task: labels and ids are in memory, images are decoded on access.

    Attributes:
        classes: names in label order; with a class split, of the base classes.
        prompts: the texts that describe each class, see ``shiftbench.data.prompts``.
        train: training images, labelled by the task's classes.
        id_val: ID validation images.
        evaluation: every set to score on, ``id-val`` included.
        vocabularies: class names and prompts of the evaluation sets that have their own; labels
            and projections of such a set are positions in those names.
        shortage: classes with fewer images than the shots that were asked for, for people;
            ``None`` where there are none.
    """

    classes: tuple[str, ...]
    prompts: Prompts
    train: ImageSet
    id_val: ImageSet
    evaluation: dict[str, tuple[EvaluationSet, ImageSet]]
    vocabularies: dict[str, Vocabulary] = field(default_factory=dict)
    shortage: str | None = None

    def on_classes_of_shifts(
        self, images: ImageSet
    ) -> dict[str, tuple[str, npt.NDArray[np.int64], ImageSet]]:
        """Return the ID test images of the classes of each shift that has only some of them.

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
                found[f"{PART}{shift}-classes"] = shift, kept, part
        return found


def open_task(
    task: Task,
    root: str,
    shots: int | None,
    seed: int,
    unreadable: Unreadable = NONE_UNREADABLE,
    *,
    whole: bool = False,
) -> TaskData:
    """Open every set of a task and bring all labels to the task's classes.

    Args:
        task: its definition.
        root: the data root.
        shots: training images of every class, drawn with the seed; ``None`` takes all. With the
            same seed, fewer shots are a part of more. Validation has min(shots, 4).
        seed: of the few-shot draw.
        unreadable: images to leave out; what is held out does not depend on them.
        whole: train on the whole training set, also on what is held out of it for ID validation.

    Raises:
        InputError: a set is absent or broken, or does not fit the task's classes.
    """
    if shots is not None and shots < 1:
        raise InputError(f"shots: {shots} is not at least 1")
    classes, new = base_and_new(task, root)
    names = classes + new
    prompts = _prompts(names, task.templates, f"task {task.name}")
    train = of_base_classes(task, open_aligned(task.train, "train", names, root), "train", classes)
    _check_classes(task, train, classes)
    if isinstance(task.id_val, Holdout):
        rest, id_val = split_holdout(train, task.id_val.holdout)
        train = train if whole else rest
        held: Source = task.train
    else:
        held = task.id_val
        id_val = of_base_classes(task, open_aligned(held, "id-val", names, root), "id-val", classes)
    train, id_val = train.without(unreadable), id_val.without(unreadable)
    shortage = None
    if shots is not None:
        of_val = min(shots, MOST_VALIDATION_SHOTS)
        train, id_val = few_shot(train, shots, seed), few_shot(id_val, of_val, seed)
        found = (_short(train, shots, classes), _short(id_val, of_val, classes, "ID validation "))
        shortage = "; ".join(filter(None, found)) or None
    if not len(train) or not len(id_val):
        raise InputError(f"task {task.name}: no images are left for training or ID validation")
    evaluation = {"id-val": (EvaluationSet(source=held, metric=task.id_test.metric), id_val)}
    vocabularies: dict[str, Vocabulary] = {}
    for name, item in task.evaluation_sets().items():
        if task.class_split and name == NEW:
            images = of_classes(
                open_scored(item, name, names, root), name, len(classes), len(names)
            )
            vocabularies[name] = new, prompts[len(classes) :]
        elif name.startswith(OUTLIERS):
            images = _of_no_class(item.source, name, len(classes), root)
        elif item.classes is not None:
            owner = f"task {task.name}: {name}"
            own = class_names(item.classes, item.source, owner, root)
            images = open_scored(item, name, own, root)
            vocabularies[name] = own, _prompts(own, item.templates or task.templates, owner)
        else:
            images = of_base_classes(task, open_scored(item, name, names, root), name, classes)
        evaluation[name] = (item, _readable(images, unreadable, f"task {task.name}: {name}"))
    of_task = prompts[: len(classes)]
    return TaskData(classes, of_task, train, id_val, evaluation, vocabularies, shortage)


def open_ood_val(
    task: Task, root: str, unreadable: Unreadable = NONE_UNREADABLE
) -> tuple[EvaluationSet, ImageSet]:
    """Open the OOD validation set alone, as a search needs it, labelled by the task's classes.

    Few-shot runs have the whole of it. With a class split it is the base classes' part of what the
    source gives: a limited draw is made before.

    Raises:
        InputError: the task has none; or as for ``open_task``.
    """
    item = task.ood_val
    if item is None:
        raise InputError(f'task {task.name} has no OOD validation set: name one as "ood_val"')
    classes, new = base_and_new(task, root)
    images = of_base_classes(
        task, open_scored(item, "ood-val", classes + new, root), "ood-val", classes
    )
    return item, _readable(images, unreadable, f"task {task.name}: ood-val")


def _of_no_class(source: Source, role: str, classes: int, root: str) -> ImageSet:
    """Images of none of a task's classes: their label is the number of these, which none has.

    Raises:
        InputError: there are none.
    """
    images = source.open(root)
    if not len(images):
        raise InputError(f"{role}: {source.title} has no images")
    return replace(images, labels=np.full(len(images), classes), projection=None)


def _prompts(classes: tuple[str, ...], templates: Templates, owner: str) -> Prompts:
    try:
        return class_prompts(classes, templates)
    except InputError as error:
        raise InputError(f"{owner}: {error}") from error


def _short(images: ImageSet, shots: int, classes: tuple[str, ...], of: str = "") -> str:
    """Return which classes have fewer images than a few-shot draw asks for, "" if none has."""
    counts = np.bincount(images.labels, minlength=len(classes))
    short = [f"{name} {n}" for name, n in zip(classes, counts, strict=True) if n < shots]
    if not short:
        return ""
    listed = ", ".join(short[:_NAMED]) + (", …" if len(short) > _NAMED else "")
    return f"{len(short)} of {len(classes)} classes have fewer than {shots} {of}images ({listed})"


def _readable(images: ImageSet, unreadable: Unreadable, owner: str) -> ImageSet:
    found = images.without(unreadable)
    if len(images) and not len(found):
        raise InputError(f"{owner}: none of the {len(images):,} images can be read")
    return found


def _check_classes(task: Task, train: ImageSet, classes: tuple[str, ...]) -> None:
    """Refuse classes that come from the training data and have no images there."""
    whole = task.train.part == (0.0, 1.0) and task.train.limit is None
    if task.classes != FROM_DATA or not isinstance(task.train, CustomSource) or not whole:
        return
    counts = np.bincount(train.labels, minlength=len(classes))
    empty = [name for name, count in zip(classes, counts, strict=True) if not count]
    if empty:
        raise InputError(
            f"task {task.name}: {task.train.title} has no images of the "
            f"class{'es' if len(empty) > 1 else ''} {', '.join(empty[:5])}"
            f'{", …" if len(empty) > 5 else ""}; "rename" can map a label to null, which makes it '
            'no class, or list the names under "classes" to keep it'
        )
