"""FTP: each tensor stays within a radius of its pretrained values, which gradients adjust."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from shiftbench.methods.anchors import AnchoredConfig, Anchors
from shiftbench.methods.builtin.full import Full
from shiftbench.methods.builtin.tpgm import SMALLEST, norms_of, projected
from shiftbench.methods.config import MethodConfig
from shiftbench.methods.search import Searched, Uniform

if TYPE_CHECKING:
    from torch import Tensor

    from shiftbench.methods.base import Context
    from shiftbench.models.classifier import ImageClassifier

RATE, BETAS = 1e-2, (0.9, 0.999)
"""Of Adam on the radii; constants of the released code."""


class FtpConfig(AnchoredConfig):
    """Settings of full fine-tuning, and how readily radii shrink."""

    kappa: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="κ, a factor of gradients that shrink a radius; 0: radii only grow, so "
            "weights are held least; 1, as released, holds them most",
        ),
        Searched(Uniform(low=0, high=1)),
    ] = 1.0


class Ftp(Full):
    """Fast trainable projection after every step of AdamW (Tian et al. 2023, arXiv 2310.19182).

    The change c = u - θ0 of a tensor is cut, row by row, to a radius γ by the sum of magnitudes,
    over all of the tensor where it has one dimension. γ descends the loss of the training batch,
    whose slope in it is that along the change before: Σ ∇ · c / ‖c‖ over rows. It begins at almost
    nothing, so that the first step is undone.
    """

    name: ClassVar[str] = "ftp"
    Config: ClassVar[type[MethodConfig]] = FtpConfig
    config: FtpConfig
    shardable: bool = False

    def prepare(self, model: ImageClassifier, context: Context) -> None:
        """Copy the parameters that train; radii of almost nothing."""
        self._anchors = Anchors(model, head=self.config.include_head)
        like, tensors = next(model.parameters()).detach(), len(self._anchors.values)
        self._radii = like.new_full((tensors,), SMALLEST)
        self._moments = like.new_zeros((2, tensors))
        self._changes: dict[str, Tensor] = {}

    def before_step(self, model: ImageClassifier) -> None:
        """The slope of the loss in every radius, by the gradient before it is clipped."""
        import torch

        slopes = torch.zeros_like(self._radii)
        with torch.no_grad():
            for i, (name, change) in enumerate(self._changes.items()):
                gradient = model.get_parameter(name).grad
                if gradient is not None:
                    norms = norms_of(change, "mars") + SMALLEST
                    slopes[i] = (gradient * change / norms).sum()
        self._slopes = slopes

    def after_step(self, model: ImageClassifier, step: int) -> None:
        """Adjust the radii, and cut what AdamW has changed to them."""
        import torch

        with torch.no_grad():
            held = self._anchors.parameters(model)
            anchors = self._anchors.values
            changes = [theta - theta0 for theta, theta0 in zip(held, anchors.values(), strict=True)]
            norms = [norms_of(change, "mars") for change in changes]
            if step > 1:
                largest = torch.stack([norm.max() for norm in norms]) + SMALLEST
                self._radii = self._adjusted(step).clamp(min=SMALLEST).minimum(largest)
            cut = map(projected, anchors.values(), changes, self._radii, norms)
            for theta, value in zip(held, cut, strict=True):
                theta.copy_(value)
            self._changes = dict(zip(anchors, changes, strict=True))

    def state(self) -> dict[str, Any]:
        """The radii, Adam's moments of them, and the changes of the last step before they were cut.

        A change cannot be told from the weights: what is left of it may be lost to rounding.
        """
        return {"radii": self._radii, "moments": self._moments, "changes": self._changes}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what ``state`` gave."""
        self._radii.copy_(state["radii"])
        self._moments.copy_(state["moments"])
        self._changes = {
            name: state["changes"][name].to(theta0.device)
            for name, theta0 in self._anchors.values.items()
            if name in state["changes"]
        }

    def _adjusted(self, step: int) -> Tensor:
        """The radii after Adam's step on them; the first that counts is the second."""
        import torch

        slopes = torch.where(self._slopes > 0, self.config.kappa * self._slopes, self._slopes)
        first, second = self._moments
        first.lerp_(slopes, 1 - BETAS[0])
        second.lerp_(slopes.square(), 1 - BETAS[1])
        mean, square = (
            moment / (1 - beta**step) for moment, beta in zip((first, second), BETAS, strict=True)
        )
        adjusted: Tensor = self._radii - RATE * mean / (square.sqrt() + 1e-8)
        return adjusted
