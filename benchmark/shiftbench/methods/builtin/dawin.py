"""DaWin: weights interpolated for groups of test images, by how sure each model is of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from shiftbench.methods.base import EnsembleMethod, Parent
from shiftbench.methods.beta_mixture import fit_mixture
from shiftbench.methods.calibration import calibrated_temperatures
from shiftbench.methods.config import MethodConfig
from shiftbench.methods.mixing import mean_probabilities

if TYPE_CHECKING:
    import numpy.typing as npt

    from shiftbench.methods.base import Array
    from shiftbench.methods.members import Labelled, Members

    Numbers = npt.NDArray[np.float64]

Temperature = Annotated[float, Field(gt=0)]


class DawinConfig(MethodConfig):
    """The fine-tuned run, and how its share of each test image is found; as in the paper."""

    parent: Annotated[str, Field(description="label of the fine-tuned run")] = "full"
    space: Annotated[
        Literal["weights", "probabilities"],
        Field(
            description="weights: one merged model for each group of images, whose share is the "
            "group's mean; probabilities: those of both models, mixed image by image"
        ),
    ] = "weights"
    groups: Annotated[
        int, Field(ge=1, description="components of the Beta mixture that the shares are cut into")
    ] = 3
    offset: Annotated[
        bool, Field(description="shift all shares by how the entropies of the whole set spread")
    ] = True
    temperatures: Annotated[
        Literal["id-val"] | tuple[Temperature, Temperature],
        Field(
            description="of the zero-shot and the fine-tuned model's logits; id-val: such that "
            "mean confidence is accuracy on ID validation. The released code has [0.96, 1.0066] "
            "for CLIP ViT-B/16 on ImageNet and [0.9576, 0.9733] for ViT-B/32"
        ),
    ] = "id-val"


def entropy(logits: Array, temperature: float) -> Numbers:
    """Entropy (n,) of softmax(z / T) of logits z (n, classes), in nats, float64."""
    from scipy.special import log_softmax

    logs = log_softmax(logits.astype(np.float64) / temperature, axis=1)
    total: Numbers = -(np.exp(logs) * logs).sum(axis=1)
    return total


def shares(zero_shot: Numbers, fine_tuned: Numbers, *, offset: bool) -> Numbers:
    """The fine-tuned model's share (n,) of each image, from both models' entropies (n,)."""
    sure0, sure1 = np.exp(-zero_shot), np.exp(-fine_tuned)
    mean0, mean1 = float(zero_shot.mean()), float(fine_tuned.mean())
    b, part = 0.0, 0.0
    if offset and len(zero_shot) > 1 and mean0 and mean1:  # a model may be sure of every image
        spreads = zero_shot.std(ddof=1) / mean0, fine_tuned.std(ddof=1) / mean1
        b, part = float(sum(spreads)) / 2, mean0 / (mean0 + mean1)
    share: Numbers = (sure1 + b * part) / (sure0 + sure1 + b)
    return share


class Dawin(EnsembleMethod[DawinConfig]):
    """Dynamic weight interpolation by entropy, transductive (Oh et al. 2025, arXiv 2410.03782).

    The fine-tuned model's share of an image is exp(-entropy) of its answer against that of the
    zero-shot model's. A mixture of Beta distributions cuts the shares of an evaluation set into
    groups; each has one model, whose weights are interpolated at the mean of its component. Both
    the mixture and the offset look at all unlabelled images of the set at once.

    One merged model for every single image, which the paper has too, takes as many models as
    images, and is not here; ``space: probabilities`` mixes with the same shares in output space.
    """

    name: ClassVar[str] = "dawin"
    Config: ClassVar[type[MethodConfig]] = DawinConfig
    projected: bool = True
    transductive: bool = True
    seeded: bool = False

    def __init__(self, config: DawinConfig) -> None:
        super().__init__(config)
        self.kept = config.temperatures == "id-val"

    def parents(self) -> tuple[Parent, ...]:
        """The fine-tuned run."""
        return (Parent(self.config.parent),)

    def fit(
        self, id_val: Callable[[], Labelled], train: Callable[[], Labelled]
    ) -> Mapping[str, Array]:
        """Temperatures (2,) of the zero-shot model and the fine-tuned one, if any are fitted."""
        return {"temperatures": calibrated_temperatures(id_val())} if self.kept else {}

    def combine(self, variant: str, members: Members, fitted: Mapping[str, Array]) -> Array:
        """Logits of the merged models, or the log of mixed probabilities."""
        ((parent, fine_tuned),) = members.parents.items()
        logits = (members.zero_shot.logits, fine_tuned.logits)
        temperatures = fitted["temperatures"] if self.kept else self.config.temperatures
        pairs = [(z, float(t)) for z, t in zip(logits, temperatures, strict=True)]
        found = shares(*(entropy(z, t) for z, t in pairs), offset=self.config.offset)
        if self.config.space == "probabilities":
            scaled = [(z / t).astype(np.float32) for z, t in pairs]
            return mean_probabilities((1 - found[:, None], found[:, None]), scaled)
        means, group = fit_mixture(found, self.config.groups)
        combined = np.empty_like(logits[0])
        for i, alpha in enumerate(means):
            positions = np.flatnonzero(group == i)
            if len(positions):
                combined[positions] = members.between(parent, float(alpha), positions).logits
        return combined
