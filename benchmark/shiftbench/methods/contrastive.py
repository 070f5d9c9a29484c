"""CLIP's contrastive loss over the images and captions of a whole batch, on any number of workers.

Radford et al. 2021 (arXiv 2103.00020, fig. 3); as an objective of fine-tuning it is FLYP's
(Goyal et al. 2023, arXiv 2212.00638, sec. 3).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple, TypeAlias

from pydantic import Field

from shiftbench.methods.config import TrainingConfig

if TYPE_CHECKING:
    from torch import Tensor

    from shiftbench.methods.base import Batch
    from shiftbench.methods.teachers import Teacher
    from shiftbench.models.classifier import ImageClassifier

Duplicates: TypeAlias = Literal["keep", "mask", "soft"]
"""Treatment of other examples of a caption's class: negatives, left out, or positives."""

EveryHead = Annotated[
    Literal[True],
    Field(exclude_if=lambda value: value, description="the text tower makes the head anew"),
]
"""``train_head`` of methods whose head is that of the ``text`` architecture."""


class ContrastiveConfig(TrainingConfig):
    """Settings of a training on captions, as FLYP has them (its README)."""

    lr: Annotated[float, Field(gt=0, description="peak learning rate of AdamW")] = 1e-5
    max_grad_norm: Annotated[
        float | None, Field(gt=0, description="global gradient norm; null: off")
    ] = None
    label_smoothing: Annotated[
        float, Field(ge=0, le=0, description="the contrastive loss has none")
    ] = 0.0
    train_head: EveryHead = True


def contrastive_loss(
    images: Tensor,
    texts: Tensor,
    scale: Tensor | float,
    labels: Tensor | None = None,
    duplicates: Duplicates = "keep",
) -> Tensor:
    """(CE(s · I Tᵀ, i) + CE(s · T Iᵀ, i)) / 2, the mean over examples i; computed in fp32 at least.

    Args:
        images: L2-normalised features (n, width).
        texts: L2-normalised embeddings (n, width) of the captions of those images.
        scale: s, what cosines are multiplied with.
        labels: (n,) int64; needed unless ``duplicates`` is ``keep``.
        duplicates: ``keep`` has example i alone as the target, all others as negatives, also those
            of its class (as FLYP does); ``mask`` takes those out of the denominators; ``soft``
            spreads the target equally over all examples of the class.

    Returns:
        Scalar.
    """
    import torch
    from torch.nn.functional import cross_entropy

    with torch.autocast(images.device.type, enabled=False):
        logits = scale * (images @ texts.T)
        target = torch.arange(len(logits), device=logits.device)
        if duplicates != "keep":
            if labels is None:
                raise ValueError(f'duplicates "{duplicates}" needs labels')
            same = labels[:, None] == labels[None, :]
            if duplicates == "mask":
                others = same.clone().fill_diagonal_(False)
                logits = logits.masked_fill(others, -torch.inf)
            else:
                target = same.to(logits) / same.sum(dim=1, keepdim=True)
        # `same` is symmetric, so captions have the targets that images have.
        return (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2


def gather(local: Tensor) -> Tensor:
    """The tensors of all W workers, (W · n, …) in rank order; with one worker ``local`` itself.

    For a loss that every worker computes of the global batch, and whose gradients DDP averages:
    the worker's own part carries W times its gradient and the others' none, so the mean over
    workers is the exact gradient of the global loss. Parameters that act after the gathering, such
    as the temperature, get that gradient on every worker.

    Args:
        local: (n, …), of the same shape on all workers.
    """
    import torch
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return local
    size = dist.get_world_size()
    own = local.detach().contiguous()
    parts = [torch.empty_like(own) for _ in range(size)]
    dist.all_gather(parts, own)
    if local.requires_grad:
        parts[dist.get_rank()] = own + size * (local - own)
    return torch.cat(parts)


class Pairs(NamedTuple):
    """The images and captions of a global batch, as a model sees them.

    Attributes:
        images: L2-normalised features (n, width).
        texts: L2-normalised embeddings (n, width) of the captions of those images.
        scale: what cosines are multiplied with, a scalar.
    """

    images: Tensor
    texts: Tensor
    scale: Tensor

    def logits(self, texts: Tensor | None = None) -> Tensor:
        """The matrix s · I Tᵀ (n, n), fp32 at least; ``texts`` instead of its own where given."""
        import torch

        with torch.autocast(self.images.device.type, enabled=False):
            return self.scale * (self.images @ (self.texts if texts is None else texts).T)


def gathered_pairs(model: ImageClassifier | Teacher, batch: Batch) -> Pairs:
    """The pairs of the global batch, the same on every worker; see ``gather``."""
    images = gather(model.features(batch.inputs))
    return Pairs(images, _gathered_captions(model, batch), model.temperature)


def _gathered_captions(model: ImageClassifier | Teacher, batch: Batch) -> Tensor:
    if batch.captions is None:
        raise ValueError("the contrastive loss needs captions")
    return gather(model.encode_text(batch.captions))


def batch_contrastive_loss(
    model: ImageClassifier, batch: Batch, features: Tensor, duplicates: Duplicates = "keep"
) -> Tensor:
    """The contrastive loss of the global batch, the same on every worker; see ``gather``.

    Args:
        model: its text tower encodes the captions, its temperature is the scale.
        batch: this worker's examples, with captions.
        features: of their images, normalised (n, width).
        duplicates: as for ``contrastive_loss``.
    """
    texts = _gathered_captions(model, batch)
    labels = None if duplicates == "keep" else gather(batch.labels)
    return contrastive_loss(gather(features), texts, model.temperature, labels, duplicates)
