"""EMA: full fine-tuning that ends with a moving average of its weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from shiftbench.methods.builtin.full import Full
from shiftbench.methods.config import MethodConfig, TrainingConfig

if TYPE_CHECKING:
    from torch import Tensor

    from shiftbench.methods.base import Context, Weights
    from shiftbench.models.classifier import ImageClassifier


class EmaConfig(TrainingConfig):
    """Settings of full fine-tuning, and of the average."""

    decay: Annotated[float, Field(ge=0, lt=1, description="β, of every optimizer step")] = 0.999
    debias: Annotated[
        bool,
        Field(description="forget where training began: the mean starts at 0, over 1 - β^t"),
    ] = False


def ema_share(step: int, decay: float, debias: bool) -> float:
    """Share c of the newest weights in μ_t = μ_{t-1} + c · (θ_t - μ_{t-1}), at ``step`` t ≥ 1.

    Biased (μ_0 = θ_0): 1 - β. Debiased: (1 - β) / (1 - β^t), which gives the same as a mean that
    starts at zero and is divided by 1 - β^t, but never subtracts numbers that are nearly equal; a
    weight that stays what it was is its own mean bit for bit.
    """
    return (1 - decay) / (1 - decay**step) if debias else 1 - decay


class Averaging(Full):
    """Full fine-tuning that yields a running mean of the weights that it passes through.

    The mean covers parameters and floating-point buffers, in fp32 on the model's device. So with
    ``batch_norm: train`` running statistics are averaged like any weight, not computed anew for the
    averaged weights. Integer buffers are those of the last step.
    """

    shardable: bool = False

    def share(self, step: int) -> float:
        """Share of the weights after ``step`` steps in the new mean; 0: they have no part in it."""
        raise NotImplementedError

    def prepare(self, model: ImageClassifier, context: Context) -> None:
        """Begin the mean at the pretrained weights."""
        self._mean: dict[str, Tensor] = {
            name: tensor.detach().float().clone()
            for name, tensor in model.state_dict().items()
            if tensor.is_floating_point()
        }
        self._begun = False

    def after_step(self, model: ImageClassifier, step: int) -> None:
        """Move the mean."""
        share = self.share(step)
        if share == 0:
            return
        self._begun = True
        weights = model.state_dict()
        for name, mean in self._mean.items():
            mean.lerp_(weights[name].detach().float(), share)

    def state(self) -> dict[str, Any]:
        """The mean, and whether anything is in it."""
        return {"mean": self._mean, "begun": self._begun}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back the mean."""
        for name, mean in self._mean.items():
            mean.copy_(state["mean"][name])
        self._begun = state["begun"]

    def weights(self, model: ImageClassifier) -> Weights:
        """The mean; before anything is in it, the present weights."""
        last = model.state_dict()
        if not self._begun:
            return last
        return {
            name: self._mean[name].to(tensor.dtype) if name in self._mean else tensor
            for name, tensor in last.items()
        }


class Ema(Averaging):
    """Exponential moving average of the weights (WiSE-FT, arXiv 2109.01903, App. C.3.2)."""

    name: ClassVar[str] = "ema"
    Config: ClassVar[type[MethodConfig]] = EmaConfig
    config: EmaConfig

    def share(self, step: int) -> float:
        """As ``ema_share``."""
        return ema_share(step, self.config.decay, self.config.debias)
