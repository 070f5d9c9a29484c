"""CLAP and ZS-LP: class prototypes trained from the zero-shot ones, for few shots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from shiftbench.methods.base import Architecture, TrainedMethod
from shiftbench.methods.config import MethodConfig
from shiftbench.methods.search import Searched, Uniform
from shiftbench.methods.sgd import SgdConfig, sgd

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

    from shiftbench.methods.base import Batch, Context, Weights
    from shiftbench.models.classifier import ImageClassifier


class ClapConfig(SgdConfig):
    """Those of the released code, for all data sets and shots; ``strength: 0`` is ZS-LP."""

    epochs: Annotated[float, Field(gt=0, description="passes over the shots")] = 300
    batch_size: Annotated[int, Field(ge=1, description="global batch, over all workers")] = 256
    strength: Annotated[
        float,
        Field(ge=0, description="of the pull to the zero-shot prototypes, times each class's own"),
        Searched(Uniform(low=0, high=10)),
    ] = 1.0
    augment: Annotated[
        bool,
        Field(
            description="train on images, augmented anew at every pass; false: on features of "
            "un-augmented images, computed once. The released code keeps those of 20 augmentations"
        ),
    ] = False


def multipliers(own: Tensor, labels: Tensor, n: int) -> Tensor:
    """How well the zero-shot model knows each class: mean probability of it on its shots.

    Args:
        own: probability (n,) of each shot's class.
        labels: (n,).
        n: number of classes.

    Returns:
        (classes,); 0 for a class without shots.
    """
    import torch

    # On a GPU the order of such a sum is not the same each time.
    of = labels.cpu()
    sums = own.new_zeros(n, device="cpu").index_add(0, of, own.cpu())
    return (sums / torch.bincount(of, minlength=n).clamp(min=1)).to(own.device)


class Clap(TrainedMethod[ClapConfig]):
    """Class-adaptive linear probe (Silva-Rodríguez et al. 2024, arXiv 2312.12730).

    Logits are s · cos(f, w_c). Prototypes w start as the zero-shot ones, each as long as the mean
    of its class's text embeddings before normalisation, as in the released code: how far a step
    turns one depends on its length. The loss is cross-entropy + strength · mean_c λ_c ‖w_c - e_c‖²,
    with λ_c the zero-shot model's mean probability of class c on the shots of c; those stay (the
    released ``l2``), and no validation data are looked at. Where the mean embedding's direction
    and that of the mean of normalised embeddings differ, the latter counts: our zero-shot head.
    """

    name: ClassVar[str] = "clap"
    Config: ClassVar[type[MethodConfig]] = ClapConfig

    def __init__(self, config: ClapConfig) -> None:
        super().__init__(config)
        self.inputs = "images" if config.augment else "features"
        self._scale: Tensor
        self._start: Tensor
        self._multipliers: Tensor

    def architecture(self) -> Architecture:
        """With the text tower, which stays as it is: it says how long prototypes are."""
        return Architecture(text=True)

    def prepare(self, model: ImageClassifier, context: Context) -> None:
        """Freeze all but the head's weight, which becomes the prototypes."""
        import torch
        from torch.nn.functional import normalize, softmax

        model.requires_grad_(False)
        weight = model.head.weight.requires_grad_(True)
        with torch.no_grad():
            self._scale = weight.norm(dim=1).mean()
            found = []
            for batch in context.examples():
                inputs = model.features(batch.inputs) if self.config.augment else batch.inputs
                probabilities = softmax(model.classify(inputs), dim=1)
                own = probabilities.gather(1, batch.labels[:, None])[:, 0]
                found.append((own, batch.labels))
            own, labels = (torch.cat(part) for part in zip(*found, strict=True))
            self._multipliers = multipliers(own, labels, len(weight))
            weight.copy_(normalize(weight, dim=1) * lengths(model)[:, None])
            self._start = weight.clone()

    def loss(self, model: ImageClassifier, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy and the pull, on features (n, width) or images."""
        import torch
        from torch.nn.functional import cross_entropy, normalize

        features = batch.inputs
        if self.config.augment:
            with torch.no_grad():
                features = model.features(features)
        with torch.autocast(features.device.type, enabled=False):
            weight = model.head.weight
            logits = self._scale * features @ normalize(weight, dim=1).T
            smoothing = self.config.label_smoothing
            fit = cross_entropy(logits, batch.labels, label_smoothing=smoothing)
            pull = (self._multipliers * (weight - self._start).square().sum(dim=1)).mean()
            return {"loss": fit + self.config.strength * pull, "pull": pull}

    def optimizer(self, parameters: Sequence[nn.Parameter]) -> Optimizer:
        """SGD with momentum."""
        return sgd(parameters, self.config)

    def weights(self, model: ImageClassifier) -> Weights:
        """The weights with a head of normalised prototypes times the scale."""
        from torch.nn.functional import normalize

        head = self._scale * normalize(model.head.weight.detach(), dim=1)
        return {**model.state_dict(), "head.weight": head}


def lengths(model: ImageClassifier) -> Tensor:
    """Length (classes,) of the mean over templates of each class's embeddings, as they come."""
    import torch

    if model.prompts is None:
        raise TypeError("this model has no prompts")
    encode: Callable[[Tensor], Tensor] = model.text_tower.encode_text  # type: ignore[assignment]
    with torch.no_grad():
        texts = torch.stack([encode(tokens).float() for tokens in model.prompts])
    length: Tensor = texts.mean(dim=0).norm(dim=1)
    return length
