"""VRF: an ensemble whose weights follow from how near an image is to what fine-tuning mended."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
from pydantic import Field

from shiftbench.methods.base import EnsembleMethod, Parent
from shiftbench.methods.calibration import calibrated_temperatures
from shiftbench.methods.config import MethodConfig
from shiftbench.methods.mixing import mean_probabilities

if TYPE_CHECKING:
    import numpy.typing as npt

    from shiftbench.methods.base import Array
    from shiftbench.methods.members import Labelled, Members

    Numbers = npt.NDArray[np.float64]

QUERIES = 256
"""Images whose distances to all centres are held at a time."""


class VrfConfig(MethodConfig):
    """The fine-tuned run, and how a distance becomes its weight; as in the released code.

    Of several midpoints and widths the pair is taken that is most accurate on ID validation. The
    paper has (1.5, 0.5) for CLIP ViT-B/16 on ImageNet, its code (1.5, 0.6), and (0.3, 0.3) on
    CIFAR-10.
    """

    parent: Annotated[str, Field(description="label of the fine-tuned run")] = "full"
    midpoints: Annotated[
        tuple[float, ...],
        Field(min_length=1, description="a: squared distances at which both models weigh alike"),
    ] = (1.5,)
    widths: Annotated[
        tuple[Annotated[float, Field(gt=0)], ...],
        Field(min_length=1, description="b: how much farther the weight's log-odds fall by one"),
    ] = (0.6,)
    neighbours: Annotated[
        float,
        Field(
            gt=0,
            le=1,
            description="the distance is that to the k-th nearest centre, where k is this part of "
            "the centres, 1 at least",
        ),
    ] = 0.001


def squared_distances(features: Array, centres: Array, k: int) -> Numbers:
    """Squared Euclidean distance (n,) of features to their k-th nearest centre.

    Without any centre it is infinite.

    Args:
        features: (n, width), L2-normalised.
        centres: (m, width), L2-normalised.
        k: from 1 to m.
    """
    if not len(centres):
        return np.full(len(features), np.inf)
    parts = [features[i : i + QUERIES] @ centres.T for i in range(0, len(features), QUERIES)]
    nearness = [np.partition(part, -k, axis=1)[:, -k].astype(np.float64) for part in parts]
    return 2 - 2 * np.concatenate(nearness)


class Vrf(EnsembleMethod[VrfConfig]):
    """Variance reduction fine-tuning: probabilities mixed by distance (arXiv 2411.06966).

    Centres are the features of the training images that the fine-tuned model gets right and the
    zero-shot model wrong. The fine-tuned model's weight is σ((a - d) / b) of the squared distance d
    from its features of an image; both models are calibrated on ID validation, where the released
    code takes the ID test set. Where fine-tuning mended nothing, the zero-shot model answers alone.
    """

    name: ClassVar[str] = "vrf"
    Config: ClassVar[type[MethodConfig]] = VrfConfig
    kept: bool = True
    projected: bool = True
    seeded: bool = False

    def parents(self) -> tuple[Parent, ...]:
        """The fine-tuned run."""
        return (Parent(self.config.parent),)

    def fit(
        self, id_val: Callable[[], Labelled], train: Callable[[], Labelled]
    ) -> Mapping[str, Array]:
        """Centres (m, width), temperatures (2,) of both models, and the ``point`` (a, b)."""
        members, labels = train()
        (fine_tuned,) = members.parents.values()
        mended = fine_tuned.logits.argmax(axis=1) == labels
        mended &= members.zero_shot.logits.argmax(axis=1) != labels
        centres, held_out = fine_tuned.features[mended], id_val()
        temperatures = calibrated_temperatures(held_out)
        pairs = product(self.config.midpoints, self.config.widths)
        point, *others = (np.array(pair, np.float32) for pair in pairs)
        if others:
            distances = self._distances(held_out.members, centres)

            def accuracy(point: Array) -> float:
                logits = mixed(held_out.members, distances, temperatures, point)
                return float((logits.argmax(axis=1) == held_out.labels).mean())

            point = max((point, *others), key=accuracy)
        return {"centres": centres, "temperatures": temperatures, "point": point}

    def combine(self, variant: str, members: Members, fitted: Mapping[str, Array]) -> Array:
        """The log of the mixed probabilities."""
        distances = self._distances(members, fitted["centres"])
        return mixed(members, distances, fitted["temperatures"], fitted["point"])

    def _distances(self, members: Members, centres: Array) -> Numbers:
        """Squared distance (n,) of each example to the centre that counts."""
        (fine_tuned,) = members.parents.values()
        k = max(1, int(self.config.neighbours * len(centres)))
        return squared_distances(fine_tuned.features, centres, k)


def mixed(members: Members, distances: Numbers, temperatures: Array, point: Array) -> Array:
    """The log (n, classes) of probabilities that are mixed by distance.

    Args:
        members: the zero-shot model and the fine-tuned one.
        distances: d, (n,).
        temperatures: (2,) of both.
        point: (a, b).
    """
    (fine_tuned,) = members.parents.values()
    midpoint, width = point.astype(np.float64)
    logits = (members.zero_shot.logits, fine_tuned.logits)
    scaled = [z / t for z, t in zip(logits, temperatures, strict=True)]
    with np.errstate(over="ignore"):  # far away the weight is zero
        weight = 1 / (1 + np.exp((distances - midpoint) / width))[:, None]
    return mean_probabilities((1 - weight, weight), scaled)
