"""LiNeS: keep less of a fine-tuning in the layers near the image than in those near the head."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, ClassVar

from shiftbench.core.errors import RunFailedError
from shiftbench.methods.base import DerivedMethod, Parent
from shiftbench.methods.builtin.wise_ft import CurveConfig
from shiftbench.methods.config import MethodConfig

if TYPE_CHECKING:
    from torch import nn

    from shiftbench.methods.base import Derivation, Weights

_NUMBERED = re.compile(r"^((?:[^.]*[^.\d][^.]*\.)*)(\d+)\.")
"""A name up to its first part that is a number: ``visual.transformer.resblocks.`` and ``3``."""


def depths(names: Iterable[str]) -> dict[str, float]:
    """The depth i / (L - 1) of every tensor in a tower's stack of L blocks, from 0 to 1.

    Names of tensors outside a stack are not in it. A tower has one stack: numbered parts of one
    module, as transformers have them. Of a single block the depth is 0.

    Args:
        names: of the tensors of one or more towers, which their first part tells apart.

    Raises:
        RunFailedError: a tower has numbered parts in several modules, as convolutional networks do.
    """
    found = [(name, match[1], int(match[2])) for name in names if (match := _NUMBERED.match(name))]
    stacks: dict[str, set[str]] = defaultdict(set)
    blocks: dict[str, int] = defaultdict(int)
    for _, stack, number in found:
        stacks[stack.partition(".")[0]].add(stack)
        blocks[stack] = max(blocks[stack], number + 1)
    for tower, of_tower in stacks.items():
        if len(of_tower) > 1:
            several = ", ".join(stack.rstrip(".") for stack in sorted(of_tower))
            raise RunFailedError(
                f"lines: {tower} has no single stack of blocks to count layers in, but {several}"
            )
    return {name: number / max(blocks[stack] - 1, 1) for name, stack, number in found}


def layer_scales(names: Iterable[str], alpha: float) -> dict[str, float]:
    """The share of its change that every tensor keeps: α + (1 - α) · depth in the stack of blocks.

    As in the released code, what lies outside the blocks (the embeddings and the first norm, but
    the last norm and the projection, too) keeps α. The head, which the paper never trains, is the
    last layer of all here and keeps everything.
    """
    names = tuple(names)
    depth = depths(names)
    return {
        name: 1.0 if name.startswith("head.") else alpha + (1 - alpha) * depth.get(name, 0.0)
        for name in names
    }


class LiNeS(DerivedMethod[CurveConfig]):
    """θ0 + (α + (1 - α) · depth) · (θ1 - θ0) (Wang et al. 2025, arXiv 2410.17146).

    α is the share that the first block keeps; the last keeps all of it, so α = 1 is the fine-tuned
    model. Of a text tower that trained, blocks are counted in that tower. The paper chooses α on
    validation data of the target task, with twice the weight, and of a control task; here it is
    chosen like WiSE-FT's.
    """

    name: ClassVar[str] = "lines"
    Config: ClassVar[type[MethodConfig]] = CurveConfig
    seeded: bool = False

    def parents(self) -> tuple[Parent, ...]:
        """The fine-tuned run."""
        return (Parent(self.config.parent),)

    def check(self, tower: Callable[[], nn.Module]) -> None:
        """See that the image tower has a stack of numbered blocks, and only one."""
        if not depths(f"visual.{name}" for name, _ in tower().named_parameters()):
            raise RunFailedError("lines: the image tower of this backbone has no numbered blocks")

    def variants(self) -> tuple[str, ...]:
        """One for every alpha, in the order of the configuration."""
        return tuple(self.config.points)

    def fixed_variant(self) -> str:
        """The configured ``alpha``."""
        return f"alpha={self.config.alpha}"

    def derive(self, variant: str, derivation: Derivation) -> Weights:
        """Each tensor interpolated by its own share."""
        from shiftbench.models.task_vectors import TaskVectors, added

        (fine_tuned,) = derivation.parents.values()
        scales = layer_scales(derivation.zero_shot, self.config.points[variant])
        vectors = TaskVectors(derivation.zero_shot, [fine_tuned])
        return added(
            derivation.zero_shot, lambda name: scales[name] * vectors.one(0, name).double()
        )
