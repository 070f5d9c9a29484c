"""The runs that others build on, and what an ensemble is given of its members' outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array = npt.NDArray[np.float32]
    Labels = npt.NDArray[np.int64]
    Positions = npt.NDArray[np.int64]


class Parent(NamedTuple):
    """A run that another one builds on.

    Attributes:
        label: of its method in the suite.
        seed: of that run; ``None`` for the seed of the run that builds on it. The plan adds runs of
            seeds that the suite does not ask for.
    """

    label: str
    seed: int | None = None


class Outputs(NamedTuple):
    """One model's outputs on n examples.

    Attributes:
        features: L2-normalised image features (n, width), fp32.
        logits: (n, classes), fp32.
    """

    features: Array
    logits: Array


class Members(NamedTuple):
    """The outputs of an ensemble's members on the same examples, in the same order.

    Attributes:
        zero_shot: the pretrained model.
        parents: of each parent, the variant that stands for it.
        between: outputs of the weights (1 - α) · pretrained + α · parent on the examples at some
            positions, from the parent, α and the positions: one more pass of these images.
    """

    zero_shot: Outputs
    parents: Mapping[Parent, Outputs]
    between: Callable[[Parent, float, Positions], Outputs]


class Labelled(NamedTuple):
    """Members' outputs on examples whose labels, (n,) int64, may be looked at."""

    members: Members
    labels: Labels
