"""Parameters that train by their settings, but have no part in the loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from shiftbench.execution.course import LOSS
from shiftbench.models.precision import autocast, matrix_precision

if TYPE_CHECKING:
    from shiftbench.methods.base import Batch, TrainedMethod
    from shiftbench.methods.config import MethodConfig
    from shiftbench.models.classifier import ImageClassifier


def freeze_unused(
    model: ImageClassifier, method: TrainedMethod[MethodConfig], probe: Batch
) -> tuple[str, ...]:
    """Freeze the parameters that train but have no part in the loss; their names.

    They never get a gradient, so that no optimizer moves them, but workers that share a training
    would wait for it. An example is SigLIP's ``logit_bias`` under a contrastive loss without bias.

    Args:
        model: prepared by the method.
        method: whose loss is meant.
        probe: examples of which the loss is computed once, in eval mode.
    """
    training = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not training:
        return ()
    mode = model.training
    model.eval()
    # A method may keep what it computes here, so the precision is that of the training.
    precision, device = method.training.precision, next(iter(training.values())).device
    with matrix_precision(precision):
        with autocast(precision, device):
            loss = method.loss(model, probe)[LOSS]
        gradients = torch.autograd.grad(loss, list(training.values()), allow_unused=True)
    model.train(mode)
    unused = tuple(
        name for name, gradient in zip(training, gradients, strict=True) if gradient is None
    )
    for name in unused:
        training[name].requires_grad_(False)
    return unused
