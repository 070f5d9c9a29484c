"""What must hold for every source and every task, on the data that they describe."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from pydantic import TypeAdapter

from shiftbench.data.audit import check_overlap
from shiftbench.data.images import ImageSet
from shiftbench.data.sources.base import Source
from shiftbench.data.tasks.definition import Task
from shiftbench.data.tasks.opening import TaskData, open_ood_val, open_task
from shiftbench.evaluation.metrics.registry import metric
from shiftbench.testing.checks import Check, require

SAMPLE = 8
"""Images of a set that are decoded."""
DESCRIBED = 300
"""Bytes, at most, that say which image is meant: a path, and no pixels."""


@dataclass(frozen=True)
class Placed:
    """A source and where its data are.

    Attributes:
        source: what is checked.
        root: the data root, a folder or a URI.
    """

    source: Source
    root: str

    def read(self) -> ImageSet:
        """The whole set, read anew and seen to be well formed."""
        whole = {"part": (0.0, 1.0), "limit": None, "balanced": False}
        return self.source.model_copy(update=whole).whole(self.root)


def survives_json(placed: Placed) -> None:
    """Its settings are JSON and read back equal."""
    source = placed.source
    again = type(source).model_validate_json(json.dumps(source.model_dump(mode="json")))
    require(again == source, f"{source!r} is read back as {again!r}")
    require(bool((type(source).__doc__ or "").strip()), f"{type(source).__name__} has no docstring")


def is_well_formed(placed: Placed) -> None:
    """Unique ids that are text, int64 labels from 0, columns as long, a fingerprint, no faults."""
    images = placed.read()
    require(len(images) > 0, "it has no images")
    require(not images.faults, f"{len(images.faults)} faults, such as: {images.faults[:1]}")


def has_documented_counts(placed: Placed) -> None:
    """``size`` is what there is, unless a number is documented; every label has a name."""
    images, source = placed.read(), placed.source
    if source.documented(placed.root).examples is None:
        size, there = source.size(placed.root), len(source.open(placed.root))
        require(size == there, f"size() is {size:,}, and there are {there:,} images")
    names = source.label_names(placed.root)
    highest = int(images.labels.max())
    enough = names is None or highest < len(names)
    require(enough, f"a label {highest}, and label_names() has {len(names or ())} names")


def reads_the_same_every_time(placed: Placed) -> None:
    """Ids, labels, columns and fingerprint are those of the last time."""
    one, two = placed.read(), placed.read()
    for name in ("ids", "labels"):
        same = np.array_equal(getattr(one, name), getattr(two, name))
        require(same, f"{name} differ from one reading to the next")
    same = one.fingerprint == two.fingerprint
    require(same, f"the fingerprint is {two.fingerprint} and was {one.fingerprint}")
    require(one.metadata.keys() == two.metadata.keys(), "other metadata columns the second time")
    for name, column in one.metadata.items():
        require(np.array_equal(column, two.metadata[name]), f"the column {name} differs")


def decodes(placed: Placed) -> None:
    """RGB images, the same pixels every time."""
    images = placed.read()
    again = placed.read().images
    for index in _sample(len(images)):
        image, id_ = images.images[index], images.ids[index]
        require(image.mode == "RGB", f"{id_}: its mode is {image.mode}, not RGB")
        require(min(image.size) > 0, f"{id_}: its size is {image.size}")
        same = image.tobytes() == again[index].tobytes()
        require(same, f"{id_}: other pixels the second time")


def travels(placed: Placed) -> None:
    """To other processes go descriptions of images, not pixels."""
    images = placed.read()
    sent = pickle.dumps(images.images)
    most = 6000 + DESCRIBED * len(images)
    require(len(sent) < most, f"{len(sent):,} bytes for {len(images):,} images go to each process")
    index = len(images) - 1
    received = pickle.loads(sent)[index]  # noqa: S301 - what was just written
    require(received.tobytes() == images.images[index].tobytes(), "other pixels after pickling")


def is_divided(placed: Placed) -> None:
    """Parts split the whole, and a limit draws so many of it in its order."""
    whole = placed.read()
    parts = [
        placed.source.model_copy(update={"part": part, "limit": None}).open(placed.root)
        for part in ((0.0, 0.6), (0.6, 1.0))
    ]
    ids = sorted(id_ for part in parts for id_ in part.ids.tolist())
    require(ids == sorted(whole.ids.tolist()), "two parts are not the whole")
    limit = (len(whole) + 1) // 2
    drawn = placed.source.model_copy(update={"part": (0.0, 1.0), "limit": limit}).open(placed.root)
    require(len(drawn) == limit, f"a limit of {limit} gives {len(drawn)} images")
    position = {id_: i for i, id_ in enumerate(whole.ids.tolist())}
    places = [position[id_] for id_ in drawn.ids.tolist()]
    require(places == sorted(places), "a limited set is in another order")
    same = drawn.labels.tolist() == whole.labels[places].tolist()
    require(same, "a limited set has other labels")


def _sample(n: int) -> list[int]:
    return sorted({round(i) for i in np.linspace(0, n - 1, min(n, SAMPLE))})


SOURCES: Mapping[str, Check[Placed]] = {
    "survives JSON": survives_json,
    "reads a well-formed set": is_well_formed,
    "counts what there is": has_documented_counts,
    "reads the same every time": reads_the_same_every_time,
    "decodes to the same RGB images": decodes,
    "travels to other processes without pixels": travels,
    "is divided by part and limit": is_divided,
}


# Tasks


@dataclass(frozen=True)
class PlacedTask:
    """A task and where its data are."""

    task: Task
    root: str

    def open(self) -> TaskData:
        """The task, opened."""
        return open_task(self.task, self.root, None, 0)


def task_survives_json(placed: PlacedTask) -> None:
    """It is JSON and reads back equal, its sources of their own classes."""
    adapter = TypeAdapter(Task)
    again = adapter.validate_json(placed.task.model_dump_json(), strict=True)
    require(again == placed.task, f"{placed.task!r} is read back as {again!r}")


def opens(placed: PlacedTask) -> None:
    """Labels are classes, in training, validation and evaluation."""
    data = placed.open()
    sets = {"train": data.train, "id-val": data.id_val}
    sets |= {name: images for name, (_, images) in data.evaluation.items()}
    if placed.task.ood_val is not None:
        sets["ood-val"] = open_ood_val(placed.task, placed.root)[1]
    for name, images in sets.items():
        classes = len(data.classes)
        if images.projection is not None:
            classes = len(images.projection.groups)
        elif name in data.vocabularies:
            classes = len(data.vocabularies[name][0])
        require(len(images) > 0, f"{name} has no images")
        highest = int(images.labels.max())
        require(highest < classes, f"{name} has a label {highest} and {classes} classes")


def has_what_its_metrics_need(placed: PlacedTask) -> None:
    """Metrics exist, and evaluation sets have the columns that they group by."""
    for name, (item, images) in placed.open().evaluation.items():
        for column in metric(item.metric).columns:
            there = column in images.metadata
            require(there, f'{name}: metric "{item.metric}" needs a column "{column}"')


def does_not_leak(placed: PlacedTask) -> None:
    """No image that methods see is a test image, unless the task says so (``overlap: label``)."""
    ood_val = None if placed.task.ood_val is None else open_ood_val(placed.task, placed.root)[1]
    with TemporaryDirectory() as cache:
        check_overlap(placed.task, placed.open(), ood_val, Path(cache))


TASKS: Mapping[str, Check[PlacedTask]] = {
    "survives JSON": task_survives_json,
    "opens, every label a class": opens,
    "has what its metrics need": has_what_its_metrics_need,
    "has no test image among what methods see": does_not_leak,
}
