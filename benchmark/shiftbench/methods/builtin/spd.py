"""SPD: steps that go back towards the pretrained weights are shortened, tensor by tensor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from shiftbench.methods.anchors import AnchoredConfig, Anchors
from shiftbench.methods.builtin.full import Full
from shiftbench.methods.config import MethodConfig
from shiftbench.methods.search import LogUniform, Searched

if TYPE_CHECKING:
    from torch import Tensor

    from shiftbench.methods.base import Context
    from shiftbench.models.classifier import ImageClassifier


class SpdConfig(AnchoredConfig):
    """Settings of full fine-tuning, and the strength, called ``weight_decay`` in released code."""

    include_head: Annotated[bool, Field(description="hold the head too")] = True
    strength: Annotated[
        float,
        Field(
            ge=0,
            description="λ: 1 takes a tensor back to the distance that it had, more brings it "
            "nearer; not multiplied by the learning rate",
        ),
        Searched(LogUniform(low=0.1, high=10)),
    ] = 1.0


def shares_taken_back(slopes: Tensor, before: Tensor, after: Tensor, strength: float) -> Tensor:
    """The share of each tensor's change θ - θ0 that is taken back after a step.

    λ · max(0, (‖u - θ0‖ - ‖θ - θ0‖) / ‖u - θ0‖) where ⟨∇, θ - θ0⟩ > 0, so that descent points back
    towards θ0; else 0.

    Args:
        slopes: ⟨∇, θ - θ0⟩ of every tensor, (n,), before the step.
        before: ‖θ - θ0‖, (n,), before the step.
        after: ‖u - θ0‖, (n,), after it.
        strength: λ.
    """
    import torch

    beyond = ((after - before) / after).clamp(0, 1)
    back = (slopes > 0) & (after > 0)
    return torch.where(back, strength * beyond, torch.zeros_like(beyond))


class Spd(Full):
    """Selective projection decay, AdamSPD (Tian et al. 2024, arXiv 2411.01713).

    AdamW's step is taken first. Of a tensor whose gradient says that the loss falls towards θ0, and
    which has gone further from it all the same, a share of the change is then taken back.
    """

    name: ClassVar[str] = "spd"
    Config: ClassVar[type[MethodConfig]] = SpdConfig
    config: SpdConfig
    shardable: bool = False

    def prepare(self, model: ImageClassifier, context: Context) -> None:
        """Copy the parameters that train."""
        self._anchors = Anchors(model, head=self.config.include_head)

    def before_step(self, model: ImageClassifier) -> None:
        """Note for each tensor how far it is from θ0, and whether descent points back there."""
        import torch

        with torch.no_grad():
            changes = self._changes(model)
            gradients = [theta.grad for theta in self._anchors.parameters(model)]
            self._before = _norms(changes)
            self._slopes = torch.stack(
                [
                    change.new_zeros(()) if gradient is None else (gradient * change).sum()
                    for gradient, change in zip(gradients, changes, strict=True)
                ]
            )

    def after_step(self, model: ImageClassifier, step: int) -> None:
        """Take a share of each tensor's change back."""
        import torch

        with torch.no_grad():
            changes = self._changes(model)
            shares = shares_taken_back(
                self._slopes, self._before, _norms(changes), self.config.strength
            )
            held = self._anchors.parameters(model)
            for theta, share, change in zip(held, shares, changes, strict=True):
                theta.sub_(share * change)

    def _changes(self, model: ImageClassifier) -> list[Tensor]:
        """θ - θ0 of every tensor that is held."""
        held, anchors = self._anchors.parameters(model), self._anchors.values.values()
        return [theta - theta0 for theta, theta0 in zip(held, anchors, strict=True)]


def _norms(tensors: list[Tensor]) -> Tensor:
    """Euclidean norms, (n,)."""
    import torch

    return torch.stack([tensor.norm() for tensor in tensors])
