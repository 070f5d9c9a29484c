"""Opens sources with labels that are positions in a task's classes, matched by name or number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from shiftbench.core.errors import InputError
from shiftbench.data.images import ImageSet, Projection
from shiftbench.data.sources.base import Source
from shiftbench.data.sources.custom import CustomSource
from shiftbench.data.tasks.definition import EvaluationSet


def open_aligned(source: Source, role: str, classes: tuple[str, ...], root: str) -> ImageSet:
    """Return the images of a source with labels that are positions in ``classes``.

    Args:
        source: of the images.
        role: of the set in its task, for messages.
        classes: names in label order.
        root: the data root.

    Raises:
        InputError: the set is absent, broken or empty, or its labels do not fit the classes.
    """
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


def _aligned(source: Source, images: ImageSet, classes: tuple[str, ...], root: str) -> ImageSet:
    """Match labels by name where names are known and fit, else keep those of the data set."""
    names = source.label_names(root)
    renamed = isinstance(source, CustomSource) and source.rename
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
    source: Source, images: ImageSet, names: Sequence[str], classes: Sequence[str]
) -> ImageSet | str:
    """Return the set with labels matched by name, or the first name that no class has."""
    if images.labels.max(initial=-1) >= len(names):
        raise InputError(
            f"{source.title} has label {images.labels.max()}, but names for {len(names)} labels"
        )
    rename = source.rename if isinstance(source, CustomSource) else {}
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
    """Return a class name in lower case, with underscores as spaces."""
    return " ".join(name.replace("_", " ").lower().split())


def open_scored(item: EvaluationSet, role: str, classes: tuple[str, ...], root: str) -> ImageSet:
    """Return the images of an evaluation set, labelled by ``classes`` or projected from them.

    Raises:
        InputError: as for ``open_aligned``.
    """
    images = open_aligned(item.source, role, classes, root)
    return own_classes(images) if item.scored_on == "own" else images


def own_classes(images: ImageSet) -> ImageSet:
    """Return the set scored on the classes that it has images of, unless it has a projection."""
    if images.projection is not None:
        return images
    present, labels = np.unique(images.labels, return_inverse=True)
    projection = Projection(tuple((int(label),) for label in present))
    return replace(images, labels=labels.astype(np.int64), projection=projection)


def on_classes_of(
    images: ImageSet, projection: Projection
) -> tuple[npt.NDArray[np.int64], ImageSet]:
    """Return where the images are whose classes a projection keeps, and those with its labels.

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
