"""The nine losses of AutoFT, and objectives made of them: pure functions and plain data.

Choi et al. 2024 (arXiv 2401.10220, sec. 4; ``losses/learnedloss.py`` of its repository). Below,
z are the logits (n, classes) of n examples with labels y, p = softmax(z), H(p) = -Σ p log p in
nats, θ all N scalars that train (both towers, temperature and head) and θ0 their initial values.
Every loss is a scalar, and every one is minimised. The ninth, ``flyp``, is ``contrastive_loss`` of
``shiftbench.methods.contrastive`` with the diagonal as its targets (``duplicates="keep"``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, get_args

from pydantic import Field

from shiftbench.core import document
from shiftbench.core.document import dumped
from shiftbench.core.validation import validate
from shiftbench.methods.config import MethodConfig

if TYPE_CHECKING:
    from torch import Tensor

LossName: TypeAlias = Literal[
    "ce", "dcm", "entropy", "flyp", "hinge", "l1_init", "l1_zero", "l2_init", "l2_zero"
]
LOSSES: tuple[LossName, ...] = get_args(LossName)
NORMS: tuple[LossName, ...] = ("l1_init", "l1_zero", "l2_init", "l2_zero")

_RELEASED = Path(__file__).parent / "released"
RELEASED = tuple(sorted(file.stem for file in _RELEASED.glob("*.yaml")))
"""Names of the objectives that the paper's authors released."""


def cross_entropy(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """``ce``: mean over examples of -log p_y, with smoothed labels if asked for."""
    from torch.nn import functional

    return functional.cross_entropy(logits, labels, label_smoothing=label_smoothing)


def hinge(logits: Tensor, labels: Tensor) -> Tensor:
    """``hinge``: mean over examples of Σ_{j ≠ y} max(0, z_j - z_y + 1), a sum over classes."""
    own = labels[:, None]
    margins = (logits - logits.gather(1, own) + 1).relu()
    return margins.scatter(1, own, 0.0).sum(dim=1).mean()


def entropy(logits: Tensor) -> Tensor:
    """``entropy``: mean over examples of H(p); a positive weight makes predictions surer."""
    return _entropies(logits).mean()


def dcm(logits: Tensor, labels: Tensor) -> Tensor:
    """``dcm``: mean over all examples of 1[argmax z ≠ y] · H(p); the indicator is a constant.

    It is named after confidence minimisation, but with its sign and a positive weight it makes
    wrong predictions surer, as in the released code.
    """
    wrong = logits.detach().argmax(dim=1) != labels
    return (wrong * _entropies(logits)).mean()


def l1_zero(weights: Iterable[Tensor]) -> Tensor:
    """``l1zero``: Σ |θ| / N."""
    return _mean_of_all(weights, lambda theta: theta.abs())


def l2_zero(weights: Iterable[Tensor]) -> Tensor:
    """``l2zero``: Σ θ² / N, the mean square and no norm."""
    return _mean_of_all(weights, lambda theta: theta.square())


def l1_init(weights: Iterable[Tensor], anchor: Iterable[Tensor]) -> Tensor:
    """``l1init``: Σ |θ - θ0| / N; ``anchor`` is θ0, copies that the training leaves alone."""
    return l1_zero(_differences(weights, anchor))


def l2_init(weights: Iterable[Tensor], anchor: Iterable[Tensor]) -> Tensor:
    """``l2init``: Σ (θ - θ0)² / N; ``anchor`` is θ0, copies that the training leaves alone."""
    return l2_zero(_differences(weights, anchor))


def total(
    weights: Mapping[LossName, float], losses: Mapping[LossName, Callable[[], Tensor]]
) -> dict[str, Tensor]:
    """Σ w · loss as ``loss``, and each loss, detached, by its name.

    Args:
        weights: w by name; a loss whose weight is zero is not computed.
        losses: what computes each loss.
    """
    return weighted_sum(
        weights, {name: losses[name]() for name, weight in weights.items() if weight != 0}
    )


def weighted_sum(weights: Mapping[Any, float], terms: Mapping[Any, Tensor]) -> dict[str, Tensor]:
    """Σ w · term as ``loss``, and each term, detached, by its name.

    Args:
        weights: w by name, of every term at least.
        terms: scalars by name.
    """
    import torch

    loss = torch.stack([weights[name] * term for name, term in terms.items()]).sum()
    return {"loss": loss, **{name: term.detach() for name, term in terms.items()}}


Weight = Annotated[float, Field(ge=0)]


class Objective(MethodConfig):
    """A training objective that a search found: loss weights, and the optimizer's settings."""

    ce: Weight = 1.0
    dcm: Weight = 0.0
    entropy: Weight = 0.0
    flyp: Weight = 0.0
    hinge: Weight = 0.0
    l1_init: Weight = 0.0
    l1_zero: Weight = 0.0
    l2_init: Weight = 0.0
    l2_zero: Weight = 0.0
    lr: Annotated[float, Field(gt=0, description="peak learning rate of AdamW")]
    weight_decay: Annotated[float, Field(ge=0, description="decoupled weight decay")]
    # Those below tell where it comes from. They change no run, so they are no part of its identity.
    seed: Annotated[
        int | None, Field(ge=0, exclude=True, description="of the trial that found it")
    ] = None
    source: Annotated[str | None, Field(exclude=True, description="who found it, and where")] = None

    @property
    def weights(self) -> dict[LossName, float]:
        """The weights of all nine losses, in the order of ``LOSSES``."""
        return {name: getattr(self, name) for name in LOSSES}

    def dump(self) -> str:
        """The objective as YAML that ``load_objective`` reads back, equal in every digit."""
        told = {"source": self.source, **self.model_dump(), "seed": self.seed}
        content = {key: value for key, value in told.items() if value is not None}
        return dumped(content)


def load_objective(file: Path, shown: str | None = None) -> Objective:
    """Read an objective from a YAML file.

    Args:
        file: the file.
        shown: how messages call it; by default ``file`` itself.

    Raises:
        InputError: one line with file, line, key and what is accepted.
    """
    return validate(Objective, document.read(file, shown))


def released(name: str) -> Objective:
    """One of ``RELEASED``, which the paper's authors found with CLIP."""
    return load_objective(_RELEASED / f"{name}.yaml")


def objective_of(values: Mapping[str, Any]) -> Objective:
    """The objective that a point of AutoFT's search space stands for."""
    return Objective(**values)


def _entropies(logits: Tensor) -> Tensor:
    """H(p) (n,) of each example."""
    log_p = logits.log_softmax(dim=1)
    return -(log_p.exp() * log_p).sum(dim=1)


def _differences(weights: Iterable[Tensor], anchor: Iterable[Tensor]) -> list[Tensor]:
    return [theta - theta0 for theta, theta0 in zip(weights, anchor, strict=True)]


def _mean_of_all(tensors: Iterable[Tensor], function: Callable[[Tensor], Tensor]) -> Tensor:
    """Mean of ``function`` over all scalars of all tensors, large or small."""
    import torch

    every: Sequence[Tensor] = list(tensors)
    count = sum(tensor.numel() for tensor in every)
    return torch.stack([function(tensor).sum() for tensor in every]).sum() / count
