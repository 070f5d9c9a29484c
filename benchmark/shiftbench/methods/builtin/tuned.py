"""Any method that trains, with settings that a search on OOD validation data finds.

The control for AutoFT (arXiv 2401.10220): what the same search gives a plain objective.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, cast

from pydantic import Field, ValidationInfo, field_validator

from shiftbench.core import document
from shiftbench.core.document import dumped
from shiftbench.core.validation import validate
from shiftbench.core.words import nearest
from shiftbench.methods.base import Architecture, Parent, TrainedMethod
from shiftbench.methods.config import MethodConfig, TrainingConfig
from shiftbench.methods.registry import METHODS
from shiftbench.methods.search import (
    Choice,
    Domain,
    Integer,
    LogUniform,
    Search,
    SearchConfig,
    Uniform,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

    from shiftbench.methods.base import Batch
    from shiftbench.methods.search import Values
    from shiftbench.models.classifier import ImageClassifier

SEED = "seed"
"""In a space, the seed of a trial's data order; no setting of a method."""


class TunedConfig(MethodConfig):
    """The method, its settings, and the space in which a search looks for some of them.

    After validation ``settings`` holds all of the method's settings and ``space`` what is searched,
    written out, so that both are part of a run's identity.
    """

    of: Annotated[str, Field(description="registered name of the method")] = "full"
    settings: Annotated[
        dict[str, Any], Field(default_factory=dict, description="its settings; none: its defaults")
    ]
    space: Annotated[
        dict[str, Domain] | None,
        Field(
            description="settings that are searched; null: lr from a hundredth to a hundred times "
            "that of the settings, on a log scale, and weight_decay from 0 to 1"
        ),
    ] = None
    search: Annotated[
        SearchConfig, Field(description="how it is searched, on OOD validation data")
    ] = SearchConfig()

    @field_validator("of")
    @classmethod
    def _trains(cls, value: str) -> str:
        if not issubclass(METHODS.load(value), TrainedMethod):
            raise ValueError("must be a method that trains")
        return value

    @field_validator("settings")
    @classmethod
    def _fill_settings(cls, value: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if "of" not in info.data:
            return value
        method = create(info.data["of"], value)
        if method.search() is not None:
            raise ValueError(f"{method.name} searches for its settings itself")
        return method.config.model_dump(mode="json")

    @field_validator("space")
    @classmethod
    def _check_space(
        cls, value: dict[str, Domain] | None, info: ValidationInfo
    ) -> dict[str, Domain] | None:
        if "settings" not in info.data or "of" not in info.data:
            return value
        of, settings = info.data["of"], info.data["settings"]
        if value is None:
            return default_space(create(of, settings).training)
        if not value:
            raise ValueError("must not be empty")
        for key, domain in value.items():
            if key == SEED:
                if not isinstance(domain, Integer) or domain.low < 0:
                    raise ValueError("seed: must be of kind integer, from 0 or above")
                continue
            if key not in settings:
                raise ValueError(f'{of} has no setting "{key}"{nearest(key, settings)}')
            for bound in _bounds(domain):
                config = create(of, {**settings, key: bound}).config
                if getattr(config, key) != bound:
                    raise ValueError(f"{key}: {of} does not keep what it is set to")
        return value


class Tuned(TrainedMethod[TunedConfig]):
    """A method whose settings a search finds; a run trains the ``candidate`` that was chosen."""

    name: ClassVar[str] = "tuned"
    Config: ClassVar[type[MethodConfig]] = TunedConfig

    def __init__(self, config: TunedConfig) -> None:
        super().__init__(config)
        self._method = create(config.of, config.settings)
        self.inputs = self._method.inputs
        self.captions = self._method.captions
        self.whole_batch = self._method.whole_batch
        self.seeded = self._method.seeded
        self.wraps = (config.of,)

    def parents(self) -> tuple[Parent, ...]:
        """Those of the method."""
        return self._method.parents()

    def architecture(self) -> Architecture:
        """That of the method."""
        return self._method.architecture()

    def search(self) -> Search[TrainedMethod[TrainingConfig]]:
        """The configured one."""
        return Search(self.config.search, self.config.space or {}, self._candidate, self._export)

    def check(self, tower: Callable[[], nn.Module]) -> None:
        """As the method does."""
        self._method.check(tower)

    def loss(self, model: ImageClassifier, batch: Batch) -> dict[str, Tensor]:
        """Refused: what trains is a candidate."""
        raise TypeError("tuned trains the candidate that its search found")

    @property
    def training(self) -> TrainingConfig:
        """The settings of the training loop before the search."""
        return self._method.training

    def _candidate(self, values: Values) -> TrainedMethod[TrainingConfig]:
        found = {key: value for key, value in values.items() if key != SEED}
        return create(self.config.of, {**self.config.settings, **found})

    def _export(self, values: Values) -> str:
        settings = self._candidate(values).config.model_dump(mode="json")
        return dumped({"method": self.config.of, **settings})


def create(name: str, settings: Mapping[str, Any]) -> TrainedMethod[TrainingConfig]:
    """A method with settings as a suite file says them.

    Raises:
        InputError: one line with name, key and what is accepted.
    """
    kind = METHODS.load(name)
    place = document.Place(name, None, Path())
    method = kind(validate(kind.Config, document.tree(settings, place)))
    return cast("TrainedMethod[TrainingConfig]", method)


def default_space(training: TrainingConfig) -> dict[str, Domain]:
    """The optimizer's part of AutoFT's space (arXiv 2401.10220, sec. 4)."""
    return {
        "lr": LogUniform(low=training.lr / 100, high=training.lr * 100),
        "weight_decay": Uniform(low=0, high=1),
    }


def _bounds(domain: Domain) -> tuple[str | float | int | bool, ...]:
    """The values of a domain that decide whether all of them are valid settings."""
    if isinstance(domain, Choice):
        return domain.values
    if isinstance(domain, Integer):
        return domain.low, domain.high
    # What lies between is no whole number, so this refuses settings that must be one.
    return domain.low, domain.high, domain.low + (domain.high - domain.low) / 3**0.5
