"""Zero-shot: the pretrained model and its text classifier, untouched."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from shiftbench.methods.base import DerivedMethod
from shiftbench.methods.config import MethodConfig

if TYPE_CHECKING:
    from shiftbench.methods.base import Derivation, Weights


class ZeroShot(DerivedMethod[MethodConfig]):
    """The pretrained model with its text classifier (Radford et al. 2021, arXiv 2103.00020)."""

    name: ClassVar[str] = "zero-shot"
    Config: ClassVar[type[MethodConfig]] = MethodConfig
    reference: ClassVar[bool] = True
    seeded: bool = False

    def derive(self, variant: str, derivation: Derivation) -> Weights:
        """The pretrained weights themselves."""
        return derivation.zero_shot
