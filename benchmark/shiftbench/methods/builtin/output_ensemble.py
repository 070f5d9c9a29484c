"""Ensemble of the zero-shot and a fine-tuned model in output space."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from shiftbench.methods.base import EnsembleMethod, Parent
from shiftbench.methods.builtin.wise_ft import CurveConfig
from shiftbench.methods.calibration import calibrated_temperatures
from shiftbench.methods.config import MethodConfig
from shiftbench.methods.mixing import mean_logits, mean_probabilities

if TYPE_CHECKING:
    from shiftbench.methods.base import Array
    from shiftbench.methods.members import Labelled, Members


class OutputEnsembleConfig(CurveConfig):
    """The run that is averaged with the zero-shot model, the weights α, and the space."""

    space: Annotated[
        Literal["logits", "probabilities"],
        Field(description="average logits, or probabilities as most papers do"),
    ] = "logits"
    temperatures: Annotated[
        Literal["none", "id-val"],
        Field(
            exclude_if=lambda value: value == "none",  # as before it was there
            description="id-val: logits of each model are first divided by a temperature that "
            "makes its mean confidence its accuracy on ID validation (VRF, arXiv 2411.06966)",
        ),
    ] = "none"


class OutputEnsemble(EnsembleMethod[OutputEnsembleConfig]):
    """(1 - α) · zero-shot + α · fine-tuned, of their outputs (WiSE-FT, arXiv 2109.01903).

    What WiSE-FT is compared with: the same curve, at the cost of running both models. Logits are
    averaged over the classes of the task, before an evaluation set's projection; probabilities over
    the classes of the evaluation set, after it.
    """

    name: ClassVar[str] = "output-ensemble"
    Config: ClassVar[type[MethodConfig]] = OutputEnsembleConfig
    seeded: bool = False

    def __init__(self, config: OutputEnsembleConfig) -> None:
        super().__init__(config)
        self.projected = config.space == "probabilities"
        self.kept = config.temperatures == "id-val"

    def parents(self) -> tuple[Parent, ...]:
        """The fine-tuned run."""
        return (Parent(self.config.parent),)

    def variants(self) -> tuple[str, ...]:
        """One for every alpha, in the order of the configuration."""
        return tuple(self.config.points)

    def fixed_variant(self) -> str:
        """The configured ``alpha``."""
        return f"alpha={self.config.alpha}"

    def fit(
        self, id_val: Callable[[], Labelled], train: Callable[[], Labelled]
    ) -> Mapping[str, Array]:
        """Temperatures (2,) of the zero-shot model and the fine-tuned one, if any are asked for."""
        if not self.kept:
            return super().fit(id_val, train)
        return {"temperatures": calibrated_temperatures(id_val())}

    def combine(self, variant: str, members: Members, fitted: Mapping[str, Array]) -> Array:
        """The mean of the zero-shot model's and the fine-tuned one's outputs."""
        alpha = self.config.points[variant]
        (fine_tuned,) = members.parents.values()
        logits = [members.zero_shot.logits, fine_tuned.logits]
        if self.kept:
            logits = [z / t for z, t in zip(logits, fitted["temperatures"], strict=True)]
        mean = mean_logits if self.config.space == "logits" else mean_probabilities
        return mean((1 - alpha, alpha), logits)
