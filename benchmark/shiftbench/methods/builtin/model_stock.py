"""Model Stock: the average of a few fine-tuned models, pulled to the pretrained one."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from shiftbench.methods.base import DerivedMethod, Parent
from shiftbench.methods.config import MethodConfig
from shiftbench.methods.merging import MergeConfig

if TYPE_CHECKING:
    from torch import Tensor

    from shiftbench.methods.base import Derivation, Weights


class ModelStockConfig(MergeConfig):
    """The runs that are merged, and of what the angle between them is taken.

    They should differ in their seed: runs with the same order of data and another rate are so
    nearly parallel that hardly anything is pulled. The paper merges two.
    """

    fewest: ClassVar[int] = 2

    angle: Annotated[
        Literal["tensor", "row"],
        Field(
            description="of whole tensors (the paper's layer-wise merge), or of each row of a "
            "matrix (filter-wise)"
        ),
    ] = "tensor"


def pulled_mean(deltas: Tensor) -> Tensor:
    """T · mean of the deltas, t = n cos / (1 + (n - 1) cos) (arXiv 2403.19522).

    The cosine is the mean over all pairs of models, which the paper leaves open for n > 2 and
    mergekit takes. Where it is negative t would be below 0, or have a pole: the ratio is in [0, 1].
    A model that has not moved has cosine 0 with every other.

    Args:
        deltas: (n, …, k): differences of n models from the pretrained weights; angles are between
            vectors along the last dimension.

    Returns:
        What to add to the pretrained weights, (…, k) float64.
    """
    import torch

    deltas = deltas.double()
    n, norms = len(deltas), deltas.norm(dim=-1)
    cosines = []
    for i, j in combinations(range(n), 2):
        product = norms[i] * norms[j]
        inner = (deltas[i] * deltas[j]).sum(-1)
        cosines.append(torch.where(product > 0, inner / product, 0.0))
    cosine = torch.stack(cosines).mean(0).clamp(min=0)
    ratio = n * cosine / (1 + (n - 1) * cosine)
    return ratio.clamp(max=1).unsqueeze(-1) * deltas.mean(0)


class ModelStock(DerivedMethod[ModelStockConfig]):
    """Tensor by tensor t · mean + (1 - t) · zero-shot (Jang et al. 2024, arXiv 2403.19522).

    The paper's merge after training; that between epochs, after which both runs go on from the
    merged weights, is not here. It needs no validation data.
    """

    name: ClassVar[str] = "model-stock"
    Config: ClassVar[type[MethodConfig]] = ModelStockConfig
    kept: bool = True
    seeded: bool = False

    def parents(self) -> tuple[Parent, ...]:
        """The fine-tuned runs, each of every seed."""
        return self.config.runs

    def selects(self) -> bool:
        """False: it looks at no labels."""
        return False

    def derive(self, variant: str, derivation: Derivation) -> Weights:
        """The merged weights."""
        from shiftbench.models.task_vectors import TaskVectors, added

        vectors = TaskVectors(derivation.zero_shot, self.config.weights(derivation))

        def change(name: str) -> Tensor:
            deltas = vectors.of(name)
            by_row = self.config.angle == "row" and deltas.ndim > 2
            return pulled_mean(deltas.flatten(2 if by_row else 1)).view(deltas.shape[1:])

        return added(derivation.zero_shot, change)
