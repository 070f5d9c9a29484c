"""LP-FT: full fine-tuning that starts from a linear probe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from shiftbench.methods.base import Parent
from shiftbench.methods.builtin.full import Full
from shiftbench.methods.config import MethodConfig, TrainingConfig

if TYPE_CHECKING:
    from shiftbench.methods.base import Context
    from shiftbench.models.classifier import ImageClassifier


class LpFtConfig(TrainingConfig):
    """Settings of the second phase; the first is the linear-probe run named ``parent``."""

    parent: Annotated[str, Field(description="label of the linear-probe run to start from")] = (
        "linear-probe"
    )


class LpFt(Full):
    """Linear probing, then full fine-tuning from its head (Kumar et al. 2022, arXiv 2202.10054)."""

    name: ClassVar[str] = "lp-ft"
    Config: ClassVar[type[MethodConfig]] = LpFtConfig
    config: LpFtConfig

    def parents(self) -> tuple[Parent, ...]:
        """The linear probe."""
        return (Parent(self.config.parent),)

    def prepare(self, model: ImageClassifier, context: Context) -> None:
        """Start from the parent's weights."""
        model.load_state_dict(context.parents[Parent(self.config.parent)])
