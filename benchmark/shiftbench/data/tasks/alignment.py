"""Opens sources with labels that are positions in a task's classes, matched by name or number."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from shiftbench.core.errors import InputError
from shiftbench.data.images import ImageSet, Projection
from shiftbench.data.sources.base import Source
from shiftbench.data.sources.custom import CustomSource
from shiftbench.data.tasks.classes import RENAME
from shiftbench.data.tasks.definition import EvaluationSet
from shiftbench.data.tasks.names import composed, not_distinct, plain


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
    if names is not None:
        names = tuple(map(composed, names))
    if names == classes and not renamed:
        return images
    if names is not None:
        labels = _by_name(source, images, names, classes)
        if labels is not None:
            kept = np.flatnonzero(labels >= 0)
            return replace(images.subset(kept), labels=labels[kept])
    count = source.class_count(root)
    if count is not None and count != len(classes):
        raise InputError(f"{source.title} has {count:,} classes, but the task has {len(classes):,}")
    return images


def _by_name(
    source: Source, images: ImageSet, names: tuple[str, ...], classes: tuple[str, ...]
) -> npt.NDArray[np.int64] | None:
    """Return the labels as positions in ``classes``, -1 for those that are left out.

    Returns:
        (n,); ``None`` where names do not say which class is meant, but the labels are positions
        in the classes anyway.

    Raises:
        InputError: they do not, and they are not; or there are more labels than names.
    """
    if images.labels.max(initial=-1) >= len(names):
        raise InputError(
            f"{source.title} has label {images.labels.max()}, but names for {len(names)} labels"
        )
    targets = source.targets(names) if isinstance(source, CustomSource) else names
    present = np.unique(images.labels)
    fault = _ambiguous(names, targets, present, classes)
    if not fault:
        position = {plain(name): k for k, name in enumerate(classes)}
        wanted = [None if target is None else plain(target) for target in targets]
        unknown = [k for k in present if wanted[k] is not None and wanted[k] not in position]
        if not unknown:
            table = np.array([position.get(name or "", -1) for name in wanted], np.int64)
            return table[images.labels]
        shown = f"{', '.join(classes[:8])}{', …' if len(classes) > 8 else ''}"
        fault = f'the label "{names[unknown[0]]}" is none of the task\'s classes ({shown})'
    if source.fixed_labels:
        return None
    raise InputError(f"{source.title}: {fault}; {RENAME}")


def _ambiguous(
    names: tuple[str, ...],
    targets: tuple[str | None, ...],
    present: npt.NDArray[np.int64],
    classes: tuple[str, ...],
) -> str:
    """Return what keeps names from saying which class is meant, "" if nothing does.

    Labels may be mapped to the same class in so many words, but not by names that look alike; and
    a class that is named twice, as some of ImageNet's and iWildCam's are, may not be meant.
    """
    own = [name for name, target in zip(names, targets, strict=True) if target == name]
    if fault := not_distinct(own, "label"):
        return fault
    meant = {plain(targets[k] or "") for k in present}
    return not_distinct([name for name in classes if plain(name) in meant])


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
