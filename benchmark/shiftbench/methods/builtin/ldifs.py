"""LDIFS: fine-tuning that keeps the tower's features at several depths."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from shiftbench.core.errors import RunFailedError
from shiftbench.methods.base import Parent
from shiftbench.methods.builtin.full import Full
from shiftbench.methods.config import MethodConfig, TrainingConfig
from shiftbench.methods.objective import cross_entropy
from shiftbench.methods.search import LogUniform, Searched
from shiftbench.methods.teachers import Teacher

if TYPE_CHECKING:
    from torch import Tensor, nn

    from shiftbench.methods.base import Batch, Context
    from shiftbench.models.classifier import ImageClassifier

STEMS = ("ln_pre", "trunk.norm_pre")
BLOCKS = ("transformer.resblocks", "trunk.blocks")
STAGES = ("layer1", "layer2", "layer3", "layer4")
"""What is compared of open_clip's transformers, of timm's, and of CLIP's ResNets."""


class LdifsConfig(TrainingConfig):
    """Settings of full fine-tuning, and the strength; the paper chooses its rate from a grid."""

    strength: Annotated[
        float,
        Field(ge=0, description="α of α · the distance, meant over depths"),
        Searched(LogUniform(low=0.01, high=1000)),
    ] = 10.0
    parent: Annotated[
        str | None,
        Field(
            description="label of the linear-probe run whose head it starts with, as in the paper; "
            "null: the zero-shot head"
        ),
    ] = None
    layers: Annotated[
        tuple[str, ...] | None,
        Field(
            min_length=1,
            description="modules of the image tower whose outputs are compared, by name; null: of "
            "a transformer what enters its blocks and every quarter of them, of CLIP's ResNets the "
            "four stages",
        ),
    ] = None


def layers_of(tower: nn.Module) -> list[str]:
    """Names of the modules of a tower that are compared where none are named; [] if unknown."""
    names = dict(tower.named_modules())
    for stem, blocks in zip(STEMS, BLOCKS, strict=True):
        depth = sum(1 for name in names if name.rpartition(".")[0] == blocks)
        if depth:
            ends = sorted({math.ceil(depth * quarter / 4) - 1 for quarter in (1, 2, 3, 4)})
            return [name for name in (stem, *(f"{blocks}.{i}" for i in ends)) if name in names]
    return [name for name in STAGES if name in names]


def feature_distance(features: Sequence[Tensor], pretrained: Sequence[Tensor]) -> Tensor:
    """Mean over depths of the mean square difference of what is normalised; in fp32 at least.

    Each tensor (n, …) is divided by its Euclidean norms over the second dimension: for a
    transformer these are the tokens, as in the released code, for a ResNet the channels.
    """
    import torch

    def normalised(tensor: Tensor) -> Tensor:
        tensor = tensor.float() if tensor.dtype.itemsize < 4 else tensor
        return tensor / (tensor.square().sum(dim=1, keepdim=True).sqrt() + 1e-10)

    pairs = zip(features, pretrained, strict=True)
    with torch.autocast(features[0].device.type, enabled=False):
        return torch.stack(
            [(normalised(one) - normalised(other)).square().mean() for one, other in pairs]
        ).mean()


class Ldifs(Full):
    """Cross-entropy plus a distance in feature space (Mukhoti et al. 2024, arXiv 2308.13320)."""

    name: ClassVar[str] = "ldifs"
    Config: ClassVar[type[MethodConfig]] = LdifsConfig
    checked: ClassVar[tuple[str, ...] | None] = ("layers",)
    config: LdifsConfig

    def parents(self) -> tuple[Parent, ...]:
        """The linear probe, if it starts with one's head."""
        return () if self.config.parent is None else (Parent(self.config.parent),)

    def check(self, tower: Callable[[], nn.Module]) -> None:
        """See that the layers are modules that the tower calls."""
        from shiftbench.models.towers import called_modules

        built = tower()
        called = called_modules(built)
        if unused := [name for name in self._layers(built) if name not in called]:
            raise RunFailedError(
                f"ldifs: the image tower of this backbone has no module {unused[0]!r} that it "
                "calls; name others by `layers`"
            )

    def prepare(self, model: ImageClassifier, context: Context) -> None:
        """Load the parent's weights if there are any, copy the tower, watch the layers of both."""
        for parent in self.parents():
            model.load_state_dict(context.parents[parent])
        self._teacher = Teacher(model)
        layers = self._layers(model.visual)
        self._of_student = Outputs(model.visual, layers)
        self._of_teacher = Outputs(self._teacher.model.visual, layers)

    def loss(self, model: ImageClassifier, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy + α · distance."""
        with self._of_student.kept() as features:
            logits = model(batch.inputs)
        with self._of_teacher.kept() as pretrained:
            self._teacher.features(batch.inputs)
        distance = feature_distance([*features.values()], [*pretrained.values()])
        own = cross_entropy(logits, batch.labels, self.config.label_smoothing)
        loss = own + self.config.strength * distance
        return {"loss": loss, "cross_entropy": own, "feature_distance": distance}

    def _layers(self, tower: nn.Module) -> Sequence[str]:
        """Names of the layers that are compared.

        Raises:
            RunFailedError: none are named, and the tower is not known.
        """
        layers = layers_of(tower) if self.config.layers is None else self.config.layers
        if not layers:
            kind = type(getattr(tower, "trunk", tower)).__name__
            raise RunFailedError(
                f"ldifs: nothing is known of the layers of the image tower {kind}; name some by "
                "`layers`"
            )
        return layers


class Outputs:
    """What some modules of a tower give, while that is asked for.

    Hooks stay where they are, since modules that are compiled later take no others.

    Args:
        tower: whose modules are meant.
        layers: names of the modules.
    """

    def __init__(self, tower: nn.Module, layers: Sequence[str]) -> None:
        self._found: dict[str, Tensor] | None = None
        for name in layers:
            tower.get_submodule(name).register_forward_hook(partial(self._keep, name))

    @contextmanager
    def kept(self) -> Iterator[dict[str, Tensor]]:
        """A dictionary that outputs come into, by name, in the order in which modules run."""
        found: dict[str, Tensor] = {}
        self._found = found
        try:
            yield found
        finally:
            self._found = None

    def _keep(self, name: str, module: nn.Module, given: Any, output: Tensor) -> None:
        if self._found is not None:
            self._found[name] = output
