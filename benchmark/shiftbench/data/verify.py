"""Checks data sets before anything trains: files, counts, label histograms, broken images."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np

from shiftbench.core.errors import InputError
from shiftbench.data.base import Finding, SourceBase
from shiftbench.data.images import Images, ImageSet
from shiftbench.data.tasks import Task

SAMPLE = 32
"""Images of every set that are decoded unless all are."""

_CHUNK = 512
_SHOWN = 3


def verify(
    tasks: Iterable[Task],
    root: str,
    deep: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Iterator[Finding]:
    """One finding for every set that the tasks use, as soon as it is known.

    Args:
        tasks: whose sets to check; one that several use is checked once.
        root: the data root.
        deep: decode every image, in as many processes as there are cores, rather than a sample.
        progress: called with the name of each set before it is checked.
    """
    for source in distinct_sources(tasks):
        if progress is not None:
            progress(source.title)
        yield check(source, root, deep)


def distinct_sources(tasks: Iterable[Task]) -> list[SourceBase]:
    """The whole sets that some tasks use, each once, in their order."""
    whole = {"limit": None, "balanced": False, "part": (0.0, 1.0)}
    found: list[SourceBase] = []
    for task in tasks:
        for source in task.sources().values():
            source = source.model_copy(update=whole)
            if source not in found:
                found.append(source)
    return found


def check(source: SourceBase, root: str, deep: bool = False) -> Finding:
    """What a source's files say, and whether its images can be decoded."""
    finding, images = source.inspect(root)
    if images is None or not len(images):
        return finding
    broken = _broken_of_all(images) if deep else _broken_of_sample(images)
    if not broken:
        return finding
    shown = "; ".join(broken[:_SHOWN])
    more = f"; and {len(broken) - _SHOWN} more" if len(broken) > _SHOWN else ""
    before = f"{finding.detail}; " if finding.status == "incomplete" else ""
    return replace(finding, status="incomplete", detail=f"{before}{shown}{more}")


def _broken_of_sample(images: ImageSet) -> list[str]:
    """What is wrong with images spread evenly over a set."""
    sample = np.unique(np.linspace(0, len(images) - 1, SAMPLE).astype(int)).tolist()
    with ThreadPoolExecutor(8) as pool:
        return list(filter(None, pool.map(partial(_fault, images.images), sample)))


def _broken_of_all(images: ImageSet) -> list[str]:
    """What is wrong with any of the images of a set."""
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
