"""AutoFT: fine-tune with an objective that a search on OOD validation data finds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, TypeAlias

from pydantic import (
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)

from shiftbench.core.errors import InputError
from shiftbench.core.words import nearest
from shiftbench.methods import objective as terms
from shiftbench.methods.base import Architecture, TrainedMethod
from shiftbench.methods.config import MethodConfig, TrainingConfig
from shiftbench.methods.contrastive import batch_contrastive_loss
from shiftbench.methods.objective import LOSSES, NORMS, LossName, Objective, objective_of
from shiftbench.methods.search import Domain, Integer, LogUniform, Search, SearchConfig, Uniform

if TYPE_CHECKING:
    from torch import Tensor

    from shiftbench.methods.base import Batch, Context
    from shiftbench.methods.search import Values
    from shiftbench.models.classifier import ImageClassifier

WEIGHTS = LogUniform(low=1e-4, high=10)
UnitLoss: TypeAlias = Literal["ce", "flyp"]
SEEDS = Integer(low=0, high=100)


class AutoFtConfig(TrainingConfig):
    """The objective, or how to search for one, and the settings of the final fine-tuning.

    With an objective, ``lr`` and ``weight_decay`` are the objective's, whatever else is said, and
    what only a search looks at (``losses``, ``unit_loss``, ``highest_weight_decay`` and ``search``)
    has its default.
    """

    lr: Annotated[
        float, Field(gt=0, description="peak learning rate; a search looks from lr/100 to 100 lr")
    ] = 1e-5
    max_grad_norm: Annotated[
        float | None, Field(gt=0, description="global gradient norm; null: off")
    ] = None
    checkpoint: Annotated[
        Literal["last", "id-val"],
        Field(description="the epoch whose weights are kept: the last, or the best on id-val"),
    ] = "id-val"
    objective: Annotated[
        Annotated[Literal["search"], Tag("search")] | Annotated[Objective, Tag("given")],
        Discriminator(lambda value: "search" if isinstance(value, str) else "given"),
        Field(
            description="'search'; or the objective: its weights, the path of a file that holds "
            f"them, or the name of a released one ({', '.join(terms.RELEASED)})"
        ),
    ] = "search"
    losses: Annotated[
        tuple[LossName, ...], Field(description="those that the search weighs; ce is among them")
    ] = LOSSES
    unit_loss: Annotated[
        UnitLoss, Field(description="the loss whose weight is 1 and is not searched")
    ] = "ce"
    highest_weight_decay: Annotated[
        float, Field(gt=0, description="a search looks from 0 to this weight decay")
    ] = 1.0
    final_lr: Annotated[
        float | None,
        Field(
            gt=0,
            description="peak learning rate of the final fine-tuning, in place of the objective's, "
            "as the released code has it; null: the objective's",
        ),
    ] = None
    passes_per_epoch: Annotated[
        int,
        Field(
            ge=1,
            description="passes over the images that count as an epoch; the released code has a "
            "row for each image and template, so there it is the number of templates",
        ),
    ] = 1
    search: Annotated[
        SearchConfig, Field(description="how it is searched, on OOD validation data")
    ] = SearchConfig()

    @field_validator("objective", mode="before", json_schema_input_type=str | Objective)
    @classmethod
    def _read_objective(cls, value: Any, info: ValidationInfo) -> Any:
        """Content in place of a name or path, so that a run's identity is of what it says."""
        if not isinstance(value, str) or value == "search":
            return value
        if value in terms.RELEASED:
            return terms.released(value)
        if Path(value).suffix not in (".yaml", ".yml"):
            raise InputError(
                f"must be 'search', a mapping, the path of a .yaml file or the name of a released "
                f"objective{nearest(value, terms.RELEASED)}"
            )
        locate = (info.context or {}).get("locate")
        path = locate(info.field_name, value) if locate else Path(value).expanduser()
        return terms.load_objective(Path(path))

    @field_validator("losses")
    @classmethod
    def _order_losses(cls, value: tuple[LossName, ...]) -> tuple[LossName, ...]:
        if "ce" not in value:
            raise ValueError("ce must be among them")
        return tuple(name for name in LOSSES if name in value)

    @model_validator(mode="after")
    def _follow_the_objective(self) -> Self:
        if isinstance(self.objective, Objective):
            follows = {
                "lr": self.objective.lr,
                "weight_decay": self.objective.weight_decay,
                "losses": LOSSES,
                "unit_loss": "ce",
                "highest_weight_decay": 1.0,
                "search": SearchConfig(),
            }
            for name, value in follows.items():
                object.__setattr__(self, name, value)  # the settings are frozen to all others
        return self

    @model_validator(mode="after")
    def _weighs_the_unit_loss(self) -> Self:
        if self.unit_loss not in self.losses:
            raise ValueError(f'unit_loss "{self.unit_loss}" is not among the losses')
        return self

    @property
    def peak_lr(self) -> float:
        """Of the final fine-tuning."""
        return self.lr if self.final_lr is None else self.final_lr

    @property
    def passes(self) -> int:
        """Passes over the images that count as an epoch."""
        return self.passes_per_epoch


