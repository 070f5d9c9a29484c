"""Accuracy on frames and their neighbours: a video counts only if all of them are right."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from shiftbench.evaluation.examples import Examples, Integers
from shiftbench.evaluation.intervals import Floats, clopper_pearson
from shiftbench.evaluation.metrics.base import SumMetric, tally
from shiftbench.evaluation.pair_tests import EXACT_UP_TO, mcnemar

if TYPE_CHECKING:
    from scipy.sparse import csr_array

ANCHOR, OFFSET = "anchor", "offset"
FRAMES = 10


class FramesWithin(SumMetric):
    """The share of anchors of which every frame up to k away is right (arXiv 1906.02168, pm-k).

    ``pm:10`` looks at all frames within 10 of an anchor, ``pm:0`` at the anchor alone. Frames name
    their ``anchor``, and ``offset`` says how far they are from it. An anchor counts as often as its
    own frame, that of offset 0, is there. Resampled are locations, where the set has such a column:
    a video, say, with all its anchors.
    """

    name = "pm"
    columns = (ANCHOR, OFFSET)

    def __init__(self, argument: str | None = None) -> None:
        text = str(FRAMES) if argument is None else argument
        if not text.isascii() or not text.isdecimal():
            raise ValueError('takes the number of frames on each side, such as "pm:10"')
        self.argument = argument
        self.frames = int(text)
        self.title = f"pm-{self.frames} accuracy"

    def contributions(self, examples: Examples) -> csr_array:
        """(2 · anchors, n): of each anchor its own frame, and the frames near that are wrong."""
        from scipy.sparse import vstack

        names, anchor_of = np.unique(examples.metadata[ANCHOR].astype(str), return_inverse=True)
        offsets = self._offsets(examples)
        wrong = (np.abs(offsets) <= self.frames) & ~examples.correct
        parts = [tally(anchor_of, len(names), of) for of in (offsets == 0, wrong)]
        return vstack(parts, format="csr")

    def of_sums(self, sums: Floats) -> Floats:
        """The share (b,) of anchors without a wrong frame; 0 where there is no anchor."""
        times, wrong = np.split(sums, 2, axis=1)
        right: Floats = (times * (wrong == 0)).sum(axis=1) / np.maximum(times.sum(axis=1), 1)
        return right

    def exact_interval(self, examples: Examples) -> tuple[float, float, str] | None:
        """Clopper–Pearson over anchors, unless clusters hold several of them."""
        if self._share_clusters(examples):
            return None
        right = self._anchors(examples)
        if not len(right):
            return None
        low, high = clopper_pearson(int(right.sum()), len(right))
        return float(low), float(high), f"Clopper-Pearson over {len(right)} anchors"

    def pair_test(self, first: Examples, second: Examples) -> tuple[float, str] | None:
        """McNemar's test over anchors, unless clusters hold several of them."""
        if self._share_clusters(first):
            return None
        ours, theirs = self._anchors(first), self._anchors(second)
        b, c = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
        kind = "exact" if b + c <= EXACT_UP_TO else "mid-p"
        return float(mcnemar(b, c)), f"McNemar over anchors, {kind}"

    def _share_clusters(self, examples: Examples) -> bool:
        """True if clusters are anything but the anchors by other names, such as their videos."""
        if examples.clusters is None:
            return False
        of = (examples.metadata[ANCHOR].astype(str), examples.clusters)
        codes = [np.unique(each, return_inverse=True)[1] for each in of]
        pairs = np.unique(np.stack(codes), axis=1).shape[1]
        return any(pairs != each.max(initial=-1) + 1 for each in codes)

    def _offsets(self, examples: Examples) -> Integers:
        """(n,) how far frames are from their anchors."""
        offsets: Integers = examples.metadata[OFFSET].astype(np.int64)
        return offsets

    def _anchors(self, examples: Examples) -> npt.NDArray[np.bool_]:
        """(anchors,) which anchors are right, in the order of their names."""
        offsets, names = self._offsets(examples), examples.metadata[ANCHOR].astype(str)
        wrong = names[(np.abs(offsets) <= self.frames) & ~examples.correct]
        right: npt.NDArray[np.bool_] = ~np.isin(np.unique(names[offsets == 0]), wrong)
        return right
