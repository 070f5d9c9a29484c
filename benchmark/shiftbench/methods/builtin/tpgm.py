"""TPGM: how far each tensor may go from its pretrained values, learned on ID validation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count, islice
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from shiftbench.core.errors import RunFailedError
from shiftbench.methods.base import Batch, DerivedMethod, Parent
from shiftbench.methods.config import MethodConfig

if TYPE_CHECKING:
    from torch import Tensor

    from shiftbench.methods.base import Derivation, Weights

Norm = Literal["l2", "mars"]
SMALLEST = 1e-8
"""The smallest radius, and what is added to a norm before it divides."""


class TpgmConfig(MethodConfig):
    """The run that is projected, and how its radii are learned; as in the released code."""

    parent: Annotated[str, Field(description="label of the fine-tuned run")] = "full"
    norm: Annotated[
        Norm,
        Field(
            description="of a tensor's change: l2, Euclidean, as for CLIP's transformers; mars, "
            "the sum of magnitudes of each row"
        ),
    ] = "l2"
    lr: Annotated[
        float,
        Field(
            gt=0, description="of Adam on the radii, absolute: those far above lr · iterations stay"
        ),
    ] = 1e-2
    iterations: Annotated[int, Field(ge=1, description="batches of ID validation")] = 200
    batch_size: Annotated[int, Field(ge=1, description="examples of a batch")] = 64


def norms_of(delta: Tensor, norm: Norm) -> Tensor:
    """The norm of a tensor's change, in a shape that divides it.

    ``l2``: one number. ``mars``: one for each row (entry of the first dimension); of tensors of one
    dimension one in all, as in the released code.
    """
    if norm == "l2":
        length: Tensor = delta.norm()
        return length
    if delta.ndim < 2:
        return delta.abs().sum()
    return delta.abs().sum(dim=tuple(range(1, delta.ndim)), keepdim=True)


def projected(theta0: Tensor, delta: Tensor, radius: Tensor, norms: Tensor) -> Tensor:
    """θ0 + min(1, γ / ‖Δ‖) · Δ: the change Δ cut to a radius γ."""
    return theta0 + (radius / (norms + SMALLEST)).clamp(max=1) * delta


def endless(
    batches: Callable[[int, int], Iterator[Batch]], size: int, seed: int
) -> Iterator[Batch]:
    """Batches of one pass after the other, each in an order of its own."""
    for epoch in count(seed):
        yield from batches(size, epoch)


class Tpgm(DerivedMethod[TpgmConfig]):
    """Trainable projected gradient method, post hoc (Tian et al. 2023, arXiv 2303.10720).

    Every tensor of the fine-tuned model, biases, norms and the head among them, has a radius that
    starts at half the (smallest) norm of its change; Adam lowers the cross-entropy of the projected
    model on ID validation, in eval mode. So it is a WiSE-FT whose α is learned tensor by tensor.

    The released script learns the radii on the images that it then tests on; here it is the ID
    validation set. Of a text tower, which has no part in the loss of a linear head, tensors keep
    half their change.
    """

    name: ClassVar[str] = "tpgm"
    Config: ClassVar[type[MethodConfig]] = TpgmConfig
    kept: bool = True

    def parents(self) -> tuple[Parent, ...]:
        """The fine-tuned run."""
        return (Parent(self.config.parent),)

    def derive(self, variant: str, derivation: Derivation) -> Weights:
        """The fine-tuned weights, each tensor's change cut to the radius that was learned.

        Raises:
            RunFailedError: the parent's head is computed from its text tower, so that no gradient
                reaches the weights that it is made of.
        """
        import torch
        from torch.func import functional_call
        from torch.nn.functional import cross_entropy
        from torch.optim import Adam

        if "head.weight" not in derivation.zero_shot:
            raise RunFailedError(
                f"tpgm: the head of {self.config.parent} is computed from its text tower, whose "
                "radii cannot be learned; a parent needs a linear head"
            )
        (fine_tuned,) = derivation.parents.values()
        model = derivation.model(fine_tuned).requires_grad_(False)
        device = next(model.parameters()).device
        start: dict[str, Tensor] = {}
        norms: dict[str, Tensor] = {}
        for name, theta in model.named_parameters():
            theta0 = derivation.zero_shot[name].to(device)
            size = norms_of(theta - theta0, self.config.norm)
            if size.any():  # what has not moved has no radius
                start[name], norms[name] = theta0, size
        radii = {name: (size.min() / 2).requires_grad_() for name, size in norms.items()}

        def projection() -> dict[str, Tensor]:
            with torch.no_grad():
                for name, radius in radii.items():
                    radius.clamp_(SMALLEST).clamp_(max=norms[name].max())
            moved = {name: model.get_parameter(name) - theta0 for name, theta0 in start.items()}
            return {
                name: projected(start[name], delta, radii[name], norms[name])
                for name, delta in moved.items()
            }

        if radii:
            optimizer = Adam(list(radii.values()), lr=self.config.lr)
            batches = endless(derivation.id_val_batches, self.config.batch_size, derivation.seed)
            for batch in islice(batches, self.config.iterations):
                optimizer.zero_grad()
                logits = functional_call(model, projection(), (batch.inputs,))
                torch.autograd.backward(cross_entropy(logits, batch.labels))
                optimizer.step()
        with torch.no_grad():
            return {**fine_tuned, **{name: theta.cpu() for name, theta in projection().items()}}
