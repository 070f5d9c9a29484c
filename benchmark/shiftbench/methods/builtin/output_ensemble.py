"""Ensemble of the zero-shot and a fine-tuned model in output space."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Self

from pydantic import model_validator

from shiftbench.methods.base import MethodConfig
from shiftbench.methods.builtin.wise_ft import WiseFt, WiseFtConfig

if TYPE_CHECKING:
    from shiftbench.methods.base import Weights

ZERO_SHOT = "zero-shot"


class OutputEnsembleConfig(WiseFtConfig):
    """Which run to mix with the zero-shot model, and in what proportion."""

    @model_validator(mode="after")
    def _check_parent(self) -> Self:
        if self.parent == ZERO_SHOT:
            raise ValueError(f"parent must be a fine-tuned run, not {ZERO_SHOT!r}")
        return self


class OutputEnsemble(WiseFt):
    """(1 - α) · logits of zero-shot + α · logits of fine-tuned (arXiv 2109.01903).

    What WiSE-FT is compared with: the same curve, at the cost of running both models.
    """

    name: ClassVar[str] = "output-ensemble"
    Config: ClassVar[type[MethodConfig]] = OutputEnsembleConfig

    def mixture(self, variant: str) -> Mapping[str, float] | None:
        """1 - α for the zero-shot model, α for the fine-tuned one."""
        alpha = self._alpha_of[variant]
        return {ZERO_SHOT: 1 - alpha, self.config.parent: alpha}

    def finish(
        self,
        variant: str,
        zero_shot: Weights,
        parents: Mapping[str, Weights],
        trained: Weights | None,
    ) -> Weights:
        """Refused: two models are needed to evaluate it."""
        raise ValueError(f"{self.name} mixes outputs, so it has no weights of its own")