class AutoFt(TrainedMethod[AutoFtConfig]):
    """A weighted sum of nine losses, found by a search (Choi et al. 2024, arXiv 2401.10220).

    Both towers, the temperature and the head train; the trained linear head is what is evaluated,
    not one computed from the fine-tuned text tower. The learning rate and weight decay of an
    objective hold in trials and in the final fine-tuning alike, unless ``final_lr`` is given: the
    released code trains the final model with a rate that was not learned. The seed in the search
    space is the trial's alone: the final fine-tuning has the run's, so that the seeds of a suite
    are repetitions, where the paper uses the seed that was found.
    """

    name: ClassVar[str] = "autoft"
    Config: ClassVar[type[MethodConfig]] = AutoFtConfig

    def __init__(self, config: AutoFtConfig) -> None:
        super().__init__(config)
        given = config.objective
        flyp = "flyp" in config.losses if isinstance(given, str) else given.flyp > 0
        self.captions = self.whole_batch = flyp

    def architecture(self) -> Architecture:
        """Both towers and the head."""
        return Architecture(text=True, head="linear")

    def search(self) -> Search[TrainedMethod[TrainingConfig]] | None:
        """Weights of the losses, learning rate, weight decay and seed; none if they are given."""
        config = self.config
        if config.objective != "search":
            return None
        return Search(config.search, search_space(config), self._candidate, self._export)

    def prepare(self, model: ImageClassifier, context: Context) -> None:
        """Keep copies of the initial weights; aliases of them would never differ.

        Without a contrastive loss or a norm, the text tower has no part in the objective.
        """
        weights = self._objective.weights
        if not any(weights[name] for name in ("flyp", *NORMS)):
            model.text_tower.requires_grad_(False)
        self._anchor: list[Tensor] = []
        if weights["l1_init"] or weights["l2_init"]:
            self._anchor = [theta.detach().clone() for theta in self.parameters(model)]

    def loss(self, model: ImageClassifier, batch: Batch) -> dict[str, Tensor]:
        """Σ w · loss over the losses whose weight is not zero; all but ``flyp`` use the head."""
        features = model.features(batch.inputs)
        logits, labels = model.classify(features), batch.labels
        weights = self.parameters(model)
        smoothing = self.config.label_smoothing
        return terms.total(
            self._objective.weights,
            {
                "ce": lambda: terms.cross_entropy(logits, labels, smoothing),
                "dcm": lambda: terms.dcm(logits, labels),
                "entropy": lambda: terms.entropy(logits),
                "flyp": lambda: batch_contrastive_loss(model, batch, features),
                "hinge": lambda: terms.hinge(logits, labels),
                "l1_init": lambda: terms.l1_init(weights, self._anchor),
                "l1_zero": lambda: terms.l1_zero(weights),
                "l2_init": lambda: terms.l2_init(weights, self._anchor),
                "l2_zero": lambda: terms.l2_zero(weights),
            },
        )

    @property
    def _objective(self) -> Objective:
        if isinstance(self.config.objective, str):
            raise TypeError("autoft trains with an objective, which its search has yet to find")
        return self.config.objective

    def _candidate(self, values: Values) -> AutoFt:
        settings = {**self.config.model_dump(), "objective": self._found(values)}
        return AutoFt(AutoFtConfig(**settings))

    def _export(self, values: Values) -> str:
        return self._found(values).dump()

    def _found(self, values: Values) -> Objective:
        return objective_of({self.config.unit_loss: 1.0, **values})


def search_space(config: AutoFtConfig) -> Mapping[str, Domain]:
    """AutoFT's space (arXiv 2401.10220, sec. 4; ``HyperparameterSpace`` of its repository)."""
    weights: dict[str, Domain] = {
        name: WEIGHTS for name in config.losses if name != config.unit_loss
    }
    return {
        **weights,
        "lr": LogUniform(low=config.lr / 100, high=config.lr * 100),
        "weight_decay": Uniform(low=0, high=config.highest_weight_decay),
        "seed": SEEDS,
    }
