"""Parts of a labelled set that are the same on every machine: draws, splits and few-shot samples.

Examples are put in order by hashes of their ids, so that a part depends on the ids alone and not on
the order of files or on a random generator's version. Only few-shot samples differ by seed.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from shiftbench.data.images import ImageSet, Labels, Names


def hashes(ids: Names) -> npt.NDArray[np.uint64]:
    """Return (n,) uint64 hashes of example ids, the same on every machine."""
    digests = (hashlib.blake2b(name.encode(), digest_size=8).digest() for name in ids.tolist())
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


def rank_within_class(labels: Labels, order: npt.NDArray[np.intp]) -> Labels:
    """Count for every example those of its class that come before it in ``order``.

    Args:
        labels: (n,) of the examples.
        order: (n,) a permutation of their indices.

    Returns:
        (n,) int64.
    """
    by_class = order[np.argsort(labels[order], kind="stable")]
    counts = np.bincount(labels[by_class]) if len(labels) else np.zeros(0, np.int64)
    starts = np.repeat(np.cumsum(counts) - counts, counts)
    ranks = np.empty(len(labels), np.int64)
    ranks[by_class] = np.arange(len(labels)) - starts
    return ranks


def draw(ids: Names, labels: Labels, n: int, balanced: bool) -> Labels:
    """Return the indices, ascending, of ``n`` examples chosen by the hashes of their ids."""
    order = np.argsort(hashes(ids), kind="stable")
    if balanced:
        order = order[np.argsort(rank_within_class(labels, order)[order], kind="stable")]
    return np.sort(order[:n]).astype(np.int64)


def part_of(ids: Names, labels: Labels, start: float, end: float) -> Labels:
    """Return the indices, ascending, of the part of every class between two fractions.

    A class with n examples gives those from round(start · n) up to round(end · n) in the order of
    the hashes of their ids, so that adjoining parts neither overlap nor leave one out.
    """
    ranks = rank_within_class(labels, np.argsort(hashes(ids), kind="stable"))
    counts = np.bincount(labels)
    first, last = (np.rint(fraction * counts)[labels] for fraction in (start, end))
    return np.flatnonzero((ranks >= first) & (ranks < last)).astype(np.int64)


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


def few_shot(images: ImageSet, shots: int, seed: int) -> ImageSet:
    """Draw ``shots`` images of every class with the seed; of a class with fewer, take all.

    The images keep the order of the set.
    """
    order = np.random.default_rng(seed).permutation(len(images))
    chosen: Labels = np.flatnonzero(rank_within_class(images.labels, order) < shots)
    return images.subset(chosen)
