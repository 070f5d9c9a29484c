"""The candidates of a sparse fine-tuning, and the gradients by which they are ranked.

``models.sparse`` selects those with the largest scores.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias

from shiftbench.methods.base import Batch

if TYPE_CHECKING:
    from torch import Tensor, nn

    from shiftbench.models.classifier import ImageClassifier

Towers: TypeAlias = Literal["both", "image", "text"]
Include: TypeAlias = Literal["all", "weights", "no-embeddings"]
Score: TypeAlias = Literal[
    "abs-mean-grad",
    "mean-abs-grad",
    "fisher",
    "grad-times-weight",
    "grad-over-weight",
    "magnitude",
    "random",
]

TEMPERATURES = ("text.logit_scale", "text.logit_bias")
EMBEDDINGS = ("embedding", "pos_embed", "cls_token")
EPSILON = 1e-8
"""Added to |w| in ``grad-over-weight``, so that weights which are zero have a score."""


def candidates(
    model: ImageClassifier, towers: Towers = "both", include: Include = "all"
) -> dict[str, nn.Parameter]:
    """The tensors whose scalars compete, by name, in the model's order.

    Their sizes sum to N, the denominator of the density. They are those of the image tower, of the
    text tower where the model has one, and otherwise of the linear head. The logit scale, whose
    gradient would beat every other, is none: for CLIP ViT-B/16, N = 149,620,736.
    """
    linear = model.text is None

    def competes(name: str, tensor: nn.Parameter) -> bool:
        part = name.partition(".")[0]
        if name in TEMPERATURES or (part == "head" and not linear):
            return False
        if (towers == "image" and part == "text") or (towers == "text" and part != "text"):
            return False
        if include == "weights":
            return tensor.ndim >= 2
        return include == "all" or not any(word in name for word in EMBEDDINGS)

    return {name: p for name, p in model.named_parameters() if competes(name, p)}


def scaled_cosines(features: Tensor, embeddings: Tensor, temperature: Tensor) -> Tensor:
    """Logits (n, classes), fp32 also under autocast, of normalised features and embeddings."""
    import torch

    with torch.autocast(features.device.type, enabled=False):
        logits: Tensor = temperature.float() * (features.float() @ embeddings.float().T)
    return logits


def balanced(examples: Iterable[Batch], classes: int, most: int) -> Iterator[Batch]:
    """The first ⌈most / classes⌉ examples of each class, until there are ``most``."""
    left = [math.ceil(most / classes)] * classes
    for batch in examples:
        rows = []
        for row, label in enumerate(batch.labels.tolist()):
            if left[label] and most:
                rows.append(row)
                left[label] -= 1
                most -= 1
        if rows:
            yield Batch(batch.inputs[rows], batch.labels[rows])
        if not most:
            return


def mean_gradient(
    model: ImageClassifier,
    tensors: Sequence[nn.Parameter],
    examples: Iterable[Batch],
    *,
    smoothing: float = 0.0,
    chunk: int | None = None,
) -> list[Tensor]:
    """(1/n) Σᵢ ∂ℓᵢ/∂θ, the signed mean over examples, fp32.

    Every example weighs the same, however they are batched. Example i of the order sees its classes
    in template i mod T. As the weights stay, the text tower's gradient is linear in that of the
    class embeddings, so it runs not for every batch but twice for each template: once for the
    embeddings, once for the gradient. Memory: T · classes · width for the embeddings and as much
    for their gradient.

    Args:
        model: in eval mode, without gradients.
        tensors: parameters; the result has zeros where no gradient arrives.
        examples: images and labels.
        smoothing: of the labels.
        chunk: prompts encoded at a time in the backward pass.
    """
    import torch
    from torch.nn.functional import cross_entropy

    leaves: list[Tensor] = []
    if model.prompts is not None:
        with torch.no_grad():
            leaves = [model.class_embeddings(t) for t in range(len(model.prompts))]
        for leaf in leaves:
            leaf.requires_grad_(trains(model.text_tower))
    n = 0
    for inputs, labels, *_ in examples:
        features = model.features(inputs)
        logits = [(model.classify(features), labels)]
        if leaves:
            temperature = model.temperature.detach()
            rows = [slice((t - n) % len(leaves), None, len(leaves)) for t in range(len(leaves))]
            logits = [
                (scaled_cosines(features[part], leaf, temperature), labels[part])
                for leaf, part in zip(leaves, rows, strict=True)
                if part.start < len(labels)
            ]
        losses = [
            cross_entropy(of_part, target, reduction="sum", label_smoothing=smoothing)
            for of_part, target in logits
        ]
        torch.autograd.backward(torch.stack(losses).sum())
        n += len(labels)
    for template, leaf in enumerate(leaves):
        if leaf.grad is not None:
            torch.autograd.backward(model.class_embeddings(template, chunk), leaf.grad)
    means = []
    for tensor in tensors:
        grad = torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
        means.append(grad.detach().div_(n))
        tensor.grad = None
    return means


def mean_over_examples(
    loss: Callable[[Batch], Tensor],
    tensors: Sequence[nn.Parameter],
    examples: Iterable[Batch],
    of_gradient: Callable[[Tensor], Tensor],
) -> list[Tensor]:
    """(1/n) Σᵢ f(∂ℓᵢ/∂θ) for a function f of single examples' gradients, fp32.

    Costs a pass forward and back for each example, through the text tower too where that trains.

    Args:
        loss: of a batch, here of one example, with ``step`` its place in the order.
        tensors: parameters; the result has zeros where no gradient arrives.
        examples: images and labels.
        of_gradient: f, element by element.
    """
    import torch

    totals = [torch.zeros_like(tensor) for tensor in tensors]
    trained = [tensor for tensor in tensors if tensor.requires_grad]
    of_trained = [t for t, tensor in zip(totals, tensors, strict=True) if tensor.requires_grad]
    n = 0
    for inputs, labels, *_ in examples:
        for image, label in zip(torch.split(inputs, 1), torch.split(labels, 1), strict=True):
            value = loss(Batch(image, label, step=n))
            gradients = torch.autograd.grad(value, trained, allow_unused=True)
            for total, gradient in zip(of_trained, gradients, strict=True):
                if gradient is not None:
                    total += of_gradient(gradient)
            n += 1
    return [total.div_(n) for total in totals]


def combined_scores(
    score: Score, gradients: Sequence[Tensor], weights: Sequence[Tensor]
) -> list[Tensor]:
    """The score of every weight w from its gradient g: |g|, or |w · g|, or |g| / (|w| + 1e-8).

    Args:
        score: the criterion.
        gradients: overwritten with the result.
        weights: of the same shapes.
    """
    for gradient, weight in zip(gradients, weights, strict=True):
        gradient.abs_()
        if score == "grad-times-weight":
            gradient.mul_(weight.detach().abs())
        elif score == "grad-over-weight":
            gradient.div_(weight.detach().abs() + EPSILON)
    return list(gradients)


def trains(module: nn.Module) -> bool:
    """True if any parameter of a module requires a gradient."""
    return any(parameter.requires_grad for parameter in module.parameters())
