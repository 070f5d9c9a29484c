"""Zero-shot: the pretrained model and its text classifier, untouched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from shiftbench.methods.base import Method, MethodConfig

if TYPE_CHECKING:
    from shiftbench.methods.base import Weights


class ZeroShot(Method[MethodConfig]):
    """The pretrained model with its text classifier (Radford et al. 2021, arXiv 2103.00020)."""

    name: ClassVar[str] = "zero-shot"
    Config: ClassVar[type[MethodConfig]] = MethodConfig
    seeded: bool = False

    def finish(
        self,
        variant: str,
        zero_shot: Weights,
        parents: Mapping[str, Weights],
        trained: Weights | None,
    ) -> Weights:
        """The zero-shot weights themselves."""
        return zero_shot
