"""Checks data sets before anything trains: files, counts, label histograms, broken images."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from shiftbench.core.errors import InputError, first_line
from shiftbench.data.images import Images, ImageSet
from shiftbench.data.sources.base import AbsentError, Documented, Source
from shiftbench.data.sources.registry import SOURCES
from shiftbench.data.tasks.definition import Task

Status = Literal["ok", "incomplete", "refused", "absent"]
Decoded = Literal["none", "sample", "all"]
"""Images of a set that a check decodes."""

SAMPLE = 32
"""Images of every set in a sample."""

_CHUNK = 512
_SHOWN = 3
_SHOWN_CLASSES = 5


@dataclass(frozen=True)
class Finding:
    """The result of checking one set.

    Attributes:
        name: the set, such as ``imagenet-r`` or ``cifar10 (train)``.
        status: ``ok``; ``incomplete``, where some files are missing or cannot be used and the
            others can; ``refused``, where the set cannot be used at all; or ``absent``.
        detail: one line: what is missing, or where to get it.
        fingerprint: of the image set, empty when it could not be opened.
        remark: what else there is to know of its files, such as how many were not read, or "".
    """

    name: str
    status: Status
    detail: str
    fingerprint: str = ""
    remark: str = ""


def verify(
    tasks: Iterable[Task],
    root: str,
    decoded: Decoded = "sample",
    progress: Callable[[str], None] | None = None,
) -> Iterator[Finding]:
    """Yield one finding for every set that the tasks use, as soon as it is known.

    Args:
        tasks: whose sets to check; one that several use is checked once.
        root: the data root.
        decoded: images to decode; all are in as many processes as there are cores.
        progress: called with the name of each set before it is checked.
    """
    for source in distinct_sources(tasks):
        if progress is not None:
            progress(source.title)
        yield check(source, root, decoded)


def distinct_sources(tasks: Iterable[Task]) -> list[Source]:
    """Return the whole sets that some tasks use, each once, in their order."""
    whole = {"limit": None, "balanced": False, "part": (0.0, 1.0)}
    found: list[Source] = []
    for task in tasks:
        for source in task.sources().values():
            source = source.model_copy(update=whole)
            if source not in found:
                found.append(source)
    return found


def check(source: Source, root: str, decoded: Decoded = "sample") -> Finding:
    """Return what a source's files lack, and whether its images can be decoded.

    Args:
        source: its whole set is checked, whatever part of it is used.
        root: the data root.
        decoded: images to decode.
    """
    try:
        return _checked(source, root, decoded)
    except Exception as error:  # a reader of another package may fail in any way at all
        entry = SOURCES.entry(source.kind)
        if entry.builtin:
            raise
        reason = first_line(error)
        detail = f'source "{entry.name}" of {entry.provider}: {reason}'
        return Finding(source.title, "refused", detail)


def _checked(source: Source, root: str, decoded: Decoded) -> Finding:
    try:
        images = source.whole(root)
        fault, remark = compare(images, source.documented(root))
    except AbsentError as error:
        detail = f"{_without(source.title, error)}; {source.advice(root)}"
        return Finding(source.title, "absent", detail)
    except InputError as error:
        return Finding(source.title, "refused", _without(source.title, error))
    faults = [
        *([fault] if fault else []),
        *_listed(images.faults),
        *_listed(_broken(images, decoded)),
    ]
    remarks = "; ".join((*images.remarks, *([remark] if remark else [])))
    counted = f"{len(images):,} images" + (f"; {remarks}" if remarks else "")
    detail = "; ".join(faults) or counted
    return Finding(
        source.title, "incomplete" if faults else "ok", detail, images.fingerprint, remarks
    )


def _without(title: str, error: InputError) -> str:
    """Return a message without the name of the set, beside which it is shown."""
    return str(error).removeprefix(f"{title}: ")


def _listed(faults: Sequence[str]) -> list[str]:
    """Return the first of some faults, and how many more there are."""
    more = len(faults) - _SHOWN
    return [*faults[:_SHOWN], *([f"and {more:,} more"] if more > 0 else [])]


def _broken(images: ImageSet, decoded: Decoded) -> list[str]:
    """Return what is wrong with the images that are to be decoded."""
    if decoded == "none" or not len(images):
        return []
    return _broken_of_all(images) if decoded == "all" else _broken_of_sample(images)


def compare(images: ImageSet, documented: Documented) -> tuple[str, str]:
    """Return what is wrong with a set, and what is worth a remark; each "" if there is nothing."""
    found = len(images)
    counts = np.bincount(images.labels) if found else np.zeros(0, np.int64)
    faults = [] if found else ["no images"]
    if documented.examples not in (None, found):
        faults.append(f"{found:,} images instead of {documented.examples:,}")
    present = int(np.count_nonzero(counts))
    if documented.classes not in (None, present):
        faults.append(f"{present:,} classes instead of {documented.classes:,}")
    if documented.per_class is not None:
        odd = np.flatnonzero((counts != documented.per_class) & (counts > 0))
        if len(odd):
            shown = ", ".join(f"label {k} has {counts[k]}" for k in odd[:_SHOWN_CLASSES])
            more = f" and {len(odd) - _SHOWN_CLASSES} more" if len(odd) > _SHOWN_CLASSES else ""
            faults.append(f"every class should have {documented.per_class}: {shown}{more}")
    text = "; ".join(faults)
    if documented.certain or not found:
        return text, ""
    return "", f"{text} (the documented number is not certain)" if text else ""


def _broken_of_sample(images: ImageSet) -> list[str]:
    """Return what is wrong with some images, spread evenly over a set."""
    sample = np.unique(np.linspace(0, len(images) - 1, SAMPLE).astype(int)).tolist()
    with ThreadPoolExecutor(8) as pool:
        return list(filter(None, pool.map(partial(_fault, images.images), sample)))


def _broken_of_all(images: ImageSet) -> list[str]:
    """Return what is wrong with any of the images of a set."""
    chunks = [range(i, min(i + _CHUNK, len(images))) for i in range(0, len(images), _CHUNK)]
    with ProcessPoolExecutor(
        min(len(chunks), os.cpu_count() or 1),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_hold,
        initargs=(images.images,),
    ) as pool:
        return [fault for faults in pool.map(_faults, chunks) for fault in faults]


def _fault(images: Images, index: int) -> str:
    try:
        images[index].load()
    except InputError as error:
        return str(error)
    return ""


_held: Images | None = None


def _hold(images: Images) -> None:
    """Keep a set in a worker process, so that it is sent there once."""
    global _held
    _held = images


def _faults(indices: range) -> list[str]:
    if _held is None:
        raise RuntimeError("the worker process has no images")
    return list(filter(None, (_fault(_held, index) for index in indices)))
